"""One length of time that many may take at once, with one timer for all of them."""

import asyncio
from types import TracebackType


class Timeout:
    """What `asyncio.timeout` is, for blocks that may take equally long: `with timeout(): ...`.

    asyncio sets a timer and takes it back for each block, which costs an event more than to be encoded. Here
    one timer stands for the block that has gone on for longest, and is set anew only when it rings. For tasks of
    one event loop at a time; a block ends late by no more than the loop's own timers do.
    """

    def __init__(self, seconds: float) -> None:
        """Each block may take so many seconds."""
        self.seconds = seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._blocks: dict[Block, None] = {}  # Whoever is due first comes first.
        self._rings_at: float | None = None

    def __call__(self) -> "Block":
        """Return a block, to be entered once; it raises `TimeoutError` where it takes too long."""
        return Block(self)

    def begin(self, block: "Block", /) -> "asyncio.Task[object]":
        """Watch over this block from now on; returns the task that does it."""
        loop = self._loop
        task = None if loop is None else asyncio.current_task(loop)
        if loop is None or task is None:  # To ask for the loop that runs is a system call, by Python 3.11.
            loop, task = self._begin_anew()
        block.due = loop.time() + self.seconds
        self._blocks[block] = None
        if self._rings_at is None:
            self._ring_at(loop, block.due)
        return task

    def _begin_anew(self) -> "tuple[asyncio.AbstractEventLoop, asyncio.Task[object]]":
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if task is None:
            raise RuntimeError("a time-out is for a task")
        # What another loop had in store will never come.
        self._loop, self._blocks, self._rings_at = loop, {}, None
        return loop, task

    def end(self, block: "Block", /) -> None:
        """Watch over it no longer."""
        self._blocks.pop(block, None)

    def _ring_at(self, loop: asyncio.AbstractEventLoop, moment: float) -> None:
        self._rings_at = moment
        loop.call_at(moment, self._ring, loop, moment)

    def _ring(self, loop: asyncio.AbstractEventLoop, moment: float) -> None:
        if loop is not self._loop:
            return
        self._rings_at = None
        # A loop may ring a trifle early; then it is late enough.
        now = max(moment, loop.time())
        while self._blocks:
            first = next(iter(self._blocks))
            if first.due > now:
                self._ring_at(loop, first.due)
                return
            self.end(first)
            first.expire()


class Block:
    """What one task does within the time that it has, until `due` on the loop's clock."""

    due: float

    __slots__ = ("_cancelling", "_expired", "_task", "_timeout", "due")

    def __init__(self, timeout: Timeout) -> None:
        """Made by `Timeout`."""
        self._timeout = timeout
        self._expired = False

    def __enter__(self) -> None:
        self._task = task = self._timeout.begin(self)
        self._cancelling = task.cancelling()

    def expire(self) -> None:
        """Cancel the task, which makes of it a `TimeoutError` when it leaves the block."""
        self._expired = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timeout.end(self)
        # As asyncio has it: who was cancelled by somebody else too stays cancelled.
        if self._expired and self._task.uncancel() <= self._cancelling and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error
