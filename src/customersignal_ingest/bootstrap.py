"""The object graph, built from settings, and its life.

The container builds and connects to nothing; `opened` opens and closes what it built. A part is
swapped by its URL, or by `container.publisher.override(...)` before `opened`.
"""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode

import structlog
from dependency_injector.containers import DeclarativeContainer
from dependency_injector.providers import Callable as Call
from dependency_injector.providers import Dependency, Singleton

from customersignal_ingest.domain.event_id import FreshIds
from customersignal_ingest.domain.rules import Limits
from customersignal_ingest.entrance import Entrance
from customersignal_ingest.health import Component, Health
from customersignal_ingest.ingest import Authenticate, Ingest, authenticate, ingest
from customersignal_ingest.metrics import Counted, Metrics, Timed
from customersignal_ingest.policies import Admission, CachedKeys, Deadline
from customersignal_ingest.ports import EventPublisher, KeyRepository, Transport
from customersignal_ingest.registry import AdapterSettings, open_url
from customersignal_ingest.settings import Settings
from customersignal_ingest.turns import Turns
from customersignal_ingest.version import __version__

if TYPE_CHECKING:
    from customersignal_ingest.adapters.inbound.http.asgi import ASGIApp

CLOSE_TIMEOUT_S = 6.0
TICK_S = 0.25

_PATIENCE_S = 1.0  # A publisher keeps its own deadline; ours is for one that does not.


def utc_now() -> datetime:
    """Return the moment, aware and in UTC."""
    return datetime.now(UTC)


def instance() -> str:
    """Return the name of this process to other systems."""
    return f"{socket.gethostname()}-{os.getpid()}"


def _publisher(settings: Settings, adapters: AdapterSettings) -> EventPublisher:
    return cast("EventPublisher", open_url("publishers", settings.required("publisher_url"), settings=adapters))


def _keys(settings: Settings, adapters: AdapterSettings) -> KeyRepository:
    return cast("KeyRepository", open_url("key_repositories", settings.required("keys_url"), settings=adapters))


def _guarded(publisher: EventPublisher, settings: Settings, metrics: Metrics, log: Any) -> EventPublisher:
    def report(error: BaseException) -> None:
        log.error("the publisher raised", exc_info=error)

    return Timed(Deadline(publisher, timeout_s=settings.publish_timeout_s + _PATIENCE_S, report=report), metrics)


def _known_keys(keys: KeyRepository, settings: Settings, metrics: Metrics) -> CachedKeys:
    return CachedKeys(
        keys,
        ttl_s=settings.keys_ttl_s,
        stale_s=settings.keys_stale_s,
        clock=time.monotonic,
        observe=metrics.count_lookup,
    )


def _log() -> Any:
    # Bound, because an unbound logger looks its configuration up for every line.
    return structlog.get_logger("customersignal_ingest").bind()


def _metrics(settings: Settings) -> Metrics:
    return Metrics(version=__version__, publisher=settings.publisher_scheme)


def _admission(settings: Settings, metrics: Metrics) -> Admission:
    admission = Admission(
        events_max=settings.in_flight_events_max,
        bytes_max=settings.in_flight_bytes_max,
        tenant_share=settings.tenant_share,
    )
    metrics.in_flight_events.set_function(lambda: admission.events)
    metrics.in_flight_bytes.set_function(lambda: admission.bytes)
    metrics.in_flight_events_max.set(admission.events_max)
    metrics.in_flight_bytes_max.set(admission.bytes_max)
    return admission


def _health(publisher: EventPublisher, keys: KeyRepository, settings: Settings, metrics: Metrics) -> Health:
    components = (
        Component(name="publisher", ping=_ping_of(publisher)),
        # Known keys go on working while their database is away.
        Component(name="keys", ping=_ping_of(keys), grace_s=settings.keys_stale_s),
    )
    health = Health(
        components, clock=time.monotonic, observe=lambda name, ok: metrics.component_up.labels(name).set(ok)
    )
    metrics.ready.set_function(lambda: health.ready)
    return health


def _ping_of(adapter: object) -> Callable[[], Coroutine[Any, Any, None]]:
    async def without() -> None:
        """An adapter without a life of its own works while the process does."""

    return cast("Callable[[], Coroutine[Any, Any, None]]", getattr(adapter, "ping", without))


def _ingest(publisher: EventPublisher, settings: Settings, metrics: Metrics) -> Ingest:
    in_force = settings.in_force
    limits = Limits(event_bytes_max=in_force.event_bytes_max, depth_max=in_force.depth_max)
    new_id = FreshIds(os.urandom)
    bound = partial(ingest, publisher=publisher, now=utc_now, new_id=new_id, limits=limits, turn=Turns())
    return Counted(bound, metrics)


