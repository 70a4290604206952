"""What the Kafka publisher does when Kafka, the topic or a record is not as it should be: on real brokers."""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import pairwise

import psutil
import pytest
from aiokafka import TopicPartition

from customersignal_ingest.adapters.outbound.kafka import (
    KafkaPublisher,
    check_topic,
    create_topic,
    open_reader,
)
from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.event import Record
from customersignal_ingest.domain.outcome import NotStored, Outcome, Refused, Stored, Unknown
from customersignal_ingest.registry import AdapterSettings, open_url
from tests.integration.bounds import usual_s
from tests.integration.servers.kafka import PROBE, Cluster, Kafka, until

pytestmark = pytest.mark.anyio

SESSION_TIMEOUT_S = 6.0
REQUEST_TIMEOUT_S = 4.0
SETTINGS = AdapterSettings(publish_timeout_s=10.0, instance="test")
IMPATIENT = AdapterSettings(publish_timeout_s=3.0, instance="test")
NOBODY = "127.0.0.1:1"
ROOMY_BYTES = 3_000_000


def a_record(name: str, *, tenant_id: str = "acme", value: bytes = b"{}") -> Record:
    return Record(
        key=f"{tenant_id}:{name}".encode(),
        value=value,
        headers=(("event_id", name.encode()),),
        timestamp_ms=int(time.time() * 1000),
        tenant_id=tenant_id,
        event_id=name,
    )


def a_large_record() -> Record:
    return a_record(uuid.uuid4().hex, tenant_id="umbrella", value=b"x" * 5000)


@pytest.fixture
def topic(kafka: Kafka) -> Iterator[str]:
    """One partition, so that every tenant meets every other."""
    name = new_topic()
    kafka.create_topic(name)
    yield name
    with suppress(Exception):
        kafka.delete_topic(name)


def new_topic() -> str:
    return f"faults-{uuid.uuid4().hex[:12]}"


@asynccontextmanager
async def opened(url: str, settings: AdapterSettings = SETTINGS) -> AsyncIterator[KafkaPublisher]:
    publisher: KafkaPublisher = open_url("publishers", url, settings=settings)
    await publisher.open()
    try:
        yield publisher
    finally:
        await publisher.close()


async def one(publisher: KafkaPublisher, record: Record) -> Outcome:
    return (await publisher.publish([record]))[0]


def connections(kafka: Kafka) -> list[int]:
    """The local ports of this process's connections to Kafka."""
    ports = {int(server.rpartition(":")[2]) for server in kafka.bootstrap.split(",")}
    every = psutil.Process().net_connections()
    return [each.laddr.port for each in every if each.raddr and each.raddr.port in ports]


async def until_stored(publisher: KafkaPublisher, *, within_s: float) -> float:
    """Publish again and again until a record is stored; return the seconds that it took."""
    began = time.monotonic()
    while time.monotonic() - began < within_s:
        if isinstance(await one(publisher, a_record(uuid.uuid4().hex)), Stored):
            return time.monotonic() - began
        await asyncio.sleep(0.02)
    raise AssertionError(f"nothing was stored within {within_s} s")


async def test_a_record_over_a_limit_that_was_lowered_is_refused_and_its_company_stored(
    kafka: Kafka, topic: str
) -> None:
    async with opened(kafka.url(topic)) as publisher:
        await one(publisher, a_record("before"))
        kafka.alter_topic(topic, max_message_bytes=2000)
        await asyncio.to_thread(until, lambda: not kafka.takes(topic, 5000), "a leader that heeds the new limit")
        company = [a_record(f"other-{n}", tenant_id="umbrella") for n in range(10)]
        large = a_record("large", value=b"x" * 5000)

        outcomes = await publisher.publish([*company[:5], large, *company[5:]])

    assert [type(outcome) for outcome in outcomes] == [Stored] * 5 + [Refused] + [Stored] * 5
    stored = [record.key for record in kafka.read(topic) if record.key != PROBE]
    assert stored == [a_record("before").key, *(record.key for record in company)]


