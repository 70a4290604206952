"""One process of the service: real from the ASGI app down to the producer's seam, and from its start to its drain."""

import asyncio
import contextvars
import random
from collections.abc import Callable
from datetime import datetime
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

from customersignal_ingest.adapters.inbound.http.app import create_app
from customersignal_ingest.adapters.inbound.http.events import HttpLimits
from customersignal_ingest.adapters.inbound.http.transport import ANSWERS_MARGIN_S
from customersignal_ingest.adapters.outbound.kafka.options import Options
from customersignal_ingest.adapters.outbound.kafka.publisher import Kafka, KafkaPublisher
from customersignal_ingest.bootstrap import opened
from customersignal_ingest.domain.event_id import FreshIds
from customersignal_ingest.domain.rules import Limits
from customersignal_ingest.health import Component, Health
from customersignal_ingest.ingest import Authenticate, Ingest, authenticate, ingest
from customersignal_ingest.metrics import Counted, Metrics, Timed
from customersignal_ingest.policies import Admission, CachedKeys, Deadline
from customersignal_ingest.ports import EventPublisher, KeyRepository
from customersignal_ingest.serve.server import _Server
from tests.simulation.cluster import Cluster, SimulatedKafka
from tests.simulation.connection import Connection
from tests.simulation.database import PEPPERS, KeyDatabase
from tests.simulation.journal import Journal

PUBLISH_TIMEOUT_S = 4.0
BODY_TIMEOUT_S = 3.0
DRAIN_DELAY_S = 0.3
EVENTS_MAX = 12
BYTES_MAX = 20_000
TENANT_SHARE = 0.6
KEYS_TTL_S = 2.0
KEYS_STALE_S = 6.0
QUEUE_RECORDS_MAX = 14

_running: contextvars.ContextVar["Process"] = contextvars.ContextVar("process")


