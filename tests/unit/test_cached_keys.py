"""Known keys work while their database is away; unknown ones are never let in and never turned away for it."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_time import everyone_waits, run

from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.key import ApiKey, Digest, Tenant
from customersignal_ingest.policies import MOMENT_S, CachedKeys

AT = datetime(2026, 11, 23, 10, tzinfo=UTC)
KEY = ApiKey(key_id="k1", tenant=Tenant(tenant_id="acme"))
REVOKED = replace(KEY, revoked_at=AT)
GOOD, OTHER = b"good", b"other"
TTL_S, STALE_S, UNKNOWN_TTL_S, RETRY_S = 30.0, 900.0, 5.0, 1.0


class Database:
    """A key repository that can be away or slow, and counts."""

    def __init__(self) -> None:
        self.keys: dict[Digest, ApiKey] = {GOOD: KEY}
        self.away = False
        self.looked_up = 0
        self.at_work = 0
        self.most_at_work = 0
        self.answers_after_s = 0.0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def find(self, digest: Digest, /) -> ApiKey | None:
        self.looked_up += 1
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        found, away = self.keys.get(digest), self.away  # What is read is the state of the beginning.
        try:
            await self.may_answer.wait()
            if self.answers_after_s:
                await asyncio.sleep(self.answers_after_s)
        finally:
            self.at_work -= 1
        if away:
            raise Unavailable("away")
        return found


class Cache:
    """A cache over a database, and the loop's time."""

    def __init__(self, **options: Any) -> None:
        self.database = Database()
        self.seen: list[str] = []
        self.keys = CachedKeys(
            self.database,
            ttl_s=TTL_S,
            stale_s=STALE_S,
            clock=asyncio.get_running_loop().time,
            observe=self.seen.append,
            unknown_ttl_s=UNKNOWN_TTL_S,
            retry_s=RETRY_S,
            **options,
        )

    async def ask(self, digest: Digest = GOOD) -> ApiKey | str | None:
        try:
            return await self.keys.find(digest)
        except Unavailable:
            return "unavailable"


