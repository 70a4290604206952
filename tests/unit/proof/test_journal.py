"""The journal: what is written is read back, in order, whatever kills the writer."""

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customersignal_ingest.proof import journal
from customersignal_ingest.proof.journal import Answered, Journal, JournalError, Result, Sent, Torn, read

EVENT = b'{"event_type":"a","properties":{"n":1.0}}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def entries(path: Path) -> list[Sent | Answered | Torn]:
    return [entry for _, entry in read(path)]


def answered(path: Path, status: int, body: object) -> Answered:
    """Return the line of an answer with this body."""
    with Journal(path) as journal:
        journal.answered("a-0", status, json.dumps(body).encode())
    [entry] = entries(path)
    assert isinstance(entry, Answered)
    return entry


def test_a_line_has_exactly_the_members_of_version_1(path: Path) -> None:
    with Journal(path, clock_ms=lambda: 7) as journal:
        attempt = journal.sent([EVENT], tenant_id="acme", project_id="web", idempotency_key="k")
        journal.answered(attempt, 202, b'{"status":"accepted","event_id":"e","receipt":"events_raw/4/0"}')

    sent, answer = map(json.loads, path.read_text().splitlines())
    common = {"journal": 1, "attempt": attempt, "at_ms": 7}
    who = {"tenant_id": "acme", "project_id": "web", "idempotency_key": "k"}
    result = {"status": 202, "event_id": "e", "receipt": "events_raw/4/0"}
    assert sent == {**common, **who, "kind": "sent", "events": [json.loads(EVENT)]}
    assert answer == {**common, "kind": "answered", "status": 202, "results": [result]}


@pytest.mark.parametrize(
    "payload", [EVENT, b'{"n":1e400,"n":-0}', b'{"n":%s}' % (b"7" * 5_000), '{"é":"\u2028"}'.encode()]
)
def test_a_payload_is_in_the_journal_byte_for_byte(payload: bytes, path: Path) -> None:
    with Journal(path) as journal:
        journal.sent([payload], tenant_id="acme")

    [sent] = entries(path)
    assert isinstance(sent, Sent)
    assert list(map(bytes, sent.events)) == [payload]


def test_line_breaks_between_tokens_become_blanks(path: Path) -> None:
    with Journal(path) as journal:
        journal.sent([b'{\r\n"a": "\\n"\n}'], tenant_id="acme")

    [sent] = entries(path)
    assert isinstance(sent, Sent)
    assert bytes(sent.events[0]) == b'{  "a": "\\n" }'


