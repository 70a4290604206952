"""The reader of the embedded log sees all that is stored, and disturbs nobody."""
# ruff: noqa: ASYNC240 - the files are small, and nothing else runs on the loop of a test

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from customersignal_ingest.adapters.outbound.sqlite_log import (
    SqlitePublisher,
    SqliteReader,
    open_publisher,
    open_reader,
    reader,
)
from customersignal_ingest.domain.errors import ConfigurationError, Unavailable
from customersignal_ingest.domain.event import Place, StoredRecord
from customersignal_ingest.domain.outcome import Stored
from customersignal_ingest.registry import AdapterSettings
from customersignal_ingest.testing.contracts import a_record, missing

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@pytest.fixture(params=["wal", "truncate"])
async def publisher(path: Path, request: pytest.FixtureRequest) -> AsyncIterator[SqlitePublisher]:
    publisher = open_publisher(f"sqlite:///{path}?journal={request.param}", settings=AdapterSettings())
    await publisher.open()
    yield publisher
    await publisher.close()


async def read(path: Path, **how: Any) -> list[StoredRecord]:
    reading = open_reader(f"sqlite:///{path}", settings=AdapterSettings()).read(**how)
    return [record async for record in reading]


async def test_it_reads_every_byte_while_the_writer_is_open(publisher: SqlitePublisher, path: Path) -> None:
    records = [a_record(n, value=bytes(range(256)) + b"%d" % n) for n in range(2500)]
    await publisher.publish(records)

    found = await read(path)

    assert len(found) == 2500
    assert missing(records, found) == []


async def test_it_reads_headers_of_any_bytes(publisher: SqlitePublisher, path: Path) -> None:
    record = replace(a_record(1), headers=(("odd", bytes(range(256))), ("odd", "é".encode())))
    await publisher.publish([record])

    assert missing([record], await read(path)) == []


async def test_it_reads_after_the_writer_has_gone(publisher: SqlitePublisher, path: Path) -> None:
    await publisher.publish([a_record(1)])
    await publisher.close()

    assert missing([a_record(1)], await read(path)) == []


async def test_it_reads_in_the_order_of_arrival(publisher: SqlitePublisher, path: Path) -> None:
    records = [a_record(n) for n in range(50)]
    await publisher.publish(records)

    assert [record.value for record in await read(path)] == [record.value for record in records]


async def test_its_receipts_are_those_of_the_answers(publisher: SqlitePublisher, path: Path) -> None:
    outcomes = await publisher.publish([a_record(n) for n in range(50)])

    receipts = [outcome.receipt for outcome in outcomes if isinstance(outcome, Stored)]
    assert [record.receipt for record in await read(path)] == receipts


async def test_since_leaves_out_what_arrived_earlier(publisher: SqlitePublisher, path: Path) -> None:
    records = [a_record(n) for n in range(10)]
    await publisher.publish(records)
    since = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=records[7].timestamp_ms)

    found = await read(path, since=since)

    assert [record.value for record in found] == [record.value for record in records[7:]]


async def test_a_page_of_large_records_is_followed_by_the_next(publisher: SqlitePublisher, path: Path) -> None:
    records = [a_record(n, value=b"%d" % n + bytes(900_000)) for n in range(25)]
    await publisher.publish(records)

    found = await read(path)

    assert reader.PAGE_BYTES_MAX < 25 * 900_000
    assert missing(records, found) == []


async def test_an_empty_log_reads_as_nothing(publisher: SqlitePublisher, path: Path) -> None:
    assert await read(path) == []


async def test_following_sees_what_is_stored_later(publisher: SqlitePublisher, path: Path) -> None:
    await publisher.publish([a_record(1)])
    following = SqliteReader(path, follow_interval_s=0.01).read(follow=True)

    async with asyncio.timeout(10), aclosing(following):
        first = await anext(following)
        later = asyncio.create_task(anext(following))
        await publisher.publish([a_record(2)])
        second = await later

    assert [first.value, second.value] == [a_record(1).value, a_record(2).value]


