"""The description of the API: OpenAPI 3.1, each example made by the code that makes the answers.

Litestar would describe handlers by their types. Ours take bytes, since each event of a body has a
fate of its own, so the document is put together here from the table of codes and the models.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from customersignal_ingest.adapters.inbound.http import answers, schema
from customersignal_ingest.adapters.inbound.http.answers import CODES
from customersignal_ingest.adapters.inbound.http.encodings import DECODERS
from customersignal_ingest.adapters.inbound.http.problem import Code, Problem
from customersignal_ingest.domain.outcome import NotStored, Outcome, Reason, Receipt, Rejected, Result, Stored, Unknown
from customersignal_ingest.domain.rules import IDEMPOTENCY_KEY_MAX
from customersignal_ingest.health import Health
from customersignal_ingest.version import __version__

Json = dict[str, Any]

_REQUEST_ID = "2f1c0f7a51f64f6c9d0e8b6f0a3d7c11"
_EVENT_ID = "0193f5a2-6c1e-7b3a-9d57-4e1f0c2b8a66"
_EVENT: Json = {"event_type": "signed_up", "timestamp": "2026-11-23T10:00:00Z", "properties": {"plan": "pro"}}
_EVENT_WITH_ALL: Json = {
    **_EVENT,
    "user_id": "u1",
    "session_id": "s1",
    "idempotency_key": "order-1289",
    "project_id": "shop",
    "app_version": "4.2.0",
}
_STORED = Stored("events_raw", 3, 1289)
_REJECTED = Rejected(Reason.FIELD_REQUIRED, "timestamp is required", "/timestamp")
_BYTES_MAX = 900_000

# Without blanks at its ends, which belong to no header's value.
_PRINTABLE: Json = {"minLength": 1, "maxLength": IDEMPOTENCY_KEY_MAX, "pattern": "^[!-~]([ -~]*[!-~])?$"}
# No parameter: a generated client would set one and not compress.
_COMPRESSED = f"May be compressed: `Content-Encoding` is then {' or '.join(f'`{name}`' for name in DECODERS)}."

_DETAILS: Mapping[Code, Json] = {
    **{Code(reason): {"field": "/timestamp"} for reason in Reason if reason.startswith("FIELD")},
    Code.TOO_DEEP: {"field": "/properties/a"},
    Code.TENANT_MISMATCH: {"field": "/tenant_id"},
    Code.PROJECT_MISMATCH: {"field": "/project_id"},
    Code.EVENT_TOO_LARGE: {"limit": "event_bytes_max", "value": _BYTES_MAX},
    Code.PAYLOAD_TOO_LARGE: {"limit": "body_bytes_max", "value": 10_000_000},
    Code.HEADERS_TOO_LARGE: {"limit": "headers_max", "value": 100},
}
_OF_ANY = (Code.INVALID_REQUEST, Code.HEADERS_TOO_LARGE, Code.INTERNAL_ERROR)
_OF_SINGLE = tuple(code for code in Code if code not in (Code.NOT_FOUND, Code.METHOD_NOT_ALLOWED))
_OF_BATCH = tuple(
    code
    for code in _OF_SINGLE
    if not CODES[code].of_event or code in (Code.MALFORMED_JSON, Code.TOO_DEEP, Code.NOT_STORED)
)

_HEADERS: Mapping[str, str] = {
    "X-Request-Id": "The caller's id for the request if it is 1 to 64 of letters, digits, '.', '_', '-', else ours.",
    "Retry-After": "Whole seconds to wait before sending again.",
    "WWW-Authenticate": "How to authenticate.",
    "Accept": "The media type that is accepted.",
    "Accept-Encoding": "The content encodings that are accepted.",
    "Allow": "The methods that the path has.",
    "Preference-Applied": "The preference that was honoured.",
}
_HEADERS_OF_STATUS: Mapping[int, tuple[str, ...]] = {
    401: ("WWW-Authenticate",),
    405: ("Allow",),
    415: ("Accept", "Accept-Encoding"),
    503: ("Retry-After",),
    504: ("Retry-After",),
}


def document() -> Json:
    """Return the whole document."""
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "CustomerSignal Ingest",
            "version": __version__,
            "description": "Takes events and answers 202 only once each of them is stored durably.",
        },
        "paths": _paths(),
        "components": {
            "schemas": schema.schemas(),
            "securitySchemes": {
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-CS-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer", "description": "The same API key."},
            },
            "headers": {name: _header(text) for name, text in _HEADERS.items()},
            "responses": {
                "NotFound": _failures(404, [Code.NOT_FOUND]),
                "MethodNotAllowed": _failures(405, [Code.METHOD_NOT_ALLOWED]),
            },
        },
    }


def _paths() -> Json:
    ready, not_ready = Health([], clock=lambda: 0.0), Health([], clock=lambda: 0.0)
    not_ready.drain()
    readiness = {200: _readiness(ready), 503: _readiness(not_ready)}
    live = {200: _says("The process can answer.", "Live", {"live": _body(answers.live())})}
    limits = {200: _says("Every limit in force.", "Limits", {"some": {"event_bytes_max": _BYTES_MAX}})}
    return {
        "/v1/events": {"post": _single()},
        "/v1/events/batch": {"post": _batch()},
        "/v1/limits": {"get": _look("limits", "Every limit in force, by name and unit", limits)},
        "/health/live": _looks("live", "Whether the process can answer", live),
        "/health/ready": _looks("ready", "Whether an event sent now could be stored", readiness),
        "/metrics": {"get": _look("metrics", "Metrics for Prometheus", {200: _text("text/plain", "Metrics.")})},
        "/schema/openapi.json": {
            "get": _look("openapi", "This document", {200: _text("application/json", "OpenAPI 3.1.")})
        },
        "/schema": {"get": _look("page", "This document, to read", {200: _text("text/html", "A page.")})},
    }


def _single() -> Json:
    receipt = _receipt(_STORED)
    accepted = _body(answers.single(receipt, event_bytes_max=_BYTES_MAX))
    return {
        "operationId": "sendEvent",
        "summary": "Store one event",
        "description": "202 means stored. The body is the event.",
        "security": [{"apiKey": []}, {"bearer": []}],
        "parameters": [
            _parameter("Idempotency-Key", "Stands for the field idempotency_key.", _PRINTABLE),
            *_parameters_of_both(),
        ],
        "requestBody": _request("Event", {"small": _EVENT, "with everything": _EVENT_WITH_ALL}),
        "responses": _responses({202: _says("The event is stored.", "Accepted", {"stored": accepted})}, _OF_SINGLE),
    }


def _batch() -> Json:
    some = _batch_answer(_STORED, _REJECTED)
    special = {
        202: _says(
            "Every event is stored.",
            "BatchAccepted",
            {"counts": _batch_answer(_STORED), "with results": _batch_answer(_STORED, listed=True)},
            headers=("Preference-Applied",),
        ),
        207: _says("Some events are stored and some are not.", "BatchPartial", {"partial": some}),
        422: _says("No event is valid.", "BatchRejected", {"rejected": _batch_answer(_REJECTED)}),
        503: _says("No event is stored.", "BatchNotStored", {"not stored": _batch_answer(NotStored("full"))}),
        504: _says("It is not known.", "BatchUnknown", {"unknown": _batch_answer(Unknown("no answer"), _REJECTED)}),
    }
    return {
        "operationId": "sendBatch",
        "summary": "Store several events",
        "description": "Each event has a fate of its own. 202 means that all are stored.",
        "security": [{"apiKey": []}, {"bearer": []}],
        "parameters": [
            _parameter("Prefer", "`return=representation` lists the results of a 202 too.", {}),
            *_parameters_of_both(),
        ],
        "requestBody": _request("Batch", {"two": {"events": [_EVENT, _EVENT_WITH_ALL]}}),
        "responses": _responses(special, _OF_BATCH),
    }


def _look(name: str, summary: str, said: Mapping[int, Json]) -> Json:
    return {"operationId": name, "summary": summary, "security": [], "responses": _responses(said, _OF_ANY)}


def _looks(name: str, summary: str, said: Mapping[int, Json]) -> Json:
    silent = {status: {"description": answer["description"]} for status, answer in said.items()}
    head = {"operationId": f"{name}Head", "summary": f"{summary}, without a body", "security": []}
    return {
        "get": _look(name, summary, said),
        "head": {**head, "responses": {str(status): answer for status, answer in silent.items()}},
    }


def _responses(said: Mapping[int, Json], codes: Iterable[Code]) -> Json:
    """Join the answers that are no errors with those of the codes, by status."""
    by_status: dict[int, list[Code]] = {}
    for code in codes:
        by_status.setdefault(CODES[code].status, []).append(code)
    failures = {status: _failures(status, of_status) for status, of_status in by_status.items()}
    both = {status: _either(said[status], failures[status]) for status in said.keys() & failures.keys()}
    return {str(status): answer for status, answer in sorted({**said, **failures, **both}.items())}


def _either(one: Json, other: Json) -> Json:
    json_of_one, json_of_other = one["content"]["application/json"], other["content"]["application/json"]
    schemas = {"anyOf": [json_of_one["schema"], json_of_other["schema"]]}
    examples = {**json_of_one["examples"], **json_of_other["examples"]}
    content = {**other["content"], "application/json": {"schema": schemas, "examples": examples}}
    return {**other, "description": f"{one['description']} {other['description']}", "content": content}


def _failures(status: int, codes: Iterable[Code]) -> Json:
    named = {code.value: CODES[code].text for code in codes}
    plain = {code: _failure(Code(code), rfc9457=False) for code in named}
    rfc9457 = {code: _failure(Code(code), rfc9457=True) for code in named}
    answer = _says(" ".join(f"`{code}`: {text}" for code, text in named.items()), "Failure", plain)
    answer["content"]["application/problem+json"] = _content("Problem", rfc9457)
    answer["headers"] |= {name: _ref("headers", name) for name in _HEADERS_OF_STATUS.get(status, ())}
    return answer


def _failure(code: Code, *, rfc9457: bool) -> Json:
    return _body(answers.failed(Problem(code, details=_DETAILS.get(code)), request_id=_REQUEST_ID, rfc9457=rfc9457))


def _batch_answer(*outcomes: Outcome | Rejected, listed: bool = False) -> Json:
    try:
        return _body(answers.batch(_receipt(*outcomes), listed=listed, event_bytes_max=_BYTES_MAX))
    except Problem as problem:
        return _body(answers.failed(problem, request_id=_REQUEST_ID))


def _receipt(*outcomes: Outcome | Rejected) -> Receipt:
    results = tuple(Result(None if isinstance(o, Rejected) else _EVENT_ID, o) for o in outcomes)
    return Receipt(datetime(2026, 11, 23, 10, 0, 0, 123456, UTC), results)


def _readiness(health: Health) -> Json:
    body = _body(answers.ready(health)) | {"components": {"publisher": {"state": "ok", "reason": ""}}}
    return _says("Ready." if health.ready else "Not ready.", "Readiness", {body["status"]: body})


def _body(answer: answers.Answer) -> Json:
    body: Json = msgspec.json.decode(answer.body)
    return body


def _says(text: str, model: str, examples: Mapping[str, Json], *, headers: Iterable[str] = ()) -> Json:
    names = ("X-Request-Id", *headers)
    content = {"application/json": _content(model, examples)}
    return {"description": text, "headers": {name: _ref("headers", name) for name in names}, "content": content}


def _text(media_type: str, text: str) -> Json:
    headers = {"X-Request-Id": _ref("headers", "X-Request-Id")}
    return {"description": text, "headers": headers, "content": {media_type: {}}}


def _request(model: str, examples: Mapping[str, Json]) -> Json:
    return {"description": _COMPRESSED, "required": True, "content": {"application/json": _content(model, examples)}}


def _content(model: str, examples: Mapping[str, Json]) -> Json:
    return {"schema": _ref("schemas", model), "examples": {name: {"value": value} for name, value in examples.items()}}


def _ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def _header(text: str) -> Json:
    return {"description": text, "schema": {"type": "string"}}


def _parameter(name: str, text: str, rule: Json) -> Json:
    return {"name": name, "in": "header", "description": text, "schema": {"type": "string", **rule}}


def _parameters_of_both() -> list[Json]:
    return [
        _parameter("traceparent", "W3C trace context; a valid one goes into the record's headers.", {}),
        _parameter("X-Request-Id", _HEADERS["X-Request-Id"], {}),
    ]
