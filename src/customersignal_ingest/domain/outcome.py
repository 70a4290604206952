"""What became of an event: four outcomes of a publish, and the rejection that comes before it.

In doubt an outcome is `Unknown`. `NotStored` only where it is certain: the record was never
handed to the network, or the store says that it did not append it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from customersignal_ingest.domain.event import Frozen, IngestEvent


class Reason(StrEnum):
    """Why an event was rejected by our rules. The names are public and stable."""

    FIELD_REQUIRED = "FIELD_REQUIRED"
    FIELD_TYPE = "FIELD_TYPE"
    FIELD_VALUE = "FIELD_VALUE"
    FIELD_TOO_LONG = "FIELD_TOO_LONG"
    FIELD_REPEATED = "FIELD_REPEATED"
    TOO_DEEP = "TOO_DEEP"
    TENANT_MISMATCH = "TENANT_MISMATCH"
    PROJECT_MISMATCH = "PROJECT_MISMATCH"
    EVENT_TOO_LARGE = "EVENT_TOO_LARGE"
    MALFORMED_JSON = "MALFORMED_JSON"
    INVALID_REQUEST = "INVALID_REQUEST"


@dataclass(frozen=True, slots=True)
class Rejected:
    """Our rules do not let the event in; nothing was handed to the publisher.

    `field` is a JSON Pointer (RFC 6901) into the event, `""` is the event itself and `None` means
    that no one field is at fault. `message` is for people: it names the field, the rule and the
    kind of value, never the value.
    """

    reason: Reason
    message: str
    field: str | None = None


# A tuple, because one is made for every stored event: a frozen dataclass takes twice as long.
class Stored(NamedTuple):
    """A promise: the record outlives the loss of any one machine (of an embedded log: of the process).

    `offset` is `None` where the store confirmed the record and did not say where it stands.
    """

    topic: str
    partition: int
    offset: int | None

    @property
    def receipt(self) -> str:
        """Where the record stands, as `topic/partition/offset`; `-` for an offset that is not known."""
        return f"{self.topic}/{self.partition}/{'-' if self.offset is None else self.offset}"


@dataclass(frozen=True, slots=True)
class Refused:
    """Not stored, and sending it again is useless: the store does not take this record."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotStored:
    """Certainly not stored, now and for ever; safe to send again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """May have been stored, or may be yet; send again with the same idempotency key."""

    cause: str


Outcome = Stored | Refused | NotStored | Unknown


class Tally(dict[type[Outcome] | type[Rejected], int]):
    """How many there are of each kind: what `Counter` is, which takes ten times as long to make."""

    def __missing__(self, kind: type[Outcome] | type[Rejected]) -> int:
        """None."""
        return 0


class Result(Frozen, frozen=True, gc=False):
    """One payload's fate. `event_id` is `None` where the payload was rejected before it had one."""

    event_id: str | None
    outcome: Outcome | Rejected


@dataclass(frozen=True, slots=True)
class Receipt:
    """What `ingest` answers: one result per payload, in the order of the payloads.

    `tally` says how many results there are of each kind of outcome; it is there to read, not to change.
    """

    received_at: datetime
    results: tuple[Result, ...]
    tally: Tally = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Count once, for all who ask."""
        kinds = [type(result.outcome) for result in self.results]
        object.__setattr__(self, "tally", Tally([(kind, kinds.count(kind)) for kind in set(kinds)]))

    def count(self, kind: type[Outcome] | type[Rejected]) -> int:
        """How many results have an outcome of this kind."""
        return sum(isinstance(result.outcome, kind) for result in self.results)


def settle(received_at: datetime, parsed: Sequence[IngestEvent | Rejected], outcomes: Sequence[Outcome]) -> Receipt:
    """Join each payload with its outcome, by position.

    A publisher that does not give exactly one outcome a record has told nothing that can be
    trusted, so every record of that call is `Unknown`.
    """
    records = [*map(type, parsed)].count(IngestEvent)
    if not _one_each(outcomes, records):
        outcomes = [Unknown("the publisher did not answer once per record")] * records
    told = iter([outcome if type(outcome) is Stored else _honest(outcome) for outcome in outcomes])
    results = [
        Result(None, event) if isinstance(event, Rejected) else Result(event.event_id, next(told)) for event in parsed
    ]
    return Receipt(received_at, tuple(results))


def _one_each(outcomes: object, records: int) -> bool:
    # A stranger's publisher may answer anything, `None` too.
    return isinstance(outcomes, (list, tuple, Sequence)) and len(outcomes) == records  # What it nearly always is first.


def _honest(outcome: object) -> Outcome:
    # What is not one of the four is no confirmation.
    return outcome if isinstance(outcome, Outcome) else Unknown("the publisher answered something else")
