"""What clients may rely on, held against what they sent, what they were answered, and the log.

It knows nothing of the service's code. `tests/unit/law.py` holds each answer against the log at its
very moment; here is what the law of single events leaves out.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from customersignal_ingest.domain.event import StoredRecord
from tests.simulation.connection import Reply
from tests.simulation.database import Key
from tests.unit.law import Attempt, Row, said_in

SINGLE = {202: "accepted", 422: "rejected", 503: "not_stored", 504: "unknown"}
REFUSALS = {
    "API_KEY_MISSING": 401,
    "API_KEY_INVALID": 401,
    "API_KEY_REVOKED": 401,
    "API_KEY_EXPIRED": 401,
    "KEYS_UNAVAILABLE": 503,
    "REQUEST_TIMEOUT": 408,
}
"""What ends a request before any of its events is looked at: nothing of it is stored."""
VALUE_FIELDS = {
    "event_id",
    "tenant_id",
    "project_id",
    "environment",
    "event_type",
    "timestamp",
    "received_at",
    "user_id",
    "idempotency_key",
    "properties",
}


@dataclass(slots=True, kw_only=True)
class Request:
    """A request, and what its client and the world know of it. Times are the simulation's seconds."""

    secret: str | None
    key: Key | None
    batch: bool
    began: int
    sent_at: float
    attempts: Sequence[Attempt] = ()
    process: object = None
    refused: bool = False
    body_at: float | None = None
    answered_at: float | None = None
    ended_at: float | None = None
    left: bool = False
    cut: bool = False
    status: int | None = None
    code: str | None = None
    rows: Sequence[Row] = field(default_factory=list)

    @property
    def authenticated(self) -> bool:
        """Whether the answer shows that the key was good."""
        return self.status is not None and not str(self.code).startswith(("API_KEY_", "KEYS_"))


def read_reply(reply: Reply, request: Request) -> Iterator[str]:
    """Note what the answer says on the request, and complain of an answer that contradicts itself."""
    said = json.loads(reply.body)
    request.status, request.code = reply.status, said.get("error", {}).get("code")
    if reply.status >= 500 and reply.status not in (503, 504):
        yield f"answered {reply.status}: {said}"
    if (request.code in REFUSALS) and reply.status != REFUSALS[str(request.code)]:
        yield f"{request.code} with status {reply.status}"
    if reply.status in (503, 504) and "retry-after" not in reply.headers:
        yield f"{reply.status} without Retry-After"
    if request.batch and reply.status == 202 and "results" not in said:
        request.rows = [Row(status="accepted", receipt="/-")] * len(request.attempts)
    elif request.code in REFUSALS or (request.batch and "results" not in said):
        request.rows = [Row(status="not_stored", code=request.code)] * len(request.attempts)
    elif request.batch:
        request.rows = [_row(result) for result in said["results"]]
        yield from _about_the_batch(reply.status, said)
    else:
        status = SINGLE.get(reply.status, "rejected")
        event_id = said.get("event_id") or said.get("error", {}).get("details", {}).get("event_id")
        request.rows = [Row(status=status, event_id=event_id, receipt=said.get("receipt"), code=request.code)]  # type: ignore[arg-type]  # one of the four
    if "results" in said or not request.batch:
        for row in request.rows:
            if row.status == "accepted" and not (row.event_id and row.receipt):
                yield "accepted without an event_id, or without a receipt"


def _row(said: dict[str, object]) -> Row:
    error = said.get("error", {})
    code = error["code"] if isinstance(error, dict) and error else None
    return Row(status=said["status"], event_id=said.get("event_id"), receipt=said.get("receipt"), code=code)  # type: ignore[arg-type]  # as the contract has it


def _about_the_batch(status: int, said: dict[str, list[dict[str, object]]]) -> Iterator[str]:
    """202 is for all, 207 for some, else the worst of what became of them."""
    statuses = Counter(str(result["status"]) for result in said["results"])
    accepted = statuses["accepted"]
    expected = (
        202
        if accepted == statuses.total()
        else 207
        if accepted
        else 504
        if statuses["unknown"]
        else 503
        if statuses["not_stored"]
        else 422
    )
    if status != expected:
        yield f"a batch of {dict(statuses)} is answered {status}"
    if [result["index"] for result in said["results"]] != list(range(statuses.total())):
        yield "results are not in the order of the events"
    if (said["accepted"], said["failed"]) != (accepted, statuses.total() - accepted):
        yield f"a batch of {dict(statuses)} is counted as {said['accepted']} and {said['failed']}"


def about_time(request: Request, stalled_s: float, *, within_s: float, body_within_s: float) -> Iterator[str]:
    """Each request ends within the deadline, counted from the last of its body."""
    if request.refused or request.cut:
        return
    if request.ended_at is None:
        yield f"{_name(request)}: never ended"
        return
    body_s = min((request.ended_at if request.body_at is None else request.body_at) - request.sent_at, body_within_s)
    took_s = request.ended_at - request.sent_at
    if took_s > body_s + within_s + stalled_s:
        yield f"{_name(request)}: took {took_s:.2f} s, of which {body_s:.2f} s for its body"
    if request.answered_at is None and not request.left:
        yield f"{_name(request)}: ended without an answer"


