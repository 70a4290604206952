"""Holds journals against stored records, and names whatever does not agree.

First come the journals, then the records. A record is the copy of an event by the receipt that was
answered, else by its `event_id`, else by its idempotency key, else by its content. At the end the copies of
each event are dealt out to the attempts to send it: to those that were accepted, then to those whose
outcome is unknown. What was accepted and gets none is missing; a copy that is left over was refused, or
is there once too often. What can't be read any more is neither there nor missing: that is said too.

All of it is kept in a private SQLite file that ends with the checker, so that memory stays small
however long the journals are; the disk holds about as much as they do.
"""

import json
import sqlite3
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, starmap
from operator import itemgetter
from typing import Any, NamedTuple, Self

from customersignal_ingest.proof import tables
from customersignal_ingest.proof.content import Content, Expected, Found, StoredRecord, differing, expected, found
from customersignal_ingest.proof.journal import Answered, Entry, JournalError, Result, Sent, Torn
from customersignal_ingest.proof.order import Told, out_of_order
from customersignal_ingest.proof.report import Finding, Kind, Report

FINDINGS_MAX = 10_000
"""So many findings are kept; all are counted."""

_ACCEPTED, _UNKNOWN, _REFUSED = range(3)  # The order in which copies are dealt out.
_CACHE_KIB = 64 * 1024
_ATTEMPTS_MAX = 100
_WHOSE = frozenset({"tenant_id", "project_id"})
_DECIDED_503 = frozenset({"NOT_STORED", "KEYS_UNAVAILABLE"})


