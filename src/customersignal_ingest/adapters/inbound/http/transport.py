"""The HTTP transport: our app behind a small server of our own (adr/0016).

URL: `http://ADDRESS:PORT`, with `cors_origins` (exact origins, commas between them), `keep_alive_s`
(how long a connection may be idle) and `shared` (`true` where several processes of ours listen on
one port).
"""

import asyncio
import resource
from contextlib import suppress
from urllib.parse import urlsplit

from customersignal_ingest.adapters.inbound.http.app import create_app
from customersignal_ingest.adapters.inbound.http.asgi import ASGIApp
from customersignal_ingest.adapters.inbound.http.events import HttpLimits
from customersignal_ingest.adapters.inbound.http.port import bound, refuse_taken, resolved
from customersignal_ingest.adapters.inbound.http.server.listener import Listener
from customersignal_ingest.domain.errors import ConfigurationError
from customersignal_ingest.entrance import Entrance
from customersignal_ingest.registry import Expected, one_of, url_parameters

CONNECTIONS_MAX = 4096
KEEP_ALIVE_S = 75.0
# What the server waits for beyond the publisher's own deadline.
ANSWERS_MARGIN_S = 1.5

# For the stores, the log, and clients who are being told that there is no room.
_OTHER_FILES = 512


def open_transport(url: str, /, *, entrance: Entrance) -> "HttpTransport":
    """Make the transport; nothing listens yet. Raises `ConfigurationError` for a wrong URL."""
    parameters = url_parameters(url, {"cors_origins": _origins, "keep_alive_s": _seconds, "shared": _yes_or_no})
    return HttpTransport(
        app_of(entrance, cors_origins=parameters.get("cors_origins", ())),
        _address(url),
        shared=parameters.get("shared", False),
        keep_alive_s=parameters.get("keep_alive_s", KEEP_ALIVE_S),
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
    """One listener on one port, from its first connection to its last answer."""

    def __init__(
        self, app: ASGIApp, address: tuple[str, int], *, shared: bool, keep_alive_s: float, answers_timeout_s: float
    ) -> None:
        self._app, self._address, self._shared = app, address, shared
        self._keep_alive_s, self._answers_timeout_s = keep_alive_s, answers_timeout_s
        self._listener: Listener | None = None
        self._closed = asyncio.Event()

    def check(self) -> None:
        """Raise `ConfigurationError` for a port that can't be had."""
        # Workers share the port, and their parent has looked.
        if not self._shared:
            refuse_taken(resolved(self._address))

    async def open(self) -> None:
        """Return once connections are accepted."""
        port = bound(resolved(self._address), shared=self._shared)
        self._listener = Listener(self._app, connections_max=_connections_max(), keep_alive_s=self._keep_alive_s)
        await self._listener.open(port)

    async def ended(self) -> None:
        """Return when the listener was closed; by itself it goes on for ever."""
        await self._closed.wait()

    async def close(self) -> bool:
        """Take no more requests, and return once those in flight have their answers: `False` if some were cut."""
        self._closed.set()
        return self._listener is None or await self._listener.close(self._answers_timeout_s)


def _connections_max() -> int:
    """Return how many connections this process may have, having raised its limit of open files as far as it may be."""
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < CONNECTIONS_MAX + _OTHER_FILES:
        wanted = CONNECTIONS_MAX + _OTHER_FILES
        files = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
        return max(files // 2, files - _OTHER_FILES)
    return CONNECTIONS_MAX


def _address(url: str) -> tuple[str, int]:
    with suppress(ValueError):  # Of brackets that do not fit, or a port that is none.
        parts = urlsplit(url)
        if parts.hostname and parts.port and parts.path in ("", "/"):
            return parts.hostname, parts.port
    raise ConfigurationError("expected an address and a port, as in http://127.0.0.1:8080")


def _origins(text: str) -> tuple[str, ...]:
    return tuple(origin for origin in text.split(",") if origin)


def _yes_or_no(text: str) -> bool:
    return one_of("true", "false")(text) == "true"


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Expected("a number of seconds") from None
