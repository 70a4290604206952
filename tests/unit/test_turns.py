"""However much there is to compute, the event loop comes round in between."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from simulated_time import SimulatedLoop

from customersignal_ingest.turns import SMALL_BYTES, Turns

ROUND = 100_000
LARGE = ROUND // 4


class Work:
    """Callers who note in which round of the loop they had their turn."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self.turns = Turns(bytes_per_round=ROUND)
        self.done: list[tuple[str, int]] = []

    async def one(self, name: str, *sizes: int) -> None:
        for size in sizes:
            await self.turns(size)
            self.done.append((name, self._loop.turns))

    @property
    def rounds(self) -> list[int]:
        return [number for _, number in self.done]

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.done]


def worked(*callers: tuple[str, list[int]]) -> Work:
    loop = SimulatedLoop()
    work = Work(loop)

    async def all_at_once() -> None:
        await asyncio.gather(*(work.one(name, *sizes) for name, sizes in callers))

    _run(loop, all_at_once())
    return work


def _run(loop: SimulatedLoop, coroutine: Coroutine[Any, Any, None]) -> None:
    try:
        loop.run_until_complete(coroutine)
    finally:
        loop.close()


def busiest(work: Work) -> int:
    return max(work.rounds.count(number) for number in set(work.rounds))


def test_as_much_as_fits_into_a_round_is_done_in_one() -> None:
    assert len(set(worked(*[(f"c{n}", [LARGE]) for n in range(4)]).rounds)) == 1


@pytest.mark.parametrize("callers", [1, 7, 40])
def test_no_round_has_much_more_than_its_share(callers: int) -> None:
    work = worked(*[(f"c{n}", [LARGE] * 6) for n in range(callers)])

    # What is let through at once, and what waited and has its turn in the same round.
    assert busiest(work) <= 2 * ROUND // LARGE
    assert len(work.done) == 6 * callers


def test_what_is_larger_than_a_round_has_its_turn_all_the_same() -> None:
    work = worked(("a", [ROUND * 5, ROUND * 5]), ("b", [ROUND * 5]))

    assert len(set(work.rounds)) == 3


def test_turns_come_in_the_order_in_which_they_were_asked_for() -> None:
    work = worked(*[(f"c{n}", [ROUND, ROUND]) for n in range(5)])

    # The first one asks again before anyone else has asked at all.
    assert work.names == ["c0", *["c0", "c1", "c2", "c3", "c4"], *["c1", "c2", "c3", "c4"]]


def test_what_is_small_waits_for_nobody() -> None:
    work = worked(*[(f"c{n}", [ROUND] * 3) for n in range(5)], ("small", [SMALL_BYTES]))

    assert work.names.index("small") <= 2


def test_one_who_gives_up_waiting_holds_up_nobody() -> None:
    loop = SimulatedLoop()
    work = Work(loop)

    async def one_gives_up() -> None:
        tasks = [asyncio.create_task(work.one(f"c{n}", ROUND)) for n in range(4)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    _run(loop, one_gives_up())

    assert work.names == ["c0", "c2", "c3"]


def test_when_all_is_done_the_loop_is_left_alone() -> None:
    loop = SimulatedLoop()
    work = Work(loop)

    async def then_sleep() -> None:
        await work.one("a", ROUND, ROUND)
        before = loop.turns
        await asyncio.sleep(3600)
        assert loop.turns - before <= 3

    _run(loop, then_sleep())
