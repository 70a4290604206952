"""The key store itself: its statements."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Column, Row, Select, bindparam, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from customersignal_ingest.adapters.outbound.sql.announcements import CHANNEL, OnChange, listen
from customersignal_ingest.adapters.outbound.sql.backend import Backend
from customersignal_ingest.adapters.outbound.sql.database import Database, SchemaState
from customersignal_ingest.adapters.outbound.sql.look_ups import LookUps
from customersignal_ingest.adapters.outbound.sql.postgres import Postgres
from customersignal_ingest.adapters.outbound.sql.tables import api_keys, tenants
from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.key import ApiKey, Digest, Tenant

_USED_GRANULARITY = timedelta(seconds=60)
_USED_MAX = 1_000
_FLUSH_S = 10.0


def _utc_now() -> datetime:
    return datetime.now(UTC)


class SqlKeys:
    """A `KeyStore` in SQL, and a `Resource`. Calls may overlap.

    When a key was last used is kept too, coarsely and off the path: losing that, in a crash, to a
    role that may only read, or in a flood of keys, is no error.
    """

    def __init__(self, backend: Backend, /, *, now: Callable[[], datetime] = _utc_now) -> None:
        """Nothing is connected yet."""
        self._backend = backend
        self._database = Database(backend)
        self._look_ups = LookUps(self._read)
        self._now = now
        self._used: dict[str, datetime] = {}
        self._on_change: OnChange | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def watch(self, on_change: OnChange, /) -> None:
        """Have `on_change` called with the digest of a key that any process changed; call this before `open`.

        With `None` when any key may have changed unheard. A SQLite file announces nothing.
        """
        self._on_change = on_change

    async def open(self) -> None:
        """Begin to listen and to note use. A server that is away is no error."""
        self._tasks.append(asyncio.create_task(self._flush_for_ever()))
        if self._on_change is not None and isinstance(self._backend, Postgres):
            self._tasks.append(asyncio.create_task(listen(self._backend, self._on_change)))

    async def close(self) -> None:
        """End all connections, within a few seconds at the most; from then on everything is `Unavailable`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._flush()
        await self._database.close()

    async def ping(self) -> None:
        """Return if look-ups work right now: the server answers, and its schema is new enough."""
        state = await self.schema_state()
        if not state.good:
            raise Unavailable(f"{self._backend.name}: {state}")

    async def schema_state(self) -> SchemaState:
        """Return which migration the database is at, and which is needed; raises `Unavailable`."""
        return await self._database.schema_state()

    async def migrate(self) -> str:
        """Bring the database to the newest schema and return its number; safe to repeat and to overlap.

        Raises `Unavailable`.
        """
        # alembic takes half a second to import, which serving needs not pay.
        from customersignal_ingest.adapters.outbound.sql.migrations import bring_to_newest

        return await bring_to_newest(self._backend)

    async def find(self, digest: Digest, /) -> ApiKey | None:
        """Return what is known of the key, `None` if unknown for certain; else `Unavailable`, within a second."""
        row = await self._look_ups.find(digest)
        if row is None:
            return None
        self._note_use(row)
        return _api_key(row)

    async def create_tenant(self, tenant_id: str, /) -> bool:
        """Make the tenant; return `False` if it was there already."""
        new = insert(tenants).values(tenant_id=tenant_id, created_at=self._now())
        try:
            await self._database.write(lambda connection: connection.execute(new))
        except IntegrityError:
            return False
        return True

    async def tenants(self) -> Sequence[str]:
        """Return all tenant ids, sorted."""
        rows = await self._database.read(lambda connection: _all(connection, select(tenants.c.tenant_id)))
        return sorted(row.tenant_id for row in rows)  # Here, because databases sort by language.

    async def add_key(self, key: ApiKey, digest: Digest, /) -> None:
        """Keep a new key of an existing tenant; `ValueError` if its id or digest is there already."""
        try:
            await self._database.write(partial(self._add_key, key, digest))
        except IntegrityError:
            raise ValueError(f"there is a key {key.key_id!r} already, or one with the same secret") from None

    async def keys(self, tenant_id: str | None = None, /) -> Sequence[ApiKey]:
        """Return the keys of one tenant, or all, oldest first; `LookupError` for a tenant that is not there."""
        return [_api_key(row) for row in await self._database.read(partial(self._keys_of, tenant_id))]

    async def revoke(self, key_id: str, at: datetime, /) -> ApiKey:
        """Refuse the key from this moment on (an earlier revocation stands), and return it."""
        return await self._database.write(partial(self._bring_forward, api_keys.c.revoked_at, key_id, at))

    async def expire(self, key_id: str, at: datetime, /) -> ApiKey:
        """Let the key expire at this moment (an earlier expiry stands), and return it."""
        return await self._database.write(partial(self._bring_forward, api_keys.c.expires_at, key_id, at))

    async def _read(self, digests: Sequence[Digest]) -> Mapping[Digest, Row[Any]]:
        query = select(api_keys).where(api_keys.c.digest.in_(digests))
        rows = await self._database.read(lambda connection: _all(connection, query))
        return {row.digest: row for row in rows}

    async def _keys_of(self, tenant_id: str | None, connection: AsyncConnection) -> Sequence[Row[Any]]:
        query = select(api_keys).order_by(api_keys.c.created_at, api_keys.c.key_id)
        if tenant_id is None:
            return await _all(connection, query)
        await _check_tenant(connection, tenant_id)
        return await _all(connection, query.where(api_keys.c.tenant_id == tenant_id))

    async def _add_key(self, key: ApiKey, digest: Digest, connection: AsyncConnection) -> None:
        tenant = key.tenant
        await _check_tenant(connection, tenant.tenant_id)
        new = insert(api_keys).values(
            key_id=key.key_id,
            digest=digest,
            tenant_id=tenant.tenant_id,
            project_id=tenant.project_id,
            environment=tenant.environment,
            name=key.name,
            created_at=key.created_at or self._now(),
            expires_at=key.expires_at,
            revoked_at=key.revoked_at,
            pepper_id=key.pepper_id,
        )
        await connection.execute(new)
        await self._announce(connection, digest)

    async def _bring_forward(
        self, moment: Column[datetime], key_id: str, at: datetime, connection: AsyncConnection
    ) -> ApiKey:
        later = or_(moment.is_(None), moment > at)
        await connection.execute(update(api_keys).where(api_keys.c.key_id == key_id, later).values({moment: at}))
        row = await _first(connection, select(api_keys).where(api_keys.c.key_id == key_id))
        if row is None:
            raise LookupError(f"there is no key {key_id!r}")
        await self._announce(connection, row.digest)
        return _api_key(row)

    async def _announce(self, connection: AsyncConnection, digest: Digest) -> None:
        """Have the server tell every listening process, if and when this transaction is committed."""
        if isinstance(self._backend, Postgres):
            await connection.execute(select(func.pg_notify(CHANNEL, digest.hex())))

    def _note_use(self, row: Row[Any]) -> None:
        now = self._now()
        long_ago = row.last_used_at is None or now - row.last_used_at >= _USED_GRANULARITY
        if long_ago and len(self._used) < _USED_MAX:
            self._used[row.key_id] = now

    async def _flush_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_S)
            await self._flush()

    async def _flush(self) -> None:
        used, self._used = self._used, {}
        if not used:
            return
        note = (
            update(api_keys).where(api_keys.c.key_id == bindparam("used_key")).values(last_used_at=bindparam("used_at"))
        )
        # In one order everywhere, so that two processes never wait for each other's rows.
        rows = [{"used_key": key_id, "used_at": at} for key_id, at in sorted(used.items())]
        with suppress(Unavailable):
            await self._database.write(lambda connection: connection.execute(note, rows))


async def _first(connection: AsyncConnection, query: Select[*tuple[Any, ...]]) -> Row[*tuple[Any, ...]] | None:
    return (await connection.execute(query)).first()


async def _all(connection: AsyncConnection, query: Select[Any]) -> Sequence[Row[Any]]:
    rows: Sequence[Row[Any]] = (await connection.execute(query)).all()
    return rows


async def _check_tenant(connection: AsyncConnection, tenant_id: str) -> None:
    if await _first(connection, select(tenants.c.tenant_id).where(tenants.c.tenant_id == tenant_id)) is None:
        raise LookupError(f"there is no tenant {tenant_id!r}")


def _api_key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        key_id=row.key_id,
        tenant=Tenant(
            tenant_id=row.tenant_id, project_id=row.project_id, environment=row.environment, key_id=row.key_id
        ),
        name=row.name,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        pepper_id=row.pepper_id,
        last_used_at=row.last_used_at,
    )
