"""An event loop whose clock stands still while anything can run, and jumps when everything waits."""

import asyncio
import contextvars
import random
import selectors
from collections.abc import Coroutine
from itertools import count
from typing import Any


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Hours pass in no time, the same way every time. Sleeping means: until all others wait.

    With `shuffle`, what can run at the same moment runs in an order that it draws: every order is
    one that some machine under some load could have, and the same seed gives the same one again.
    `turns` counts how often the loop went round. For no sockets and no threads.
    """

    def __init__(self, shuffle: random.Random | None = None) -> None:
        super().__init__(_Jumps(self))
        self.now_s = 0.0
        self.turns = 0
        self.shuffle = shuffle
        self._numbers = count()
        self.set_task_factory(self._numbered)

    def time(self) -> float:
        return self.now_s

    def _numbered(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> "asyncio.Task[Any]":
        return _Task(coroutine, number=next(self._numbers), loop=loop, **options)


class _Task(asyncio.Task[Any]):
    """A task whose place in a set does not hang on its address in memory; `born_in` is its context."""

    def __init__(self, coroutine: Any, *, number: int, **options: Any) -> None:
        self.number = number
        self.born_in = options.get("context") or contextvars.copy_context()
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self.number


class _Jumps(selectors.SelectSelector):
    """Finds nothing ready, ever; so all that can happen is what the loop has in store."""

    def __init__(self, loop: SimulatedLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        loop = self._loop
        loop.turns += 1
        if timeout is None:
            raise RuntimeError("everything waits, and nothing will ever happen")
        loop.now_s += timeout
        ready: Any = loop._ready  # type: ignore[attr-defined]  # asyncio keeps it to itself
        if loop.shuffle is not None and len(ready) > 1:
            handles = list(ready)
            loop.shuffle.shuffle(handles)
            ready.clear()
            ready.extend(handles)
        return []


def runner(shuffle: random.Random | None = None) -> "asyncio.Runner":
    return asyncio.Runner(loop_factory=lambda: SimulatedLoop(shuffle))


async def everyone_waits() -> None:
    """Return once nobody else can run without time passing."""
    await asyncio.sleep(1e-6)


def run(coroutine: Coroutine[Any, Any, Any], shuffle: random.Random | None = None) -> Any:
    with runner(shuffle) as simulated:
        return simulated.run(coroutine)
