"""Both Kafka clients over brokers that librdkafka pretends to be, within this process: real libraries, no server.

Such brokers keep what they get and know nothing of replicas, so what is asked of them is looked up in the settings.
"""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from customersignal_ingest.adapters.outbound.kafka.client import AiokafkaBatch, AiokafkaProducer, new_batch, reach
from customersignal_ingest.adapters.outbound.kafka.librdkafka.client import (
    Librdkafka,
    careful_settings,
    everyday_settings,
)
from customersignal_ingest.adapters.outbound.kafka.librdkafka.delivery import Burst, Call, Line
from customersignal_ingest.adapters.outbound.kafka.librdkafka.publisher import BATCH_BYTES_MAX
from customersignal_ingest.adapters.outbound.kafka.options import Options
from customersignal_ingest.adapters.outbound.kafka.producer import Appended, Builder, Lost, NotTaken, Verdict
from customersignal_ingest.domain.event import Record, StoredRecord
from customersignal_ingest.domain.partition import partition_for
from tests.integration.servers.kafka import stored

pytestmark = pytest.mark.anyio

TOPIC = "events_raw"
PARTITIONS = 4  # Of every topic there.
TIMEOUT_S = 10.0


class Cluster:
    """Three brokers, as long as this object lives."""

    def __init__(self) -> None:
        self._producer = Producer({"bootstrap.servers": "nobody:1", "test.mock.num.brokers": 3, "log_level": 0})
        brokers = self._producer.list_topics(TOPIC, timeout=TIMEOUT_S).brokers.values()  # To ask for it makes it.
        self.servers = tuple(f"{broker.host}:{broker.port}" for broker in brokers)

    @property
    def topics(self) -> set[str]:
        return set(self._producer.list_topics(timeout=TIMEOUT_S).topics)

    def options(self, *servers: str, topic: str = TOPIC) -> Options:
        return options_of(*servers, *self.servers, topic=topic)

    def read(self, count: int) -> list[StoredRecord]:
        """Return so many records, by another client."""
        consumer = Consumer({"bootstrap.servers": ",".join(self.servers), "group.id": "test", "log_level": 0})
        consumer.assign([TopicPartition(TOPIC, partition, 0) for partition in range(PARTITIONS)])
        try:
            return [stored(message) for message in consumer.consume(count, timeout=TIMEOUT_S)]
        finally:
            consumer.close()


def options_of(*servers: str, topic: str = TOPIC) -> Options:
    return Options(servers=servers, topic=topic, client_id="test", publish_timeout_s=TIMEOUT_S, event_bytes_max=900_000)


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return Cluster()


def a_record(name: str, number: int) -> Record:
    return Record(
        key=f"{name}:{number}".encode(),
        value=b'{"n":1e2,"text":"\xc3\xa4"}',
        headers=(("event_id", f"{name}-{number}".encode()), ("odd", bytes(range(256)))),
        timestamp_ms=1_795_428_000_000 + number,
        tenant_id="acme",
        event_id=f"{name}-{number}",
    )


def expected(record: Record, partition: int, offset: int | None) -> StoredRecord:
    assert offset is not None
    return StoredRecord(
        topic=TOPIC,
        partition=partition,
        offset=offset,
        key=record.key,
        value=record.value,
        headers=record.headers,
        timestamp_ms=record.timestamp_ms,
    )


async def sent_by_aiokafka(options: Options, records: Sequence[Record]) -> list[StoredRecord]:
    """Send the records in one batch, and return what is to be read back."""
    producer, verdict = AiokafkaProducer(options), asyncio.get_running_loop().create_future()
    batch = new_batch(options, BATCH_BYTES_MAX)
    assert batch.extend(records) == len(records)
    await producer.start()
    producer.send(batch, 0, verdict.set_result)
    async with asyncio.timeout(TIMEOUT_S):
        said: Verdict = await verdict
    await producer.abandon()
    assert isinstance(said, Appended)
    assert said.offset is not None
    return [expected(record, 0, said.offset + at) for at, record in enumerate(records)]


async def sent_by_librdkafka(
    options: Options, records: Sequence[Record], *, careful: bool = False
) -> list[StoredRecord]:
    """Send the records, and return what is to be read back."""
    call, news = Call(records, 0, born_at=0), asyncio.Event()
    places: dict[int, tuple[int, int | None]] = {}

    def told(_line: Line, burst: Burst) -> None:
        assert not burst.failed
        places.update((index, (partition, offset)) for _, index, partition, offset in burst.stored)
        if len(places) == len(records):
            news.set()

    kafka = Librdkafka(options)
    line = kafka.careful_line(told) if careful else kafka.line(told, batch_bytes_max=BATCH_BYTES_MAX)
    for index in range(len(records)):
        line.send(call, index)
    async with asyncio.timeout(TIMEOUT_S):
        await news.wait()
        line.end()
        await line.ended()
    return [expected(record, *places[index]) for index, record in enumerate(records)]


@pytest.mark.parametrize("send", [sent_by_aiokafka, sent_by_librdkafka, partial(sent_by_librdkafka, careful=True)])
async def test_what_is_sent_is_read_back_to_the_byte_at_the_place_that_was_said(send: Any) -> None:
    cluster = Cluster()

    wanted = await send(cluster.options(), [a_record("a", number) for number in range(5)])

    read = cluster.read(5)
    assert sorted(read, key=lambda each: each.key) == sorted(wanted, key=lambda each: each.key)


