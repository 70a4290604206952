"""The embedded log keeps its promise on a healthy disk."""
# ruff: noqa: ASYNC240 - the files are small, and nothing else runs on the loop of a test

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from customersignal_ingest.adapters.outbound.sqlite_log import SqlitePublisher, open_publisher
from customersignal_ingest.adapters.outbound.sqlite_log.log_file import Journal, LogFile, connect
from customersignal_ingest.domain.errors import ConfigurationError, Unavailable
from customersignal_ingest.domain.event import StoredRecord
from customersignal_ingest.domain.outcome import NotStored, Stored
from customersignal_ingest.domain.partition import partition_for
from customersignal_ingest.registry import AdapterSettings
from customersignal_ingest.testing.contracts import EventPublisherContract, PublisherHarness, a_record

pytestmark = pytest.mark.anyio


def publisher_of(path: Path, parameters: str = "") -> SqlitePublisher:
    return open_publisher(f"sqlite:///{path}{parameters}", settings=AdapterSettings())


def rows_of(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def stored_in(path: Path) -> list[StoredRecord]:
    """Read the table with SQL of our own: the other path."""
    return [
        StoredRecord(
            topic="events_raw",
            partition=partition,
            offset=offset,
            key=key,
            value=value,
            headers=tuple((name, text.encode("latin-1")) for name, text in json.loads(headers)),
            timestamp_ms=timestamp_ms,
        )
        for partition, offset, key, value, headers, timestamp_ms in rows_of(
            path,
            'SELECT partition, "offset", "key", value, headers, timestamp_ms FROM log ORDER BY partition, "offset"',
        )
    ]


class SqliteHarness:
    def __init__(self, path: Path, parameters: str) -> None:
        self.path = path
        self.publisher = self.life = publisher_of(path, parameters)
        self.unopened = publisher_of(path, parameters)

    async def stored(self) -> Sequence[StoredRecord]:
        return stored_in(self.path)


class TestSqlitePublisher(EventPublisherContract):
    @pytest.fixture(params=["", "?journal=truncate&partitions=3"], ids=["wal", "truncate"])
    async def harness(self, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[PublisherHarness]:
        harness = SqliteHarness(tmp_path / "events.db", request.param)
        await harness.publisher.open()
        yield harness
        await harness.publisher.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@pytest.fixture
async def publisher(path: Path) -> AsyncIterator[SqlitePublisher]:
    publisher = publisher_of(path)
    await publisher.open()
    yield publisher
    await publisher.close()


async def test_offsets_go_on_without_a_gap_after_a_restart(path: Path) -> None:
    for start in (0, 100):
        publisher = publisher_of(path)
        await publisher.open()
        await publisher.publish([a_record(n) for n in range(start, start + 100)])
        await publisher.close()

    offsets: dict[int, list[int]] = {}
    for record in stored_in(path):
        offsets.setdefault(record.partition, []).append(record.offset)
    assert all(found == list(range(len(found))) for found in offsets.values())


async def test_the_partition_is_the_one_of_the_key(publisher: SqlitePublisher) -> None:
    (outcome,) = await publisher.publish([a_record(1, key=b"acme:ann")])

    assert isinstance(outcome, Stored)
    assert outcome.partition == partition_for(b"acme:ann", 8)


async def test_calls_that_overlap_share_a_commit(publisher: SqlitePublisher, path: Path) -> None:
    await asyncio.gather(*(publisher.publish([a_record(n)]) for n in range(500)))

    # A commit of its own each would have left far more pages in the WAL than the records fill.
    assert path.with_name("events.db-wal").stat().st_size < 200 * 4096


@pytest.mark.parametrize(("journal", "synchronous"), [(Journal.WAL, "FULL"), (Journal.TRUNCATE, "EXTRA")])
def test_every_commit_is_synced_to_the_disk(path: Path, journal: Journal, synchronous: str) -> None:
    connections: list[sqlite3.Connection] = []

    def remembered(*how: Any) -> sqlite3.Connection:
        connections.append(connect(*how))
        return connections[-1]

    log = LogFile(path, journal=journal, connect=remembered)
    log.open()
    [in_force] = connections[-1].execute("PRAGMA synchronous").fetchone()
    log.close()

    assert ["OFF", "NORMAL", "FULL", "EXTRA"][in_force] == synchronous


async def test_the_folder_is_made(tmp_path: Path) -> None:
    publisher = publisher_of(tmp_path / "new" / "deep" / "events.db")
    await publisher.open()
    await publisher.close()

    assert (tmp_path / "new" / "deep" / "events.db").is_file()


async def test_before_open_nothing_is_stored(path: Path) -> None:
    assert await publisher_of(path).publish([a_record(1)]) == [NotStored("closed")]


async def test_it_can_be_opened_again(publisher: SqlitePublisher) -> None:
    await publisher.close()
    await publisher.open()

    (outcome,) = await publisher.publish([a_record(1)])

    assert isinstance(outcome, Stored)


async def test_close_writes_what_waits(publisher: SqlitePublisher, path: Path) -> None:
    calls = [asyncio.create_task(publisher.publish([a_record(n)])) for n in range(100)]
    await asyncio.sleep(0)

    await publisher.close()

    answers = [outcome for call in calls for outcome in await call]
    assert [type(outcome) for outcome in answers] == [Stored] * 100
    assert len(stored_in(path)) == 100


async def test_a_person_reads_text(publisher: SqlitePublisher, path: Path) -> None:
    await publisher.publish([a_record(1)])

    ((receipt, key, value),) = rows_of(path, "SELECT receipt, key, value FROM events_raw")

    wanted = a_record(1).key
    assert (receipt, key) == (f"events_raw/{partition_for(wanted, 8)}/0", wanted.decode())
    assert value == a_record(1).value.decode()


async def test_a_second_publisher_is_refused(publisher: SqlitePublisher, path: Path) -> None:
    with pytest.raises(ConfigurationError, match="one writer") as raised:
        await publisher_of(path).open()

    assert "\n" not in str(raised.value)


async def test_the_lock_is_free_after_close(publisher: SqlitePublisher, path: Path) -> None:
    await publisher.close()
    other = publisher_of(path)

    await other.open()

    await other.close()


async def test_the_number_of_partitions_stays(publisher: SqlitePublisher, path: Path) -> None:
    await publisher.close()

    with pytest.raises(ConfigurationError, match="made with 8 partitions, not 4"):
        await publisher_of(path, "?partitions=4").open()


async def test_a_file_keeps_its_partitions_when_the_url_names_none(path: Path) -> None:
    first, second = publisher_of(path, "?partitions=1"), publisher_of(path)
    await first.open()
    await first.close()
    await second.open()

    (outcome,) = await second.publish([a_record(1)])

    await second.close()
    assert outcome == Stored("events_raw", 0, 0)


async def test_what_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"Dear diary, " * 1000)

    with pytest.raises(ConfigurationError, match="not an SQLite database"):
        await publisher_of(path).open()


async def test_what_is_no_database_is_left_as_it_was(path: Path) -> None:
    path.write_bytes(b"Dear diary, " * 1000)

    with pytest.raises(ConfigurationError):
        await publisher_of(path).open()

    assert path.read_bytes() == b"Dear diary, " * 1000


async def test_the_database_of_another_program_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE diary (entry)")
    before = path.read_bytes()

    with pytest.raises(ConfigurationError, match="something else"):
        await publisher_of(path).open()

    assert path.read_bytes() == before


async def test_a_file_of_a_later_format_is_refused(publisher: SqlitePublisher, path: Path) -> None:
    await publisher.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 9")

    with pytest.raises(ConfigurationError, match="format 9"):
        await publisher_of(path).open()


async def test_a_damaged_file_is_refused(publisher: SqlitePublisher, path: Path) -> None:
    await publisher.publish([a_record(n, value=b"x" * 5000) for n in range(200)])
    await publisher.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096 * 6)

    with pytest.raises(ConfigurationError, match="damaged"):
        await publisher_of(path).open()