@pytest.mark.alone
async def test_after_a_refused_record_the_next_tenant_is_served_within_a_second(kafka: Kafka, topic: str) -> None:
    assert await usual_s(partial(poisoned_s, kafka, topic), within_s=1) < 1


@pytest.mark.slow
@pytest.mark.parametrize("_run", range(20))
async def test_a_poisoned_partition_is_back_within_a_second_in_twenty_runs(
    kafka: Kafka, topic: str, _run: int, record_property: Callable[[str, object], None]
) -> None:
    took_s = await usual_s(partial(poisoned_s, kafka, topic), within_s=1)

    keys = [record.key for record in kafka.read(topic)]
    record_property("seen", f"back after {took_s:.2f} s, stored {len(keys)}")
    assert took_s < 1
    assert len(keys) == len(set(keys))


async def poisoned_s(kafka: Kafka, topic: str) -> float:
    """Have one tenant's record refused, and return the seconds until another tenant's is stored."""
    kafka.alter_topic(topic, max_message_bytes=ROOMY_BYTES)
    async with opened(kafka.url(topic)) as publisher:
        await one(publisher, a_record(uuid.uuid4().hex))
        kafka.alter_topic(topic, max_message_bytes=2000)
        refused_at = time.monotonic() + 5
        while not isinstance(await one(publisher, a_large_record()), Refused):
            assert time.monotonic() < refused_at, "the leader never heeded the new limit"
        return await until_stored(publisher, within_s=5)


async def test_a_batch_over_a_lowered_limit_is_stored_in_parts(kafka: Kafka, topic: str) -> None:
    async with opened(kafka.url(topic)) as publisher:
        await one(publisher, a_record("before"))
        kafka.alter_topic(topic, max_message_bytes=3000)

        outcomes = await publisher.publish([a_record(f"{n}", value=b"x" * 1000) for n in range(8)])

    assert [type(outcome) for outcome in outcomes] == [Stored] * 8


async def test_a_record_from_the_future_is_refused_and_its_company_stored(kafka: Kafka, topic: str) -> None:
    ahead = Record(
        key=b"acme:ahead",
        value=b"{}",
        headers=(),
        timestamp_ms=int(time.time() * 1000) + 2 * 3600 * 1000,
        tenant_id="acme",
        event_id="ahead",
    )
    async with opened(kafka.url(topic)) as publisher:
        await one(publisher, a_record("before"))
        outcomes = await publisher.publish([a_record("a"), ahead, a_record("b", tenant_id="umbrella")])

    assert [type(outcome) for outcome in outcomes] == [Stored, Refused, Stored]


async def test_sequence_numbers_never_come_near_their_end(kafka: Kafka, topic: str) -> None:
    async with opened(kafka.url(topic)) as publisher:
        await one(publisher, a_record("before"))
        current = publisher._generations.current
        assert current is not None
        numbers = current.producer._producer._txn_manager._sequence_numbers  # type: ignore[attr-defined]
        numbers[TopicPartition(topic, 0)] = 2**31 - 3

        outcomes = [await one(publisher, a_record(f"{n}")) for n in range(10)]

    assert [type(outcome) for outcome in outcomes] == [Stored] * 10
    assert publisher.restarts == {"sequence numbers": 1}


@pytest.mark.alone
async def test_a_dead_sender_is_replaced_within_a_second(kafka: Kafka, topic: str) -> None:
    async def dead_s() -> float:
        async with opened(kafka.url(topic)) as publisher:
            await one(publisher, a_record("before"))
            current = publisher._generations.current
            assert current is not None
            current.producer._producer._sender.sender_task.cancel()  # type: ignore[attr-defined]
            await asyncio.wait({current.producer._producer._sender.sender_task})  # type: ignore[attr-defined]

            took_s = await until_stored(publisher, within_s=5)

        assert publisher.restarts == {"the sender died": 1}
        return took_s

    assert await usual_s(dead_s, within_s=1) < 1


