"""A service behind the server, in simulated time, and the requests that its clients send."""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from http_service import KEY, Service
from wire import Client

from customersignal_ingest.adapters.inbound.http.asgi import ASGIApp
from customersignal_ingest.adapters.inbound.http.server.listener import Listener
from tests.unit.simulated_time import run

BODY = b'{"event_type":"a","timestamp":"2026-11-23T10:00:00Z","properties":{}}'
CHUNKED = b"Transfer-Encoding: chunked"
KEEP_ALIVE_S = 75.0


def post(*headers: bytes, body: bytes = BODY, line: bytes = b"POST /v1/events HTTP/1.1", key: str = KEY) -> bytes:
    """Return a request that stores one event, with these headers on top, and a length if they do not speak of one."""
    framed = any(header.startswith((b"Content-Length:", b"Transfer-Encoding:")) for header in headers)
    length = [] if framed else [b"Content-Length: %d" % len(body)]
    usual = [b"Host: h", b"Content-Type: application/json", b"X-CS-API-Key: " + key.encode()]
    return b"\r\n".join([line, *usual, *length, *headers, b"", body])


def get(path: bytes = b"/health/live", *headers: bytes, method: bytes = b"GET") -> bytes:
    return b"\r\n".join([b"%s %s HTTP/1.1" % (method, path), b"Host: h", *headers, b"", b""])


def chunks(*pieces: bytes) -> bytes:
    """Return a body of these chunks, whole."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))


class Bench:
    """A service that does with its events what the plan says, its listener, and clients; for the running loop."""

    def __init__(self, *plan: str, app: ASGIApp | None = None, connections_max: int = 100) -> None:
        self.service = Service(*plan)
        self.listener = Listener(app or self.service.app, connections_max=connections_max, keep_alive_s=KEEP_ALIVE_S)
        self.listener._sweep()

    def client(self) -> Client:
        return Client(self.listener)

    @property
    def stored(self) -> int:
        return len(self.service.memory.stored)

    @property
    def logged(self) -> list[int]:
        """The statuses in the log; a line that is not a request's counts as 0."""
        return [line.get("http.response.status_code", 0) for line in self.service.log.lines]


def simulated(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run this test in simulated time."""

    @wraps(test)
    def runs(*args: Any, **kwargs: Any) -> None:
        run(test(*args, **kwargs))

    return runs