class Checker:
    """Takes journals, then records, then reports. Not for two threads; ends with its block.

    `only_journal` makes a record that no journal has a finding, for topics that nobody else writes to.
    `since_ms` says that nobody will read what was stored long before that moment, in Unix milliseconds:
    an event that was sent earlier, and stands there, is not looked at.
    """

    def __init__(self, *, only_journal: bool = False, since_ms: int | None = None) -> None:
        """Begin with nothing."""
        self._only_journal = only_journal
        self._since_ms = since_ms
        self._starts: Mapping[int, int] = {}
        self._position = 0
        self._report = Report()
        self._journals: list[str] = []
        # An empty name is a temporary file that SQLite deletes, and writes only when its cache is full.
        self._file = sqlite3.connect("", isolation_level=None)
        self._file.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._file.execute("PRAGMA synchronous = OFF")
        self._file.execute("PRAGMA journal_mode = OFF")
        self._file.execute("BEGIN")  # Never committed: nobody else looks at it.
        self._run(tables.TABLES)
        self._indexed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add_journal(self, name: str, entries: Iterable[tuple[int, Entry]], /) -> None:
        """Take a journal's entries, each with the number of its line; `name` is for findings.

        An answer may stand in a later journal than its request, as when a client begins a new file.
        Raises `JournalError` for an answer without a request, and for a second one.
        """
        self._journals.append(name)
        for line, entry in entries:
            self._position += 1
            match entry:
                case Sent():
                    self._add_sent(line, entry)
                case Answered():
                    self._add_answered(line, entry)
                case Torn():
                    self._report.torn_lines += 1

    def add_record(self, record: StoredRecord, /) -> None:
        """Take a stored record; call it when all journals are in."""
        self._index()
        self._report.records += 1
        said = found(record)
        told = self._events("receipt = ? AND outcome = 0", record.receipt)
        its = [event for event in told if _is_copy(event, said)]
        for event in told:
            if event not in its:
                self._file.execute("UPDATE event SET place_taken = 1 WHERE n = ?", (event.n,))
        owners = its or self._owners(said)
        if not owners:
            self._add_stranger(record, said)
            return
        self._file.execute("INSERT INTO copy VALUES (?, ?, ?)", (owners[0].identity, record.receipt, bool(its)))
        self._file.executemany("UPDATE event SET read_back = 1 WHERE n = ?", [(event.n,) for event in its])
        self._compare(record, said, owners)

    def report(self, starts: Mapping[int, int] | None = None, /) -> Report:
        """Say what was found; call it once, when all records are in.

        `starts` has for each partition the offset of the first record that could be read: what a receipt
        says stands before it may have been there, and nobody can tell. Without it all could be read.
        """
        self._starts = starts or {}
        self._index()
        self._deal_out()
        self._look_at_ids()
        self._look_at_order()
        return self._report

    def _add_sent(self, line: int, sent: Sent) -> None:
        self._report.requests += 1
        self._report.events += len(sent.events)
        self._report.unanswered += len(sent.events)
        (first,) = self._file.execute("SELECT coalesce(max(n), 0) + 1 FROM event").fetchone()
        try:
            self._file.execute("INSERT INTO attempt VALUES (?, ?, ?, 0)", (sent.attempt, first, len(sent.events)))
        except sqlite3.IntegrityError:
            raise JournalError(f"{self._journals[-1]}, line {line}: attempt {sent.attempt} is there twice") from None
        rows = [self._row(line, index, bytes(payload), sent) for index, payload in enumerate(sent.events)]
        self._file.executemany(tables.INSERT, rows)

    def _row(self, line: int, index: int, payload: bytes, sent: Sent) -> tuple[Any, ...]:
        must = expected(
            payload, tenant_id=sent.tenant_id, project_id=sent.project_id, idempotency_key=sent.idempotency_key
        )
        if must is None:  # Nothing that is stored can be a copy of it.
            must = Expected({}, f"{sent.attempt} {index}".encode(), False, None)
        early = self._since_ms is not None and sent.at_ms < self._since_ms
        place = (len(self._journals) - 1, line, index, self._position, early)
        return (*place, must.identity, must.keyed, must.ordered_by, _to_text(must.content))

    def _add_answered(self, line: int, answered: Answered) -> None:
        where = f"{self._journals[-1]}, line {line}: attempt {answered.attempt}"
        attempt = self._file.execute(
            "SELECT first, events, answered FROM attempt WHERE attempt = ?", (answered.attempt,)
        ).fetchone()
        if attempt is None:
            raise JournalError(f"{where} is answered and was never sent")
        first, events, before = attempt
        if before:
            raise JournalError(f"{where} is answered twice")
        self._file.execute("UPDATE attempt SET answered = 1 WHERE attempt = ?", (answered.attempt,))
        self._report.unanswered -= events
        results = answered.results or (Result(answered.status, code=answered.code),) * events
        if len(results) != events:
            message = f"answered with {len(results)} results for {events} events"
            self._add(Kind.WRONG_ANSWER, message, self._event(first))
            return
        rows = [
            (self._position, _outcome(result), result.event_id, result.receipt, first + at)
            for at, result in enumerate(results)
        ]
        self._file.executemany(tables.UPDATE, rows)

    def _owners(self, said: Found | None) -> "list[_Event]":
        """Return the attempts to send what this record is a copy of."""
        if said is None:
            return []
        by_id = self._events("event_id = ?", said.event_id)
        return self._events("identity = ?", by_id[0].identity if by_id else said.identity)

    def _add_stranger(self, record: StoredRecord, said: Found | None) -> None:
        self._report.not_in_journal += 1
        if self._only_journal:
            event_id = None if said is None else said.event_id
            self._add(Kind.NOT_IN_JOURNAL, "stored, and in no journal", event_id=event_id, place=record.receipt)

    def _compare(self, record: StoredRecord, said: Found | None, owners: "Sequence[_Event]") -> None:
        if said is None:
            self._add(Kind.ALTERED, "what is stored is no JSON object", owners[0], place=record.receipt)
            return
        ids = {event.event_id for event in owners} - {None}
        if ids and said.event_id not in ids and (said.keyed or len(owners) == 1):
            message = f"stored with the event_id {said.event_id}"
            self._add(Kind.WRONG_EVENT_ID, message, owners[0], place=record.receipt)
        for flaw in said.flaws:
            kind = Kind.WRONG_TENANT if "tenant_id" in flaw else Kind.ALTERED
            self._add(kind, flaw, owners[0], place=record.receipt)
        stored = _to_text(said.content)
        if stored not in {event.content for event in owners}:
            self._add_altered(record, said.content, owners[0])

    def _add_altered(self, record: StoredRecord, stored: Content, event: "_Event") -> None:
        fields = differing(dict(json.loads(event.content)), stored)
        for kind, names in ((Kind.WRONG_TENANT, _WHOSE), (Kind.ALTERED, set(fields) - _WHOSE)):
            if wrong := [name for name in fields if name in names]:
                self._add(kind, f"stored otherwise than sent: {', '.join(wrong)}", event, place=record.receipt)

    def _deal_out(self) -> None:
        """Give each copy to an attempt, of all attempts and copies that are the same event."""
        for identity, rows in groupby(self._file.execute(tables.SELECT_ATTEMPTS), key=itemgetter(0)):
            copies = self._file.execute("SELECT receipt FROM copy WHERE identity = ? AND NOT read_back", (identity,))
            self._deal_out_one([_Attempt(*row[1:]) for row in rows], deque(receipt for (receipt,) in copies))

    def _deal_out_one(self, attempts: "list[_Attempt]", spare: deque[str]) -> None:
        """Deal out the copies that stand where no receipt says, to attempts in the order of their outcomes."""
        copies = 0
        for attempt in attempts:
            # What stood where nobody can read may have been its copy; the one that is here is another's.
            takes = not attempt.read_back and not (attempt.outcome == _ACCEPTED and self._is_before(attempt.receipt))
            place = spare.popleft() if spare and takes else None
            if attempt.outcome == _REFUSED:
                self._report.refused += 1
                self._judge_refused(attempt, place)
                continue
            copies += attempt.read_back or place is not None
            if attempt.outcome == _ACCEPTED:
                self._report.accepted += 1
                self._judge_accepted(attempt, place)
            else:
                self._report.unknown += 1
                self._report.unknown_stored += place is not None
        self._report.stored_again += max(0, copies - 1)
        for place in spare:
            event = self._event(attempts[0].n)
            self._add(Kind.STORED_TWICE, "stored more often than it was sent", event, place=place)

    def _judge_refused(self, attempt: "_Attempt", place: str | None) -> None:
        if place is not None:
            event = self._event(attempt.n)
            self._add(Kind.REFUSED_BUT_STORED, "refused, and stored all the same", event, place=place)

    def _judge_accepted(self, attempt: "_Attempt", place: str | None) -> None:
        """`place` is where a copy is that stands elsewhere than the receipt says."""
        if attempt.read_back or place is not None:
            self._report.accepted_found += 1
        else:
            self._judge_not_found(attempt)
        if attempt.place_taken:
            event = self._event(attempt.n)
            self._add(Kind.WRONG_RECEIPT, "another event stands where its receipt says", event, place=attempt.receipt)
        elif place is not None and _is_whole(attempt.receipt):
            self._add(Kind.WRONG_RECEIPT, f"not at {attempt.receipt}, as answered", self._event(attempt.n), place=place)

    def _judge_not_found(self, attempt: "_Attempt") -> None:
        if not self._may_be_before(attempt.receipt):
            event = self._event(attempt.n)
            self._add(Kind.MISSING, "accepted, and nowhere in what is stored", event, place=attempt.receipt)
        elif attempt.early:
            self._report.not_looked_at += 1
        else:
            message = "accepted, and what stood there can't be read any more"
            self._add(Kind.UNREADABLE, message, self._event(attempt.n), place=attempt.receipt)

    def _is_before(self, receipt: str | None) -> bool:
        """Tell whether the place is known, and before all that could be read."""
        return _is_whole(receipt) and self._may_be_before(receipt)

    def _may_be_before(self, receipt: str | None) -> bool:
        """Tell whether an event with this receipt may stand before all that could be read."""
        partition, offset = _place(receipt)
        if partition is None:
            return any(self._starts.values())
        return (0 if offset is None else offset) < self._starts.get(partition, 0)

    def _look_at_ids(self) -> None:
        """One idempotency key has one event_id, and one event_id is of one event."""
        for n, ids in self._file.execute(tables.SELECT_CHANGED_IDS):
            self._add(Kind.WRONG_EVENT_ID, f"{ids} event_ids for one idempotency key", self._event(n))
        for n, events in self._file.execute(tables.SELECT_SHARED_IDS):
            self._add(Kind.WRONG_EVENT_ID, f"one event_id for {events} different events", self._event(n))

    def _look_at_order(self) -> None:
        for _, rows in groupby(self._file.execute(tables.SELECT_ORDERED), key=itemgetter(0, 1)):
            for n, after in out_of_order(starmap(Told, (row[2:] for row in rows))):
                event = self._event(n)
                message = f"stored before what its user had been told of: {after}"
                self._add(Kind.OUT_OF_ORDER, message, event, place=event.receipt)

    def _add(
        self,
        kind: Kind,
        message: str,
        event: "_Event | None" = None,
        *,
        event_id: str | None = None,
        place: str | None = None,
    ) -> None:
        self._report.wrong[kind] += 1
        if len(self._report.findings) >= FINDINGS_MAX:
            return
        where: dict[str, Any] = {}
        if event is not None:
            where = {"journal": self._journals[event.journal], "line": event.line, "index": event.index}
            event_id = event_id or event.event_id
        self._report.findings.append(Finding(kind=kind, message=message, event_id=event_id, place=place, **where))

    def _event(self, n: int) -> "_Event":
        return self._events("n = ?", n)[0]

    def _events(self, condition: str, value: object) -> "list[_Event]":
        query = f"{tables.SELECT} WHERE {condition} ORDER BY n LIMIT {_ATTEMPTS_MAX}"
        return [_Event(*row) for row in self._file.execute(query, (value,))]

    def _index(self) -> None:
        if not self._indexed:
            self._run(tables.INDEXES)
            self._indexed = True

    def _run(self, statements: Iterable[str]) -> None:
        for statement in statements:
            self._file.execute(statement)


