"""Memory: as few looks for garbage as it takes, and what a crowd leaves behind given back when there is quiet."""

import asyncio
import ctypes
import gc
from collections.abc import Callable

# What is in flight is no garbage, and what has been answered goes without the collector, which is for cycles
# alone: a look after every 700 new objects, which is Python's own choice, goes through all that is in flight.
GARBAGE_THRESHOLDS = (50_000, 20, 20)
QUIET_LOOK_S = 5.0
"""How often it is looked whether there is quiet."""


def look_for_garbage_seldom() -> None:
    """Take for permanent what is there now, and look seldom through what comes."""
    gc.freeze()  # To look through it again and again would only delay answers.
    gc.set_threshold(*GARBAGE_THRESHOLDS)


async def give_back_when_quiet(busy: Callable[[], bool], /, *, trim: Callable[[int], object] | None = None) -> None:
    """Hand free memory back to the system each time that nobody is `busy`, until cancelled.

    glibc keeps it otherwise, in pieces between what is still used; `trim` is its `malloc_trim`, which takes a
    millisecond. Another libc gives back by itself, or not at all.
    """
    trim = trim or getattr(ctypes.CDLL(None), "malloc_trim", None)
    while trim is not None:
        await asyncio.sleep(QUIET_LOOK_S)
        if not busy():
            trim(0)
