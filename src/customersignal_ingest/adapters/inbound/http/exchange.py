"""One request on its way, and what is noted of it for its answer and its line in the access log."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from customersignal_ingest.adapters.inbound.http.asgi import Scope
from customersignal_ingest.adapters.inbound.http.problem import Code
from customersignal_ingest.domain.key import Tenant
from customersignal_ingest.domain.outcome import Receipt

AT_ONCE = "customersignal_ingest.at_once"
"""Where a scope has what our own server can do besides ASGI."""
AFTERWARDS = "customersignal_ingest.afterwards"
"""Where it has what puts work off until all answers of this round of the loop are sent: together it goes faster."""
_KEY = "customersignal_ingest.exchange"
# An API key by mistake would be in the log and in the answer.
_REQUEST_ID = re.compile(r"(?!cs_(?:live|test)_)[A-Za-z0-9._-]{1,64}")


class AtOnce(Protocol):
    """A body and an answer in one step each: in messages they cost a single event a seventh of its way."""

    def body(self) -> bytes | None:
        """Return the body if all of it is there, and nothing of it was taken before."""
        ...

    def reply(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes, /) -> None:
        """Send the answer; raises `ConnectionResetError` when nobody is there any more."""
        ...


@dataclass(slots=True, kw_only=True)
class Exchange:
    """A request and what became of it so far.

    `headers` has those that this service reads, by lower-case name. `size_bytes` counts the body
    as sent, `receipt` has what became of the events. `close` ends the connection with the answer.
    `at_once` is there behind our own server.
    """

    method: str
    route: str
    headers: dict[str, str] = field(repr=False)
    request_id: str
    started: float
    http1: bool = True
    tenant: Tenant | None = None
    receipt: Receipt | None = field(default=None, repr=False)
    size_bytes: int = 0
    status: int = 0
    code: Code | None = None
    close: bool = False
    at_once: AtOnce | None = field(default=None, repr=False)


def keep(exchange: Exchange, scope: Scope, /) -> None:
    """Put the exchange where the routes find it."""
    scope[_KEY] = exchange


def exchange_of(scope: Scope, /) -> Exchange:
    """Return the exchange that the edge began for this request."""
    exchange: Exchange = scope[_KEY]
    return exchange


def usable_request_id(asked_for: str | None, /) -> str:
    """Return the caller's id for the request if it can be used, else one of our own."""
    if asked_for is not None and _REQUEST_ID.fullmatch(asked_for):
        return asked_for
    # No secret, only a name that nobody else has: to ask the system for it costs four microseconds.
    return f"{random.getrandbits(128):032x}"