class _Event(NamedTuple):
    n: int
    journal: int
    line: int
    index: int  # type: ignore[assignment]  # A tuple has a method of this name, which nobody calls here.
    event_id: str | None
    receipt: str | None
    identity: bytes
    content: str


class _Attempt(NamedTuple):
    n: int
    outcome: int
    receipt: str | None
    read_back: bool
    place_taken: bool
    early: bool


def _outcome(result: Result) -> int:
    """Return the outcome that an answer promises; in doubt it is unknown."""
    if result.status == 202:
        return _ACCEPTED
    # A 503 without our code may be a proxy's, which can't know.
    decided = 400 <= result.status < 500 or (result.status == 503 and result.code in _DECIDED_503)
    return _REFUSED if decided else _UNKNOWN


def _is_copy(event: _Event, said: Found | None) -> bool:
    """Tell whether what stands at an event's receipt is this event, altered perhaps."""
    return said is None or event.event_id in (None, said.event_id) or event.identity == said.identity


def _is_whole(receipt: str | None) -> bool:
    return receipt is not None and not receipt.endswith("/-")


def _place(receipt: str | None) -> tuple[int | None, int | None]:
    """Return partition and offset, as far as the receipt says them."""
    _, partition, offset = ["", "", "", *(receipt or "").rsplit("/", 2)][-3:]
    numbers = [int(text) if text.isascii() and text.isdecimal() else None for text in (partition, offset)]
    return numbers[0], numbers[1]


def _to_text(content: Content) -> str:
    return json.dumps(sorted(content.items()))
