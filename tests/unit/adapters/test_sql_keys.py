"""The key store in SQL, over a SQLite file, and what its URLs say."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from customersignal_ingest.adapters.outbound.sql import SqlKeys, migrations, open_key_repository
from customersignal_ingest.adapters.outbound.sql.backend import backend_at
from customersignal_ingest.adapters.outbound.sql.migrations import migrate
from customersignal_ingest.adapters.outbound.sql.tables import NEWEST, metadata
from customersignal_ingest.domain.errors import ConfigurationError, Unavailable
from customersignal_ingest.registry import AdapterSettings, open_url
from customersignal_ingest.testing.key_contract import KeyRepositoryContract, a_key, digest_of

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
SETTINGS = AdapterSettings()


class SqliteHarness:
    def __init__(self, path: Path, keys: SqlKeys) -> None:
        self.path = path
        self.keys = self.life = keys

    async def everything_kept(self) -> str:
        with closing(sqlite3.connect(self.path)) as reader:
            return "\n".join(reader.iterdump()) + self.path.read_bytes().decode("latin-1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "odd % folder?" / "keys.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{str(path).replace('%', '%25').replace('?', '%3F')}"


@pytest.fixture
async def keys(url: str) -> AsyncIterator[SqlKeys]:
    await migrate(url)
    store = SqlKeys(backend_at(url, instance="test"), now=lambda: NOON)
    await store.open()
    yield store
    await store.close()


class TestSqliteKeys(KeyRepositoryContract):
    @pytest.fixture
    def harness(self, path: Path, keys: SqlKeys) -> SqliteHarness:
        return SqliteHarness(path, keys)


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as reader:
        return reader.execute(sql).fetchall()


async def test_keys_are_there_after_a_restart(url: str, keys: SqlKeys) -> None:
    await keys.create_tenant("acme")
    await keys.add_key(a_key(1), digest_of(1))
    await keys.close()

    again = open_key_repository(url, settings=SETTINGS)

    assert await again.find(digest_of(1)) == a_key(1)
    await again.close()


async def test_a_store_works_without_being_opened_and_closes_without_it(url: str, keys: SqlKeys) -> None:
    unopened = open_key_repository(url, settings=SETTINGS)

    await unopened.ping()
    await unopened.close()


async def test_look_ups_on_their_way_when_the_store_closes_end_in_an_answer_or_unavailable(keys: SqlKeys) -> None:
    looking = [asyncio.create_task(keys.find(digest_of(n))) for n in range(50)]
    await asyncio.sleep(0)  # So that each of them has begun.
    await keys.close()

    answers = await asyncio.gather(*looking, keys.find(digest_of(1)), return_exceptions=True)
    assert {type(answer) for answer in answers} <= {type(None), Unavailable}
    assert type(answers[-1]) is Unavailable


async def test_a_missing_file_is_unavailable_and_stays_missing(url: str, path: Path) -> None:
    store = open_key_repository(url, settings=SETTINGS)
    await store.open()

    with pytest.raises(Unavailable, match="run cs-ingest migrate"):
        await store.ping()
    with pytest.raises(Unavailable, match="run cs-ingest migrate"):
        await store.find(digest_of(1))
    await store.close()
    assert not exists(path)


async def test_an_empty_database_is_unavailable_until_it_is_migrated(url: str, path: Path) -> None:
    write(path, b"")
    store = open_key_repository(url, settings=SETTINGS)

    with pytest.raises(Unavailable, match=f"schema is absent, needs {NEWEST}: run cs-ingest migrate"):
        await store.find(digest_of(1))
    with pytest.raises(Unavailable, match=f"schema is absent, needs {NEWEST}: run cs-ingest migrate"):
        await store.ping()

    assert await store.migrate() == NEWEST
    await store.ping()
    assert await store.find(digest_of(1)) is None
    await store.close()


async def test_an_old_schema_is_unavailable(url: str, path: Path, keys: SqlKeys) -> None:
    set_version(path, "0000")

    with pytest.raises(Unavailable, match=f"schema is at 0000, needs {NEWEST}: run cs-ingest migrate"):
        await keys.ping()
    with pytest.raises(Unavailable, match="run cs-ingest migrate"):
        await keys.find(digest_of(1))


async def test_a_newer_schema_is_good_and_left_alone(url: str, path: Path, keys: SqlKeys) -> None:
    set_version(path, "9999")

    assert await migrate(url) == "9999"
    await keys.ping()
    assert await keys.find(digest_of(1)) is None


async def test_a_table_that_is_lost_while_serving_is_unavailable(path: Path, keys: SqlKeys) -> None:
    assert await keys.find(digest_of(1)) is None
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("DROP TABLE api_keys")

    with pytest.raises(Unavailable):
        await keys.find(digest_of(1))


async def test_a_file_that_is_no_database_is_unavailable(url: str, path: Path) -> None:
    write(path, b"not a database" * 100)
    store = open_key_repository(url, settings=SETTINGS)

    with pytest.raises(Unavailable, match="not a database"):
        await store.ping()
    with pytest.raises(Unavailable, match="not a database"):
        await migrate(url)
    await store.close()


async def test_a_locked_file_is_unavailable_and_works_afterwards(path: Path, keys: SqlKeys) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Unavailable):
            await keys.find(digest_of(1))

    assert await keys.find(digest_of(1)) is None


async def test_migrations_that_overlap_all_end_at_the_newest(url: str) -> None:
    assert await asyncio.gather(*(migrate(url) for _ in range(5))) == [NEWEST] * 5


async def test_migrating_again_keeps_what_is_there(url: str, keys: SqlKeys) -> None:
    await keys.create_tenant("acme")

    assert await migrate(url) == NEWEST
    assert await keys.tenants() == ["acme"]


async def test_a_migration_that_can_not_be_done_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(Unavailable):
        await migrate(f"sqlite:///{tmp_path}/file/keys.db")


async def test_the_migrations_make_the_tables_of_the_code(path: Path, keys: SqlKeys) -> None:
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(path))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_the_code_needs_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))

    assert ScriptDirectory.from_config(config).get_current_head() == NEWEST


async def test_a_key_of_the_first_schema_is_good_after_the_newest_migration(url: str, path: Path) -> None:
    write(path, b"")
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(path))
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    with closing(sqlite3.connect(path)) as writer, writer:
        writer.execute("INSERT INTO tenants VALUES ('acme', '2026-11-23 12:00:00.123456')")
        key = ("k000000001", digest_of(1), "acme", "live", "2026-11-23 12:00:00.123456")
        writer.execute(
            "INSERT INTO api_keys (key_id, digest, tenant_id, environment, created_at) VALUES (?, ?, ?, ?, ?)", key
        )

    await migrate(url)

    store = open_key_repository(url, settings=SETTINGS)
    assert await store.find(digest_of(1)) == a_key(1)
    await store.close()


async def test_when_a_key_was_used_is_kept(url: str, keys: SqlKeys) -> None:
    await keys.create_tenant("acme")
    for n in (1, 2):
        await keys.add_key(a_key(n), digest_of(n))
    await keys.find(digest_of(1))
    await keys.close()

    again = open_key_repository(url, settings=SETTINGS)
    assert [(key.key_id, key.last_used_at) for key in await again.keys()] == [
        ("k000000001", NOON),
        ("k000000002", None),
    ]
    await again.close()


async def test_use_within_the_same_minute_is_not_written_again(url: str, path: Path, keys: SqlKeys) -> None:
    await keys.create_tenant("acme")
    await keys.add_key(a_key(1), digest_of(1))
    await keys.find(digest_of(1))
    await keys.close()

    for later_s in (59, 60):
        store = SqlKeys(backend_at(url, instance="test"), now=lambda later_s=later_s: NOON + timedelta(seconds=later_s))
        await store.find(digest_of(1))
        await store.close()
        expected = "2026-11-23 12:01:00.000000" if later_s == 60 else "2026-11-23 12:00:00.000000"
        assert rows(path, "SELECT last_used_at FROM api_keys") == [(expected,)]


async def test_watching_a_file_hears_nothing(url: str, keys: SqlKeys) -> None:
    heard: list[bytes | None] = []
    store = open_key_repository(url, settings=SETTINGS)
    store.watch(heard.append)
    await store.open()
    await store.create_tenant("acme")
    await store.close()

    assert heard == []


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_both_names_of_postgresql_are_found_through_the_registry(scheme: str) -> None:
    store = open_url("key_repositories", f"{scheme}://user:secret@localhost/db?sslmode=disable", settings=SETTINGS)

    assert isinstance(store, SqlKeys)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite://host/keys.db",
        "sqlite:///keys.db?pool_size=3",
        "postgresql://u:secret@h/db?pool_size=0",
        "postgresql://u:secret@h/db?pool_size=many",
        "postgresql://u:secret@h/db?sslmode=maybe",
        "postgresql://u:secret@h/db?sslmode=require&sslmode=require",
        "postgresql://u:secret@h/db?sslrootcert=/nowhere",
        "postgresql://u:secret@h/db?sslmode=verify-full&sslrootcert=/nowhere",
        "postgresql://u:secret@h:secret/db",
        "postgresql://u:se/cret@h/db",
        "postgresql://u:se?cret@h/db",
        "postgresql://u:se#cret@h/db",
        "postgresql:secret",
        "postgresql://u:secret@[h/db",
    ],
)
def test_a_url_that_is_wrong_is_a_configuration_error_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_key_repository(url, settings=SETTINGS)

    assert "secret" not in str(caught.value)
    assert "cret@" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_reason_never_quotes_the_password() -> None:
    backend = backend_at("postgresql://u:se%40cret@h/db", instance="test")

    assert "se@cret" not in backend.reason(OSError("the server said: se@cret is wrong"))
    assert "se@cret" not in repr(backend)


def test_an_unknown_parameter_names_the_nearest_known_one() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'sslmode'"):
        open_key_repository("postgresql://u:secret@h/db?ssl_mode=require", settings=SETTINGS)


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)


def exists(path: Path) -> bool:
    return path.exists()


def set_version(path: Path, version: str) -> None:
    with closing(sqlite3.connect(path)) as writer, writer:
        writer.execute("UPDATE alembic_version SET version_num = ?", (version,))
