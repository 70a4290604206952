"""A publisher with faults on purpose, by a plan in words.

    faulty = FaultyPublisher(publisher, ["ack_lost", "ok", "ok lost refused"])

A plan has one entry a publish call. An entry of one word goes for every record of that call; an
entry of several words goes record by record, and records beyond it are stored. After the plan, all
is well. There is no clock in it: what is slow or late waits for `release`.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from customersignal_ingest.domain.event import Record
from customersignal_ingest.domain.outcome import NotStored, Outcome, Refused, Unknown
from customersignal_ingest.ports import EventPublisher

FAULTS = {
    "ok": "stored, and answered as the publisher behind answers",
    "stored": "the same as ok",
    "lost": "never handed over: NotStored",
    "refused": "the store does not take the record: Refused",
    "ack_lost": "stored, but the answer is lost: Unknown",
    "stored_late": "Unknown at once, stored at the next release",
    "slow": "stored and answered at the next release, even when the caller left before",
    "hangs": "stored, but no answer until the caller gives up",
    "raises": "stored, but an exception instead of an answer: what no publisher may do",
}
"""Every word of a fault plan, and what it means."""

_STORED_AT_ONCE = frozenset({"ok", "stored", "ack_lost", "hangs", "raises"})
_STORED_AT_RELEASE = frozenset({"slow", "stored_late"})
_ANSWERS: dict[str, Outcome] = {
    "lost": NotStored("lost on purpose"),
    "refused": Refused("refused on purpose"),
    "ack_lost": Unknown("answer lost on purpose"),
    "stored_late": Unknown("late on purpose"),
}


Told = dict[int, Outcome]
"""Outcomes of some records of a call, by their position in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    records: Sequence[Record]
    positions: Sequence[int]
    told: asyncio.Future[Told]


class FaultyPublisher:
    """Hands records to the publisher behind it, or fails to, as the plan says.

    For one event loop; calls may overlap, and take their entries in the order in which they begin.
    """

    def __init__(self, publisher: EventPublisher, plan: Iterable[str] = ()) -> None:
        """Take the publisher that stores what the plan lets through. Raises `ValueError` for an unknown word."""
        self._publisher = publisher
        self._entries: deque[list[str]] = deque()
        self._held: deque[_Held] = deque()
        self.plan(*plan)

    def plan(self, *entries: str) -> None:
        """Put these entries in place of what is left of the plan. Raises `ValueError` for an unknown word."""
        self._entries = deque(map(_words, entries))

    @property
    def held(self) -> int:
        """How many records wait for `release`."""
        return sum(len(held.positions) for held in self._held)

    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        """Publish with the next entry of the plan; raises `ConnectionError` where that says `raises`."""
        words = self._next_words(len(records))
        late = self._hold(records, _positions(words, _STORED_AT_RELEASE))
        told = await self._store(records, _positions(words, _STORED_AT_ONCE))
        if "raises" in words:
            raise ConnectionError("raised on purpose")
        if "hangs" in words:
            await asyncio.Event().wait()
        if "slow" in words:
            told |= await late
        return [_ANSWERS.get(word) or told[position] for position, word in enumerate(words)]

    async def release(self) -> None:
        """Store everything that was held back, oldest first, and let those who wait have their answer."""
        while self._held:
            held = self._held.popleft()
            told = await self._store(held.records, held.positions)
            if not held.told.done():  # The caller of something slow may have left.
                held.told.set_result(told)

    def _next_words(self, count: int) -> list[str]:
        words = self._entries.popleft() if self._entries else ["ok"]
        return words * count if len(words) == 1 else (words + ["ok"] * count)[:count]

    def _hold(self, records: Sequence[Record], positions: Sequence[int]) -> asyncio.Future[Told]:
        told: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        if positions:
            self._held.append(_Held(records=records, positions=positions, told=told))
        return told

    async def _store(self, records: Sequence[Record], positions: Sequence[int]) -> Told:
        outcomes = await self._publisher.publish([records[position] for position in positions]) if positions else ()
        return dict(zip(positions, outcomes, strict=True))


def _words(entry: str) -> list[str]:
    words = entry.split()
    if unknown := [word for word in words if word not in FAULTS] or (not words and [entry]):
        raise ValueError(f"no such fault: {unknown[0]!r}; the words are {', '.join(FAULTS)}")
    return words


def _positions(words: Sequence[str], wanted: frozenset[str]) -> list[int]:
    return [position for position, word in enumerate(words) if word in wanted]
