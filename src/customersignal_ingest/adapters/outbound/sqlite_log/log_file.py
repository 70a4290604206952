"""The file as its one writing connection sees it. Used by one thread at a time.

SQLite before 3.51.3 can corrupt a WAL that two connections write or checkpoint at once: hence the
lock, the single connection, and readers that are read-only.
"""

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote

from customersignal_ingest.adapters.outbound.sqlite_log import schema
from customersignal_ingest.adapters.outbound.sqlite_log.place import (
    make_folder,
    sync_folder,
    take_lock,
    warn_of_network,
)
from customersignal_ingest.domain.errors import ConfigurationError
from customersignal_ingest.domain.event import Record
from customersignal_ingest.domain.outcome import NotStored, Outcome, Stored, Unknown
from customersignal_ingest.domain.partition import PARTITIONS_DEFAULT

Connect = Callable[[Path, str, float], sqlite3.Connection]

_logger = logging.getLogger(__name__)

# With these the commit failed before its last page was written: it can't be found later.
_BEFORE_THE_COMMIT = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY})


class Journal(StrEnum):
    """How SQLite keeps a transaction whole."""

    WAL = "wal"
    TRUNCATE = "truncate"


# `synchronous` as SQLite numbers it: a WAL needs FULL, or power loss takes the last commits; EXTRA syncs
# the folder too, after the rollback journal is gone.
_SYNCHRONOUS = {Journal.WAL: 2, Journal.TRUNCATE: 3}


def connect(path: Path, mode: str, busy_timeout_s: float, /) -> sqlite3.Connection:
    """Connect in SQLite's `mode`: `ro`, `rw` or `rwc`. Transactions are begun and ended by hand."""
    uri = f"file:{quote(str(path.absolute()))}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=busy_timeout_s)


