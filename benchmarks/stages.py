"""The stages of an event's way in, each alone, and whole requests through the app without a socket.

Each stage is a function that takes some events through it; nothing here waits for anything.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any

from benchmarks.client import EVENT, NUMBER, USER
from customersignal_ingest import logs
from customersignal_ingest.adapters.inbound.http import answers
from customersignal_ingest.adapters.inbound.http.access import AccessLog
from customersignal_ingest.adapters.inbound.http.exchange import Exchange
from customersignal_ingest.adapters.outbound.kafka.batch import Batch, PartitionOf
from customersignal_ingest.adapters.outbound.kafka.calls import Call
from customersignal_ingest.adapters.outbound.kafka.client import AiokafkaBatch
from customersignal_ingest.adapters.outbound.memory import MemoryKeys
from customersignal_ingest.bootstrap import Container, utc_now
from customersignal_ingest.domain.event import IngestEvent, Record, encode
from customersignal_ingest.domain.event_id import FreshIds
from customersignal_ingest.domain.key import ApiKey, Tenant, digest
from customersignal_ingest.domain.outcome import Outcome, Stored, settle
from customersignal_ingest.domain.rules import Limits, Payload, parse_event
from customersignal_ingest.domain.strict_json import read_slices
from customersignal_ingest.ingest import authenticate
from customersignal_ingest.policies import CachedKeys
from customersignal_ingest.settings import Settings

BATCH = 100
KEY = "cs_live_k0123456789_" + "a" * 43 + "_000000"
TENANT = Tenant(tenant_id="acme", environment="live", key_id="k0123456789")
TOPIC, PARTITIONS = "events_raw", 8

_PEPPER = b"memory"  # What settings without a pepper have.


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """`run` takes so many events through one stage."""

    name: str
    events: int
    run: Callable[[], object]


class Confirming:
    """A publisher that confirms at once and stores nothing."""

    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        """Confirm."""
        return [Stored(TOPIC, 0, offset) for offset in range(len(records))]


def payloads(number: int, *, first: int = 0) -> list[Payload]:
    """Return distinct events of a hundred users."""
    return [_payload(first + n) for n in range(number)]


def _payload(number: int) -> Payload:
    text = EVENT.replace(NUMBER * 16, f"{number:016}").replace(USER * 8, f"{number % 100:08}")
    return text.encode()


def stages(loop: asyncio.AbstractEventLoop) -> Iterator[Stage]:
    """Yield all stages, in the order of an event's way."""
    yield Stage(name="authenticate", events=1, run=_authenticate())
    yield from _reading()
    yield from _publishing(loop)
    yield from _answering()
    yield from _whole(loop)


def _authenticate() -> Callable[[], object]:
    keys = CachedKeys(_known_keys(), ttl_s=3600, stale_s=3600, clock=lambda: 0.0)
    asyncio.run(keys.find(digest(KEY, _PEPPER)))
    return lambda: _finished(authenticate(KEY, keys=keys, peppers=(_PEPPER,), now=utc_now))


def _known_keys() -> MemoryKeys:
    keys = MemoryKeys()
    asyncio.run(keys.create_tenant(TENANT.tenant_id))
    asyncio.run(keys.add_key(ApiKey(key_id=TENANT.key_id, tenant=TENANT), digest(KEY, _PEPPER)))
    return keys


