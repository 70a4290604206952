"""The key store over a real PostgreSQL, well and unwell, read back by psql."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from urllib.parse import quote

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from customersignal_ingest.adapters.outbound.sql import SqlKeys, open_key_repository
from customersignal_ingest.adapters.outbound.sql.announcements import CHANNEL, listen
from customersignal_ingest.adapters.outbound.sql.backend import backend_at
from customersignal_ingest.adapters.outbound.sql.migrations import migrate
from customersignal_ingest.adapters.outbound.sql.postgres import Postgres as PostgresBackend
from customersignal_ingest.adapters.outbound.sql.tables import NEWEST, metadata
from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.key import ApiKey
from customersignal_ingest.policies import CachedKeys
from customersignal_ingest.registry import AdapterSettings
from customersignal_ingest.testing.key_contract import KeyRepositoryContract, a_key, digest_of
from tests.integration.bounds import usual_s
from tests.integration.servers.postgres import PASSWORD, Postgres, Server, psql

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
WAIT_S = 15.0


class PostgresHarness:
    def __init__(self, url: str, keys: SqlKeys) -> None:
        self.url = url
        self.keys = self.life = keys

    async def everything_kept(self) -> str:
        return await asyncio.to_thread(psql, self.url, "SELECT * FROM tenants; SELECT * FROM api_keys")


@pytest.fixture
def empty(postgres: Postgres) -> str:
    """The URL of a database with nothing in it."""
    return postgres.new_database()


@pytest.fixture(scope="module")
def migrated(postgres: Postgres) -> str:
    url = postgres.new_database()
    asyncio.run(migrate(url))
    return url


@pytest.fixture
def url(migrated: str) -> str:
    """The URL of a database with the newest schema and nothing else."""
    psql(migrated, "TRUNCATE tenants, api_keys")
    return migrated


@pytest.fixture
async def keys(url: str) -> AsyncIterator[SqlKeys]:
    async with opened(url) as store:
        yield store


@pytest.fixture
async def known(keys: SqlKeys) -> ApiKey:
    await keys.create_tenant("acme")
    await keys.add_key(a_key(1), digest_of(1))
    return a_key(1)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[SqlKeys]:
    store = open_key_repository(url, settings=AdapterSettings())
    await store.open()
    try:
        yield store
    finally:
        await store.close()


class TestPostgresKeys(KeyRepositoryContract):
    @pytest.fixture
    def harness(self, url: str, keys: SqlKeys) -> PostgresHarness:
        return PostgresHarness(url, keys)


# --- the schema


async def test_an_empty_database_is_unavailable_until_it_is_migrated(empty: str) -> None:
    async with opened(empty) as store:
        with pytest.raises(Unavailable, match=f"schema is absent, needs {NEWEST}: run cs-ingest migrate"):
            await store.ping()
        with pytest.raises(Unavailable, match="run cs-ingest migrate"):
            await store.find(digest_of(1))

        assert await store.migrate() == NEWEST

        await store.ping()
        assert await store.find(digest_of(1)) is None


async def test_migrations_that_overlap_all_end_at_the_newest(empty: str) -> None:
    assert await asyncio.gather(*(migrate(empty) for _ in range(5))) == [NEWEST] * 5
    assert psql(empty, "SELECT version_num FROM alembic_version") == NEWEST


async def test_migrating_again_keeps_what_is_there(url: str, keys: SqlKeys, known: ApiKey) -> None:
    assert await migrate(url) == NEWEST
    assert await keys.find(digest_of(1)) == known


async def test_the_migrations_make_the_tables_of_the_code(url: str) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    engine = backend_at(url, instance="test").engine()
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


async def test_a_role_that_may_only_read_is_enough_to_serve(url: str, known: ApiKey) -> None:
    psql(url, "CREATE ROLE reader LOGIN PASSWORD 'reader'; GRANT SELECT ON api_keys, alembic_version TO reader")
    try:
        reader = url.replace(f"cs:{quote(PASSWORD, safe='')}@", "reader:reader@")
        async with opened(reader) as store:
            await store.ping()
            assert await store.find(digest_of(1)) == known
    finally:
        psql(url, "DROP OWNED BY reader; DROP ROLE reader")


# --- a server that is unwell


@pytest.mark.alone
async def test_a_frozen_server_costs_a_look_up_one_second(
    postgres_to_break: Server, keys: SqlKeys, known: ApiKey
) -> None:
    await keys.find(digest_of(1))
    postgres_to_break.freeze()

    for _ in range(2):
        assert await usual_s(lambda: seconds_until_unavailable(keys), within_s=1.2) < 1.2


@pytest.mark.alone
async def test_a_frozen_server_costs_fifty_look_ups_one_second_and_it_is_over_when_it_thaws(
    postgres_to_break: Server, keys: SqlKeys, known: ApiKey
) -> None:
    await asyncio.gather(*(keys.find(digest_of(1)) for _ in range(50)))  # So that the pool is full.
    postgres_to_break.freeze()

    async def slowest_of_fifty_s() -> float:
        return max(await asyncio.gather(*(seconds_until_unavailable(keys) for _ in range(50))))

    for _ in range(3):
        assert await usual_s(slowest_of_fifty_s, within_s=1.2) < 1.2
    postgres_to_break.thaw()

    await eventually_found(keys, known)
    assert await asyncio.gather(*(keys.find(digest_of(1)) for _ in range(50))) == [known] * 50


async def test_a_frozen_server_does_not_hold_up_closing(
    postgres_to_break: Server, url: str, keys: SqlKeys, known: ApiKey
) -> None:
    async with opened(url) as store:
        await asyncio.gather(*(store.find(digest_of(1)) for _ in range(20)))
        postgres_to_break.freeze()
        looking = asyncio.create_task(store.find(digest_of(1)))
        async with asyncio.timeout(5):
            await store.close()
        with pytest.raises(Unavailable):
            await looking


async def test_changes_on_a_frozen_server_are_unavailable(
    postgres_to_break: Server, keys: SqlKeys, known: ApiKey
) -> None:
    postgres_to_break.freeze()

    with pytest.raises(Unavailable):
        await keys.revoke(known.key_id, NOW)


async def test_a_server_that_was_killed_is_unavailable_until_it_is_back(
    postgres_to_break: Server, keys: SqlKeys, known: ApiKey
) -> None:
    await asyncio.gather(*(keys.find(digest_of(1)) for _ in range(20)))
    postgres_to_break.kill()
    for _ in range(20):
        assert await seconds_until_unavailable(keys) < 1.2
    await asyncio.to_thread(postgres_to_break.start)

    await eventually_found(keys, known)


async def test_a_server_that_is_away_at_the_start_is_found_later(
    postgres_to_break: Server, url: str, keys: SqlKeys, known: ApiKey
) -> None:
    postgres_to_break.kill()
    async with opened(url) as store:
        with pytest.raises(Unavailable):
            await store.ping()
        await asyncio.to_thread(postgres_to_break.start)

        await eventually_found(store, known)
        await store.ping()


async def test_a_statement_that_waits_for_a_lock_is_unavailable(url: str, keys: SqlKeys, known: ApiKey) -> None:
    other = await asyncpg.connect(url)
    async with other.transaction():
        await other.execute("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
        assert await seconds_until_unavailable(keys) < 1.2
    await other.close()

    await eventually_found(keys, known)


async def test_clients_that_leave_while_the_server_is_slow_do_not_use_up_the_pool(
    url: str, keys: SqlKeys, known: ApiKey
) -> None:
    other = await asyncpg.connect(url)
    async with other.transaction():
        await other.execute("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
        leaving = [asyncio.create_task(keys.find(digest_of(1))) for _ in range(50)]
        await asyncio.wait(leaving, timeout=0.1)
        for task in leaving:
            task.cancel()
        await asyncio.wait(leaving)
    await other.close()

    await eventually_found(keys, known)
    assert await asyncio.gather(*(keys.find(digest_of(1)) for _ in range(50))) == [known] * 50


async def test_connections_that_the_server_ended_are_replaced(url: str, keys: SqlKeys, known: ApiKey) -> None:
    await asyncio.gather(*(keys.find(digest_of(1)) for _ in range(20)))
    psql(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'cs-ingest%'")

    await eventually_found(keys, known)


async def test_connections_that_fell_silent_are_replaced(
    postgres_to_break: Server, url: str, keys: SqlKeys, known: ApiKey
) -> None:
    await asyncio.gather(*(keys.find(digest_of(1)) for _ in range(20)))
    await asyncio.to_thread(postgres_to_break.freeze_sessions, url)
    with pytest.raises(Unavailable):
        await asyncio.gather(*(keys.find(digest_of(1)) for _ in range(5)))

    await eventually_found(keys, known)
    assert await asyncio.gather(*(keys.find(digest_of(1)) for _ in range(50))) == [known] * 50


async def test_a_change_that_fell_silent_gives_its_connection_back(
    postgres_to_break: Server, url: str, known: ApiKey
) -> None:
    async with opened(f"{url}?pool_size=1") as store:
        await store.tenants()
        await asyncio.to_thread(postgres_to_break.freeze_sessions, url)
        with pytest.raises(Unavailable):
            await store.revoke(known.key_id, NOW)

        await eventually_found(store, known)


async def test_no_more_connections_are_held_than_the_url_says(url: str, known: ApiKey) -> None:
    store = open_key_repository(f"{url}?pool_size=2", settings=AdapterSettings(instance="pool of two"))
    await asyncio.gather(*(store.keys("acme") for _ in range(50)))

    sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cs-ingest pool of two'"
    assert psql(url, sql) == "2"
    await store.close()


@pytest.mark.parametrize("wrong", ["password", "database", "user"])
async def test_a_wrong_login_is_unavailable_with_the_reason_and_without_the_password(url: str, wrong: str) -> None:
    urls = {
        "password": url.replace(quote(PASSWORD, safe=""), "guessed"),
        "database": url.rpartition("/")[0] + "/nowhere",
        "user": url.replace("cs:", "stranger:"),
    }
    async with opened(urls[wrong]) as store:
        with pytest.raises(Unavailable, match={"database": "nowhere"}.get(wrong, "password authentication")) as caught:
            await store.ping()
    assert PASSWORD not in str(caught.value)
    assert "guessed" not in str(caught.value)


async def test_tls_that_is_asked_for_and_not_offered_is_unavailable_and_never_left_out(url: str) -> None:
    for mode in ("require", "verify-full"):
        async with opened(f"{url}?sslmode={mode}") as store:
            with pytest.raises(Unavailable, match="SSL"):
                await store.ping()


# --- announcements


async def test_a_revoked_key_is_refused_within_two_seconds_although_it_is_cached(
    url: str, keys: SqlKeys, known: ApiKey
) -> None:
    store = open_key_repository(url, settings=AdapterSettings())
    cached = CachedKeys(store, ttl_s=3600, stale_s=3600, clock=asyncio.get_running_loop().time)
    heard = asyncio.Event()

    def forget(digest: bytes | None) -> None:
        cached.forget(digest)
        heard.set()

    store.watch(forget)
    await store.open()
    async with asyncio.timeout(WAIT_S):
        await heard.wait()
    assert await cached.find(digest_of(1)) == known

    heard.clear()
    await keys.revoke(known.key_id, NOW)
    async with asyncio.timeout(2):
        await heard.wait()

    found = await cached.find(digest_of(1))
    assert found is not None
    assert found.revoked_at == NOW
    await store.close()


async def test_a_revoked_key_is_announced_to_other_processes(url: str, keys: SqlKeys, known: ApiKey) -> None:
    async with listening(url) as heard:
        await keys.revoke(known.key_id, NOW)

        async with asyncio.timeout(2):
            assert await heard.get() == digest_of(1)


async def test_a_new_key_and_a_new_expiry_are_announced_too(url: str, keys: SqlKeys, known: ApiKey) -> None:
    async with listening(url) as heard:
        await keys.add_key(a_key(2), digest_of(2))
        await keys.expire(known.key_id, NOW)

        async with asyncio.timeout(2):
            assert [await heard.get(), await heard.get()] == [digest_of(2), digest_of(1)]


async def test_after_a_lost_connection_anything_may_have_changed(url: str, keys: SqlKeys, known: ApiKey) -> None:
    async with listening(url) as heard:
        psql(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
        async with asyncio.timeout(WAIT_S):
            assert await heard.get() is None

        await keys.revoke(known.key_id, NOW)
        async with asyncio.timeout(2):
            assert await heard.get() == digest_of(1)


async def test_a_server_that_was_started_again_is_listened_to_again(
    postgres_to_break: Server, url: str, keys: SqlKeys, known: ApiKey
) -> None:
    async with listening(url) as heard:
        postgres_to_break.kill()
        await asyncio.to_thread(postgres_to_break.start)

        async with asyncio.timeout(WAIT_S):
            assert await heard.get() is None
        await eventually_found(keys, known)
        await keys.revoke(known.key_id, NOW)
        async with asyncio.timeout(2):
            assert await heard.get() == digest_of(1)


async def test_a_server_that_fell_silent_is_listened_to_again(postgres_to_break: Server, url: str) -> None:
    heard: asyncio.Queue[bytes | None] = asyncio.Queue()
    backend = backend_at(url, instance="listener")
    assert isinstance(backend, PostgresBackend)
    listener = asyncio.create_task(listen(backend, heard.put_nowait, heartbeat_s=0.1))
    async with asyncio.timeout(WAIT_S):
        assert await heard.get() is None
        given_up = asyncio.Event()
        for connection in backend.connections:
            connection.add_termination_listener(lambda _: given_up.set())
        postgres_to_break.freeze()
        await given_up.wait()
        postgres_to_break.thaw()

        assert await heard.get() is None
    listener.cancel()


async def test_a_strangers_announcement_makes_everything_doubtful(url: str) -> None:
    async with listening(url) as heard:
        psql(url, f"NOTIFY {CHANNEL}, 'not a digest'")

        async with asyncio.timeout(2):
            assert await heard.get() is None


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[asyncio.Queue[bytes | None]]:
    """Open a second store on the same database, as another process would, and wait until it listens."""
    heard: asyncio.Queue[bytes | None] = asyncio.Queue()
    store = open_key_repository(url, settings=AdapterSettings(instance="listener"))
    store.watch(heard.put_nowait)
    await store.open()
    try:
        async with asyncio.timeout(WAIT_S):
            assert await heard.get() is None
        yield heard
    finally:
        await store.close()


async def seconds_until_unavailable(keys: SqlKeys) -> float:
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    with pytest.raises(Unavailable):
        await keys.find(digest_of(1))
    return loop.time() - started_at


async def eventually_found(keys: SqlKeys, key: ApiKey) -> None:
    """Ask until there is an answer: it must come, and be the right one."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                assert await keys.find(digest_of(1)) == key
            except Unavailable:
                await asyncio.sleep(0.05)
            else:
                return
