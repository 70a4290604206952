"""The seam between our group commit and a Kafka client: what we ask of a producer, and what it may answer."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from customersignal_ingest.domain.event import Record


@dataclass(frozen=True, slots=True)
class Appended:
    """All in-sync replicas have the batch; `offset` is its first record's, `None` where it was not said."""

    offset: int | None


@dataclass(frozen=True, slots=True)
class TurnedDown:
    """Nothing of the batch was appended, for certain, and what is in the batch is the reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Denied:
    """Nothing of the batch was appended, for certain, whatever is in it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The batch may have been appended, or may be yet."""

    cause: str


Verdict = Appended | TurnedDown | Denied | Lost


class NotTaken(Exception):
    """The producer did not take the batch: nothing of it was or will be sent by it. Another one may take it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Builder(Protocol):
    """Records in the bytes of one Kafka batch."""

    def extend(self, records: Iterable[Record], /) -> int:
        """Add records until one finds no room, and return how many were added; the first one of all always is."""
        ...

    def size(self) -> int:
        """Return the bytes so far, before compression."""
        ...


class Producer(Protocol):
    """One idempotent producer with `acks=all`, from its start to its end. For one event loop."""

    async def start(self) -> None:
        """Connect and learn the topic's partitions; raises `Unavailable`. May hang: the caller cancels it."""
        ...

    def send(self, batch: Builder, partition: int, settled: Callable[[Verdict], None], /) -> None:
        """Take the batch, or raise `NotTaken`; `settled` is called once, later, or never if the producer dies.

        One batch a partition at a time: the next only once the verdict on the last is there.
        """
        ...

    def partitions(self) -> int:
        """Return how many partitions the topic has; 0 while it is missing."""
        ...

    def has_leader(self, partition: int, /) -> bool:
        """Tell whether someone is known who takes batches for the partition."""
        ...

    def look_again(self) -> None:
        """Ask the brokers for news of partitions and leaders; returns at once."""
        ...

    def sequence(self, partition: int, /) -> int:
        """Return the sequence number that the partition's next record gets."""
        ...

    def is_dead(self) -> bool:
        """Tell whether it will never send again."""
        ...

    async def abandon(self) -> None:
        """Drop all connections and tasks within a second, whatever the brokers do; nothing is written after it."""
        ...