async def test_cancelling_after_the_hand_over_withdraws_nothing(kafka: Kafka, topic: str) -> None:
    async with opened(kafka.url(topic)) as publisher:
        call = asyncio.create_task(publisher.publish([a_record("given up")]))
        while not any(lane.out for lane in publisher._lanes):  # noqa: ASYNC110  No event tells of it.
            await asyncio.sleep(0)
        call.cancel()

        after = await one(publisher, a_record("after"))

    assert isinstance(after, Stored)
    assert [record.key for record in kafka.read(topic)] == [b"acme:given up", b"acme:after"]


async def test_a_missing_topic_is_named_and_not_made(kafka: Kafka) -> None:
    name = new_topic()
    async with opened(kafka.url(name)) as publisher:
        outcome = await one(publisher, a_record("a"))
        with pytest.raises(Unavailable, match=f"{name} is missing"):
            await publisher.ping()

    assert outcome == NotStored(f"the topic {name} is missing")
    assert not kafka.has_topic(name)


async def test_a_topic_that_is_deleted_and_made_again_is_served_again(kafka: Kafka, topic: str) -> None:
    async with opened(kafka.url(topic), IMPATIENT) as publisher:
        await one(publisher, a_record("before"))
        kafka.delete_topic(topic)
        lost = await one(publisher, a_record("in between"))
        assert not kafka.has_topic(topic)
        kafka.create_topic(topic)

        took_s = await until_stored(publisher, within_s=10)

    assert isinstance(lost, Unknown | NotStored)
    assert took_s < 5


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"min_insync_replicas": 1}, "min.insync.replicas is 1, needs 2"),
        ({"unclean_leader_election_enable": "true"}, "unclean.leader.election.enable is true"),
        ({"cleanup_policy": "compact"}, "cleanup.policy is compact"),
        ({"cleanup_policy": "compact,delete"}, "cleanup.policy is compact,delete"),
        ({"replicas": 1}, "replication factor is 1, needs 3"),
    ],
)
async def test_an_unsafe_topic_gets_nothing_and_is_named(
    cluster: Cluster, config: dict[str, str | int], name: str
) -> None:
    topic = new_topic()
    cluster.create_topic(topic, **config)  # type: ignore[arg-type]
    async with opened(cluster.url(topic)) as publisher:
        outcome = await one(publisher, a_record("a"))
        with pytest.raises(Unavailable, match=name):
            await publisher.ping()

    assert isinstance(outcome, NotStored)
    assert name in outcome.reason
    assert cluster.read(topic) == []
    assert name in (await check_topic(cluster.url(topic), settings=SETTINGS))[0]


async def test_a_topic_too_small_for_our_events_is_not_ready_but_safe(kafka: Kafka, topic: str) -> None:
    kafka.alter_topic(topic, max_message_bytes=100_000)
    async with opened(kafka.url(topic)) as publisher:
        outcome = await one(publisher, a_record("a"))
        with pytest.raises(Unavailable, match=r"max\.message\.bytes is 100000"):
            await publisher.ping()

    assert isinstance(outcome, Stored)


async def test_a_topic_that_we_made_is_safe(kafka: Kafka) -> None:
    url = kafka.url(new_topic())

    await create_topic(url, settings=SETTINGS)

    assert await check_topic(url, settings=SETTINGS) == []
    with pytest.raises(FileExistsError):
        await create_topic(url, settings=SETTINGS)


async def test_a_single_broker_cluster_may_say_so(kafka: Kafka) -> None:
    name = new_topic()
    kafka.create_topic(name, replicas=1)

    url = f"kafka://{kafka.bootstrap}/{name}?replication_min=1&insync_min=1"

    assert await check_topic(url, settings=SETTINGS) == []


async def test_what_is_stored_can_be_read_to_its_end(kafka: Kafka) -> None:
    name = new_topic()
    kafka.create_topic(name, partitions=3)
    url = kafka.url(name, compression="zstd")
    async with opened(url) as publisher:
        await publisher.publish([a_record(f"{n}") for n in range(100)])

    read = [record async for record in open_reader(url, settings=SETTINGS).read()]

    assert sorted(read, key=lambda each: (each.partition, each.offset)) == kafka.read(name)
    assert len(read) == 100