async def test_reading_does_not_hold_up_the_writer(path: Path) -> None:
    publisher = open_publisher(f"sqlite:///{path}", settings=AdapterSettings())
    await publisher.open()
    await publisher.publish([a_record(n) for n in range(5000)])
    reading = SqliteReader(path).read()

    async with aclosing(reading):
        await anext(reading)
        outcomes = [(await publisher.publish([a_record(n)]))[0] for n in range(5000, 5100)]

    await publisher.close()
    assert {type(outcome) for outcome in outcomes} == {Stored}


async def test_a_file_that_is_not_there_is_unavailable(path: Path) -> None:
    with pytest.raises(Unavailable):
        await read(path)


async def test_reading_makes_no_file(path: Path) -> None:
    with pytest.raises(Unavailable):
        await read(path)

    assert list(path.parent.iterdir()) == []


async def test_a_file_of_something_else_is_refused(path: Path) -> None:
    path.touch()

    with pytest.raises(ConfigurationError):
        await read(path)


async def test_it_begins_at_a_place_and_stays_in_its_partition(publisher: SqlitePublisher, path: Path) -> None:
    await publisher.publish([a_record(n) for n in range(100)])
    partition = (await read(path))[0].partition
    there = [record for record in await read(path) if record.partition == partition]

    assert await read(path, start=Place(partition, 3)) == there[3:]


async def spans(path: Path, since_ms: int | None = None) -> dict[int, tuple[int, int]]:
    """Return start and end of each partition that has anything to read."""
    since = None if since_ms is None else at_ms(since_ms)
    found = await SqliteReader(path).spans(since=since)
    assert [span.partition for span in found] == list(range(len(found)))
    return {span.partition: (span.start, span.end) for span in found if span.start < span.end}


def at_ms(since_ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=since_ms)


async def test_all_of_every_partition_can_be_read(publisher: SqlitePublisher, path: Path) -> None:
    await publisher.publish([a_record(n) for n in range(50)])
    stored = Counter(record.partition for record in await read(path))

    assert await spans(path) == {number: (0, count) for number, count in stored.items()}


async def test_a_span_begins_where_what_has_arrived_since_begins(publisher: SqlitePublisher, path: Path) -> None:
    records = [a_record(n) for n in range(50)]
    await publisher.publish(records)
    since_ms = records[30].timestamp_ms

    found = await read(path, since=at_ms(since_ms))

    assert len(found) == 20
    assert sum(end - start for start, end in (await spans(path, since_ms)).values()) == 20
    assert {record.partition: record.offset for record in reversed(found)} == {
        partition: start for partition, (start, _) in (await spans(path, since_ms)).items()
    }


async def test_a_span_has_nothing_that_a_clock_that_was_set_back_leaves_out(
    publisher: SqlitePublisher, path: Path
) -> None:
    """All of one partition; the third arrived a moment before the second, the fifth hours before."""
    moments_ms = [hours(1), hours(9), hours(9) - 5, hours(9) + 5, hours(2), hours(10)]
    await publisher.publish([replace(a_record(1), timestamp_ms=each) for each in moments_ms])

    found = await read(path, since=at_ms(hours(9) - 1))

    [(start, end)] = (await spans(path, hours(9) - 1)).values()
    assert [record.timestamp_ms for record in found] == [hours(10)]
    assert (start, end) == (5, 6)


async def test_a_little_disorder_leaves_nothing_out(publisher: SqlitePublisher, path: Path) -> None:
    moments_ms = [hours(1), hours(9), hours(9) - 5, hours(9) + 5]
    await publisher.publish([replace(a_record(1), timestamp_ms=each) for each in moments_ms])

    found = await read(path, since=at_ms(hours(9) - 1))

    assert [record.offset for record in found] == [1, 3]
    assert list((await spans(path, hours(9) - 1)).values()) == [(3, 4)]


def hours(number: int) -> int:
    return number * 3_600_000