def _authenticate(keys: KeyRepository, settings: Settings) -> Authenticate:
    return partial(authenticate, keys=keys, peppers=settings.peppers, now=utc_now)


def _entrance(settings: Settings, **parts: Any) -> Entrance:
    return Entrance(limits=settings.limits, **parts)


def _transports(settings: Settings, entrance: Entrance, *, shared: bool = False) -> list[Transport]:
    """Make HTTP, where health and metrics are, and whatever else is set."""
    parameters = {"keep_alive_s": str(settings.keep_alive_s)}
    if shared:
        parameters["shared"] = "true"
    if settings.cors_origins:
        parameters["cors_origins"] = ",".join(settings.cors_origins)
    http = f"http://{settings.listen}?{urlencode(parameters)}"
    return [open_url("transports", url, entrance=entrance) for url in (http, *settings.transports)]


def _app(settings: Settings, entrance: Entrance) -> "ASGIApp":
    # Litestar takes a third of a second to import, which commands without HTTP need not pay.
    from customersignal_ingest.adapters.inbound.http.transport import app_of

    return app_of(entrance, cors_origins=settings.cors_origins)


class Container(DeclarativeContainer):
    """Every part, made once and when it is first asked for: `Container(settings).ingest()`.

    `publisher` and `keys` are the adapters as their URLs name them; `guarded_publisher` and
    `known_keys` are the same within their policies, which is what `ingest` and `authenticate` use.
    """

    def __new__(cls, settings: Settings, /) -> "Container":
        """Make a container of its own for these settings."""
        # What it returns is a copy with the same providers: dependency-injector's way, unknown to its types.
        return super().__new__(cls, settings=settings)  # type: ignore[call-arg]  # as said above

    settings = Dependency(instance_of=Settings)
    log = Call(_log)
    metrics = Singleton(_metrics, settings)
    adapter_settings = Singleton(lambda settings: settings.for_adapters(instance=instance()), settings)

    publisher = Singleton(_publisher, settings, adapter_settings)
    keys = Singleton(_keys, settings, adapter_settings)
    guarded_publisher = Singleton(_guarded, publisher, settings, metrics, log)
    known_keys = Singleton(_known_keys, keys, settings, metrics)

    admission = Singleton(_admission, settings, metrics)
    health = Singleton(_health, publisher, keys, settings, metrics)
    ingest = Singleton(_ingest, guarded_publisher, settings, metrics)
    authenticate = Singleton(_authenticate, known_keys, settings)
    entrance = Singleton(
        _entrance,
        settings,
        ingest=ingest,
        authenticate=authenticate,
        admission=admission,
        health=health,
        metrics=metrics,
        log=log,
    )
    transports = Singleton(_transports, settings, entrance)
    app = Singleton(_app, settings, entrance)


@asynccontextmanager
async def opened(container: Container) -> AsyncIterator[Container]:
    """Open everything that has a life, watch over it, and close it within bounds.

    A server that is away is no error: health tells. Raises `ConfigurationError` for what is
    misconfigured, and closes what was open.
    """
    publisher, keys = container.publisher(), container.keys()
    container.authenticate()  # Whatever is missing in the settings is found out before anything is opened.
    if hasattr(keys, "watch"):
        keys.watch(container.known_keys().forget)
    async with AsyncExitStack() as stack:
        for adapter in (keys, publisher):
            await _open(adapter, stack, container.log())
        await _run_beside(stack, container.health().watch(), _tick(publisher, container.metrics()))
        yield container


async def _open(adapter: object, stack: AsyncExitStack, log: Any) -> None:
    if hasattr(adapter, "close"):
        stack.push_async_callback(_close, adapter.close, log)
    if hasattr(adapter, "open"):
        await adapter.open()


async def _close(close: Callable[[], Coroutine[Any, Any, None]], log: Any) -> None:
    """Close, whatever the adapter does: the others wait for their turn."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await close()
    except Exception:
        log.exception("an adapter did not close")


async def _run_beside(stack: AsyncExitStack, *work: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.create_task(each) for each in work]

    async def end() -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    stack.push_async_callback(end)


async def _tick(publisher: object, metrics: Metrics) -> None:
    """Measure how late the loop comes round, and carry what the publisher counts into the metrics."""
    late_acks, restarts = 0, dict[str, int]()
    while True:
        due = time.monotonic() + TICK_S
        await asyncio.sleep(TICK_S)
        metrics.event_loop_lag.observe(max(0.0, time.monotonic() - due))
        late_acks, before = getattr(publisher, "late_acks", 0), late_acks
        metrics.late_acks.inc(late_acks - before)
        restarts, earlier = getattr(publisher, "restarts", {}), restarts
        for cause, count in restarts.items():
            metrics.count_restarts(cause, count - earlier.get(cause, 0))
