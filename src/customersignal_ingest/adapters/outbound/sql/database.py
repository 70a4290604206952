"""A pool of connections with a deadline on everything, that says `Unavailable` and why."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import String, column, inspect, select, table
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from customersignal_ingest.adapters.outbound.sql.backend import Backend
from customersignal_ingest.adapters.outbound.sql.tables import NEWEST
from customersignal_ingest.domain.errors import Unavailable

T = TypeVar("T")

READ_TIMEOUT_S = 1.0
WRITE_TIMEOUT_S = 5.0
_CLOSE_TIMEOUT_S = 1.0
_REASON_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaState:
    """The migration that the database is at, `None` for an empty one, and the one that this code needs."""

    found: str | None
    needed: str = NEWEST

    @property
    def good(self) -> bool:
        """Whether this code can work with it. Migrations are numbered and only add: a later one is good."""
        return self.found is not None and self.found >= self.needed

    def __str__(self) -> str:
        """Say it, and what to do."""
        found = "absent" if self.found is None else f"at {self.found}"
        return f"the schema is {found}" + ("" if self.good else f", needs {self.needed}: run cs-ingest migrate")


class Database:
    """Runs work on connections of a pool, within deadlines, as much at a time as there are connections.

    Work goes on in a task of its own when the caller is cancelled or its time is up: cancelling
    inside a driver is what loses connections. Each of its steps has a time-out of its own, after
    which SQLAlchemy drops the connection.
    """

    def __init__(self, backend: Backend, /) -> None:
        """Nothing is connected before the first work."""
        self._backend = backend
        self._engine = backend.engine()
        self._reading = self._engine.execution_options(**backend.read_options)
        self._places = asyncio.Semaphore(backend.pool_size)
        self._running: set[asyncio.Task[object]] = set()
        self._schema_seen_good = False
        self._closed = False

    async def read(self, work: Callable[[AsyncConnection], Awaitable[T]], /) -> T:
        """Return what `work` returns, or raise `Unavailable` with the reason within one second."""
        return await self._within(READ_TIMEOUT_S, self._read, work)

    async def write(self, work: Callable[[AsyncConnection], Awaitable[T]], /) -> T:
        """Return what `work` returns once it is committed; it may be committed also after `Unavailable`.

        `IntegrityError` is passed on: it is the database's answer.
        """
        return await self._within(WRITE_TIMEOUT_S, self._write, work)

    async def schema_state(self) -> SchemaState:
        """Return what the schema is and should be; raises `Unavailable` when that can't be told."""
        return await self._within(READ_TIMEOUT_S, self._look_at_schema)

    async def close(self) -> None:
        """End all connections, within a bound."""
        self._closed = True
        await self._wait_for_the_running()
        self._backend.terminate_all()
        await self._wait_for_the_running()
        with suppress(*self._backend.errors):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._engine.dispose()

    async def _wait_for_the_running(self) -> None:
        if self._running:
            await asyncio.wait(self._running, timeout=_CLOSE_TIMEOUT_S)

    async def _within(self, timeout_s: float, run: Callable[..., Awaitable[T]], *arguments: object) -> T:
        try:
            async with asyncio.timeout(timeout_s):
                await self._places.acquire()
                return await asyncio.shield(self._start(run, *arguments))
        except TimeoutError:
            raise unavailable(self._backend, f"no answer within {timeout_s:g} s") from None

    def _start(self, run: Callable[..., Awaitable[T]], *arguments: object) -> asyncio.Task[T]:
        task = asyncio.create_task(self._translated(run, *arguments))
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[T]) -> None:
        self._running.discard(task)
        self._places.release()
        if not task.cancelled():
            task.exception()  # With the caller gone, nobody else takes note of it.

    async def _translated(self, run: Callable[..., Awaitable[T]], *arguments: object) -> T:
        if self._closed:
            raise unavailable(self._backend, "closed")
        try:
            return await run(*arguments)
        except IntegrityError:
            raise
        except self._backend.errors as error:
            self._schema_seen_good = False
            raise unavailable(self._backend, error) from error

    async def _read(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async with self._reading.connect() as connection:
            await self._check_schema(connection)
            return await work(connection)

    async def _write(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async with self._engine.connect() as connection:
            await self._check_schema(connection)
            result = await work(connection)
            await connection.commit()
            return result

    async def _look_at_schema(self) -> SchemaState:
        async with self._reading.connect() as connection:
            return await _schema_state(connection)

    async def _check_schema(self, connection: AsyncConnection) -> None:
        if self._schema_seen_good:
            return
        state = await _schema_state(connection)
        if not state.good:
            raise unavailable(self._backend, str(state))
        self._schema_seen_good = True


def unavailable(backend: Backend, why: str | Exception, /) -> Unavailable:
    """Return the error to raise: one line, with no password in it."""
    reason = why if isinstance(why, str) else backend.reason(_root(why))
    return Unavailable(f"{backend.name}: {reason.partition(chr(10))[0][:_REASON_MAX]}")


async def _schema_state(connection: AsyncConnection) -> SchemaState:
    if not await connection.run_sync(lambda sync: inspect(sync).has_table("alembic_version")):
        return SchemaState(found=None)
    query = select(column("version_num", String)).select_from(table("alembic_version"))
    return SchemaState(found=await connection.scalar(query))


def _root(error: BaseException) -> BaseException:
    """Return the driver's own error, which SQLAlchemy wraps."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
