"""What the checker says: how much it looked at, and each thing that is wrong, by name and place."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What can be wrong. The names are public and stable."""

    MISSING = "missing"
    UNREADABLE = "unreadable"
    REFUSED_BUT_STORED = "refused_but_stored"
    STORED_TWICE = "stored_twice"
    ALTERED = "altered"
    WRONG_TENANT = "wrong_tenant"
    WRONG_RECEIPT = "wrong_receipt"
    WRONG_EVENT_ID = "wrong_event_id"
    OUT_OF_ORDER = "out_of_order"
    WRONG_ANSWER = "wrong_answer"
    NOT_IN_JOURNAL = "not_in_journal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong. `place` is a receipt, `line` the journal's, `index` the event's within its request."""

    kind: Kind
    message: str
    event_id: str | None = None
    place: str | None = None
    journal: str | None = None
    line: int | None = None
    index: int | None = None


@dataclass(slots=True, kw_only=True)
class Report:
    """What was looked at, in events and records, and what was found.

    Of the accepted events, those `not_looked_at` were sent before the time that was asked for, and nobody
    read where they stand. `unanswered` of the unknown events had no answer at all. Of the records, those
    `not_in_journal` are other clients', and `stored_again` are further copies of an event that was sent
    more than once, as they may be. `wrong` counts every finding by kind; `findings` has the first of them.
    """

    requests: int = 0
    events: int = 0
    accepted: int = 0
    accepted_found: int = 0
    not_looked_at: int = 0
    refused: int = 0
    unknown: int = 0
    unanswered: int = 0
    unknown_stored: int = 0
    records: int = 0
    not_in_journal: int = 0
    stored_again: int = 0
    torn_lines: int = 0
    wrong: Counter[Kind] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.wrong
