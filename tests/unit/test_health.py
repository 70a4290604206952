"""Readiness, in simulated time: what is looked at, for how long, and what counts as good enough."""

import asyncio

import pytest
from simulated_time import run

from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.health import INTERVAL_S, PING_TIMEOUT_S, Component, Health

GRACE_S = 60.0


class Store:
    """A component that works, fails with an error, or hangs."""

    def __init__(self, error: Exception | None = None, *, hangs: bool = False) -> None:
        self.error, self.hangs = error, hangs
        self.pinged = 0

    async def ping(self) -> None:
        self.pinged += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error


def health_of(store: Store, *, grace_s: float = 0.0) -> Health:
    component = Component(name="store", ping=store.ping, grace_s=grace_s)
    return Health([component], clock=asyncio.get_running_loop().time)


def test_before_the_first_look_nothing_is_ready() -> None:
    async def ready() -> tuple[bool, bool]:
        health = health_of(Store(), grace_s=GRACE_S)
        before = health.ready
        await health.look()
        return before, health.ready

    assert run(ready()) == (False, True)


def test_a_component_that_fails_is_named_with_its_reason() -> None:
    async def seen() -> tuple[bool, str]:
        health = health_of(Store(Unavailable("the topic is missing")))
        await health.look()
        return health.ready, health.states["store"].reason

    assert run(seen()) == (False, "the topic is missing")


def test_a_component_that_does_not_answer_fails_after_two_seconds() -> None:
    async def seen() -> tuple[bool, float]:
        health = health_of(Store(hangs=True))
        await health.look()
        return health.ready, asyncio.get_running_loop().time()

    assert run(seen()) == (False, PING_TIMEOUT_S)


def test_a_component_is_good_enough_for_its_grace_and_no_longer() -> None:
    async def ready() -> list[bool]:
        store = Store()
        health = health_of(store, grace_s=GRACE_S)
        await health.look()
        store.error = Unavailable("away")
        seen = []
        for _ in range(2):
            await asyncio.sleep(GRACE_S - 1)
            await health.look()
            seen.append(health.ready)
        return seen

    assert run(ready()) == [True, False]


def test_grace_is_for_what_has_worked() -> None:
    async def ready() -> bool:
        health = health_of(Store(Unavailable("away")), grace_s=GRACE_S)
        await health.look()
        return health.ready

    assert run(ready()) is False


def test_a_component_that_works_again_is_ready_again() -> None:
    async def ready() -> list[bool]:
        store = Store(Unavailable("away"))
        health = health_of(store)
        watching = asyncio.create_task(health.watch())
        await asyncio.sleep(INTERVAL_S / 2)
        before, store.error = health.ready, None
        await asyncio.sleep(INTERVAL_S)
        watching.cancel()
        return [before, health.ready]

    assert run(ready()) == [False, True]


@pytest.mark.parametrize("error", [Unavailable("away"), ValueError("a bug"), OSError()])
def test_whatever_a_ping_raises_the_watch_goes_on(error: Exception) -> None:
    async def pinged() -> int:
        store = Store(error)
        watching = asyncio.create_task(health_of(store).watch())
        await asyncio.sleep(9.5 * INTERVAL_S)
        watching.cancel()
        await asyncio.wait([watching])
        return store.pinged if watching.cancelled() else -1

    assert run(pinged()) == 10


def test_a_process_that_drains_is_not_ready_whatever_works() -> None:
    async def ready() -> bool:
        health = health_of(Store())
        await health.look()
        health.drain()
        return health.ready

    assert run(ready()) is False
