"""Brings the key database to the newest schema: alembic, configured here, with no alembic.ini.

Migrations are numbered, and only add: a service goes on running while its database is migrated,
and after. A new one is a file in `versions/` and its number in `tables.NEWEST`.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, func, select

from customersignal_ingest.adapters.outbound.sql.backend import Backend, backend_at
from customersignal_ingest.adapters.outbound.sql.database import unavailable
from customersignal_ingest.adapters.outbound.sql.sqlite import Sqlite
from customersignal_ingest.adapters.outbound.sql.tables import NEWEST

_LOCK = 0x63735F6B657973  # Any number that no other program picks.


async def migrate(url: str, /) -> str:
    """Bring the key database at this URL to the newest schema and return its number.

    Safe to repeat and to overlap: one migrates, the others wait and find nothing to do. A SQLite
    file is made with its folder. Raises `Unavailable`, and then nothing has changed.
    """
    return await bring_to_newest(backend_at(url, instance="migrate"))


async def bring_to_newest(backend: Backend, /) -> str:
    """Do what `migrate` says."""
    backend = backend.for_migration()
    try:
        if isinstance(backend, Sqlite):
            backend.path.parent.mkdir(parents=True, exist_ok=True)
        return await _in_one_transaction(backend)
    except backend.errors as error:
        raise unavailable(backend, error) from error


async def _in_one_transaction(backend: Backend) -> str:
    engine = backend.engine()
    try:
        async with engine.connect() as connection:
            revision = await connection.run_sync(_upgrade)
            await connection.commit()
        return revision
    finally:
        backend.terminate_all()
        await engine.dispose()


def _upgrade(connection: Connection) -> str:
    _lock(connection)
    found = MigrationContext.configure(connection).get_current_revision()
    if found is not None and found >= NEWEST:
        return found  # A newer one is a newer version's work: alembic does not know it, and we can work with it.
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, NEWEST)
    return NEWEST


def _lock(connection: Connection) -> None:
    """Be the only one to migrate until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    else:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
