"""The law: accepted means stored, and what it takes to say so. Checks that complain, for any transport.

Each event of each request carries a mark of its own, as its `event_type`, so that what is in the
log can be told apart by the very attempt that put it there.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from typing import Literal, Protocol

from customersignal_ingest.domain.event import StoredRecord
from customersignal_ingest.domain.key import Tenant
from customersignal_ingest.testing.planted import PROPERTY

Status = Literal["accepted", "rejected", "not_stored", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one event was answered; an answer that lists no events has neither `event_id` nor a place."""

    status: Status
    event_id: str | None = None
    receipt: str | None = None
    code: str | None = None


class Submit(Protocol):
    """A way into the service: the use case itself, or a transport before it."""

    async def __call__(self, tenant: Tenant, payloads: Sequence[bytes], /) -> Sequence[Row]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An event before it is sent: a broken payload, or else a good one with these fields."""

    broken: bytes | None = None
    user_id: str | None = None
    idempotency_key: str | None = None
    properties: str = f'{{"n":1.0,"is":"{PROPERTY}"}}'

    def payload(self, mark: str) -> bytes:
        if self.broken is not None:
            return self.broken
        texts = {"event_type": mark, "timestamp": "2026-11-23T10:00:00Z"}
        optional = {"user_id": self.user_id, "idempotency_key": self.idempotency_key}
        fields = json.dumps(texts | {name: text for name, text in optional.items() if text is not None})
        return f'{fields[:-1]},"properties":{self.properties}}}'.encode()


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One event in one request. Without a row it is in flight, or its client left."""

    tenant: Tenant
    mark: str
    draft: Draft
    began: int
    answered: int | None = None
    row: Row | None = None


@dataclass(slots=True)
class Law:
    """Sends events, remembers what was answered, and complains of what breaks the law."""

    stored: Callable[[], Sequence[StoredRecord]]
    complaints: list[str] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    _steps: Iterator[int] = field(default_factory=count)

    async def send(self, submit: Submit, tenant: Tenant, drafts: Sequence[Draft]) -> Sequence[Row]:
        """Send one request, and hold its answer against the log at the moment of the answer."""
        sent = self.begin(tenant, drafts)
        rows = await submit(tenant, [attempt.draft.payload(attempt.mark) for attempt in sent])
        self.answered(sent, rows)
        return rows

    def begin(self, tenant: Tenant, drafts: Sequence[Draft]) -> list[Attempt]:
        """Give each event of a request its mark, just before it is sent."""
        began = next(self._steps)
        sent = [Attempt(tenant=tenant, mark=f"m{began}.{at}", draft=d, began=began) for at, d in enumerate(drafts)]
        self.attempts += sent
        return sent

    def answered(self, sent: Sequence[Attempt], rows: Sequence[Row]) -> None:
        """Hold an answer against the log: to be called at the very moment of the answer."""
        answered = next(self._steps)
        for attempt, row in zip(sent, rows, strict=False):
            attempt.row, attempt.answered = row, answered
        self.complaints += about_the_answer(sent, rows, self.stored())

    def check(self) -> list[str]:
        """Return every complaint so far, and those about the log as it is now."""
        return [*self.complaints, *about_the_log(self.attempts, self.stored()), *about_ids(self.attempts)]


def about_the_answer(sent: Sequence[Attempt], rows: Sequence[Row], stored: Sequence[StoredRecord]) -> Iterator[str]:
    """One row an event, in their order; what is accepted is in the log by now, where the receipt says."""
    if len(rows) != len(sent):
        yield f"{len(rows)} rows for {len(sent)} events"
    there = {record.receipt: record for record in stored} | {str(_said(r)["event_type"]): r for r in stored}
    for attempt, row in zip(sent, rows, strict=False):
        broken = attempt.draft.broken is not None
        if broken and row.status in ("accepted", "unknown"):
            yield f"{attempt.mark}: broken, and answered {row.status}"
        if not broken and row.status == "rejected" and row.code != "REFUSED_BY_STORE":
            yield f"{attempt.mark}: valid, and rejected by our rules"
        if row.status == "accepted":
            yield from _about_the_promise(attempt, row, there.get(_place(attempt, row)))


def _place(attempt: Attempt, row: Row) -> str:
    """The receipt; or the mark, where the store confirmed without saying the place."""
    receipt = str(row.receipt)
    return attempt.mark if receipt.endswith("/-") else receipt


