"""The embedded log tells the truth when the disk does not do its part."""
# ruff: noqa: ASYNC240 - the files are small, and nothing else runs on the loop of a test

import asyncio
import logging
import sqlite3
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from customersignal_ingest.adapters.outbound.sqlite_log import SqlitePublisher, place
from customersignal_ingest.adapters.outbound.sqlite_log.log_file import LogFile
from customersignal_ingest.domain.errors import ConfigurationError, Unavailable
from customersignal_ingest.domain.event import Record
from customersignal_ingest.domain.outcome import NotStored, Outcome, Stored, Unknown
from customersignal_ingest.testing.contracts import a_record

pytestmark = pytest.mark.anyio


class Disk:
    """A disk with faults on purpose: real SQLite connections that fail at COMMIT as planned.

    A fault is one word: `full` and `io` fail and commit nothing, `torn` commits and then says that
    it failed, `frozen` waits for `thaw` before it commits.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.reached = threading.Event()
        self.thaw = threading.Event()
        self.connects = True

    def connect(self, path: Path, mode: str, busy_timeout_s: float, /) -> sqlite3.Connection:
        if not self.connects:
            raise error_of("SQLITE_IOERR", sqlite3.SQLITE_IOERR)
        disk = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
                if sql == "COMMIT" and disk.faults:
                    disk.happen(disk.faults.pop(0), super().execute)
                    return self.cursor()
                return super().execute(sql, *arguments)

        uri = f"file:{path}?mode={mode}"
        return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=busy_timeout_s, factory=Connection)

    def happen(self, fault: str, execute: Callable[[str], sqlite3.Cursor]) -> None:
        if fault == "frozen":
            self.reached.set()
            self.thaw.wait(30)
        if fault in ("ok", "torn", "frozen"):
            execute("COMMIT")
        if fault in ("torn", "io"):
            raise error_of("SQLITE_IOERR_FSYNC", sqlite3.SQLITE_IOERR_FSYNC)
        if fault == "full":
            raise error_of("SQLITE_FULL", sqlite3.SQLITE_FULL)


def error_of(name: str, code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(name)
    error.sqlite_errorcode, error.sqlite_errorname = code, name
    return error


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.thaw.set()


@pytest.fixture
async def publisher(path: Path, disk: Disk) -> AsyncIterator[SqlitePublisher]:
    publisher = SqlitePublisher(LogFile(path, connect=disk.connect, busy_timeout_s=0.1), publish_timeout_s=10)
    await publisher.open()
    yield publisher
    disk.thaw.set()
    await publisher.close()


def values_in(path: Path) -> set[bytes]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return {value for (value,) in connection.execute("SELECT value FROM log")}


@contextmanager
def another_program(path: Path) -> Iterator[None]:
    """Hold the write lock as a shell with an open transaction does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


async def frozen(disk: Disk) -> None:
    """Wait until the writer is stuck in a commit."""
    assert await asyncio.to_thread(disk.reached.wait, 10)


async def test_a_full_disk_means_not_stored(publisher: SqlitePublisher, disk: Disk, path: Path) -> None:
    disk.faults = ["full"]

    assert await publisher.publish([a_record(1)]) == [NotStored("SQLITE_FULL")]
    assert values_in(path) == set()


async def test_a_commit_that_failed_and_left_nothing_means_not_stored(
    publisher: SqlitePublisher, disk: Disk, path: Path
) -> None:
    disk.faults = ["io"]

    assert await publisher.publish([a_record(1)]) == [NotStored("SQLITE_IOERR_FSYNC")]
    assert values_in(path) == set()


async def test_a_commit_that_failed_and_can_be_read_is_unknown(publisher: SqlitePublisher, disk: Disk) -> None:
    disk.faults = ["torn"]

    assert await publisher.publish([a_record(1)]) == [Unknown("SQLITE_IOERR_FSYNC")]


async def test_a_commit_that_failed_on_a_file_that_can_not_be_opened_is_unknown(
    publisher: SqlitePublisher, disk: Disk
) -> None:
    disk.faults, disk.connects = ["io"], False

    assert await publisher.publish([a_record(1)]) == [Unknown("SQLITE_IOERR_FSYNC")]