async def test_librdkafka_sends_each_key_where_we_say(cluster: Cluster) -> None:
    stored = await sent_by_librdkafka(cluster.options(), [a_record("b", number) for number in range(100)])

    assert [each.partition for each in stored] == [partition_for(each.key, PARTITIONS) for each in stored]


async def test_one_server_of_the_url_that_answers_is_enough(cluster: Cluster) -> None:
    assert await reach(cluster.options("127.0.0.1:1", "127.0.0.1:2")) in cluster.servers


async def test_a_topic_that_is_missing_is_not_made_by_asking_for_it(cluster: Cluster) -> None:
    producer = AiokafkaProducer(cluster.options(topic="nobody_made_it"))
    await producer.start()
    partitions = producer.partitions()
    await producer.abandon()

    assert (partitions, "nobody_made_it" in cluster.topics) == (0, False)


@asynccontextmanager
async def started(options: Options) -> AsyncIterator[AiokafkaProducer]:
    producer = AiokafkaProducer(options)
    try:
        await producer.start()
        yield producer
    finally:
        await producer.abandon()


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def verdict_on(producer: AiokafkaProducer, batch: Builder, partition: int) -> Verdict:
    verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    producer.send(batch, partition, verdict.set_result)
    async with asyncio.timeout(TIMEOUT_S):
        return await verdict


def a_batch(options: Options) -> Builder:
    batch = new_batch(options, BATCH_BYTES_MAX)
    batch.extend([a_record("d", number) for number in range(3)])
    return batch


async def test_a_batch_that_comes_while_its_broker_is_asked_is_sent_after_the_answer(cluster: Cluster) -> None:
    options = cluster.options()
    async with started(options) as producer:
        known = producer._producer.client.cluster
        led: dict[int, list[int]] = {}
        for partition in range(PARTITIONS):
            led.setdefault(known.leader_for_partition(TopicPartition(TOPIC, partition)), []).append(partition)
        one, other, *_ = max(led.values(), key=len)  # There are more partitions than brokers.

        first = asyncio.create_task(verdict_on(producer, a_batch(options), one))
        await turns(3)  # The request is out, and its answer can't be read yet.
        second = asyncio.create_task(verdict_on(producer, a_batch(options), other))

        assert isinstance(await first, Appended)
        assert isinstance(await second, Appended)


async def test_one_batch_after_the_other_is_stored_behind_it(cluster: Cluster) -> None:
    options = cluster.options()
    async with started(options) as producer:
        verdicts = [await verdict_on(producer, a_batch(options), 0) for _ in range(3)]

    [first, *_] = offsets = [each.offset for each in verdicts if isinstance(each, Appended)]
    assert first is not None
    assert offsets == [first, first + 3, first + 6]


class Watched(AiokafkaBatch):
    """Knows whether its bytes are still somewhere."""

    class Bytes(bytearray):
        pass

    def _build(self) -> bytearray:
        built = self.Bytes(super()._build())
        self.left = weakref.ref(built)
        return built


async def test_nothing_of_a_batch_is_left_once_it_is_answered(cluster: Cluster) -> None:
    """Cycles in what holds it would keep its bytes until garbage is looked for."""
    batch = Watched(1000, 0, is_transactional=False)
    batch.extend([a_record("f", 0)])
    async with started(cluster.options()) as producer:
        gc.disable()
        try:
            assert isinstance(await verdict_on(producer, batch, 0), Appended)
            await turns(10)
            assert batch.left() is None
        finally:
            gc.enable()


class Broken(AiokafkaBatch):
    def _build(self) -> bytes:
        raise RuntimeError("it can't be built")


async def test_a_producer_that_fails_to_send_is_dead_and_what_it_had_may_be_stored(cluster: Cluster) -> None:
    options = cluster.options()
    async with started(options) as producer:
        broken = Broken(1000, 0, is_transactional=False)
        broken.extend([a_record("e", 0)])
        assert await verdict_on(producer, broken, 0) == Lost("KafkaError")
        assert producer.is_dead()
        with pytest.raises(NotTaken):
            producer.send(a_batch(options), 1, lambda _verdict: None)


async def test_an_abandoned_producer_leaves_no_task_behind(cluster: Cluster) -> None:
    before = asyncio.all_tasks()
    producer = AiokafkaProducer(cluster.options())
    await producer.start()
    assert asyncio.all_tasks() > before

    await producer.abandon()

    assert (asyncio.all_tasks(), producer.is_dead()) == (before, True)


async def test_the_producer_of_aiokafka_has_every_replica_confirm_and_numbers_its_batches() -> None:
    made = AiokafkaProducer(options_of("nowhere:1"))._made("nowhere:1")
    made._closed = True  # Never started: nothing is there to close, and it must not warn.

    assert made._sender._acks == -1
    assert made._txn_manager is not None


async def test_a_batch_never_expires_within_aiokafka_before_our_deadline() -> None:
    made = AiokafkaProducer(options_of("nowhere:1"))._made("nowhere:1")
    made._closed = True  # As above.

    assert made._message_accumulator._batch_ttl > TIMEOUT_S


@pytest.mark.parametrize("settings", [everyday_settings(options_of("a:1"), 1), careful_settings(options_of("a:1"))])
def test_each_line_of_librdkafka_has_every_replica_confirm(settings: dict[str, Any]) -> None:
    assert settings["acks"] == "all"


def test_the_line_for_everyday_numbers_its_batches() -> None:
    assert everyday_settings(options_of("a:1"), 1)["enable.idempotence"] is True


def test_the_careful_line_sends_each_record_alone_and_once() -> None:
    settings = careful_settings(options_of("a:1"))

    assert (settings["retries"], settings["batch.num.messages"]) == (0, 1)
