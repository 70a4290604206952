"""The life of an API key, as the service and PostgreSQL live it: made, rotated, revoked, and a flood of others."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from customersignal_ingest.adapters.outbound.sql import SqlKeys, open_key_repository
from customersignal_ingest.adapters.outbound.sql.look_ups import APART_S
from customersignal_ingest.domain.errors import KeyProblem, Unauthenticated
from customersignal_ingest.domain.key import digest
from customersignal_ingest.ingest import authenticate
from customersignal_ingest.policies import CachedKeys
from customersignal_ingest.registry import AdapterSettings
from customersignal_ingest.testing.key_contract import a_key
from customersignal_ingest.testing.planted import USER_ID
from tests.integration.bounds import usual_s
from tests.integration.servers.postgres import Postgres, psql
from tests.integration.servers.service import Service, done, run, until

EVENT = b'{"event_type":"paid","timestamp":"2026-11-23T10:00:00Z","user_id":"%s","properties":{}}' % USER_ID.encode()
REVOKED_WITHIN_S = 2.0
FLOOD_S = 2.0
WAIT_MAX_S = 0.25
KNOWN = [f"cs_live_k{n:09}_known" for n in range(20)]


@pytest.fixture
def stores(postgres: Postgres, tmp_path: Path) -> dict[str, str]:
    """Keys in PostgreSQL, at the newest schema and with one tenant; events in a file."""
    made = {"PUBLISHER_URL": "sqlite:///events.db", "KEYS_URL": postgres.new_database(), "KEY_PEPPER": "old"}
    for command in (["migrate"], ["tenants", "create", "acme"]):
        done(tmp_path, *command, **made)
    return made


@pytest.fixture
def serve(tmp_path: Path, stores: dict[str, str]) -> Iterator[Callable[..., Service]]:
    services: list[Service] = []

    def start(**variables: str) -> Service:
        services.append(Service(tmp_path, {**stores, "DRAIN_DELAY_S": "0", **variables}))
        return services[-1].ready()

    yield start
    for service in services:
        service.end()


def make_key(folder: Path, stores: dict[str, str], *options: str) -> dict[str, Any]:
    [key] = done(folder, "keys", "create", "--tenant", "acme", *options, **stores)
    return key


def answer(service: Service, key: dict[str, Any]) -> tuple[int, str | None]:
    """Return the status of an event sent with this key, and the code of its error."""
    reply = service.post(key["secret"], EVENT)
    return reply.status_code, reply.json().get("error", {}).get("code")


def seconds_until(service: Service, key: dict[str, Any], code: str) -> float:
    """Send until the answer has this code: every answer before it must be a 202."""
    began_s = time.monotonic()

    def refused() -> bool:
        status, said = answer(service, key)
        assert (status, said) in ((202, None), (401, code))
        return status == 401

    until(refused)
    return time.monotonic() - began_s


def test_a_revoked_key_is_refused_within_two_seconds_whatever_is_remembered_of_it(
    serve: Callable[..., Service], stores: dict[str, str], tmp_path: Path
) -> None:
    service = serve(KEYS_TTL_S="3600")
    key = make_key(tmp_path, stores)
    assert answer(service, key) == (202, None)

    done(tmp_path, "keys", "revoke", key["key_id"], **stores)

    assert seconds_until(service, key, "API_KEY_REVOKED") < REVOKED_WITHIN_S


def test_a_rotated_key_is_good_until_its_grace_is_over_and_its_successor_at_once(
    serve: Callable[..., Service], stores: dict[str, str], tmp_path: Path
) -> None:
    service = serve()
    old = make_key(tmp_path, stores)

    [new] = done(tmp_path, "keys", "rotate", old["key_id"], "--grace", "3s", **stores)

    assert answer(service, new) == (202, None)
    assert seconds_until(service, old, "API_KEY_EXPIRED") < 3.5
    assert answer(service, new) == (202, None)


def test_a_key_expires_at_its_moment_although_it_is_remembered(
    serve: Callable[..., Service], stores: dict[str, str], tmp_path: Path
) -> None:
    service = serve(KEYS_TTL_S="3600")
    key = make_key(tmp_path, stores, "--expires-in", "4s")
    assert answer(service, key) == (202, None)

    seconds_until(service, key, "API_KEY_EXPIRED")

    late_s = (datetime.now(UTC) - datetime.fromisoformat(key["expires_at"])).total_seconds()
    assert 0 <= late_s < 1


def test_a_pepper_is_changed_step_by_step_with_no_client_noticing(
    serve: Callable[..., Service], stores: dict[str, str], tmp_path: Path
) -> None:
    """The routine of docs/security.md, as written there."""
    first = make_key(tmp_path, stores)

    service = serve(KEY_PEPPER="new,old")  # Both everywhere, before a key is made with the new one.
    both = {**stores, "KEY_PEPPER": "new,old"}
    [second] = done(tmp_path, "keys", "rotate", first["key_id"], "--grace", "30d", **both)
    assert [answer(service, key) for key in (first, second)] == [(202, None)] * 2
    listed = {key["key_id"]: key["pepper"] for key in done(tmp_path, "keys", "list", **both)}
    assert listed == {first["key_id"]: "second", second["key_id"]: "first"}
    done(tmp_path, "keys", "revoke", first["key_id"], **both)
    service.stop()

    service = serve(KEY_PEPPER="new")
    assert answer(service, second) == (202, None)
    assert answer(service, first) == (401, "API_KEY_INVALID")


def test_no_command_but_the_one_that_makes_a_key_shows_it(stores: dict[str, str], tmp_path: Path) -> None:
    key = make_key(tmp_path, stores)

    commands = [["keys", "list"], ["keys", "revoke", key["key_id"]], ["config"], ["check"], ["--debug", "keys", "list"]]
    ended = [run(tmp_path, *command, **stores) for command in commands]

    shown = json.dumps([[each.stdout, each.stderr] for each in ended])
    assert key["key_id"] in shown
    assert key["secret"] not in shown
    assert key["secret"].split("_")[3] not in shown


async def refused(cached: CachedKeys, secret: str) -> KeyProblem | None:
    """Return what is wrong with this key, if anything."""
    try:
        await authenticate(secret, keys=cached, peppers=(b"pepper",), now=lambda: datetime.now(UTC))
    except Unauthenticated as error:
        return error.problem
    return None


async def flood(cached: CachedKeys, strangers: Iterator[int]) -> list[float]:
    """Try keys that nobody knows, as many as a hundred clients can; return what known keys waited meanwhile."""
    loop, over, waits_s = asyncio.get_running_loop(), asyncio.Event(), list[float]()

    async def stranger() -> None:
        while not over.is_set():
            assert await refused(cached, f"cs_live_k{next(strangers):09}_unknown") is KeyProblem.INVALID

    async with asyncio.TaskGroup() as tasks:
        for _ in range(100):
            tasks.create_task(stranger())
        until_s = loop.time() + FLOOD_S
        while (asked_s := loop.time()) < until_s:
            assert await refused(cached, KNOWN[len(waits_s) % len(KNOWN)]) is None
            waits_s.append(loop.time() - asked_s)
            await asyncio.sleep(0.001)
        over.set()
    return waits_s


async def known_keys(keys: SqlKeys) -> None:
    for n, secret in enumerate(KNOWN):
        await keys.create_tenant(f"tenant{n}")
        await keys.add_key(a_key(n, tenant_id=f"tenant{n}"), digest(secret, b"pepper"))


def queries_of(url: str) -> int:
    """Return how many statements the sessions that have ended ran in this database, as PostgreSQL counts."""
    database = url.rpartition("/")[2]
    return int(psql(url, f"SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = '{database}'"))


@pytest.mark.alone
@pytest.mark.anyio
async def test_a_flood_of_unknown_keys_is_few_queries_and_slows_no_known_key(stores: dict[str, str]) -> None:
    url, strangers, floods = stores["KEYS_URL"], count(), 0
    keys = open_key_repository(url, settings=AdapterSettings())
    await known_keys(keys)
    # Known keys have to be confirmed again and again, amid the flood.
    cached = CachedKeys(keys, ttl_s=0.2, stale_s=900, clock=asyncio.get_running_loop().time)
    before = queries_of(url)

    async def p99_s() -> float:
        nonlocal floods
        floods += 1
        waits_s = sorted(await flood(cached, strangers))
        return waits_s[int(len(waits_s) * 0.99)]

    wait_s = await usual_s(p99_s, within_s=WAIT_MAX_S)
    await keys.close()
    tried, queries = next(strangers), queries_of(url) - before
    assert wait_s < WAIT_MAX_S
    assert queries <= floods * FLOOD_S / APART_S * 1.1 + 20
    assert tried > 5 * queries  # Or else there was no flood.