async def test_a_file_that_can_not_be_opened_again_means_not_stored(publisher: SqlitePublisher, disk: Disk) -> None:
    disk.faults, disk.connects = ["full"], False
    await publisher.publish([a_record(1)])

    assert await publisher.publish([a_record(2)]) == [NotStored("SQLITE_IOERR")]


@pytest.mark.parametrize("fault", ["full", "io", "torn"])
async def test_after_a_fault_it_stores_again_at_a_place_of_its_own(
    publisher: SqlitePublisher, disk: Disk, path: Path, fault: str
) -> None:
    disk.faults = [fault]
    await publisher.publish([a_record(1)])

    (outcome,) = await publisher.publish([a_record(8)])

    assert isinstance(outcome, Stored)
    assert outcome.offset == (1 if fault == "torn" else 0)
    assert a_record(8).value in values_in(path)


async def test_a_disk_that_is_really_full_means_not_stored(path: Path) -> None:
    def small(path: Path, mode: str, busy_timeout_s: float, /) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, timeout=busy_timeout_s)
        connection.execute("PRAGMA max_page_count = 40")
        return connection

    publisher = SqlitePublisher(LogFile(path, connect=small))
    await publisher.open()

    outcomes = [(await publisher.publish([a_record(n, value=b"%d" % n + b"x" * 20_000)]))[0] for n in range(20)]

    await publisher.close()
    stored = sum(isinstance(outcome, Stored) for outcome in outcomes)
    assert outcomes[stored:] == [NotStored("SQLITE_FULL")] * (20 - stored)
    assert 0 < stored == len(values_in(path)) < 20


async def test_a_file_that_another_program_holds_means_not_stored(publisher: SqlitePublisher, path: Path) -> None:
    with another_program(path):
        assert await publisher.publish([a_record(1)]) == [NotStored("SQLITE_BUSY")]


async def test_a_deleted_file_is_never_stored_to(publisher: SqlitePublisher, path: Path) -> None:
    await publisher.publish([a_record(1)])
    path.unlink()

    assert await publisher.publish([a_record(2)]) == [Unknown("the file was moved or deleted")]
    assert await publisher.publish([a_record(3)]) == [NotStored("SQLITE_CANTOPEN")]


async def test_a_deleted_journal_is_never_stored_to(publisher: SqlitePublisher, path: Path) -> None:
    await publisher.publish([a_record(1)])
    path.with_name("events.db-wal").unlink()

    assert await publisher.publish([a_record(2)]) == [Unknown("the file was moved or deleted")]


async def test_a_frozen_disk_is_unknown_at_the_deadline(path: Path, disk: Disk) -> None:
    publisher = SqlitePublisher(LogFile(path, connect=disk.connect), publish_timeout_s=0.05)
    await publisher.open()
    disk.faults = ["frozen"]

    assert await publisher.publish([a_record(1)]) == [Unknown("deadline")]

    disk.thaw.set()
    await publisher.close()


async def test_what_still_waits_at_the_deadline_is_withdrawn(path: Path, disk: Disk) -> None:
    publisher = SqlitePublisher(LogFile(path, connect=disk.connect), publish_timeout_s=0.2)
    await publisher.open()
    disk.faults = ["frozen"]
    first = asyncio.create_task(publisher.publish([a_record(1)]))
    await frozen(disk)

    assert await publisher.publish([a_record(2)]) == [NotStored("deadline")]

    disk.thaw.set()
    await first
    await publisher.close()
    assert values_in(path) == {a_record(1).value}


async def test_a_cancelled_call_is_stored_in_its_turn(publisher: SqlitePublisher, disk: Disk, path: Path) -> None:
    disk.faults = ["frozen"]
    first = asyncio.create_task(publisher.publish([a_record(1)]))
    await frozen(disk)
    second = asyncio.create_task(publisher.publish([a_record(2)]))
    await asyncio.sleep(0)
    second.cancel()
    disk.thaw.set()

    await publisher.publish([a_record(3)])

    await first
    assert values_in(path) == {a_record(n).value for n in (1, 2, 3)}


@pytest.mark.parametrize("records", [50_001, 1], ids=["records", "bytes"])
async def test_a_full_queue_means_not_stored_at_once(publisher: SqlitePublisher, disk: Disk, records: int) -> None:
    disk.faults = ["frozen"]
    first = asyncio.create_task(publisher.publish([a_record(1)]))
    await frozen(disk)
    large = a_record(2, value=bytes(1 if records > 1 else 129 * 2**20))

    outcomes = await publisher.publish([large] * records)

    assert set(outcomes) == {NotStored("queue full")}
    disk.thaw.set()
    await first