class LogFile:
    """Appends records, and says what became of them. `append` answers; `open` alone raises."""

    def __init__(
        self,
        path: Path,
        *,
        partitions: int | None = None,
        journal: Journal = Journal.WAL,
        busy_timeout_s: float = 2.0,
        connect: Connect = connect,
    ) -> None:
        self.path = path
        self.trouble: str | None = None  # Why the last append failed.
        self._partitions = partitions
        self._journal = journal
        self._busy_timeout_s = busy_timeout_s
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._lock: int | None = None
        self._next_offsets: list[int] = []
        self._inodes: tuple[int, ...] = ()

    def open(self) -> None:
        """Lock the file and make or check it; raises `ConfigurationError` with one line that says what to do."""
        if self._lock is not None:
            raise ConfigurationError(f"{self.path} is open here already, or its disk still holds up an earlier close")
        try:
            with _explained(self.path):
                make_folder(self.path.parent)
                warn_of_network(self.path)
                self._lock = take_lock(self.path)
                self._open("rwc")
                sync_folder(self.path.parent)
        except ConfigurationError:
            self.close()
            raise

    def append(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        """Commit all records or none. Without records it tries whether the log is well, see `trouble`."""
        try:
            connection = self._connection or self._open("rw")
            next_offsets = list(self._next_offsets)
            rows, places = schema.rows_of(records, next_offsets)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(schema.SELECT_PARTITIONS, (schema.TOPIC,)).fetchone()
            connection.executemany(schema.INSERT, rows)
            if self.trouble and not records:
                connection.execute(schema.PROBE)
        except (sqlite3.Error, ConfigurationError, OSError) as error:
            self.discard()
            return self._failed(NotStored(_name(error)), len(records))
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            return self._failed(self._fate(places, error), len(records))
        if self._has_moved():
            self.discard()
            return self._failed(Unknown("the file was moved or deleted"), len(records))
        self._next_offsets = next_offsets
        self._well()
        return places

    def discard(self) -> None:
        """Let go of the connection, and with it of a transaction that was not committed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def close(self) -> None:
        """Let go of the connection and the lock."""
        self.discard()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def _open(self, mode: str) -> sqlite3.Connection:
        self._connection = connection = self._connect(self.path, mode, self._busy_timeout_s)
        self._refuse_a_stranger(connection)
        self._set_pragmas(connection)
        if mode == "rwc" and _is_empty(connection):
            self._create(connection)
        self._partitions = self._checked_partitions(connection)
        self._next_offsets = [0] * self._partitions
        for partition, offset in connection.execute(schema.SELECT_NEXT_OFFSETS):
            self._next_offsets[partition] = offset
        self._inodes = self._identify()
        return connection

    def _refuse_a_stranger(self, connection: sqlite3.Connection) -> None:
        """Look before anything is changed: the file may be somebody else's."""
        if _is_empty(connection):
            return
        if _pragma(connection, "application_id") != schema.APPLICATION_ID:
            raise ConfigurationError(f"{self.path} is a database of something else: name another file")
        if (version := _pragma(connection, "user_version")) != schema.VERSION:
            raise ConfigurationError(f"{self.path} has format {version}, this program knows {schema.VERSION}")

    def _set_pragmas(self, connection: sqlite3.Connection) -> None:
        synchronous = _SYNCHRONOUS[self._journal]
        connection.execute(f"PRAGMA journal_mode = {self._journal}")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA mmap_size = 0")
        connection.execute("PRAGMA fullfsync = 1")  # What fsync promises elsewhere, macOS does only when asked.
        in_force = _pragma(connection, "journal_mode"), _pragma(connection, "synchronous")
        if in_force != (self._journal, synchronous):
            raise ConfigurationError(f"{self.path} can't be used with journal={self._journal}: close its other users")

    def _create(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        for statement in schema.CREATE:
            connection.execute(statement)
        connection.execute(schema.INSERT_TOPIC, (schema.TOPIC, self._partitions or PARTITIONS_DEFAULT))
        connection.execute("COMMIT")

    def _checked_partitions(self, connection: sqlite3.Connection) -> int:
        found = connection.execute(schema.SELECT_PARTITIONS, (schema.TOPIC,)).fetchone()
        if found is None or self._partitions not in (None, found[0]):
            there = "none" if found is None else found[0]
            raise ConfigurationError(
                f"{self.path} was made with {there} partitions, not {self._partitions}: "
                "leave the parameter out or name another file"
            )
        return int(found[0])

    def _fate(self, places: Sequence[Stored], error: sqlite3.Error) -> Outcome:
        """Find out what a COMMIT that raised has done."""
        self.discard()
        if _code(error) in _BEFORE_THE_COMMIT:
            return NotStored(_name(error))
        unknown, file = Unknown(_name(error)), self._inodes[0]
        try:
            connection = self._open("rw")
            if self._inodes[0] != file or _holds(connection, places[-1:]):
                # It can be read, but the disk never confirmed it: a page that failed to be synced looks clean.
                return unknown
            # Pages of the lost commit may lie in the WAL, unseen, and a crash would find them: write over them.
            connection.execute(schema.PROBE)
        except (sqlite3.Error, ConfigurationError, OSError):
            self.discard()
            return unknown
        return NotStored(_name(error))

    def _has_moved(self) -> bool:
        """Tell whether the names stand for other files now: SQLite would go on writing to deleted ones."""
        try:
            return self._identify() != self._inodes
        except OSError:
            return True

    def _identify(self) -> tuple[int, ...]:
        names = [self.path, Path(f"{self.path}-wal")] if self._journal is Journal.WAL else [self.path]
        return tuple(name.stat().st_ino for name in names)

    def _failed(self, outcome: Outcome, count: int) -> Sequence[Outcome]:
        why = outcome.cause if isinstance(outcome, Unknown) else getattr(outcome, "reason", "")
        if self.trouble is None:
            _logger.error("%s does not take records: %s", self.path, why)
        self.trouble = why
        return [outcome] * count

    def _well(self) -> None:
        if self.trouble is not None:
            _logger.warning("%s takes records again", self.path)
        self.trouble = None


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what goes wrong while opening into one line."""
    try:
        yield
    except sqlite3.Error as error:
        advice = _ADVICE.get(_code(error), "look at the file and its disk")
        raise ConfigurationError(f"{path} can't be opened ({_name(error)}): {advice}") from error
    except OSError as error:
        raise ConfigurationError(f"{path} can't be opened ({_name(error)}): look at its folder") from error


_ADVICE = {
    sqlite3.SQLITE_NOTADB: "it is not an SQLite database; name another file",
    sqlite3.SQLITE_CORRUPT: "it is damaged; move it away and restore a copy, or start with a new file",
    sqlite3.SQLITE_CANTOPEN: "it must be a file in a folder that this user may write to",
    sqlite3.SQLITE_READONLY: "this user must be allowed to write to it and to its folder",
    sqlite3.SQLITE_PERM: "this user must be allowed to write to it and to its folder",
    sqlite3.SQLITE_BUSY: "another program holds it; close that",
    sqlite3.SQLITE_FULL: "its disk is full",
}


def _is_empty(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) = 0 FROM sqlite_master").fetchone()[0])


def _holds(connection: sqlite3.Connection, places: Sequence[Stored]) -> bool:
    return any(connection.execute(schema.SELECT_ONE, (p.partition, p.offset)).fetchone() for p in places)


def _pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def _name(error: Exception) -> str:
    """Name the error for people; SQLite's and the system's names are short, their messages need not be."""
    if isinstance(error, OSError):
        return os.strerror(error.errno or 0)
    if isinstance(error, ConfigurationError):
        return "another file has its name"
    return getattr(error, "sqlite_errorname", "SQLITE_ERROR")