def _about_the_promise(attempt: Attempt, row: Row, record: StoredRecord | None) -> Iterator[str]:
    if record is None:
        yield f"{attempt.mark}: accepted, and nothing is stored at {row.receipt}"
    elif _said(record)["event_type"] != attempt.mark:
        yield f"{attempt.mark}: accepted, and another event is stored at {row.receipt}"
    elif row.event_id is not None and _said(record)["event_id"] != row.event_id:
        yield f"{attempt.mark}: answered with another event_id than the stored one"


def about_the_log(attempts: Sequence[Attempt], stored: Sequence[StoredRecord]) -> Iterator[str]:
    """What is in the log was sent, by its own tenant, once, as sent; and was not answered otherwise."""
    sent = {attempt.mark: attempt for attempt in attempts}
    for mark, times in Counter(str(_said(record)["event_type"]) for record in stored).items():
        if times > 1:
            yield f"{mark}: stored {times} times"
    for record in stored:
        attempt = sent.get(str(_said(record)["event_type"]))
        if attempt is None or attempt.draft.broken is not None:
            yield f"{record.receipt}: stored, though nobody sent it"
        else:
            yield from _about_the_record(attempt, record)
    yield from _about_order(attempts)


def _about_the_record(attempt: Attempt, record: StoredRecord) -> Iterator[str]:
    said, headers, tenant_id = _said(record), dict(record.headers), attempt.tenant.tenant_id
    if attempt.row is not None and attempt.row.status not in ("accepted", "unknown"):
        yield f"{attempt.mark}: answered {attempt.row.status}, and stored all the same"
    if {said["tenant_id"], headers["tenant_id"].decode()} != {tenant_id} or not record.key.startswith(
        f"{tenant_id}:".encode()
    ):
        yield f"{attempt.mark}: stored for another tenant"
    if headers["event_id"].decode() != said["event_id"]:
        yield f"{attempt.mark}: two event_ids in one record"
    if f'"properties":{attempt.draft.properties}'.encode() not in record.value:
        yield f"{attempt.mark}: stored otherwise than sent"


def _about_order(attempts: Iterable[Attempt]) -> Iterator[str]:
    """Of one user's events, one sent after the other was accepted, or after it in one batch, is stored after it."""
    latest: dict[tuple[str, str], list[tuple[Attempt, int]]] = {}
    for attempt in attempts:
        if attempt.row is None or attempt.row.status != "accepted" or attempt.draft.user_id is None:
            continue
        digits = str(attempt.row.receipt).rpartition("/")[2]
        if not digits.isdecimal():  # Without a place; where there ought to be one, the promise has its complaint.
            continue
        offset = int(digits)
        before = latest.setdefault((attempt.tenant.tenant_id, attempt.draft.user_id), [])
        if any(((e.answered or 0) < attempt.began or e.began == attempt.began) and at >= offset for e, at in before):
            yield f"{attempt.mark}: stored before what its user had been told of"
        before.append((attempt, offset))


def about_ids(attempts: Sequence[Attempt]) -> Iterator[str]:
    """One idempotency key of one tenant and project is one event_id, whatever the answer; all others differ."""
    ids: dict[tuple[str, str | None, str], set[str]] = {}
    for attempt in attempts:
        if attempt.row is not None and attempt.row.event_id is not None:
            same = attempt.draft.idempotency_key or f"none: {attempt.mark}"
            namespace = attempt.tenant.tenant_id, attempt.tenant.project_id, same
            ids.setdefault(namespace, set()).add(attempt.row.event_id)
    for (tenant_id, _, key), made in ids.items():
        if len(made) > 1:
            yield f"{tenant_id} {key}: {len(made)} event_ids for one idempotency key"
    taken = Counter(event_id for made in ids.values() for event_id in made)
    yield from (f"{event_id}: one event_id for different events" for event_id, n in taken.items() if n > 1)


def _said(record: StoredRecord) -> dict[str, object]:
    return said_in(record.value)


@lru_cache(maxsize=4096)  # The log is looked through at every answer.
def said_in(value: bytes) -> dict[str, object]:
    """Return what a stored value says; not to be changed."""
    said: dict[str, object] = json.loads(value)
    return said
