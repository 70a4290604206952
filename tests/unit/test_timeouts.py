"""Our time-out with one timer does what asyncio's does with one each, in simulated time."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_time import SimulatedLoop, everyone_waits, run

from customersignal_ingest.timeouts import Timeout

SECONDS = 10.0


@dataclass(frozen=True)
class Caller:
    """Begins a block after a while, takes a while for it, and may be cancelled from outside."""

    begins_s: float
    takes_s: float
    cancelled_s: float | None
    swallows: bool


halves = st.integers(0, 60).map(lambda number: number / 2)
callers = st.lists(
    st.builds(
        Caller,
        begins_s=halves,
        takes_s=halves,
        cancelled_s=st.none() | halves.map(lambda seconds: seconds + 0.25),
        swallows=st.booleans(),
    ),
    max_size=8,
)

Enter = Callable[[], Any]


async def of_ours(within: Timeout, takes_s: float, *, swallows: bool) -> None:
    with within():
        await taking(takes_s, swallows=swallows)


async def of_asyncio(takes_s: float, *, swallows: bool) -> None:
    async with asyncio.timeout(SECONDS):
        await taking(takes_s, swallows=swallows)


async def taking(seconds: float, *, swallows: bool) -> None:
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        if not swallows:
            raise


async def what_became_of(them: list[Caller], block: Callable[..., Any]) -> list[tuple[str, float, int]]:
    loop = asyncio.get_running_loop()

    async def call(caller: Caller) -> tuple[str, float, int]:
        task = asyncio.current_task()
        assert task is not None
        try:
            await asyncio.sleep(caller.begins_s)
            await block(caller.takes_s, swallows=caller.swallows)
        except (TimeoutError, asyncio.CancelledError) as error:
            return type(error).__name__, loop.time(), task.cancelling()
        return "done", loop.time(), task.cancelling()

    tasks = [asyncio.create_task(call(caller)) for caller in them]
    for caller, task in zip(them, tasks, strict=True):
        if caller.cancelled_s is not None:
            loop.call_at(caller.cancelled_s, task.cancel)
    await asyncio.wait(tasks)
    return [("never began", 0.0, 1) if task.cancelled() else task.result() for task in tasks]


@given(callers.filter(bool))
def test_every_block_ends_as_with_a_timer_of_its_own(them: list[Caller]) -> None:
    timeout = Timeout(SECONDS)

    async def ours(takes_s: float, *, swallows: bool) -> None:
        await of_ours(timeout, takes_s, swallows=swallows)

    assert run(what_became_of(them, ours)) == run(what_became_of(them, of_asyncio))


def test_ten_thousand_blocks_have_one_timer() -> None:
    timeout = Timeout(SECONDS)

    async def timers() -> int:
        tasks = [asyncio.create_task(of_ours(timeout, 1e9, swallows=False)) for _ in range(10_000)]
        await everyone_waits()
        waiting = len(asyncio.get_running_loop()._scheduled)  # type: ignore[attr-defined]  # asyncio keeps it to itself
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return waiting - len(tasks)  # Each sleeps, too.

    assert run(timers()) <= 1


def test_a_loop_that_ended_takes_nothing_along() -> None:
    timeout = Timeout(SECONDS)
    ended = SimulatedLoop()
    left = ended.create_task(of_ours(timeout, 1e9, swallows=False))
    ended.run_until_complete(asyncio.sleep(1))
    left.cancel()
    ended.close()

    async def too_slow() -> float:
        with pytest.raises(TimeoutError):
            await of_ours(timeout, 1e9, swallows=False)
        return asyncio.get_running_loop().time()

    assert run(too_slow()) == SECONDS


def test_without_a_task_there_is_nobody_to_cancel() -> None:
    with pytest.raises(RuntimeError):
        Timeout(SECONDS)().__enter__()