async def test_a_folder_in_place_of_the_file_is_refused(path: Path) -> None:
    path.mkdir()

    with pytest.raises(ConfigurationError, match="must be a file"):
        await publisher_of(path).open()


async def test_a_file_in_place_of_the_folder_is_refused(path: Path) -> None:
    path.write_text("a file")

    with pytest.raises(ConfigurationError, match="look at its folder"):
        await publisher_of(path / "events.db").open()


async def test_a_refused_open_leaves_no_lock(path: Path) -> None:
    path.write_bytes(b"Dear diary, " * 1000)
    publisher = publisher_of(path)
    with pytest.raises(ConfigurationError):
        await publisher.open()
    path.unlink()

    await publisher.open()

    await publisher.close()


async def test_ping_before_open_is_unavailable(path: Path) -> None:
    with pytest.raises(Unavailable):
        await publisher_of(path).ping()


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite://host/events.db",
        "sqlite:///e.db?partitions=0",
        "sqlite:///e.db?partitions=many",
        "sqlite:///e.db?journal=off",
        "sqlite:///e.db?jurnal=wal",
    ],
)
def test_a_url_that_makes_no_sense_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        open_publisher(url, settings=AdapterSettings())


def test_a_mistyped_parameter_names_the_one_that_was_meant() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'journal'"):
        open_publisher("sqlite:///e.db?jurnal=wal", settings=AdapterSettings())