def _finished(coroutine: Coroutine[Any, Any, object]) -> object:
    """Run what never waits, without a loop's part in it."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return ended.value
    raise RuntimeError("it waits")


def _reading() -> Iterator[Stage]:
    sent, body = payloads(BATCH), _body(BATCH)
    yield Stage(name="split a batch", events=BATCH, run=lambda: read_slices(body, "events", most=2000))
    yield Stage(name="parse", events=BATCH, run=lambda: parsed(sent))
    events = parsed(sent)
    yield Stage(name="encode", events=BATCH, run=lambda: [encode(event) for event in events])


_new_id = FreshIds(os.urandom)


def parsed(sent: Sequence[Payload]) -> list[IngestEvent]:
    """Return the events that these are."""
    limits, now = Limits(), datetime.now(UTC)
    found = [parse_event(each, tenant=TENANT, received_at=now, new_id=_new_id, limits=limits) for each in sent]
    return [event for event in found if isinstance(event, IngestEvent)]


def _body(events: int) -> bytes:
    return b'{"events":[%s]}' % b",".join(payloads(events))


def _publishing(loop: asyncio.AbstractEventLoop) -> Iterator[Stage]:
    events = parsed(payloads(BATCH))
    records = [encode(event) for event in events]
    known, fresh = PartitionOf(PARTITIONS), count()
    yield Stage(name="partition, known user", events=BATCH, run=lambda: [known[record.key] for record in records])
    yield Stage(name="partition, new user", events=BATCH, run=lambda: _partitions_of_new(fresh))
    yield Stage(name="append", events=BATCH, run=lambda: _loaded(loop, records))
    outcomes = [Stored(TOPIC, 0, offset) for offset in range(BATCH)]
    batches = (_loaded(loop, records) for _ in count())
    yield Stage(name="append and settle", events=BATCH, run=lambda: next(batches).stored(TOPIC, 0))
    yield Stage(name="receipt", events=BATCH, run=lambda: settle(utc_now(), events, outcomes))


def _partitions_of_new(fresh: Iterator[int]) -> None:
    some = PartitionOf(PARTITIONS)
    for _ in range(BATCH):
        some[b"acme:new-%012d" % next(fresh)]


def _loaded(loop: asyncio.AbstractEventLoop, records: Sequence[Record]) -> Batch:
    async def called() -> Call:
        return Call(records, 0, born_at=0.0)

    batch = Batch(0, opened_at=0.0, deadline=1.0)
    batch.add(loop.run_until_complete(called()), list(range(len(records))))
    batch.load(AiokafkaBatch(256 * 1024, 0, is_transactional=False))
    return batch


def _answering() -> Iterator[Stage]:
    one, many = (_receipt(events) for events in (1, BATCH))
    yield Stage(name="answer to one", events=1, run=lambda: answers.single(one, event_bytes_max=900_000))
    yield Stage(
        name="answer to a batch",
        events=BATCH,
        run=lambda: answers.batch(many, listed=False, event_bytes_max=900_000),
    )


def _receipt(events: int) -> Any:
    return settle(utc_now(), parsed(payloads(events)), [Stored(TOPIC, 0, offset) for offset in range(events)])


def _whole(loop: asyncio.AbstractEventLoop) -> Iterator[Stage]:
    """Whole requests, with log lines, metrics and all, from the server's call of the app to its last `send`."""
    logs.configure(level="info", form="json", descriptor=os.open(os.devnull, os.O_WRONLY))
    container = Container(Settings(publisher_url="memory:", keys_url="memory:"))
    container.publisher.override(Confirming())
    container.keys.override(_known_keys())
    app, body = container.app(), _body(BATCH)
    yield Stage(name="log line and measurement", events=1, run=_noted(container))
    single = _requests(app, "/v1/events", payloads(BATCH))
    yield Stage(name="whole request of one", events=BATCH, run=lambda: loop.run_until_complete(single()))
    many = _requests(app, "/v1/events/batch", [body])
    yield Stage(name="whole request of 100", events=BATCH, run=lambda: loop.run_until_complete(many()))


def _noted(container: Container) -> Callable[[], object]:
    access = AccessLog(log=container.log(), metrics=container.metrics())
    exchange = Exchange(
        method="POST", route="/v1/events", headers={}, request_id="0" * 32, started=0.0, tenant=TENANT, status=202
    )
    return lambda: access.write(exchange, 0.01)


def _requests(app: Any, path: str, bodies: Sequence[bytes]) -> Callable[[], Awaitable[None]]:
    async def send(message: dict[str, Any]) -> None:
        if message.get("status", 202) != 202:
            raise RuntimeError(f"answered {message['status']}")

    async def requests() -> None:
        for body in bodies:
            messages = iter([{"type": "http.request", "body": body, "more_body": False}])

            async def receive(messages: Iterator[dict[str, Any]] = messages) -> dict[str, Any]:
                return next(messages)

            await app(_scope(path, len(body)), receive, send)

    return requests


def _scope(path: str, length: int) -> dict[str, Any]:
    headers = {
        b"host": b"127.0.0.1:8080",
        b"x-cs-api-key": KEY.encode(),
        b"content-type": b"application/json",
        b"content-length": b"%d" % length,
    }
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": list(headers.items()),
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8080),
    }
