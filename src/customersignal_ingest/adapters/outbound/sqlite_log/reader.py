"""The reader: follows the log without disturbing whoever writes it.

Every page has a read-only connection of its own, which can neither checkpoint nor hold one up.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

from customersignal_ingest.adapters.outbound.sqlite_log import schema
from customersignal_ingest.adapters.outbound.sqlite_log.log_file import connect
from customersignal_ingest.domain.errors import ConfigurationError, Unavailable
from customersignal_ingest.domain.event import Place, Span, StoredRecord

FOLLOW_INTERVAL_S = 0.2
PAGE_RECORDS_MAX = 1_000
PAGE_BYTES_MAX = 16 * 2**20
DISORDER_MS_MAX = 60_000
"""Records are stored nearly in the order of their arrival. So what arrived since a moment is looked for behind
the last record that arrived this much earlier; only a clock that was set back by more puts some before it."""

_BUSY_TIMEOUT_S = 2.0


class SqliteReader:
    """Reads the log while it is written and after its writer was killed."""

    def __init__(self, path: Path, *, follow_interval_s: float = FOLLOW_INTERVAL_S) -> None:
        self._path = path
        self._follow_interval_s = follow_interval_s

    async def read(
        self, *, follow: bool = False, since: datetime | None = None, start: Place | None = None
    ) -> AsyncIterator[StoredRecord]:
        """Yield records in the order in which they were stored, also across partitions.

        Without `follow` it ends at what was there when it began. Raises `Unavailable` when the
        file can't be read now, `ConfigurationError` when it is not a log of ours.
        """
        since_ms = _since_ms(since)
        wanted = {
            "since_ms": since_ms,
            "partition": None if start is None else start.partition,
            "offset": 0 if start is None else start.offset,
        }
        end = None if follow else await asyncio.to_thread(self._last)
        after = await asyncio.to_thread(self._begin, since_ms)
        while end is None or after < end:
            page, after = await asyncio.to_thread(self._page, after, end, wanted)
            for record in page:
                yield record
            if follow and not page:
                await asyncio.sleep(self._follow_interval_s)

    async def spans(self, *, since: datetime | None = None) -> Sequence[Span]:
        """Return for each partition what can be read: all of it, or what has arrived since."""
        return await asyncio.to_thread(self._spans, _since_ms(since))

    def _spans(self, since_ms: int) -> list[Span]:
        with self._connected() as connection:
            [(partitions,)] = connection.execute(schema.SELECT_PARTITIONS, (schema.TOPIC,)).fetchall()
            ends = [connection.execute(schema.SELECT_END, (number,)).fetchone()[0] for number in range(partitions)]
            starts = dict.fromkeys(range(partitions), 0)
            if since_ms:
                after = _begin(connection, since_ms)
                later = connection.execute(schema.SELECT_STARTS, {"since_ms": since_ms, "after": after})
                starts = dict(enumerate(ends)) | dict(later.fetchall())
        return [Span(number, starts[number], end) for number, end in enumerate(ends)]

    def _begin(self, since_ms: int) -> int:
        """Return a sequence before all that is wanted."""
        with self._connected() as connection:
            return _begin(connection, since_ms)

    def _last(self) -> int:
        with self._connected() as connection:
            return _last(connection)

    def _page(self, after: int, end: int | None, wanted: Mapping[str, int | None]) -> tuple[list[StoredRecord], int]:
        """Return records that follow, bounded in number and bytes, and the sequence up to which all was seen."""
        page: list[StoredRecord] = []
        size_bytes = 0
        with self._connected() as connection:
            end = _last(connection) if end is None else end
            for row in connection.execute(schema.SELECT_PAGE, {**wanted, "after": after, "end": end}):
                page.append(schema.record_of(row))
                size_bytes += len(row[-1])
                if len(page) == PAGE_RECORDS_MAX or size_bytes > PAGE_BYTES_MAX:
                    return page, row[0]
        return page, max(after, end)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(connect(self._path, "ro", _BUSY_TIMEOUT_S)) as connection:
                if connection.execute("PRAGMA application_id").fetchone() != (schema.APPLICATION_ID,):
                    raise ConfigurationError(f"{self._path} is not an embedded log")
                yield connection
        except sqlite3.Error as error:
            raise Unavailable(f"{self._path} can't be read: {_why(error)}") from error


def _since_ms(since: datetime | None) -> int:
    return 0 if since is None else int(since.timestamp() * 1000)


def _begin(connection: sqlite3.Connection, since_ms: int) -> int:
    # From the end, because there is no index by time.
    found = (
        connection.execute(schema.SELECT_LONG_BEFORE, (since_ms - DISORDER_MS_MAX,)).fetchone() if since_ms else None
    )
    return 0 if found is None else int(found[0])


def _last(connection: sqlite3.Connection) -> int:
    return int(connection.execute(schema.SELECT_LAST).fetchone()[0])


def _why(error: sqlite3.Error) -> str:
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY_ROLLBACK:
        return "its writer died within a commit, which only a writer can undo; start that once"
    return getattr(error, "sqlite_errorname", "SQLITE_ERROR")