@pytest.mark.parametrize("compression", ["none", "gzip", "lz4", "zstd"])
async def test_every_compression_can_be_read_by_another_client(kafka: Kafka, topic: str, compression: str) -> None:
    async with opened(kafka.url(topic, compression=compression)) as publisher:
        await publisher.publish([a_record(f"{n}", value=b"x" * 500) for n in range(20)])

    assert [record.value for record in kafka.read(topic)] == [b"x" * 500] * 20


async def test_kafka_away_at_start_is_no_error_and_costs_no_waiting() -> None:
    began = time.monotonic()
    async with opened(f"kafka://{NOBODY}/events_raw") as publisher:
        outcome = await one(publisher, a_record("a"))
        with pytest.raises(Unavailable, match="no Kafka broker answered"):
            await publisher.ping()

    assert isinstance(outcome, NotStored)
    assert time.monotonic() - began < 4


async def test_kafka_frozen_at_start_is_served_once_it_answers(cluster: Cluster, topic: str) -> None:
    cluster.freeze()
    async with opened(cluster.url(topic)) as publisher:
        outcome = await one(publisher, a_record("a"))
        cluster.thaw()
        await until_stored(publisher, within_s=30)

    assert isinstance(outcome, NotStored)


async def test_close_is_bounded_and_leaves_nothing_behind_while_kafka_is_frozen(cluster: Cluster, topic: str) -> None:
    tasks, others = asyncio.all_tasks(), set(connections(cluster))
    async with opened(cluster.url(topic)) as publisher:
        await one(publisher, a_record("before"))
        cluster.freeze()
        call = asyncio.create_task(publisher.publish([a_record("pending")]))
        await asyncio.sleep(0.1)
        began = time.monotonic()

        await publisher.close()

        took_s = time.monotonic() - began
    assert [type(outcome) for outcome in await call] == [Unknown]
    assert took_s < 3.5
    assert asyncio.all_tasks() - {call} <= tasks
    assert set(connections(cluster)) <= others


async def test_a_frozen_kafka_is_not_ready_and_answers_in_time(cluster: Cluster, topic: str) -> None:
    async with opened(cluster.url(topic), IMPATIENT) as publisher:
        await one(publisher, a_record("before"))
        cluster.freeze()
        began = time.monotonic()

        outcome = await one(publisher, a_record("pending"))

        took_s = time.monotonic() - began
        with pytest.raises(Unavailable):
            await publisher.ping()
        refused = await one(publisher, a_record("fast"))
    assert isinstance(outcome, Unknown)
    assert took_s < 3
    assert isinstance(refused, NotStored | Unknown)


@pytest.mark.alone
async def test_a_partition_without_leader_is_served_a_second_after_it_has_one(cluster: Cluster) -> None:
    async def led_s() -> float:
        topic = new_topic()
        cluster.create_topic(topic, replicas=1)
        leader = cluster.leader_of(topic, 0)
        assert leader is not None
        url = cluster.url(topic, replication_min=1, insync_min=1, request_timeout_ms=1000)
        async with opened(url, IMPATIENT) as publisher:
            await one(publisher, a_record("before"))
            cluster.kill(leader)
            pending = []
            while cluster.leader_of(topic, 0) is not None or len(pending) < 2:
                pending.append(await one(publisher, a_record(f"pending-{len(pending)}")))
            assert {type(outcome) for outcome in pending} <= {Unknown, NotStored}
            cluster.restart(leader)
            calls = asyncio.create_task(until_stored(publisher, within_s=60))
            while cluster.leader_of(topic, 0) is None:  # noqa: ASYNC110  Another process knows, and has to be asked.
                await asyncio.sleep(0.05)
            led_at = time.monotonic()
            await calls
            return time.monotonic() - led_at

    assert await usual_s(led_s, within_s=1) < 1


