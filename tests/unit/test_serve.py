"""The end of a server: what it waits for, and what its exit code says."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from simulated_time import run

from customersignal_ingest.bootstrap import Container
from customersignal_ingest.serve.server import ANSWERS_MARGIN_S, _Server
from customersignal_ingest.settings import Settings

SETTINGS = Settings(publisher_url="memory:", keys_url="memory:")


class Closing:
    """A transport whose end is what the test says."""

    def __init__(self, close: Callable[[], Awaitable[bool]]) -> None:
        self.close = close


async def answered() -> bool:
    await asyncio.sleep(SETTINGS.publish_timeout_s)
    return True


async def cut() -> bool:
    return False


async def fails() -> bool:
    raise OSError("a bug of a stranger")


async def hangs() -> bool:
    await asyncio.Event().wait()
    return True


async def drained(*ends: Callable[[], Awaitable[bool]], container: Container | None = None) -> int:
    """Drain a server with these transports, and return its exit code."""
    silence: Any = SimpleNamespace(close=lambda: None)
    server, container = _Server(SETTINGS, silence, lambda _: None, None), container or Container(SETTINGS)
    stop: Any = SimpleNamespace(pause=asyncio.sleep)
    await server._drain(container, [Closing(end) for end in ends], stop)  # type: ignore[misc]  # only `close` is called
    return server._watchdog.exit_code


def test_it_says_that_it_is_not_ready_before_it_lets_nothing_more_in() -> None:
    async def ready_when_it_closes() -> list[bool]:
        container, seen = Container(SETTINGS), list[bool]()
        health = container.health()

        async def look() -> bool:
            seen.append(health.ready)
            return True

        await health.look()
        assert health.ready
        await drained(look, container=container)
        return seen

    assert run(ready_when_it_closes()) == [False]


def test_a_process_whose_requests_all_got_their_answer_ends_with_0() -> None:
    assert run(drained(answered, answered)) == 0


@pytest.mark.parametrize("end", [cut, fails, hangs])
def test_a_process_that_has_cut_requests_ends_with_1(end: Callable[[], Awaitable[bool]]) -> None:
    assert run(drained(answered, end)) == 1


def test_the_answers_are_waited_for_a_moment_longer_than_the_deadline_of_publishing() -> None:
    async def took_s() -> float:
        await drained(hangs)
        return asyncio.get_running_loop().time() - SETTINGS.drain_delay_s

    assert run(took_s()) == pytest.approx(SETTINGS.publish_timeout_s + ANSWERS_MARGIN_S)
