"""Looking up many keys with few queries: whoever waits for the next one shares it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from customersignal_ingest.domain.key import Digest

APART_S = 0.01
"""Queries begin this far apart at the least: a hundred a second, however many keys are asked for."""
TOGETHER_MAX = 512
"""How many digests one query asks for."""

T = TypeVar("T")


@dataclass(slots=True)
class _Query(Generic[T]):
    digests: set[Digest] = field(default_factory=set, repr=False)
    answer: "asyncio.Task[Mapping[Digest, T]]" = field(init=False)


class LookUps(Generic[T]):
    """Finds by digest what one `read` finds for many of them. For one event loop.

    A look-up alone begins at once. In a flood of keys that nobody knows each costs a place in the next
    query, so that the database has a bounded number of queries, and a key of somebody else waits no
    longer than for one of them.
    """

    def __init__(self, read: Callable[[Sequence[Digest]], Awaitable[Mapping[Digest, T]]], /) -> None:
        """`read` gets as many digests as some power of two, some of them repeated: few statements to prepare."""
        self._read = read
        self._next: _Query[T] | None = None
        self._free_at_s = float("-inf")

    async def find(self, digest: Digest, /) -> T | None:
        """Return what is found for this digest, or raise what `read` raises."""
        query = self._next
        if query is None or len(query.digests) == TOGETHER_MAX:
            query = self._next = _Query()
            query.answer = asyncio.create_task(self._ask(query))
            query.answer.add_done_callback(_heard)
        query.digests.add(digest)
        # A client that leaves must not take the answer from the others.
        return (await asyncio.shield(query.answer)).get(digest)

    async def _ask(self, query: _Query[T]) -> Mapping[Digest, T]:
        now_s = asyncio.get_running_loop().time()
        begins_at_s = max(now_s, self._free_at_s)
        self._free_at_s = begins_at_s + APART_S
        if begins_at_s > now_s:
            await asyncio.sleep(begins_at_s - now_s)
        if self._next is query:
            self._next = None
        return await self._read(_padded(query.digests))


def _padded(digests: set[Digest]) -> Sequence[Digest]:
    wanted = list(digests)
    return wanted + wanted[:1] * ((1 << (len(wanted) - 1).bit_length()) - len(wanted))


def _heard(answer: "asyncio.Task[Mapping[Digest, T]]") -> None:
    # With every waiting client gone, nobody else would take note of the error.
    if not answer.cancelled():
        answer.exception()
