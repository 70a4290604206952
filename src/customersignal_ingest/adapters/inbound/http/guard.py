"""Headers read once, and requests refused that two readers could read in two ways.

No server refuses all of these by itself, so they are refused here, before anything else looks.
"""

import re
from collections.abc import Sequence, Set
from itertools import chain

from customersignal_ingest.adapters.inbound.http.asgi import Scope
from customersignal_ingest.adapters.inbound.http.problem import Code, Problem

HEADERS_MAX = 100
HEADERS_BYTES_MAX = 32 * 1024
REFUSED = "customersignal_ingest.refused"
"""Where a scope has what is wrong with a request that the server could not read."""

READ = "customersignal_ingest.read"
"""Where it has what `read_headers` returns, of a request with a head that was read before and found good."""

RawHeaders = Sequence[tuple[bytes, bytes]]

_COUNT = frozenset(
    {
        "authorization",
        "content-encoding",
        "content-length",
        "content-type",
        "host",
        "idempotency-key",
        "transfer-encoding",
        "x-cs-api-key",
    }
)
NAMES = {
    name.encode(): name
    for name in (
        *_COUNT,
        "accept",
        "access-control-request-method",
        "origin",
        "prefer",
        "traceparent",
        "user-agent",
        "x-request-id",
    )
}
"""The headers that this service reads, by their names as they come."""
# HTTP/2 and 3 are what another server may speak that our app runs under.
_VERSIONS = frozenset({"1.0", "1.1", "2", "3"})
# RFC 3986, 3.2.2: a name or an address, and a port.
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(?::[0-9]*)?")
_LENGTH = re.compile(r"[0-9]{1,18}")


def read_headers(raw: RawHeaders, /) -> tuple[dict[str, str], set[str]]:
    """Return the headers that this service reads, and the names among them that were there twice.

    Several of one name are joined by a comma. Looks at the first hundred only:
    `refuse_ambiguous` refuses a request with more.
    """
    headers: dict[str, str] = {}
    repeated: set[str] = set()
    for raw_name, raw_value in raw[:HEADERS_MAX]:
        name = NAMES.get(raw_name)
        if name is not None:
            value = raw_value.strip(b" \t").decode("latin-1")
            if name in headers:
                repeated.add(name)
                value = f"{headers[name]}, {value}"
            headers[name] = value
    return headers, repeated


def refuse_ambiguous(scope: Scope, headers: dict[str, str], repeated: Set[str], /) -> None:
    """Raise `Problem` for a request that could not be read, has too many headers, or could be read in two ways."""
    if READ in scope:
        return
    if REFUSED in scope:
        raise scope.pop(REFUSED)
    version = scope.get("http_version", "1.1")
    _refuse_too_much(scope["headers"])
    if version not in _VERSIONS:
        raise _ambiguous("the version of HTTP is not 1.0 or 1.1")
    if twice := repeated and sorted(repeated & _COUNT):
        raise _ambiguous(f"the header {twice[0]} is there twice")
    host = headers.get("host")
    if not host:  # Some servers put an empty one in place of none.
        raise _ambiguous("the header host is missing")
    if not _HOST.fullmatch(host):
        raise _ambiguous("the header host is no host")
    for name, value in headers.items():
        if name in _COUNT and not (value.isascii() and value.isprintable()):
            raise _ambiguous(f"the header {name} has characters that are not printable ASCII")
    _refuse_framing(headers, version)


def _refuse_too_much(raw: RawHeaders) -> None:
    if len(raw) > HEADERS_MAX:
        raise _too_much(f"more than {HEADERS_MAX} headers", "headers_max", HEADERS_MAX)
    if sum(map(len, chain.from_iterable(raw))) > HEADERS_BYTES_MAX:
        raise _too_much(f"more than {HEADERS_BYTES_MAX} bytes of headers", "headers_bytes_max", HEADERS_BYTES_MAX)


def _refuse_framing(headers: dict[str, str], version: str) -> None:
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if length is not None and coding is not None:
        raise _ambiguous("content-length and transfer-encoding are both there")
    if length is not None and not _LENGTH.fullmatch(length):
        raise _ambiguous("the header content-length is not a number")
    if coding is not None and coding.lower() != "chunked":
        raise _ambiguous("the only transfer-encoding is chunked")
    if coding is not None and version == "1.0":  # Who reads HTTP/1.0 alone takes the body for the next request.
        raise _ambiguous("transfer-encoding is not of HTTP/1.0")


def _ambiguous(message: str) -> Problem:
    return Problem(Code.INVALID_REQUEST, message, close=True)


def _too_much(message: str, limit: str, value: int) -> Problem:
    return Problem(Code.HEADERS_TOO_LARGE, message, details={"limit": limit, "value": value}, close=True)
