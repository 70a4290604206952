"""What became of a request, as an answer. The only file that knows status codes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec
from litestar.exceptions import HTTPException

from customersignal_ingest.adapters.inbound.http.problem import ClientGone, Code, Problem
from customersignal_ingest.domain.errors import Saturated, Unauthenticated
from customersignal_ingest.domain.event import moment
from customersignal_ingest.domain.outcome import (
    NotStored,
    Outcome,
    Reason,
    Receipt,
    Refused,
    Rejected,
    Result,
    Stored,
    Unknown,
)
from customersignal_ingest.health import Health

REASON_MAX = 200
SERVER_ERRORS = 500
"""Statuses from here on are not the client's fault."""
CLIENT_GONE = 499
"""What log and metrics say of a request whose client left."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a code means: the status of a request that ends with it, and a sentence for people."""

    status: int
    text: str
    retry_after_s: int | None = None
    of_event: bool = False


CODES: Mapping[Code, Meaning] = {
    Code.FIELD_REQUIRED: Meaning(422, "A required field is missing.", of_event=True),
    Code.FIELD_TYPE: Meaning(422, "A field has the wrong JSON type.", of_event=True),
    Code.FIELD_VALUE: Meaning(422, "A field has a value that is not allowed.", of_event=True),
    Code.FIELD_TOO_LONG: Meaning(422, "A field has too many characters.", of_event=True),
    Code.FIELD_REPEATED: Meaning(422, "A field is in the event twice.", of_event=True),
    Code.TOO_DEEP: Meaning(422, "Objects and arrays are nested deeper than depth_max.", of_event=True),
    Code.TENANT_MISMATCH: Meaning(422, "tenant_id is not the tenant of the API key.", of_event=True),
    Code.PROJECT_MISMATCH: Meaning(422, "project_id is not the project of the API key.", of_event=True),
    Code.EVENT_TOO_LARGE: Meaning(413, "The event is larger than event_bytes_max.", of_event=True),
    Code.MALFORMED_JSON: Meaning(400, "The body, or the event, is not strict JSON in UTF-8.", of_event=True),
    Code.REFUSED_BY_STORE: Meaning(
        422, "The store does not take this event; sending it again is useless.", of_event=True
    ),
    Code.NOT_STORED: Meaning(503, "Certainly not stored; it is safe to send it again.", 2, of_event=True),
    Code.OUTCOME_UNKNOWN: Meaning(
        504, "It may have been stored; send it again with the same idempotency_key.", 5, of_event=True
    ),
    Code.INVALID_REQUEST: Meaning(400, "The request has the wrong shape, or could be read in two ways."),
    Code.API_KEY_MISSING: Meaning(401, "There is no API key: send it in the header X-CS-API-Key."),
    Code.API_KEY_INVALID: Meaning(401, "The API key is not known."),
    Code.API_KEY_REVOKED: Meaning(401, "The API key was revoked."),
    Code.API_KEY_EXPIRED: Meaning(401, "The API key has expired."),
    Code.KEYS_UNAVAILABLE: Meaning(503, "The API key can't be checked now; nothing was stored.", 2),
    Code.PAYLOAD_TOO_LARGE: Meaning(413, "The body is larger, or has more events, than a limit allows."),
    Code.HEADERS_TOO_LARGE: Meaning(431, "There are too many headers, or too many bytes of them."),
    Code.UNSUPPORTED_MEDIA_TYPE: Meaning(415, "The body is not said to be application/json."),
    Code.UNSUPPORTED_ENCODING: Meaning(415, "The content encoding is not one that can be decoded here."),
    Code.REQUEST_TIMEOUT: Meaning(408, "The body did not arrive within body_read_timeout_s."),
    Code.NOT_FOUND: Meaning(404, "There is nothing at this path."),
    Code.METHOD_NOT_ALLOWED: Meaning(
        405, "The path does not have this method; the header Allow has those that it has."
    ),
    Code.INTERNAL_ERROR: Meaning(500, "A bug in the service: the request's outcome is not known."),
}
"""Every code, of requests and of events, with the status of a request that ends with it."""

