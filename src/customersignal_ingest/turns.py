"""Computing in turns: however much there is to do at once, the event loop comes round in between."""

import asyncio
from collections import deque

BYTES_PER_ROUND = 16 * 1024
"""What is let through in one round of the loop: a millisecond or two of work."""
SMALL_BYTES = 2 * 1024
"""What need not wait: the request around so little costs more than the work on it."""


class Turns:
    """Lets whoever is about to compute go ahead, or wait for one of the next rounds of the loop.

    Without it all batches that are in flight may be parsed in one round, which takes half a second
    with the limits that are usual, and in that time nobody is answered, not even with a "no". Turns
    come in the order in which they were asked for; what is small goes ahead. For one event loop.
    """

    def __init__(self, *, bytes_per_round: int = BYTES_PER_ROUND) -> None:
        """Work is counted by the bytes that it is about."""
        self._bytes_per_round = bytes_per_round
        self._left = bytes_per_round
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._counting = False

    async def __call__(self, size_bytes: int, /) -> None:
        """Return when it is the caller's turn to compute, without a pause, on so many bytes."""
        if size_bytes <= SMALL_BYTES:
            return
        loop = asyncio.get_running_loop()
        if not self._counting:
            self._counting = True
            loop.call_soon(self._next_round)
        if self._left > 0 and not self._waiting:
            self._left -= size_bytes
            return
        turn = loop.create_future()
        self._waiting.append((size_bytes, turn))
        await turn

    def _next_round(self) -> None:
        used = self._left < self._bytes_per_round
        self._left = self._bytes_per_round
        while self._waiting and self._left > 0:
            size_bytes, turn = self._waiting.popleft()
            if not turn.cancelled():
                turn.set_result(None)
                self._left -= size_bytes
        self._counting = used or bool(self._waiting)
        if self._counting:
            asyncio.get_running_loop().call_soon(self._next_round)