def about_content(record: StoredRecord, attempt: Attempt) -> Iterator[str]:
    """A stored value says what was sent, whose it is, and nothing else."""
    said, draft, tenant = said_in(record.value), attempt.draft, attempt.tenant
    expected = {
        "event_type": attempt.mark,
        "timestamp": "2026-11-23T10:00:00Z",
        "user_id": draft.user_id,
        "idempotency_key": draft.idempotency_key,
        "tenant_id": tenant.tenant_id,
        "project_id": tenant.project_id,
        "environment": tenant.environment,
        "properties": json.loads(draft.properties),
    }
    if {name: said.get(name) for name in expected} != expected:
        yield f"{attempt.mark}: stored otherwise than sent: {said}"
    if not set(said) <= VALUE_FIELDS:
        yield f"{attempt.mark}: stored with fields that nobody sent: {set(said) - VALUE_FIELDS}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long a change of a key may go unnoticed.

    While its database works, while it does not, of an unknown key, and after it was announced.
    """

    fresh_s: float
    stale_s: float
    unknown_s: float
    told_s: float


def about_the_key(
    request: Request,
    stored: bool,
    bounds: Bounds,
    clock: tuple[datetime, datetime],
    *,
    works: bool,
    worked: bool,
    stalled_s: float,
) -> Iterator[str]:
    """A request gets in with a good key only, and is turned away for what is true of its key.

    `clock` is the span of dates that the service's clock showed meanwhile. `works` tells whether the
    database worked from `fresh_s` before the request to its end, `worked` whether it did at its time.
    """
    key, end = request.key, request.ended_at
    if end is None or request.refused:
        return
    since = request.sent_at - (bounds.fresh_s if works else bounds.stale_s) - stalled_s
    if request.authenticated or stored:
        if key is None or key.made_at > end:
            yield f"{_name(request)}: let in without a good key"
        elif key.revoked_at < since:
            yield f"{_name(request)}: let in {request.sent_at - key.revoked_at:.1f} s after its key was revoked"
        elif works and key.announced_at < request.sent_at - bounds.told_s - stalled_s:
            yield f"{_name(request)}: let in though it was announced that its key is revoked"
        elif key.expires_at is not None and key.expires_at <= clock[0] and key.expiry_set_at < since:
            yield f"{_name(request)}: let in with an expired key"
    match request.code:
        case "API_KEY_MISSING" if request.secret is not None:
            yield f"{_name(request)}: its key is said to be missing"
        case "API_KEY_INVALID" if key is not None and key.made_at < request.sent_at - bounds.unknown_s - stalled_s:
            yield f"{_name(request)}: its key is said to be unknown"
        case "API_KEY_REVOKED" if key is None or key.revoked_at > end:
            yield f"{_name(request)}: its key is said to be revoked"
        case "API_KEY_EXPIRED" if key is None or key.expires_at is None or key.expires_at > clock[1]:
            yield f"{_name(request)}: its key is said to have expired"
        case "KEYS_UNAVAILABLE" if worked:
            yield f"{_name(request)}: its key could be checked, and it is said that not"


def about_ids_in_the_log(attempts: Sequence[Attempt], stored: Sequence[StoredRecord]) -> Iterator[str]:
    """What was never answered keeps to its id as well: one a key of a tenant, and none shared."""
    sent = {attempt.mark: attempt for attempt in attempts}
    ids: dict[tuple[str, str | None, str], set[object]] = {}
    for record in stored:
        said = said_in(record.value)
        attempt = sent.get(str(said["event_type"]))
        if attempt is not None:
            same = attempt.draft.idempotency_key or f"none: {attempt.mark}"
            ids.setdefault((attempt.tenant.tenant_id, attempt.tenant.project_id, same), set()).add(said["event_id"])
            if attempt.row is not None and attempt.row.event_id not in (None, said["event_id"]):
                yield f"{attempt.mark}: answered with {attempt.row.event_id}, stored as {said['event_id']}"
    for same, made in ids.items():
        if len(made) > 1:
            yield f"{same}: stored under {len(made)} event_ids"
    taken = Counter(event_id for made in ids.values() for event_id in made)
    yield from (f"{event_id}: one event_id for different events" for event_id, n in taken.items() if n > 1)


def about_secrets(texts: Sequence[str], secrets: Sequence[str]) -> Iterator[str]:
    """No key is in any log line, nor a payload."""
    whole = "\n".join(texts)
    yield from (f"a secret is in the log: {secret}" for secret in secrets if secret in whole)


def _name(request: Request) -> str:
    return f"request {request.began}"
