"""The HTTP transport: our app behind granian's embedded server (adr/0013).

URL: `http://ADDRESS:PORT`, with `cors_origins` (exact origins, commas between them) and `shared`
(`true` where several processes of ours listen on one port).
"""

import asyncio
from typing import Any
from urllib.parse import urlsplit

from granian.constants import Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from customersignal_ingest.adapters.inbound.http.app import create_app
from customersignal_ingest.adapters.inbound.http.asgi import ASGIApp
from customersignal_ingest.adapters.inbound.http.events import HttpLimits
from customersignal_ingest.adapters.inbound.http.port import accepting, refuse_taken, resolved
from customersignal_ingest.domain.errors import ConfigurationError
from customersignal_ingest.entrance import Entrance
from customersignal_ingest.registry import url_parameters

CONNECTIONS_MAX = 4096
# What the server waits for beyond the publisher's own deadline.
ANSWERS_MARGIN_S = 1.5

_HEADER_READ_TIMEOUT_MS = 10_000


def open_transport(url: str, /, *, entrance: Entrance) -> "HttpTransport":
    """Make the transport; nothing listens yet. Raises `ConfigurationError` for a wrong URL."""
    parameters = url_parameters(url, {"cors_origins": _origins, "shared": _yes_or_no})
    return HttpTransport(
        app_of(entrance, cors_origins=parameters.get("cors_origins", ())),
        _address(url),
        shared=parameters.get("shared", False),
        answers_timeout_s=entrance.limits["publish_timeout_s"] + ANSWERS_MARGIN_S,
    )


def app_of(entrance: Entrance, /, *, cors_origins: tuple[str, ...] = ()) -> ASGIApp:
    """Return the ASGI app alone, for a server of one's own: it opens and closes nothing."""
    return create_app(
        ingest=entrance.ingest,
        authenticate=entrance.authenticate,
        admission=entrance.admission,
        limits=HttpLimits(
            body_bytes_max=int(entrance.limits["body_bytes_max"]),
            encoded_bytes_max=int(entrance.limits["encoded_bytes_max"]),
            body_read_timeout_s=entrance.limits["body_read_timeout_s"],
            batch_events_max=int(entrance.limits["batch_events_max"]),
            event_bytes_max=int(entrance.limits["event_bytes_max"]),
        ),
        published_limits=entrance.limits,
        health=entrance.health,
        metrics=entrance.metrics,
        log=entrance.log,
        cors_origins=cors_origins,
    )


class HttpTransport:
    """One server on one port, from its first connection to its last answer."""

    def __init__(self, app: ASGIApp, address: tuple[str, int], *, shared: bool, answers_timeout_s: float) -> None:
        self._app, self._address = app, address
        self._shared, self._answers_timeout_s = shared, answers_timeout_s
        self._server: Server | None = None
        self._serving: asyncio.Task[None] | None = None

    def check(self) -> None:
        """Raise `ConfigurationError` for a port that can't be had."""
        address = resolved(self._address)
        if not self._shared:
            refuse_taken(address)

    async def open(self) -> None:
        """Return once connections are accepted."""
        address = resolved(self._address)
        self._server = _granian(self._app, address)
        self._serving = asyncio.create_task(self._server.serve())
        reached = asyncio.create_task(accepting(address))
        try:
            await asyncio.wait({self._serving, reached}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reached.cancel()
        if self._serving.done():
            raise RuntimeError("the HTTP server ended by itself") from self._serving.exception()

    async def ended(self) -> None:
        """Return when the server has ended, by `close` or by itself."""
        if self._serving is not None:
            await asyncio.wait({self._serving})

    async def close(self) -> bool:
        """Take no more requests, and return once those in flight have their answers: `False` if some were cut."""
        if self._server is None or self._serving is None:
            return True
        self._server.stop()  # type: ignore[no-untyped-call]  # granian has no types there
        await asyncio.wait({self._serving}, timeout=self._answers_timeout_s)
        return self._serving.done()


def _granian(app: Any, address: tuple[str, int]) -> Server:
    host, port = address
    return Server(
        app,
        address=host,
        port=port,
        interface=Interfaces.ASGINL,
        websockets=False,
        backlog=CONNECTIONS_MAX,
        # By default the 129th connection would hang without a word.
        backpressure=CONNECTIONS_MAX,
        http1_settings=HTTP1Settings(header_read_timeout=_HEADER_READ_TIMEOUT_MS),
        log_enabled=False,
    )


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if not parts.hostname or not parts.port or parts.path not in ("", "/"):
        raise ConfigurationError("expected an address and a port, as in http://127.0.0.1:8080")
    return parts.hostname, parts.port


def _origins(text: str) -> tuple[str, ...]:
    return tuple(origin for origin in text.split(",") if origin)


def _yes_or_no(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError
    return text == "true"