def simulated(story: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def test() -> None:
        run(story())

    test.__name__ = story.__name__
    return test


@simulated
async def test_a_known_key_is_not_looked_up_again_within_its_time() -> None:
    cache = Cache()
    await cache.ask()
    await asyncio.sleep(TTL_S - 0.1)
    assert (await cache.ask(), cache.database.looked_up) == (KEY, 1)


@simulated
async def test_a_known_key_is_looked_up_again_after_its_time() -> None:
    cache = Cache()
    await cache.ask()
    cache.database.keys[GOOD] = REVOKED
    await asyncio.sleep(TTL_S)
    assert await cache.ask() == REVOKED


@simulated
async def test_a_key_is_as_old_as_the_question_about_it() -> None:
    cache = Cache()
    cache.database.may_answer.clear()
    slow = asyncio.create_task(cache.ask())
    await everyone_waits()
    cache.database.keys[GOOD] = REVOKED
    await asyncio.sleep(TTL_S - 1)
    cache.database.may_answer.set()
    assert await slow == KEY
    await asyncio.sleep(1)
    assert await cache.ask() == REVOKED


@simulated
async def test_a_key_that_was_taken_away_is_unknown_after_its_time() -> None:
    cache = Cache()
    await cache.ask()
    del cache.database.keys[GOOD]
    await asyncio.sleep(TTL_S)
    assert await cache.ask() is None


@simulated
async def test_a_key_that_was_taken_away_is_not_good_while_the_database_is_away() -> None:
    cache = Cache()
    await cache.ask()
    del cache.database.keys[GOOD]
    await asyncio.sleep(TTL_S)
    assert await cache.ask() is None
    cache.database.away = True
    await asyncio.sleep(UNKNOWN_TTL_S)
    assert await cache.ask() == "unavailable"


@simulated
async def test_a_known_key_is_good_while_the_database_is_away() -> None:
    cache = Cache()
    await cache.ask()
    cache.database.away = True
    await asyncio.sleep(STALE_S - 1)
    assert await cache.ask() == KEY


@simulated
async def test_a_known_key_is_not_good_for_ever_while_the_database_is_away() -> None:
    cache = Cache()
    await cache.ask()
    cache.database.away = True
    await asyncio.sleep(STALE_S)
    assert await cache.ask() == "unavailable"


@simulated
async def test_a_known_key_is_confirmed_once_the_database_is_back() -> None:
    cache = Cache()
    await cache.ask()
    cache.database.away = True
    await asyncio.sleep(STALE_S)
    await cache.ask()
    cache.database.away = False
    await asyncio.sleep(RETRY_S)
    assert await cache.ask() == KEY


@simulated
async def test_a_revoked_key_stays_revoked_while_the_database_is_away() -> None:
    cache = Cache()
    cache.database.keys[GOOD] = REVOKED
    await cache.ask()
    cache.database.away = True
    await asyncio.sleep(TTL_S)
    assert await cache.ask() == REVOKED


@simulated
async def test_a_key_never_seen_can_not_be_told_while_the_database_is_away() -> None:
    cache = Cache()
    cache.database.away = True
    assert await cache.ask() == "unavailable"


@simulated
async def test_a_database_that_is_away_is_left_alone_for_a_while() -> None:
    cache = Cache()
    await cache.ask()
    cache.database.away = True
    await asyncio.sleep(TTL_S)
    for _ in range(100):
        await cache.ask()
    assert cache.database.looked_up == 2


@simulated
async def test_of_those_who_ask_while_the_database_is_frozen_only_the_first_waits_for_it() -> None:
    cache, time_s = Cache(), asyncio.get_running_loop().time
    await cache.ask()
    cache.database.away, cache.database.answers_after_s = True, 1.0
    await asyncio.sleep(TTL_S)
    waited_s = []
    for _ in range(100):
        began_s = time_s()
        assert await cache.ask() == KEY
        waited_s.append(time_s() - began_s)
        await asyncio.sleep(0.1)
    assert waited_s[0] == pytest.approx(1.0)
    assert max(waited_s[1:]) <= 0.051
    assert cache.database.looked_up > 5


@simulated
async def test_a_key_that_gets_too_old_in_the_moment_of_waiting_waits_for_the_answer() -> None:
    cache = Cache()
    await cache.ask()
    cache.database.away = True
    await asyncio.sleep(STALE_S - 10)
    assert await cache.ask() == KEY
    cache.database.away, cache.database.answers_after_s = False, 0.3
    await asyncio.sleep(10 - MOMENT_S / 2)
    assert (await cache.ask(), cache.seen) == (KEY, ["miss", "stale", "miss"])


@simulated
async def test_a_key_that_is_stale_no_more_waits_for_a_slow_database_even_after_a_failure() -> None:
    cache = Cache()
    await cache.ask()
    cache.database.away = True
    await asyncio.sleep(TTL_S)
    await cache.ask()
    await asyncio.sleep(STALE_S)
    cache.database.away, cache.database.answers_after_s = False, 0.5
    assert await cache.ask() == KEY


@simulated
async def test_an_unknown_key_is_remembered_for_a_short_time() -> None:
    cache = Cache()
    await cache.ask(OTHER)
    await asyncio.sleep(UNKNOWN_TTL_S - 0.1)
    assert (await cache.ask(OTHER), cache.database.looked_up) == (None, 1)


@simulated
async def test_an_unknown_key_is_looked_up_again_after_that() -> None:
    cache = Cache()
    await cache.ask(OTHER)
    cache.database.keys[OTHER] = KEY
    await asyncio.sleep(UNKNOWN_TTL_S)
    assert await cache.ask(OTHER) == KEY


@simulated
async def test_an_unknown_key_is_never_good_while_the_database_is_away() -> None:
    cache = Cache()
    await cache.ask(OTHER)
    cache.database.away = True
    await asyncio.sleep(UNKNOWN_TTL_S)
    assert await cache.ask(OTHER) == "unavailable"


@pytest.mark.parametrize("announced", [GOOD, None])
def test_an_announced_change_is_seen_at_once(announced: Digest | None) -> None:
    async def seen() -> ApiKey | str | None:
        cache = Cache()
        await cache.ask()
        cache.database.keys[GOOD] = REVOKED
        cache.keys.forget(announced)
        return await cache.ask()

    assert run(seen()) == REVOKED


@pytest.mark.parametrize("announced", [OTHER, None])
def test_an_announced_new_key_is_seen_at_once(announced: Digest | None) -> None:
    async def seen() -> ApiKey | str | None:
        cache = Cache()
        await cache.ask(OTHER)
        cache.database.keys[OTHER] = KEY
        cache.keys.forget(announced)
        return await cache.ask(OTHER)

    assert run(seen()) == KEY


@pytest.mark.parametrize(("digest", "changed"), [(GOOD, REVOKED), (OTHER, KEY)])
def test_what_was_read_while_a_change_was_announced_is_not_trusted(digest: Digest, changed: ApiKey) -> None:
    async def seen() -> ApiKey | str | None:
        cache = Cache()
        cache.database.may_answer.clear()
        slow = asyncio.create_task(cache.ask(digest))
        await everyone_waits()
        cache.database.keys[digest] = changed
        cache.keys.forget(digest)
        cache.database.may_answer.set()
        await slow
        return await cache.ask(digest)

    assert run(seen()) == changed


@simulated
async def test_an_announced_change_leaves_a_key_good_while_the_database_is_away() -> None:
    cache = Cache()
    await cache.ask()
    cache.database.away = True
    cache.keys.forget(None)
    assert await cache.ask() == KEY


@simulated
async def test_look_ups_of_one_key_at_once_are_shared() -> None:
    cache = Cache()
    assert await asyncio.gather(*[cache.ask() for _ in range(50)]) == [KEY] * 50
    assert cache.database.looked_up == 1


@simulated
async def test_a_client_that_leaves_takes_no_answer_from_others() -> None:
    cache = Cache()
    cache.database.may_answer.clear()
    first, second = asyncio.create_task(cache.ask()), asyncio.create_task(cache.ask())
    await everyone_waits()
    first.cancel()
    await everyone_waits()
    cache.database.may_answer.set()
    assert await second == KEY


@simulated
async def test_a_look_up_that_fails_with_nobody_waiting_is_heard_all_the_same() -> None:
    cache = Cache()
    cache.database.away = True
    cache.database.may_answer.clear()
    left = asyncio.create_task(cache.ask())
    await everyone_waits()
    left.cancel()
    cache.database.may_answer.set()
    await everyone_waits()
    assert len(asyncio.all_tasks()) == 1


@simulated
async def test_a_flood_of_unknown_keys_is_capped() -> None:
    cache = Cache(lookups_max=3)
    cache.database.may_answer.clear()
    flood = [asyncio.create_task(cache.ask(b"%d" % n)) for n in range(50)]
    await everyone_waits()
    cache.database.may_answer.set()
    answers = await asyncio.gather(*flood)
    assert (answers.count("unavailable"), cache.database.most_at_work) == (47, 3)


@simulated
async def test_a_flood_of_unknown_keys_keeps_no_known_key_from_being_confirmed() -> None:
    cache = Cache(lookups_max=3)
    await cache.ask()
    await asyncio.sleep(TTL_S)
    cache.database.may_answer.clear()
    flood = [asyncio.create_task(cache.ask(b"%d" % n)) for n in range(50)]
    known = asyncio.create_task(cache.ask())
    await everyone_waits()
    cache.database.may_answer.set()
    await asyncio.gather(*flood)
    assert await known == KEY


@simulated
async def test_a_flood_of_unknown_keys_pushes_no_known_key_out() -> None:
    cache = Cache(entries_max=10)
    await cache.ask()
    for n in range(100):
        await cache.ask(b"%d" % n)
    asked = cache.database.looked_up
    assert (await cache.ask(), cache.database.looked_up) == (KEY, asked)


@simulated
async def test_unknown_keys_that_can_not_be_told_put_off_no_revocation() -> None:
    """Where look-ups of others fail again and again, a known key is asked for all the same."""
    cache = Cache()
    await cache.ask()
    cache.database.keys[GOOD] = REVOKED
    await asyncio.sleep(TTL_S)
    cache.database.away = True
    await cache.ask(OTHER)
    cache.database.away = False
    assert await cache.ask() == REVOKED


@simulated
async def test_ten_thousand_unknown_keys_a_second_hold_up_no_known_key() -> None:
    """Known keys are answered from memory, a key due to be confirmed as fast as the repository can."""
    cache = Cache()
    time_s, waits_s, flood = asyncio.get_running_loop().time, [], list[asyncio.Task[Any]]()
    await cache.ask()
    await asyncio.sleep(TTL_S - 0.5)  # In the midst of the flood, it has to be confirmed.
    cache.database.answers_after_s = 0.005
    for n in range(10_000):
        flood.append(asyncio.create_task(cache.ask(b"%d" % n)))
        if n % 100 == 0:
            began_s = time_s()
            assert await cache.ask() == KEY
            waits_s.append(time_s() - began_s)
        await asyncio.sleep(0.0001)
    assert sorted(waits_s)[-2:] == pytest.approx([0, 0.005])
    assert cache.database.most_at_work <= 60
    assert set(await asyncio.gather(*flood)) == {None}


@simulated
async def test_each_look_up_is_counted_by_how_it_ended() -> None:
    cache = Cache()
    await cache.ask()
    await cache.ask()
    await cache.ask(OTHER)
    cache.database.away = True
    await asyncio.sleep(TTL_S)
    await cache.ask()
    await cache.ask(OTHER)
    assert cache.seen == ["miss", "hit", "unknown", "stale", "unavailable"]


STEPS = st.one_of(
    st.sampled_from([GOOD, OTHER]).map(lambda digest: ("ask", digest)),
    st.sampled_from([0.5, RETRY_S, UNKNOWN_TTL_S, TTL_S, STALE_S / 2]).map(lambda seconds: ("pass", seconds)),
    st.sampled_from([("away", True), ("away", False), ("revoke", GOOD), ("forget", None)]),
)


@given(st.lists(STEPS, max_size=30))
def test_whatever_happens_an_answer_is_one_that_the_contract_allows(steps: list[tuple[str, Any]]) -> None:
    assert run(wrong_answers(steps)) == []


async def wrong_answers(steps: list[tuple[str, Any]]) -> list[str]:
    """Play the steps, and return every answer that can't be defended."""
    cache, wrong, time_s = Cache(), [], asyncio.get_running_loop().time
    confirmed_at_s, revoked_at_s, back_at_s = float("-inf"), float("inf"), 0.0
    for step, what in steps:
        if step == "pass":
            await asyncio.sleep(what)
        elif step == "away":
            back_at_s = time_s() if cache.database.away and not what else back_at_s
            cache.database.away = what
        elif step == "revoke":
            cache.database.keys[GOOD], revoked_at_s = REVOKED, min(revoked_at_s, time_s())
        elif step == "forget":
            cache.keys.forget(None)
        elif what == OTHER:
            if (answer := await cache.ask(OTHER)) not in (None, "unavailable"):
                wrong.append(f"an unknown key got {answer}")
        else:
            before, answer = cache.database.looked_up, await cache.ask(GOOD)
            if answer is None:
                wrong.append("a known key was unknown")
            if answer == "unavailable" and time_s() - confirmed_at_s < STALE_S:
                wrong.append("a known key was not good while the database was away")
            if answer == "unavailable" and not cache.database.away and time_s() - back_at_s >= RETRY_S:
                wrong.append("a known key was not good long after the database was back")
            if answer == KEY and time_s() - confirmed_at_s >= STALE_S and before == cache.database.looked_up:
                wrong.append("a key was good for too long without being confirmed")
            up_since_s = max(revoked_at_s, back_at_s)
            if answer == KEY and not cache.database.away and time_s() - up_since_s > TTL_S:
                wrong.append("a revoked key was good for too long")
            if before != cache.database.looked_up and not cache.database.away:
                confirmed_at_s = time_s()
    return wrong
