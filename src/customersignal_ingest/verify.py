"""Journals held against what is stored: the checker of `proof`, fed by files and by a store's reader."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeVar

from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.event import StoredRecord, unix_ms
from customersignal_ingest.ports import RecordReader
from customersignal_ingest.proof.checker import Checker
from customersignal_ingest.proof.journal import read
from customersignal_ingest.proof.report import Report

STEP = 1_000

Watch = Callable[[Literal["lines", "records"], int], None]
"""Is told how many lines of journals, then how many records, have been read so far; every `STEP`."""

T = TypeVar("T")


async def verify(
    journals: Sequence[Path],
    reader: RecordReader,
    /,
    *,
    since: datetime | None = None,
    sent_since: datetime | None = None,
    only_journal: bool = False,
    wanted: Callable[[StoredRecord], bool] = lambda _: True,
    watch: Watch = lambda _what, _count: None,
) -> Report:
    """Return what is wrong with what these journals say, the oldest file of a client first.

    Records are read that arrived `since`, and of them those that are `wanted`; without these, all. An
    event that was sent before `sent_since` is missing only where it was looked for. The journals are read
    first: what they say was accepted is stored before anybody looks, though clients and service go on.

    Raises `JournalError` for a file that is no journal, `Unavailable` when the store can't be read, or there
    is no room for what is to be compared.
    """
    since_ms = None if sent_since is None else unix_ms(sent_since)
    with _room(), Checker(only_journal=only_journal, since_ms=since_ms) as checker:
        for journal in journals:
            checker.add_journal(str(journal), _told(read(journal), lambda count: watch("lines", count)))
            await asyncio.sleep(0)  # Whoever else is on this loop has waited long enough.
        count = 0
        async for record in reader.read(since=since):
            if wanted(record):
                checker.add_record(record)
            count += 1
            if count % STEP == 0:
                watch("records", count)
        # Afterwards: what retention has taken in the meantime counts as gone, not as lost.
        spans = await reader.spans(since=since)
        return checker.report({span.partition: span.start for span in spans})


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise Unavailable(f"no room to compare: {error}; SQLITE_TMPDIR may name a folder with more") from error


def _told(entries: Iterable[T], watch: Callable[[int], None]) -> Iterator[T]:
    for count, entry in enumerate(entries, start=1):
        yield entry
        if count % STEP == 0:
            watch(count)
