"""The judge of the corpus misses nothing that the contract forbids, and complains of nothing that it allows."""

import json
from typing import Any

import pytest

from tests.hostile.corpus import Expected, Row
from tests.hostile.judge import complaints
from tests.hostile.wire import Answer, Seen, _parse

REFUSED = Expected(status=422, code="FIELD_TYPE", field="/user_id")
CLOSED = Expected(status=None)


def row(*ends: Expected, results: tuple[str, ...] | None = None, **more: Any) -> Row:
    return Row(group="g", name="n", request=b"POST / HTTP/1.1", ends=ends or (REFUSED,), results=results, **more)


def answer(
    status: int = 422, *, without: str = "", code: str = "FIELD_TYPE", field: str = "/user_id", **headers: str
) -> Answer:
    usual = {
        "content-type": "application/json",
        "x-request-id": "r-1",
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
    }
    error = {"code": code, "message": "no", "details": {"field": field}}
    body = json.dumps({"error": error, "request_id": "r-1"}).encode()
    named = {**usual, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return Answer(status=status, headers=tuple((n, v) for n, v in named.items() if n != without), body=body)


def seen(*answers: Answer, ended: bool = True, raw: bytes = b"") -> Seen:
    return Seen(answers=list(answers), ended=ended, raw=raw)


def judged(row: Row, seen: Seen) -> list[str]:
    return complaints(row, seen, never=[b"s3cret"])


def test_what_is_expected_is_no_complaint() -> None:
    assert judged(row(), seen(answer())) == []
    assert judged(row(REFUSED, CLOSED), seen()) == []
    assert judged(row(CLOSED, then="leave"), seen(ended=False)) == []


def a_batch(*results: dict[str, Any]) -> Answer:
    body = {"status": "partial", "accepted": 1, "failed": 1, "results": list(results)}
    good = answer(207)
    return Answer(status=207, headers=good.headers, body=json.dumps(body).encode())


ACCEPTED = {"index": 0, "status": "accepted", "event_id": "e", "receipt": "r"}
REJECTED = {"index": 1, "status": "rejected", "error": {"code": "TOO_DEEP", "details": {"field": "/x"}}}
PARTIAL = row(Expected(status=207), results=("accepted", "TOO_DEEP /x"))


def test_results_are_compared_one_by_one() -> None:
    assert judged(PARTIAL, seen(a_batch(ACCEPTED, REJECTED))) == []


@pytest.mark.parametrize(
    ("wanted", "came"),
    [
        (row(), seen(answer(500, code="INTERNAL_ERROR"))),
        (row(), seen(answer(400))),
        (row(), seen(answer(code="FIELD_VALUE"))),
        (row(), seen(answer(field="/session_id"))),
        (row(), seen()),
        (row(CLOSED), seen(answer())),
        (row(), seen(answer(), answer())),
        (row(), seen(answer(), ended=False)),
        (row(), seen(answer(), raw=b"s3cret")),
        (row(), seen(answer(), raw=b"Traceback")),
        (row(), seen(answer(without="x-request-id"))),
        (row(), seen(answer(without="cache-control"))),
        (row(), seen(answer(without="x-content-type-options"))),
        (row(), seen(answer(content_type="text/html"))),
        (row(), seen(answer(x_request_id="r-2"))),
        (row(Expected(status=401)), seen(answer(401))),
        (row(Expected(status=405)), seen(answer(405))),
        (row(Expected(status=413)), seen(answer(413))),
        (row(Expected(status=415)), seen(answer(415))),
        (row(), seen(Answer(status=422, headers=answer().headers, body=b"<html>"))),
        (row(), seen(Answer(status=422, headers=answer().headers, body=b'{"error":{"code":"FIELD_TYPE"}}'))),
        (PARTIAL, seen(a_batch(REJECTED, ACCEPTED))),
        (PARTIAL, seen(a_batch({**ACCEPTED, "event_id": ""}, REJECTED))),
        (PARTIAL, seen(a_batch(ACCEPTED))),
    ],
)
def test_what_is_not_expected_is_a_complaint(wanted: Row, came: Seen) -> None:
    assert judged(wanted, came) != []


def test_what_is_no_http_is_a_complaint() -> None:
    came = seen(raw=b"garbage\r\n\r\n")
    _parse(came, is_head=False, at_end=True)

    assert judged(row(CLOSED), came) != []


def test_a_second_answer_behind_the_first_is_found() -> None:
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    chunked = b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    came = seen(raw=b"HTTP/1.1 100 Continue\r\n\r\n" + one + chunked)
    _parse(came, is_head=False, at_end=True)

    assert [(each.status, each.body) for each in came.answers] == [(200, b"{}"), (404, b"{}")]


def test_an_answer_that_is_cut_short_is_found_at_the_end_alone() -> None:
    came = seen(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}")
    _parse(came, is_head=False, at_end=False)
    assert came.flaw is None
    _parse(came, is_head=False, at_end=True)
    assert came.flaw is not None
