"""A head that comes again is recognised, not read: a client says the same with every request, but for a few values.

What was read of it before holds again, since every other byte is the same. Of what differs nothing is kept,
so that an API key is here no longer than its request.
"""

from collections.abc import Sequence

from customersignal_ingest.adapters.inbound.http.asgi import Scope
from customersignal_ingest.adapters.inbound.http.guard import (
    HEADERS_BYTES_MAX,
    NAMES,
    READ,
    RawHeaders,
    read_headers,
    refuse_ambiguous,
)
from customersignal_ingest.adapters.inbound.http.problem import Problem

DIFFERING = frozenset(
    {
        b"authorization",
        b"content-length",
        b"idempotency-key",
        b"traceparent",
        b"tracestate",
        b"x-cs-api-key",
        b"x-request-id",
    }
)
"""The headers whose values may differ: each is a secret, or tells one request from another."""

KNOWN_BYTES_MAX = 1024
"""A longer head is read each time: ten thousand connections remember theirs, and each costs memory."""

_NONE_REPEATED: frozenset[str] = frozenset()


class Head:
    """The head of whole requests with a body: what is the same each time, and where differing values stand in it."""

    __slots__ = ("_differing", "_first", "_headers", "_length", "_raw", "_rest", "_scope")

    def __init__(self, parts: Sequence[bytes], scope: Scope, headers: dict[str, str]) -> None:
        """Between each two of `parts` stands a value; `scope` is such a request's, of which `headers` were read."""
        self._first, *self._rest = parts
        self._raw = [(name, b"" if name in DIFFERING else value) for name, value in scope["headers"]]
        self._differing = [
            (place, name, NAMES.get(name)) for place, (name, _) in enumerate(self._raw) if name in DIFFERING
        ]
        self._length = [name for _, name, _ in self._differing].index(b"content-length")
        self._headers = {name: value for name, value in headers.items() if name.encode() not in DIFFERING}
        self._scope = {**scope, "headers": []}

    def request(self, data: bytes, /) -> tuple[Scope, bytes] | None:
        """Return scope and body if this is one whole request with this head, `None` if it is for the parser."""
        if not data.startswith(self._first):
            return None
        at, values = len(self._first), []
        for part in self._rest:
            end = data.find(b"\r", at)
            if end <= at or not data.startswith(part, end):
                return None
            values.append(data[at:end])
            at = end + len(part)
        body = data[at:]
        if values[self._length] != b"%d" % len(body) or at > HEADERS_BYTES_MAX:
            return None
        raw, headers = self._raw.copy(), self._headers.copy()
        for (place, raw_name, name), value in zip(self._differing, values, strict=True):
            text = value.decode("latin-1")
            # What the parser might refuse, or read otherwise than as it stands there.
            if not (text.isascii() and text.isprintable()) or text[0] == " " or text[-1] == " ":
                return None
            raw[place] = raw_name, value
            if name is not None:
                headers[name] = text
        return {**self._scope, "headers": raw, READ: (headers, _NONE_REPEATED)}, body


def head_of(data: bytes, scope: Scope, /) -> Head | None:
    """Return the head of this whole request, `None` if anything about it has to be looked at each time."""
    raw: RawHeaders = scope["headers"]
    headers, repeated = read_headers(raw)
    head, end, _ = data.partition(b"\r\n\r\n")
    line, *lines = head.split(b"\r\n")
    if not end or len(head) > KNOWN_BYTES_MAX or len(lines) != len(raw) or repeated or "content-length" not in headers:
        return None
    try:
        refuse_ambiguous(scope, headers, repeated)
    except Problem:
        return None
    parts, same = [], line
    for said, (name, value) in zip(lines, raw, strict=True):
        before, colon, _ = said.partition(b": ")
        if before.lower() != name or said != before + colon + value:
            return None
        if name in DIFFERING:
            parts.append(b"%s\r\n%s: " % (same, before))
            same = b""
        else:
            same = b"%s\r\n%s" % (same, said)
    return Head([*parts, same + b"\r\n\r\n"], scope, headers)
