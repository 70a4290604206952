"""Memory goes back to the system when there is quiet, in simulated time."""

import asyncio

from simulated_time import run

from customersignal_ingest.serve.memory import QUIET_LOOK_S, give_back_when_quiet


def test_memory_is_given_back_each_time_that_nobody_is_busy() -> None:
    async def looks(*busy: bool) -> list[int]:
        given: list[int] = []
        is_busy = iter(busy)
        giving = asyncio.create_task(give_back_when_quiet(lambda: next(is_busy), trim=given.append))
        await asyncio.sleep(QUIET_LOOK_S * len(busy) + 1)
        giving.cancel()
        return given

    assert run(looks(True, True)) == []
    assert run(looks(False, True, False)) == [0, 0]


def test_with_the_libc_that_is_here_it_goes_on_until_it_is_cancelled_or_ends_at_once() -> None:
    async def goes_on() -> None:
        giving = asyncio.create_task(give_back_when_quiet(lambda: False))
        await asyncio.sleep(3 * QUIET_LOOK_S)
        if giving.done():
            await giving
        giving.cancel()

    run(goes_on())
