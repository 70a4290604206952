"""A SQLite file, by aiosqlite: what is its own about connecting."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import quote

import aiosqlite
from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from customersignal_ingest.domain.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sqlite:
    """The key database in a file. Only a migration makes the file, so a wrong path is found out."""

    path: Path
    timeout_s: float = 1.0
    may_make_file: bool = False
    pool_size: int = 5

    name: ClassVar[str] = "SQLite"
    errors: ClassVar[tuple[type[Exception], ...]] = (SQLAlchemyError, aiosqlite.Error, OSError)
    read_options: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def at(cls, url: URL, /) -> Self:
        """Read the URL; one that names no file is a `ConfigurationError`."""
        if url.host or not url.database or url.database == ":memory:":
            raise ConfigurationError("a SQLite URL is sqlite:///relative.db or sqlite:////absolute.db")
        return cls(path=Path(url.database).absolute())

    def for_migration(self) -> Self:
        """Return the same database with leave to make the file, and time to wait for other processes."""
        return replace(self, timeout_s=30.0, may_make_file=True)

    def engine(self) -> AsyncEngine:
        """Return an engine; nothing is opened yet."""
        url = URL.create(
            "sqlite+aiosqlite",
            database=f"file:{quote(str(self.path))}",
            query={"mode": "rwc" if self.may_make_file else "rw", "uri": "true"},
        )
        # IMMEDIATE takes the lock for writing at once: a transaction that asks for it later may not wait for it.
        arguments = {"timeout": self.timeout_s, "isolation_level": "IMMEDIATE"}
        engine = create_async_engine(
            url, connect_args=arguments, pool_size=self.pool_size, max_overflow=0, hide_parameters=True
        )
        event.listen(engine.sync_engine, "do_connect", _try_to_open)
        event.listen(engine.sync_engine, "connect", _set_up)
        return engine

    def reason(self, error: BaseException, /) -> str:
        """Say, for people, why this error came."""
        if not self.path.exists():
            remedy = "may its folder be written to?" if self.may_make_file else "run cs-ingest migrate"
            return f"there is no file {self.path}: {remedy}"
        return f"{self.path}: {str(error) or type(error).__name__}"

    def terminate_all(self) -> None:
        """Nothing to do: a file does not freeze, and locks are waited for with a time-out."""


def _try_to_open(_dialect: object, _record: object, arguments: list[Any], _named: object) -> None:
    # aiosqlite leaves a thread behind when it can't open a file, which may outlive the event loop and complain.
    sqlite3.connect(arguments[0], uri=True).close()


def _set_up(connection: DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