_CODE_OF_STATUS = {400: Code.INVALID_REQUEST, 404: Code.NOT_FOUND, 405: Code.METHOD_NOT_ALLOWED}
_CHALLENGE = 'ApiKey realm="customersignal", header="X-CS-API-Key", Bearer realm="customersignal"'

Status = Literal["accepted", "rejected", "not_stored", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer, ready to be sent."""

    status: int
    body: bytes = field(repr=False)
    headers: Mapping[str, str]


class _Error(msgspec.Struct):
    code: Code
    message: str
    details: Mapping[str, object]


class _Result(msgspec.Struct, omit_defaults=True):
    index: int
    status: Status
    event_id: str | None = None
    receipt: str | None = None
    error: _Error | None = None


class _Accepted(msgspec.Struct):
    status: Status
    event_id: str
    received_at: str
    receipt: str


_to_json = msgspec.json.Encoder().encode
_JSON = {"content-type": "application/json"}


def single(receipt: Receipt, /, *, event_bytes_max: int) -> Answer:
    """Return the answer for one event that is stored; raises the `Problem` of one that is not."""
    (result,) = receipt.results
    outcome = result.outcome
    if not isinstance(outcome, Stored):
        error = _error(outcome, event_bytes_max)
        beside = {} if result.event_id is None else {"event_id": result.event_id}
        raise Problem(error.code, error.message, details={**error.details, **beside})
    body = _Accepted("accepted", result.event_id or "", moment(receipt.received_at)[0], outcome.receipt)
    return Answer(status=202, body=_to_json(body), headers=_JSON)


def batch(receipt: Receipt, /, *, listed: bool, event_bytes_max: int) -> Answer:
    """Return the answer for a batch; raises the `Problem` of one of which nothing is stored for a while.

    `listed` asks for all results where every event is stored.
    """
    tally = receipt.tally
    stored, events = tally[Stored], len(receipt.results)
    counts = {"accepted": stored, "failed": events - stored}
    if stored == events and not listed:
        return Answer(status=202, body=_to_json({"status": "accepted", **counts}), headers=_JSON)
    counts_and_results = {**counts, "results": _results(receipt.results, event_bytes_max)}
    if stored == events:
        headers = {**_JSON, "preference-applied": "return=representation"}
        return Answer(status=202, body=_to_json({"status": "accepted", **counts_and_results}), headers=headers)
    if stored:
        return Answer(status=207, body=_to_json({"status": "partial", **counts_and_results}), headers=_JSON)
    if tally[Unknown]:
        raise Problem(Code.OUTCOME_UNKNOWN, beside={"status": "unknown", **counts_and_results})
    if tally[NotStored]:
        raise Problem(Code.NOT_STORED, beside={"status": "not_stored", **counts_and_results})
    return Answer(status=422, body=_to_json({"status": "rejected", **counts_and_results}), headers=_JSON)


def problem_of(error: Exception, /) -> Problem:
    """Return the problem that an error is to the client; what nobody expected is `INTERNAL_ERROR`."""
    match error:
        case Problem():
            return error
        case Unauthenticated():
            return Problem(Code(error.problem))
        case ClientGone():
            # Some servers say this of a body that they can't read; to those who left it is no news.
            return Problem(Code.INVALID_REQUEST, "the body is cut short, or can't be read to its end", close=True)
        case Saturated():
            return Problem(Code.NOT_STORED, f"Not stored, because {error}; it is safe to send it again.")
        case HTTPException(status_code=status) if status in _CODE_OF_STATUS:
            return Problem(_CODE_OF_STATUS[status])
        case _:
            return Problem(Code.INTERNAL_ERROR)


def failed(problem: Problem, /, *, request_id: str, rfc9457: bool = False) -> Answer:
    """Return the answer for a request that ended with a problem, in our shape or as RFC 9457 has it."""
    meaning = CODES[problem.code]
    message = problem.message or meaning.text
    headers = {"content-type": "application/problem+json" if rfc9457 else "application/json", **problem.headers}
    if meaning.retry_after_s is not None:
        headers["retry-after"] = str(meaning.retry_after_s)
    if meaning.status == 401:
        headers["www-authenticate"] = _CHALLENGE
    if rfc9457:
        body = _as_rfc9457(problem, meaning, message, request_id)
    else:
        error = _Error(problem.code, message, problem.details)
        body = {"error": error, "request_id": request_id, **problem.beside}
    return Answer(status=meaning.status, body=_to_json(body), headers=headers)


def live() -> Answer:
    """Return the answer of a process that can answer."""
    return Answer(status=200, body=b'{"status":"live"}', headers=_JSON)


def ready(health: Health, /) -> Answer:
    """Return whether an event sent now could be stored, and the state of each component."""
    components = {
        name: {"state": "ok" if seen.ok else "degraded" if seen.good_enough else "fail", "reason": seen.reason}
        for name, seen in health.states.items()
    }
    status = "ready" if health.ready else "not_ready"
    body = {"status": status, "draining": health.draining, "components": components}
    return Answer(status=200 if health.ready else 503, body=_to_json(body), headers=_JSON)


def facts(values: Mapping[str, object], /) -> Answer:
    """Return the answer that is these values by name."""
    return Answer(status=200, body=_to_json(values), headers=_JSON)


def page(body: bytes, content_type: str, /, headers: Mapping[str, str] | None = None) -> Answer:
    """Return the answer that is this text."""
    return Answer(status=200, body=body, headers={"content-type": content_type, **(headers or {})})


def empty(headers: Mapping[str, str], /) -> Answer:
    """Return the answer that is its headers alone."""
    return Answer(status=204, body=b"", headers=headers)


def _as_rfc9457(problem: Problem, meaning: Meaning, message: str, request_id: str) -> dict[str, object]:
    return {
        "type": f"/schema#{problem.code}",
        "title": meaning.text,
        "status": meaning.status,
        "detail": message,
        "instance": f"urn:request:{request_id}",
        "code": problem.code,
        "details": problem.details,
        "request_id": request_id,
        # RFC 9457 has a number of this name, so what became of the events is the results' to say.
        **{name: value for name, value in problem.beside.items() if name != "status"},
    }


def _results(results: Sequence[Result], event_bytes_max: int) -> list[_Result]:
    return [_result(index, result, event_bytes_max) for index, result in enumerate(results)]


def _result(index: int, result: Result, event_bytes_max: int) -> _Result:
    outcome = result.outcome
    if isinstance(outcome, Stored):
        return _Result(index, "accepted", result.event_id, outcome.receipt)
    error = _error(outcome, event_bytes_max)
    error.details = {**error.details, "index": index}
    return _Result(index, _STATUS[type(outcome)], result.event_id, error=error)


_STATUS: Mapping[type[Outcome] | type[Rejected], Status] = {
    Stored: "accepted",
    Rejected: "rejected",
    Refused: "rejected",
    NotStored: "not_stored",
    Unknown: "unknown",
}


def _error(outcome: Outcome | Rejected, event_bytes_max: int) -> _Error:
    match outcome:
        case Rejected(Reason.EVENT_TOO_LARGE, message):
            return _Error(Code.EVENT_TOO_LARGE, message, {"limit": "event_bytes_max", "value": event_bytes_max})
        case Rejected(reason, message, field):
            return _Error(Code(reason), message, {} if field is None else {"field": field})
        case Refused(reason):
            return _Error(Code.REFUSED_BY_STORE, f"The store does not take this event: {reason[:REASON_MAX]}", {})
        case NotStored():
            return _Error(Code.NOT_STORED, CODES[Code.NOT_STORED].text, {})
        case _:
            return _Error(Code.OUTCOME_UNKNOWN, CODES[Code.OUTCOME_UNKNOWN].text, {})
