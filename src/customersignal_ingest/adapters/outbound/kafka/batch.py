"""The bookkeeping of the group commit: calls wait for records, records travel in batches, batches queue in lanes."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import count, repeat

from customersignal_ingest.adapters.outbound.kafka.producer import Builder
from customersignal_ingest.domain.event import Record
from customersignal_ingest.domain.outcome import Outcome, Stored, Unknown

_UNSETTLED = Unknown("not settled")


class Call:
    """One call of `publish`: its records, and what is known of them so far."""

    __slots__ = ("answer", "outcomes", "records", "remaining", "size_bytes")

    def __init__(self, records: Sequence[Record], size_bytes: int, answer: "asyncio.Future[Sequence[Outcome]]") -> None:
        self.records = records
        self.size_bytes = size_bytes
        self.answer = answer
        self.outcomes: list[Outcome] = [_UNSETTLED] * len(records)
        self.remaining = len(records)


class Batch:
    """Records of any number of calls that go to one partition together, and share their fate.

    Nothing of it was or will be sent before `handed`; in doubt all that follows is `Unknown`.
    """

    __slots__ = ("builder", "deadline", "members", "opened_at", "partition", "settled")

    def __init__(self, partition: int, builder: Builder, *, opened_at: float, deadline: float) -> None:
        self.partition = partition
        self.builder = builder
        self.opened_at = opened_at
        self.deadline = deadline
        self.members: list[tuple[Call, int]] = []
        self.settled = False

    def parts(self, new_batch: Callable[[], Builder]) -> list["Batch"]:
        """Return at least two batches with the same members in their order, none with more than half of them."""
        half = (len(self.members) + 1) // 2
        parts: list[Batch] = []
        for number, (call, index) in enumerate(self.members):
            # Builders may have become smaller since: what does not fit starts the next part.
            if number in (0, half) or not parts[-1].add(call, index):
                parts.append(Batch(self.partition, new_batch(), opened_at=self.opened_at, deadline=self.deadline))
                parts[-1].add(call, index)
        return parts

    def add(self, call: Call, index: int) -> bool:
        """Take the call's record, or return `False` if there is no room; the first one is always taken."""
        record = call.records[index]
        taken = self.builder.append(
            timestamp=record.timestamp_ms, key=record.key, value=record.value, headers=list(record.headers)
        )
        if taken is None:
            return False
        self.members.append((call, index))
        return True

    def stored(self, topic: str, base: int | None) -> list[Call]:
        """All records are stored, one after the other from `base` on; return the calls that are complete."""
        self.settled = True
        partition, complete = self.partition, []
        offsets: Iterator[int | None] = repeat(None) if base is None else count(base)
        for (call, index), offset in zip(self.members, offsets, strict=False):
            call.outcomes[index] = Stored(topic, partition, offset)
            call.remaining -= 1
            if not call.remaining:
                complete.append(call)
        return complete

    def settle(self, outcome: Outcome) -> list[Call]:
        """All records have this outcome; return the calls that are complete."""
        self.settled = True
        complete = []
        for call, index in self.members:
            call.outcomes[index] = outcome
            call.remaining -= 1
            if not call.remaining:
                complete.append(call)
        return complete


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

    def next(self) -> Batch:
        """Take the batch that is to go out now."""
        self.out = batch = self.waiting.popleft()
        if batch is self.open:
            self.open = None
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

    @property
    def oldest(self) -> Batch | None:
        """The batch that has been here longest."""
        return self.out or (self.waiting[0] if self.waiting else None)
