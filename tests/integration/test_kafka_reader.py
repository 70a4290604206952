"""What `cs-ingest tail` reads from a real cluster: all of it, from a moment, from a place, and what comes."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from customersignal_ingest.adapters.outbound.kafka import KafkaPublisher, open_publisher, open_reader
from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.event import Place, StoredRecord
from customersignal_ingest.domain.outcome import Stored
from customersignal_ingest.registry import AdapterSettings
from customersignal_ingest.testing.contracts import a_record, missing
from tests.integration.servers.kafka import Kafka

pytestmark = pytest.mark.anyio

SETTINGS = AdapterSettings(publish_timeout_s=10.0, instance="test")
RECORDS = [a_record(n) for n in range(50)]


@pytest.fixture
def topic(kafka: Kafka, request: pytest.FixtureRequest) -> str:
    name = f"read-{abs(hash(request.node.name)) % 10**8}"
    kafka.create_topic(name, partitions=3)
    return name


@pytest.fixture
async def publisher(kafka: Kafka, topic: str) -> AsyncIterator[KafkaPublisher]:
    publisher = open_publisher(kafka.url(topic), settings=SETTINGS)
    await publisher.open()
    assert all(isinstance(outcome, Stored) for outcome in await publisher.publish(RECORDS))
    yield publisher
    await publisher.close()


@pytest.fixture
def read(kafka: Kafka, topic: str, publisher: KafkaPublisher) -> Any:
    def reading(**how: Any) -> AsyncIterator[StoredRecord]:
        return open_reader(kafka.url(topic), settings=SETTINGS).read(**how)

    return reading


async def test_everything_is_read_and_then_it_ends(read: Any) -> None:
    found = [record async for record in read()]

    assert len(found) == len(RECORDS)
    assert missing(RECORDS, found) == []


async def test_since_leaves_out_what_arrived_earlier(read: Any) -> None:
    since = datetime.fromtimestamp(RECORDS[40].timestamp_ms / 1000, UTC)

    found = [record async for record in read(since=since)]

    assert missing(RECORDS[40:], found) == []
    assert len(found) < len(RECORDS)


async def test_a_place_is_where_reading_begins_in_its_partition_alone(read: Any) -> None:
    everything = [record async for record in read()]
    partition = everything[0].partition
    there = [record for record in everything if record.partition == partition]

    assert [record async for record in read(start=Place(partition, 2))] == there[2:]


async def test_a_partition_that_is_not_there_is_named(read: Any) -> None:
    with pytest.raises(Unavailable, match="no such partition"):
        [record async for record in read(start=Place(99, 0))]


async def test_following_goes_on_with_what_comes(read: Any, publisher: KafkaPublisher) -> None:
    late = replace(a_record(99), timestamp_ms=RECORDS[-1].timestamp_ms + 60_000)
    found: list[StoredRecord] = []

    async with asyncio.timeout(30), aclosing(read(follow=True)) as records:
        async for record in records:
            found.append(record)
            if len(found) == len(RECORDS):
                await publisher.publish([late])
            if len(found) > len(RECORDS):
                break

    assert missing([late], found) == []


async def spans(kafka: Kafka, topic: str, **how: Any) -> dict[int, tuple[int, int]]:
    found = await open_reader(kafka.url(topic), settings=SETTINGS).spans(**how)
    return {span.partition: (span.start, span.end) for span in found}


async def test_a_span_is_what_retention_has_left(kafka: Kafka, topic: str, read: Any) -> None:
    stored = Counter([record.partition async for record in read()])
    before = await spans(kafka, topic)

    partition = max(stored, key=lambda each: stored[each])
    kafka.delete_before(topic, partition, 3)

    assert before == {number: (0, stored[number]) for number in range(3)}
    assert await spans(kafka, topic) == before | {partition: (3, stored[partition])}


async def test_a_span_begins_where_what_has_arrived_since_begins(kafka: Kafka, topic: str, read: Any) -> None:
    since = datetime.fromtimestamp(RECORDS[40].timestamp_ms / 1000, UTC)

    found = Counter([record.partition async for record in read(since=since)])

    lengths = {partition: end - start for partition, (start, end) in (await spans(kafka, topic, since=since)).items()}
    assert lengths == {number: found[number] for number in range(3)}


async def test_what_retention_takes_while_it_reads_is_passed_over_and_nothing_else(
    kafka: Kafka, topic: str, read: Any, publisher: KafkaPublisher
) -> None:
    """Four megabytes of one partition, of which the reader has taken one when three are deleted."""
    large = replace(a_record(1), value=bytes(100_000))
    outcomes = [outcome for _ in range(40) for outcome in await publisher.publish([large])]
    [partition] = {outcome.partition for outcome in outcomes if isinstance(outcome, Stored)}
    _, end = (await spans(kafka, topic))[partition]
    found: list[int] = []

    async with asyncio.timeout(60), aclosing(read(start=Place(partition, 0))) as records:
        async for record in records:
            if not found:
                kafka.delete_before(topic, partition, end - 5)
            found.append(record.offset)

    assert found == sorted(set(found))
    assert found[-5:] == list(range(end - 5, end))
    assert len(found) < end


async def test_a_topic_that_was_cut_behind_the_reader_is_told(kafka: Kafka, topic: str, read: Any) -> None:
    """Deleted and made again, it begins anew, where the reader has been long ago."""

    async def follow_to_the_end() -> None:
        async with asyncio.timeout(60), aclosing(read(follow=True)) as records:
            found = [await anext(records) for _ in RECORDS]
            kafka.delete_topic(topic)
            kafka.create_topic(topic, partitions=3)
            kafka.write(found[0])
            await anext(records)

    with pytest.raises(Unavailable, match="lost the end of a partition"):
        await follow_to_the_end()
