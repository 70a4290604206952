"""Look-ups that share queries, in simulated time: bounded for the database, and short for whoever asks."""

import asyncio
from collections.abc import Mapping, Sequence
from itertools import pairwise

import pytest

from customersignal_ingest.adapters.outbound.sql.look_ups import APART_S, TOGETHER_MAX, LookUps
from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.key import Digest
from tests.unit.simulated_time import everyone_waits, run

QUERY_S = 0.005


class Database:
    """Knows the digests that begin with a 1, and keeps what it was asked."""

    def __init__(self) -> None:
        self.queries: list[Sequence[Digest]] = []
        self.began_s: list[float] = []
        self.away = False

    async def read(self, digests: Sequence[Digest]) -> Mapping[Digest, str]:
        self.queries.append(digests)
        self.began_s.append(asyncio.get_running_loop().time())
        await asyncio.sleep(QUERY_S)
        if self.away:
            raise Unavailable("away")
        return {digest: digest.decode() for digest in digests if digest.startswith(b"1")}


async def timed(look_ups: LookUps[str], digest: Digest) -> tuple[str | None, float]:
    clock = asyncio.get_running_loop().time
    began_s = clock()
    return await look_ups.find(digest), clock() - began_s


def test_a_look_up_alone_waits_for_nobody() -> None:
    database = Database()

    assert run(timed(LookUps(database.read), b"1")) == ("1", pytest.approx(QUERY_S))
    assert database.queries == [[b"1"]]


def test_look_ups_at_the_same_moment_share_a_query_and_each_gets_its_own_answer() -> None:
    database = Database()

    async def ask() -> list[str | None]:
        look_ups = LookUps(database.read)
        return await asyncio.gather(*(look_ups.find(b"%d" % n) for n in range(20)))

    assert run(ask()) == [str(n) if str(n).startswith("1") else None for n in range(20)]
    assert len(database.queries) == 1


def test_queries_have_few_sizes_so_that_few_statements_are_prepared() -> None:
    database = Database()

    async def ask(many: int) -> None:
        look_ups = LookUps(database.read)
        await asyncio.gather(*(look_ups.find(b"%d" % n) for n in range(many)))

    for many in (1, 2, 3, 5, 100, TOGETHER_MAX):
        run(ask(many))

    assert [len(digests) for digests in database.queries] == [1, 2, 4, 8, 128, TOGETHER_MAX]


def test_no_query_asks_for_more_than_it_may() -> None:
    database = Database()

    async def ask() -> list[str | None]:
        look_ups = LookUps(database.read)
        return await asyncio.gather(*(look_ups.find(b"1%d" % n) for n in range(3 * TOGETHER_MAX)))

    assert run(ask()) == [f"1{n}" for n in range(3 * TOGETHER_MAX)]
    assert [len(digests) for digests in database.queries] == [TOGETHER_MAX] * 3


def test_a_flood_is_a_bounded_number_of_queries_and_holds_nobody_up() -> None:
    """Ten thousand keys a second that nobody knows, and beside them somebody whose key is known."""
    database = Database()

    async def flood() -> float:
        look_ups, waits_s, strangers = LookUps(database.read), [], set[asyncio.Task[object]]()
        for n in range(10_000):
            strangers.add(asyncio.create_task(look_ups.find(b"2%d" % n)))
            if n % 100 == 0:
                known = asyncio.create_task(timed(look_ups, b"1%d" % n))
                known.add_done_callback(lambda task: waits_s.append(task.result()))
            await asyncio.sleep(0.0001)
        await asyncio.gather(*strangers)
        assert all(answer is not None for answer, _ in waits_s)
        return max(wait_s for _, wait_s in waits_s)

    assert run(flood()) <= APART_S + QUERY_S + 0.001
    assert len(database.queries) <= 1 / APART_S + 1
    assert all(later - earlier >= APART_S * 0.999 for earlier, later in pairwise(database.began_s))


def test_a_query_that_fails_fails_for_those_who_shared_it_and_for_nobody_else() -> None:
    database = Database()

    async def ask() -> str | None:
        look_ups = LookUps(database.read)
        database.away = True
        failed = await asyncio.gather(*(look_ups.find(b"1%d" % n) for n in range(3)), return_exceptions=True)
        database.away = False
        assert [type(error) for error in failed] == [Unavailable] * 3
        return await look_ups.find(b"1")

    assert run(ask()) == "1"


def test_a_client_that_leaves_takes_no_answer_from_others() -> None:
    async def ask() -> str | None:
        look_ups = LookUps(Database().read)
        leaving, staying = asyncio.create_task(look_ups.find(b"1")), asyncio.create_task(look_ups.find(b"1"))
        await everyone_waits()
        leaving.cancel()
        return await staying

    assert run(ask()) == "1"


def test_a_failure_with_nobody_left_to_hear_it_is_heard_all_the_same() -> None:
    async def left() -> int:
        database = Database()
        database.away = True
        look_up = asyncio.create_task(LookUps(database.read).find(b"1"))
        await everyone_waits()
        look_up.cancel()
        await asyncio.sleep(QUERY_S)
        return len(asyncio.all_tasks())

    assert run(left()) == 1
