"""The bookkeeping of the group commit: a call's records are dealt out to lanes, and travel in batches."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import count, repeat

from customersignal_ingest.adapters.outbound.kafka.calls import Call
from customersignal_ingest.adapters.outbound.kafka.producer import Builder
from customersignal_ingest.domain.outcome import Outcome, Stored
from customersignal_ingest.domain.partition import partition_for

KEYS_MAX = 16_384

Share = tuple[Call, list[int]]
"""A call, and which of its records are meant."""


class PartitionOf(dict[bytes, int]):
    """The partitions of keys that came lately: a look-up in this costs a third of one in a cache of the library."""

    def __init__(self, partitions: int) -> None:
        """`partitions` is how many there are."""
        self.partitions = partitions

    def __missing__(self, key: bytes) -> int:
        """Work the partition out, and remember it."""
        if len(self) >= KEYS_MAX:
            self.clear()
        self[key] = partition = partition_for(key, self.partitions)
        return partition


class Batch:
    """Records of any number of calls that go to one partition together, and share their fate.

    It is a list of shares until `load` turns it into bytes, just before it goes out. One that is `alone`
    takes nobody along: it is a part of one that was turned down, on the way to whom that was about.
    """

    builder: Builder

    __slots__ = ("_shares", "alone", "builder", "deadline", "opened_at", "partition", "records", "settled")

    def __init__(self, partition: int, *, opened_at: float, deadline: float) -> None:
        self.partition = partition
        self.opened_at = opened_at
        self.deadline = deadline
        self.records = 0
        self.settled = self.alone = False
        self._shares: list[Share] = []

    def add(self, call: Call, indices: list[int]) -> None:
        """Take these records of the call."""
        self._shares.append((call, indices))
        self.records += len(indices)

    def load(self, builder: Builder) -> "Batch | None":
        """Put the records into the builder; return a batch of those that find no room. The first one always does."""
        self.builder = builder
        loaded = 0
        for call, indices in self._shares:
            taken = builder.extend(map(call.records.__getitem__, indices))
            loaded += taken
            if taken < len(indices):
                return self.split(loaded)
        return None

    def take_along(self, other: "Batch") -> None:
        """Let the other's records, which are in the same builder behind ours, share our fate and deadline."""
        for share in other._shares:  # noqa: SLF001  Its own kind.
            self.add(*share)

    def split(self, first: int) -> "Batch":
        """Keep so many records, and return a batch of the others, with the same deadline."""
        rest = Batch(self.partition, opened_at=self.opened_at, deadline=self.deadline)
        rest.alone = self.alone
        shares, self._shares, self.records = self._shares, [], 0
        for call, indices in shares:
            kept = max(0, first - self.records)
            if indices[:kept]:
                self.add(call, indices[:kept])
            if indices[kept:]:
                rest.add(call, indices[kept:])
        return rest

    def halves(self) -> "tuple[Batch, Batch]":
        """Return two batches with the same records in their order, to be loaded anew."""
        first = Batch(self.partition, opened_at=self.opened_at, deadline=self.deadline)
        first.alone = True
        for share in self._shares:
            first.add(*share)
        return first, first.split((self.records + 1) // 2)

    def stored(self, topic: str, base: int | None) -> list[Call]:
        """All records are stored, one after the other from `base` on; return the calls that are complete."""
        partition, new = self.partition, tuple.__new__
        offsets: Iterator[int | None] = repeat(None) if base is None else count(base)
        for call, indices in self._shares:
            outcomes = call.outcomes
            for index, offset in zip(indices, offsets, strict=False):  # In this order: no offset is skipped.
                outcomes[index] = new(Stored, (topic, partition, offset))  # In half the time, by adr/0014.
        return self._complete()

    def settle(self, outcome: Outcome) -> list[Call]:
        """All records have this outcome; return the calls that are complete."""
        for call, indices in self._shares:
            for index in indices:
                call.outcomes[index] = outcome
        return self._complete()

    def _complete(self) -> list[Call]:
        self.settled = True
        for call, indices in self._shares:
            call.remaining -= len(indices)
        # Once each: of a call that found no room in one batch two shares may travel in the next.
        return [call for call in dict.fromkeys([call for call, _ in self._shares]) if not call.remaining]


class Lane:
    """The way to one partition: at most one batch is out at a time, so that its records keep their order.

    `waiting` is what nobody has got yet, oldest first; `open` is its last one while it takes records.
    """

    __slots__ = ("open", "out", "partition", "waiting")

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.waiting: deque[Batch] = deque()
        self.open: Batch | None = None
        self.out: Batch | None = None

    def queue(self, batch: Batch) -> None:
        """Put the batch last, and let it take records."""
        self.waiting.append(batch)
        self.open = batch

    def next(self, new_batch: Callable[[], Builder], *, until: float) -> Batch:
        """Load the batch that is to go out now; what does not fit into it goes next.

        If its deadline is later than `until`, it takes along what waits behind it and finds room: with a slow
        broker a queue of small batches, one out at a time, would only grow.
        """
        self.out = batch = last = self.waiting.popleft()
        builder = new_batch()
        rest = batch.load(builder)
        while rest is None and self.waiting and batch.deadline > until and not (batch.alone or self.waiting[0].alone):
            last = self.waiting.popleft()
            rest = last.load(builder)
            batch.take_along(last)
        if rest is not None:
            self.waiting.appendleft(rest)
        if last is self.open:
            self.open = rest
        return batch

    def put_back(self, batches: Sequence[Batch]) -> None:
        """Put batches in front of all that wait; the lane is free."""
        self.out = None
        self.waiting.extendleft(reversed(batches))

    def overdue(self, now: float) -> list[Batch]:
        """Take away what has waited past its deadline."""
        late = []
        while self.waiting and self.waiting[0].deadline <= now:
            late.append(self.waiting.popleft())
        if self.open in late:
            self.open = None
        return late

    def empty(self) -> list[Batch]:
        """Take away all that waits."""
        waiting, self.open = list(self.waiting), None
        self.waiting.clear()
        return waiting