async def test_close_of_a_frozen_disk_is_bounded_and_truthful(path: Path, disk: Disk) -> None:
    publisher = SqlitePublisher(LogFile(path, connect=disk.connect), close_timeout_s=0.1)
    await publisher.open()
    disk.faults = ["frozen"]
    taken = asyncio.create_task(publisher.publish([a_record(1)]))
    await frozen(disk)
    waiting = asyncio.create_task(publisher.publish([a_record(2)]))
    await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await publisher.close()

    assert [type(outcome) for call in (taken, waiting) for outcome in await call] == [Unknown, NotStored]


async def test_a_frozen_disk_keeps_its_lock_after_close(path: Path, disk: Disk) -> None:
    publisher = SqlitePublisher(LogFile(path, connect=disk.connect), publish_timeout_s=0.05, close_timeout_s=0.1)
    await publisher.open()
    disk.faults = ["frozen"]
    await publisher.publish([a_record(1)])
    await publisher.close()

    with pytest.raises(ConfigurationError, match="one writer"):
        await SqlitePublisher(LogFile(path)).open()


async def test_ping_of_a_frozen_disk_is_unavailable(publisher: SqlitePublisher, disk: Disk) -> None:
    disk.faults = ["frozen"]
    call = asyncio.create_task(publisher.publish([a_record(1)]))
    await frozen(disk)

    with pytest.raises(Unavailable):
        await publisher.ping()

    disk.thaw.set()
    await call


async def test_ping_tells_that_records_can_not_be_stored(publisher: SqlitePublisher, path: Path) -> None:
    with another_program(path), pytest.raises(Unavailable, match="SQLITE_BUSY"):
        await publisher.ping()


async def test_ping_finds_out_that_all_is_well_again(publisher: SqlitePublisher, disk: Disk) -> None:
    disk.faults = ["full"]
    await publisher.publish([a_record(1)])

    await publisher.ping()


async def test_a_record_that_can_not_be_bound_does_not_end_the_writer(publisher: SqlitePublisher) -> None:
    odd = Record(key=b"k", value=b"v", headers=(), timestamp_ms=2**70, tenant_id="acme", event_id="1")
    await publisher.publish([odd])

    (outcome,) = await publisher.publish([a_record(1)])

    assert isinstance(outcome, Stored)


def test_a_network_file_system_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/export {tmp_path} nfs4 rw 0 0\n")

    with caplog.at_level(logging.WARNING):
        place.warn_of_network(tmp_path / "events.db", mounts=mounts)

    assert "nfs4" in caplog.text


def test_a_local_file_system_is_not_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place.warn_of_network(tmp_path / "events.db")

    assert caplog.text == ""


Step = tuple[str, int]
steps = st.lists(st.tuples(st.sampled_from(["ok", "full", "io", "torn"]), st.integers(1, 5)), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(plan=steps, overlapping=st.booleans())
def test_whatever_fails_what_is_promised_is_there_and_what_is_denied_is_not(
    plan: list[Step], overlapping: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.db"
        answered = asyncio.run(play(path, plan, overlapping=overlapping))
        readable = values_in(path)

    promised = {value for value, outcome in answered if isinstance(outcome, Stored)}
    denied = {value for value, outcome in answered if isinstance(outcome, NotStored)}
    assert promised <= readable
    assert not denied & readable


async def play(path: Path, plan: list[Step], *, overlapping: bool) -> list[tuple[bytes, Outcome]]:
    """Publish once per step, with the step's fault ahead of it, and return each value with its outcome."""
    disk = Disk()
    publisher = SqlitePublisher(LogFile(path, connect=disk.connect))
    await publisher.open()
    disk.faults = [fault for fault, _ in plan]
    calls = [[a_record(100 * step + n) for n in range(count)] for step, (_, count) in enumerate(plan)]
    if overlapping:
        answers = await asyncio.gather(*map(publisher.publish, calls))
    else:
        answers = [await publisher.publish(call) for call in calls]
    await publisher.close()
    return [
        (r.value, o) for call, answer in zip(calls, answers, strict=True) for r, o in zip(call, answer, strict=True)
    ]