class Process:
    """What `bootstrap` and `serve` make of the settings, over a simulated clock, cluster and database.

    Each part is made by a method of its own, so that a process that is wrong on purpose is one method.
    """

    def __init__(
        self,
        *,
        cluster: Cluster,
        database: KeyDatabase,
        journal: Journal,
        chance: random.Random,
        now: Callable[[], datetime],
    ) -> None:
        self.cluster, self.database, self.journal, self.chance, self.now = cluster, database, journal, chance, now
        self.clock = asyncio.get_running_loop().time
        self.dead = self.listening = False
        self.ended = asyncio.Event()
        self.asked_to_stop = asyncio.Event()
        self.drains_since = float("inf")
        self.handling: dict[asyncio.Task[None], None] = {}
        self.log = Lines()
        self.metrics = Metrics(version="1", publisher="simulated")
        self.publisher = KafkaPublisher(
            Options(
                servers=("nowhere:1",),
                topic="events_raw",
                client_id="simulated",
                publish_timeout_s=PUBLISH_TIMEOUT_S,
                event_bytes_max=Limits().event_bytes_max,
            ),
            self.make_kafka(),
            clock=self.clock,
            jitter=chance.random,
            queue_records_max=QUEUE_RECORDS_MAX,
        )
        self.keys = database.client()
        self.known_keys = CachedKeys(
            self.make_keys(),
            ttl_s=KEYS_TTL_S,
            stale_s=KEYS_STALE_S,
            clock=self.clock,
            observe=partial(journal.count, "look-ups of keys"),
        )
        self.admission = Admission(events_max=EVENTS_MAX, bytes_max=BYTES_MAX, tenant_share=TENANT_SHARE)
        components = (
            Component(name="publisher", ping=self.publisher.ping),
            Component(name="keys", ping=self.keys.ping, grace_s=KEYS_STALE_S),
        )
        self.health = Health(components, clock=self.clock)
        self.ingest: Ingest = Counted(self.make_ingest(Timed(self.make_publisher(), self.metrics)), self.metrics)
        self.authenticate = self.make_authenticate()

    def make_kafka(self) -> Kafka:
        return SimulatedKafka(self.cluster, self)

    def make_keys(self) -> KeyRepository:
        return self.keys

    def make_publisher(self) -> EventPublisher:
        return Deadline(self.publisher, timeout_s=PUBLISH_TIMEOUT_S + 1, report=self.report)

    def make_ingest(self, publisher: EventPublisher) -> Ingest:
        new_id = FreshIds(self.chance.randbytes)
        return partial(ingest, publisher=publisher, now=self.now, new_id=new_id, limits=Limits())

    def make_authenticate(self) -> Authenticate:
        return partial(authenticate, keys=self.known_keys, peppers=PEPPERS, now=self.now)

    def report(self, error: BaseException) -> None:
        self.journal.complain(f"the publisher raised {error!r}")

    # Its life.

    def start(self) -> None:
        self._create_task(self._live())

    async def _live(self) -> None:
        parts: Any = SimpleNamespace(
            publisher=lambda: self.publisher,
            keys=lambda: self.keys,
            known_keys=lambda: self.known_keys,
            authenticate=lambda: self.authenticate,
            admission=lambda: self.admission,
            health=lambda: self.health,
            metrics=lambda: self.metrics,
            log=lambda: self.log,
        )
        async with opened(parts):
            self.listening = True
            self.journal.note("listening")
            await self.asked_to_stop.wait()
            await self.drain(parts)
        for task in list(self.handling):  # As `asyncio.run` does at its end.
            task.cancel()
        self.journal.note("exit")
        self.ended.set()

    async def drain(self, parts: Any) -> None:
        await self.server()._drain(parts, [self], SimpleNamespace(pause=asyncio.sleep))  # type: ignore[arg-type, list-item]  # what it uses of them

    def server(self) -> _Server:
        settings: Any = SimpleNamespace(drain_delay_s=DRAIN_DELAY_S, publish_timeout_s=PUBLISH_TIMEOUT_S)
        server = _Server(settings, SimpleNamespace(close=None), lambda _: None, None)  # type: ignore[arg-type]  # writes nothing
        server._log = self.log
        return server

    @property
    def exit_within_s(self) -> float:
        """When the watchdog ends it, counted from the signal."""
        return float(self.server()._watchdog._timer.interval)

    async def close(self) -> bool:
        """Be a transport: close the listener, and return once requests in flight have their answers."""
        self.listening = False
        self.journal.note("listener closed")
        if self.handling:
            await asyncio.wait(list(self.handling), timeout=PUBLISH_TIMEOUT_S + ANSWERS_MARGIN_S)
        return not self.handling

    # Requests.

    def handle(self, connection: Connection) -> "asyncio.Task[None]":
        """Begin to handle a request, in a task of this process."""
        task = self._create_task(self._handle(connection))
        self.handling[task] = None
        task.add_done_callback(lambda done: self.handling.pop(done))
        return task

    async def _handle(self, connection: Connection) -> None:
        try:
            await _app()(connection.scope, connection.receive, connection.send)
        except Exception as error:  # noqa: BLE001  Nothing may come out of the app.
            self.journal.complain(f"the app raised {error!r}")

    def _create_task(self, work: Any) -> "asyncio.Task[None]":
        context = contextvars.copy_context()
        context.run(_running.set, self)
        return asyncio.get_running_loop().create_task(work, context=context)


def runs_in(task: "asyncio.Task[Any]") -> Process | None:
    """Return the process that the task is a part of."""
    return task.born_in.get(_running, None)  # type: ignore[attr-defined, no-any-return]  # a task of the simulated loop


class Lines:
    """A log that is kept, as structlog would be called."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def info(self, event: str, /, **fields: Any) -> None:
        self.lines.append({"event": event, **fields})

    warning = error = exception = info


class _OfTheRunningProcess:
    """Stands for a part of whichever process the code runs in."""

    def __init__(self, part: str) -> None:
        self._part = part

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(_running.get(), self._part), name)


@cache
def _app() -> Any:
    """Return the app that all processes share: to make it takes longer than most runs."""
    shared: Any = _OfTheRunningProcess
    return create_app(
        ingest=lambda *payloads, **options: _running.get().ingest(*payloads, **options),
        authenticate=lambda api_key: _running.get().authenticate(api_key),
        admission=shared("admission"),
        limits=HttpLimits(body_read_timeout_s=BODY_TIMEOUT_S),
        published_limits={},
        health=shared("health"),
        metrics=Metrics(version="1", publisher="simulated"),
        log=shared("log"),
    )
