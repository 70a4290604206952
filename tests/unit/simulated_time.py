"""An event loop whose clock stands still while anything can run, and jumps when everything waits."""

import asyncio
import selectors
from typing import Any


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Hours pass in no time, the same way every time. Sleeping means: until all others wait."""

    def __init__(self) -> None:
        super().__init__(_Jumps(self))
        self.now_s = 0.0

    def time(self) -> float:
        return self.now_s


class _Jumps(selectors.SelectSelector):
    def __init__(self, loop: SimulatedLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everything waits, and nothing will ever happen")
        self._loop.now_s += timeout
        return super().select(0)


def runner() -> "asyncio.Runner":
    return asyncio.Runner(loop_factory=SimulatedLoop)


async def everyone_waits() -> None:
    """Return once nobody else can run without time passing."""
    await asyncio.sleep(1e-6)


def run(coroutine: Any) -> Any:
    with runner() as simulated:
        return simulated.run(coroutine)
