"""What is wrong with what became of a request: nothing but the contract is taken for right."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from tests.hostile.corpus import Expected, Row
from tests.hostile.wire import Answer, Seen

_MUST_SAY = {401: ("www-authenticate",), 405: ("allow",), 408: ("connection",), 413: ()}
_ALWAYS = {"x-content-type-options": "nosniff", "cache-control": "no-store"}
_MESSAGE_MAX = 400


def complaints(row: Row, seen: Seen, /, *, never: Sequence[bytes]) -> list[str]:
    """Return what the contract does not allow; `never` is what no answer may have."""
    return [*_about_the_connection(row, seen), *_about_leaks(seen, never), *_about_answers(row, seen)]


def _about_the_connection(row: Row, seen: Seen) -> Iterator[str]:
    if row.then == "leave":
        return
    if seen.flaw is not None:
        yield seen.flaw
    if not seen.ended:
        yield "the connection does not end"
    if not seen.answers and not seen.flaw and Expected(status=None) not in row.ends:
        yield f"closed without an answer, instead of {_either(row.ends)}"
    least, most = row.answers
    if seen.answers and not least <= len(seen.answers) <= most:
        yield f"{[answer.status for answer in seen.answers]} are {len(seen.answers)} answers instead of {row.answers}"


def _about_leaks(seen: Seen, never: Sequence[bytes]) -> Iterator[str]:
    for secret in (*never, b"Traceback", b'File "'):
        if secret in seen.raw:
            yield f"the answer has {secret.decode()!r}"


def _about_answers(row: Row, seen: Seen) -> Iterator[str]:
    for answer in seen.answers:
        body = _json(answer)
        if not answer.header("x-request-id"):
            yield f"{answer.status} without x-request-id, an answer of the server that we never gave"
            continue
        if not any(_is(answer, body, end) for end in row.ends):
            yield f"{_told(answer, body)} instead of {_either(row.ends)}"
        if row.results is not None and _results(body) != row.results:
            yield f"results {_results(body)} instead of {row.results}"
        yield from _about_headers(answer)
        if answer.status >= 400 and row.method != "HEAD":
            yield from _about_an_error(answer, body)


def _is(answer: Answer, body: Any, end: Expected) -> bool:
    if answer.status != end.status:
        return False
    code, field = _code(body)
    return end.code in (None, code) and end.field in (None, field)


def _about_headers(answer: Answer) -> Iterator[str]:
    names = [name for name, _ in answer.headers]
    yield from (f"the header {name} is there twice" for name in sorted({n for n in names if names.count(n) > 1}))
    yield from (
        f"{answer.status} has no {name}: {value}" for name, value in _ALWAYS.items() if answer.header(name) != value
    )
    yield from (
        f"{answer.status} has no {name}" for name in _MUST_SAY.get(answer.status, ()) if not answer.header(name)
    )
    if answer.status == 415 and not (answer.header("accept") or answer.header("accept-encoding")):
        yield "415 has neither accept nor accept-encoding"
    if answer.status in (503, 504) and not (answer.header("retry-after") or "").isdigit():
        yield f"{answer.status} has no retry-after"


def _about_an_error(answer: Answer, body: Any) -> Iterator[str]:
    if not isinstance(body, dict):
        yield f"{answer.status} has no JSON object for a body"
    elif "results" in body:
        if {"status", "accepted", "failed", "results"} - body.keys():
            yield "a batch's answer has not all that it must have"
    elif answer.header("content-type") == "application/problem+json":
        if body.get("status") != answer.status or body.get("request_id") != answer.header("x-request-id"):
            yield "a problem has another status or request id than its answer"
    else:
        yield from _about_our_shape(answer, body)


def _about_our_shape(answer: Answer, body: dict[str, Any]) -> Iterator[str]:
    error = body.get("error")
    if answer.header("content-type") != "application/json":
        yield f"an error is {answer.header('content-type')}"
    if body.keys() != {"error", "request_id"} or not isinstance(error, dict):
        yield "an error has another shape than ours"
    elif error.keys() != {"code", "message", "details"}:
        yield f"an error has {sorted(error)}"
    elif len(error["message"]) > _MESSAGE_MAX:
        yield "an error has an unbounded message"
    elif answer.status == 413 and {"limit", "value"} - error["details"].keys():
        yield "413 does not name the limit and its value"
    elif body["request_id"] != answer.header("x-request-id"):
        yield "an error has another request id than its answer"


def _json(answer: Answer) -> Any:
    try:
        return json.loads(answer.body)
    except ValueError:
        return None


def _code(body: Any) -> tuple[str | None, str | None]:
    if not isinstance(body, dict):
        return None, None
    error = body.get("error", body)
    if not isinstance(error, dict):
        return None, None
    details = error.get("details") or {}
    # The event itself has the empty pointer, which a row writes as `(event)`.
    field = details.get("field")
    return error.get("code"), "(event)" if field == "" else field


def _results(body: Any) -> tuple[str, ...] | None:
    if not isinstance(body, dict) or not isinstance(body.get("results"), list):
        return None
    return tuple(_result(number, result) for number, result in enumerate(body["results"]))


def _result(number: int, result: dict[str, Any]) -> str:
    if result["index"] != number:
        return f"index {result['index']} at {number}"
    if result["status"] == "accepted":
        return "accepted" if result.get("event_id") and result.get("receipt") else "accepted without id or receipt"
    code, field = _code(result)
    return " ".join(filter(None, [code, field]))


def _told(answer: Answer, body: Any) -> str:
    code, field = _code(body)
    return str(Expected(status=answer.status, code=code, field=field))


def _either(ends: Sequence[Expected]) -> str:
    return " or ".join(map(str, ends))
