"""The embedded log and processes that die, meet and watch each other."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from customersignal_ingest.adapters.outbound.sqlite_log import open_publisher, open_reader
from customersignal_ingest.domain.errors import ConfigurationError
from customersignal_ingest.domain.event import StoredRecord
from customersignal_ingest.domain.outcome import NotStored, Stored
from customersignal_ingest.registry import AdapterSettings
from customersignal_ingest.testing.contracts import a_record

KILLS = 5
ANSWERS_PER_LIFE = 300


async def publish_for_ever(url: str, first: int) -> None:
    """Publish with many callers at once, and print each answer as soon as it is there: `n outcome receipt`."""
    publisher = open_publisher(url, settings=AdapterSettings())
    await publisher.open()

    async def caller(n: int) -> None:
        while True:
            (outcome,) = await publisher.publish([a_record(n)])
            receipt = outcome.receipt if isinstance(outcome, Stored) else "-"
            sys.stdout.write(f"{n} {type(outcome).__name__} {receipt}\n")
            sys.stdout.flush()
            n += 20

    await asyncio.gather(*(caller(first + n) for n in range(20)))


@contextmanager
def a_writer(path: Path, first: int = 0, journal: str = "wal", limit: str = "") -> Iterator["subprocess.Popen[str]"]:
    """Run `publish_for_ever` in a process of its own, and kill it at the end."""
    command = [sys.executable, __file__, f"sqlite:///{path}?journal={journal}", str(first), limit]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def answers_of(process: "subprocess.Popen[str]", count: int) -> Iterator[tuple[int, str, str]]:
    """Yield answers; after `count` of them kill the process, and yield what it still had written."""
    assert process.stdout is not None
    for number, line in enumerate(process.stdout, start=1):
        if number == count:
            process.kill()
        if line.endswith("\n"):
            n, outcome, receipt = line.split()
            yield int(n), outcome, receipt


def read(path: Path) -> dict[str, StoredRecord]:
    async def all_of_it() -> dict[str, StoredRecord]:
        reader = open_reader(f"sqlite:///{path}", settings=AdapterSettings())
        return {record.receipt: record async for record in reader.read()}

    return asyncio.run(all_of_it())


def open_and_close(path: Path) -> None:
    """Be the writer for a moment; this also makes a WAL of any journal."""

    async def be_the_writer() -> None:
        publisher = open_publisher(f"sqlite:///{path}", settings=AdapterSettings())
        await publisher.open()
        await publisher.close()

    asyncio.run(be_the_writer())


@pytest.mark.parametrize("journal", ["wal", "truncate"])
def test_what_was_promised_outlives_every_kill(tmp_path: Path, journal: str) -> None:
    path = tmp_path / "events.db"
    promised: dict[str, int] = {}
    for life in range(KILLS):
        with a_writer(path, life * 1_000_000, journal) as process:
            answers = list(answers_of(process, ANSWERS_PER_LIFE))
        assert len(answers) >= ANSWERS_PER_LIFE
        promised |= {receipt: n for n, outcome, receipt in answers if outcome == "Stored"}
    if journal == "truncate":
        open_and_close(path)  # A read-only connection can't undo the commit that the kill cut short.

    found = read(path)

    assert len(promised) >= KILLS * ANSWERS_PER_LIFE
    wrong = [
        receipt
        for receipt, n in promised.items()
        if receipt not in found or found[receipt].value != a_record(n).value or found[receipt].key != a_record(n).key
    ]
    assert wrong == []


def test_a_second_process_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    with a_writer(path) as process:
        next(answers_of(process, 10))

        with pytest.raises(ConfigurationError, match="one writer") as raised:
            asyncio.run(open_publisher(f"sqlite:///{path}", settings=AdapterSettings()).open())

    assert len(str(raised.value).splitlines()) == 1


def test_the_lock_goes_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    with a_writer(path) as process:
        next(answers_of(process, 10))

    open_and_close(path)


def test_a_reader_sees_each_answer_while_the_writer_runs(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    with a_writer(path) as process:
        for seen, (_, _, receipt) in enumerate(answers_of(process, 2000)):
            if seen % 100 == 0 and seen < 1000:
                assert receipt in read(path)


def test_a_file_that_may_not_grow_is_never_said_to_have_stored(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    with a_writer(path, limit="150000") as process:
        answers = list(answers_of(process, 2000))
    found = {record.value for record in read(path).values()}

    assert {"Stored"} < {outcome for _, outcome, _ in answers}
    assert all(a_record(n).value in found for n, outcome, _ in answers if outcome == "Stored")
    assert not [n for n, outcome, _ in answers if outcome == NotStored.__name__ and a_record(n).value in found]


if __name__ == "__main__":
    if sys.argv[3]:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
    asyncio.run(publish_for_ever(sys.argv[1], int(sys.argv[2])))
