"""What travels between the publisher and a line: calls and their records out, news of them back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from customersignal_ingest.adapters.outbound.kafka import calls
from customersignal_ingest.domain.event import Record


class Call(calls.Call):
    """A call that also knows, in `turned_down`, which of its records a broker has turned down once.

    The value tells whether nothing of it was appended then for certain.
    """

    __slots__ = ("turned_down",)

    def __init__(self, records: Sequence[Record], size_bytes: int, *, born_at: float) -> None:
        super().__init__(records, size_bytes, born_at=born_at)
        self.turned_down: dict[int, bool] = {}


@dataclass(frozen=True, slots=True)
class TurnedDown:
    """A broker did not take the batch because of what is in it; `certain` if it never had it before."""

    reason: str
    certain: bool


@dataclass(frozen=True, slots=True)
class NotSent:
    """Nothing of the record was appended or will be, for certain."""

    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The record may have been appended, or may be yet."""

    cause: str


Failure = TurnedDown | NotSent | Lost


@dataclass(slots=True)
class Burst:
    """What librdkafka reported at one go: `(call, index, partition, offset)` and `(call, index, failure)`.

    A record that the broker had already is confirmed without its place: the offset is `None`.
    """

    stored: list[tuple[Call, int, int, int | None]] = field(default_factory=list)
    failed: list[tuple[Call, int, Failure]] = field(default_factory=list)

    def __len__(self) -> int:
        """Count the records."""
        return len(self.stored) + len(self.failed)


class NotTaken(Exception):
    """The line did not take the record: it was not and will not be sent."""


class Line(Protocol):
    """One librdkafka producer and whoever polls it, from start to end. For one event loop."""

    out: int
    """How many records were taken and not reported on yet."""

    def send(self, call: Call, index: int, /) -> None:
        """Take the call's record, or raise `NotTaken`; returns at once."""
        ...

    def dead(self) -> str:
        """Say why it will never deliver again, or nothing."""
        ...

    def lonely(self) -> bool:
        """Tell whether it has lost all brokers since it was last asked."""
        ...

    def end(self) -> None:
        """Begin to withdraw what is out, report on it, and let go of everything; returns at once."""
        ...

    async def ended(self) -> None:
        """Return once nothing is left of it; may hang, the caller has the deadline."""
        ...


Told = Callable[["Line", Burst], None]