class Writers:
    """Eight clients who publish one record after the other, and note when each was stored."""

    def __init__(self, publisher: KafkaPublisher) -> None:
        self._publisher = publisher
        self.outcomes: list[tuple[float, Record, Outcome]] = []
        self._tasks = [asyncio.create_task(self._write(n)) for n in range(8)]

    async def _write(self, number: int) -> None:
        for n in range(1_000_000):
            record = a_record(f"{number}-{n}", tenant_id=f"t{number}")
            outcome = await one(self._publisher, record)
            self.outcomes.append((time.monotonic(), record, outcome))
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    def longest_gap_s(self) -> float:
        moments = [moment for moment, _, outcome in self.outcomes if isinstance(outcome, Stored)]
        return max(after - before for before, after in pairwise(moments))

    def lost(self, kafka: Kafka, topic: str) -> list[Record]:
        there = {(r.partition, r.offset): (r.key, r.value) for r in kafka.read(topic)}
        stored = [(record, o) for _, record, o in self.outcomes if isinstance(o, Stored) and o.offset is not None]
        return [record for record, o in stored if there.get((o.partition, o.offset)) != (record.key, record.value)]

    def stored_all_the_same(self, kafka: Kafka, topic: str) -> list[Record]:
        keys = {record.key for record in kafka.read(topic)}
        return [record for _, record, o in self.outcomes if isinstance(o, NotStored) and record.key in keys]

    def twice(self, kafka: Kafka, topic: str) -> int:
        keys = [record.key for record in kafka.read(topic)]
        return len(keys) - len(set(keys))


@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_acknowledgements_come_back_after_a_leader_is_gone(
    cluster: Cluster, fault: str, record_property: Callable[[str, object], None]
) -> None:
    await lose_a_leader(cluster, fault, record_property)


@pytest.mark.slow
@pytest.mark.parametrize("_run", range(20))
@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_no_acknowledged_record_is_lost_in_twenty_runs(
    cluster: Cluster, fault: str, _run: int, record_property: Callable[[str, object], None]
) -> None:
    await lose_a_leader(cluster, fault, record_property)


async def lose_a_leader(cluster: Cluster, fault: str, record_property: Callable[[str, object], None]) -> None:
    topic = new_topic()
    cluster.create_topic(topic, partitions=3)
    leader = cluster.leader_of(topic, 0)
    assert leader is not None
    # With the active controller Kafka loses more time: another one is elected before the node is missed.
    election_s = 3 if leader == cluster.controller() else 0
    async with opened(cluster.url(topic)) as publisher:
        await until_stored(publisher, within_s=10)
        writers = Writers(publisher)
        await asyncio.sleep(0.5)
        getattr(cluster, fault)(leader)
        await asyncio.sleep(max(SESSION_TIMEOUT_S, 2 * REQUEST_TIMEOUT_S) + 3.5)
        cluster.thaw(*[leader] if fault == "freeze" else [])
        await writers.stop()
    gap_s = writers.longest_gap_s()
    counts = Counter(type(outcome).__name__ for _, _, outcome in writers.outcomes)
    whom = f"{fault} of the controller" if election_s else fault
    bound_s = SESSION_TIMEOUT_S + 3 if fault == "kill" else max(SESSION_TIMEOUT_S, 2 * REQUEST_TIMEOUT_S) + 3
    cluster.heal()
    twice = writers.twice(cluster, topic)
    seen = f"{whom}: gap {gap_s:.1f} s, {dict(counts)}, {twice} twice, restarts {publisher.restarts}"
    record_property("seen", seen)
    assert gap_s <= bound_s + election_s
    assert writers.lost(cluster, topic) == []
    assert writers.stored_all_the_same(cluster, topic) == []
    # librdkafka may store a record twice around a move of leaders (its issue 4953): one event_id, two copies.
    assert twice == 0 or cluster.url(topic).startswith("kafka+librdkafka:")