@given(payload=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_at_all_leave_a_line_that_can_be_read(
    payload: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"

    with Journal(path) as journal:
        journal.sent([payload], tenant_id="acme")

    assert len(entries(path)) == 1
    json.loads(path.read_text())


@pytest.mark.parametrize("payload", [b"{nope", b'{"n":NaN}', b"\xef\xbb\xbf{}", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_kept_as_a_string(payload: bytes, path: Path) -> None:
    with Journal(path) as journal:
        journal.sent([payload], tenant_id="acme")

    assert isinstance(json.loads(path.read_text())["events"][0], str)


def test_attempts_of_two_writers_have_different_ids(path: Path) -> None:
    ids = []
    for _ in range(2):
        with Journal(path) as journal:
            ids += [journal.sent([EVENT], tenant_id="acme") for _ in range(2)]

    assert len(set(ids)) == 4


def test_threads_write_whole_lines(path: Path) -> None:
    with Journal(path) as journal:
        writers = [threading.Thread(target=_send_50, args=(journal,)) for _ in range(4)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()

    attempts = [entry.attempt for entry in entries(path) if isinstance(entry, Sent)]
    assert len(set(attempts)) == len(attempts) == 200


def _send_50(journal: Journal) -> None:
    for _ in range(50):
        journal.sent([EVENT * 1_000], tenant_id="acme")


def test_a_line_is_in_the_file_before_the_request_leaves(path: Path) -> None:
    with Journal(path) as journal:
        journal.sent([EVENT], tenant_id="acme")

        assert len(entries(path)) == 1


def test_a_torn_last_line_is_told(path: Path) -> None:
    with Journal(path) as journal:
        journal.sent([EVENT], tenant_id="acme")
    with path.open("a") as file:
        file.write('{"journal":1,"kind":"sen')

    assert isinstance(entries(path)[1], Torn)


def test_the_next_writer_cuts_a_torn_line_off(path: Path) -> None:
    path.write_text('{"journal":1,' + "x" * 200_000)

    with Journal(path) as journal:
        journal.sent([EVENT], tenant_id="acme")

    assert [type(entry) for entry in entries(path)] == [Sent]


def test_a_journal_has_one_writer(path: Path) -> None:
    with Journal(path), pytest.raises(JournalError, match="another process"):
        Journal(path)


@pytest.mark.parametrize(
    "line", ["nonsense", "{}", "[]", '{"journal":2,"kind":"answered","attempt":"a","at_ms":1,"status":202}', "\xff"]
)
def test_a_line_of_something_else_is_named(line: str, path: Path) -> None:
    with Journal(path) as journal:
        journal.sent([EVENT], tenant_id="acme")
    with path.open("ab") as file:
        file.write(line.encode("latin-1") + b"\n")

    with pytest.raises(JournalError, match="line 2"):
        entries(path)


def test_a_line_of_another_version_says_so(path: Path) -> None:
    path.write_text('{"journal":2,"kind":"answered","attempt":"a","at_ms":1,"status":202}\n')

    with pytest.raises(JournalError, match="line 1: this is no line of a journal of version 1, but of version 2"):
        entries(path)


def test_a_line_without_an_end_is_not_read_into_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "LINE_BYTES_MAX", 1000)
    path.write_bytes(b"x" * 5000)

    with pytest.raises(JournalError, match="line 1: longer than any line"):
        entries(path)


def test_a_file_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(JournalError, match="No such file"):
        entries(path)


def test_words_of_a_batch_are_written_as_numbers(path: Path) -> None:
    listed = [
        {"index": 0, "status": "accepted", "event_id": "e", "receipt": "events_raw/1/2"},
        {"index": 1, "status": "rejected", "error": {"code": "TOO_DEEP"}},
        {"index": 2, "status": "not_stored", "event_id": "f", "error": {"code": "NOT_STORED"}},
        {"index": 3, "status": "unknown", "event_id": "g", "error": {"code": "OUTCOME_UNKNOWN"}},
        {"index": 4, "status": "something new"},
    ]

    entry = answered(path, 207, {"status": "partial", "results": listed})

    assert entry.results == (
        Result(202, "e", "events_raw/1/2"),
        Result(422, code="TOO_DEEP"),
        Result(503, "f", code="NOT_STORED"),
        Result(504, "g", code="OUTCOME_UNKNOWN"),
        Result(504),
    )


def test_an_unknown_single_event_keeps_its_id(path: Path) -> None:
    entry = answered(path, 504, {"error": {"code": "OUTCOME_UNKNOWN", "details": {"event_id": "e"}}})

    assert entry.results == (Result(504, "e", code="OUTCOME_UNKNOWN"),)


def test_a_request_refused_as_a_whole_has_its_code_and_no_results(path: Path) -> None:
    entry = answered(path, 401, {"error": {"code": "API_KEY_INVALID", "details": {}}})

    assert (entry.status, entry.code, entry.results) == (401, "API_KEY_INVALID", ())


@pytest.mark.parametrize("body", [b"<html>", b"", b"[1]", b'{"results":7}', b'{"error":"x"}', b'{"results":[7]}'])
def test_whatever_a_proxy_answers_can_be_written_down(body: bytes, path: Path) -> None:
    with Journal(path) as journal:
        journal.answered("a-0", 502, body)

    assert isinstance(entries(path)[0], Answered)
