"""`cs-ingest verify` over an embedded log and journals: what agrees is 0, whatever is doctored is 1 and named."""

import asyncio
import json
import random
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result as Ended

from customersignal_ingest.adapters.outbound.sqlite_log import open_publisher
from customersignal_ingest.cli import verify as command
from customersignal_ingest.domain.event_id import FreshIds
from customersignal_ingest.domain.key import Tenant
from customersignal_ingest.domain.outcome import Stored
from customersignal_ingest.domain.rules import Limits
from customersignal_ingest.ingest import ingest
from customersignal_ingest.proof import tables
from customersignal_ingest.proof.journal import Journal
from customersignal_ingest.registry import AdapterSettings

Run = Callable[..., Ended]

ACME = Tenant(tenant_id="acme")
NOW = datetime.now(UTC)
LOG = "sqlite:///events.db"


@pytest.fixture
def verify(run: Run) -> Run:
    return lambda *arguments: run("verify", *arguments, CS_INGEST_PUBLISHER_URL=LOG)


def payload(n: int, **fields: Any) -> bytes:
    event = {"event_type": "a", "timestamp": "2026-11-23T10:00:00Z", "user_id": "u1", "properties": {"n": n}}
    return json.dumps(event | fields).encode()


def send(*payloads: bytes, journal: str | None = "journal", at: datetime = NOW, answered: bool = True) -> None:
    """Have the real use case store these events one after the other, and write them and the answers down."""
    asyncio.run(_send(payloads, at, journal, answered))


async def _send(payloads: Sequence[bytes], at: datetime, journal: str | None, answered: bool) -> None:
    publisher = open_publisher(LOG, settings=AdapterSettings())
    await publisher.open()
    with Journal(journal or "nobody's", clock_ms=lambda: int(at.timestamp() * 1000)) as client:
        for each in payloads:
            attempt = client.sent([each], tenant_id="acme")
            receipt = await ingest(
                ACME,
                [each],
                publisher=publisher,
                now=lambda: at,
                new_id=FreshIds(random.Random(each).randbytes),
                limits=Limits(),
            )
            [result] = receipt.results
            if answered and isinstance(result.outcome, Stored):
                body = {"status": "accepted", "event_id": result.event_id, "receipt": result.outcome.receipt}
                client.answered(attempt, 202, json.dumps(body).encode())
            elif answered:
                client.answered(attempt, 422, b'{"error":{"code":"FIELD_REQUIRED"}}')
    await publisher.close()


def doctor(statement: str, *values: object) -> None:
    with sqlite3.connect("events.db") as log:
        assert log.execute(statement, values).rowcount > 0
    log.close()


def edit(old: str, new: str, journal: str = "journal") -> None:
    text = Path(journal).read_text()
    assert old in text
    Path(journal).write_text(text.replace(old, new, 1))


def findings(ended: Ended) -> list[str]:
    """Return the kinds that were named; the last line of the JSON is the report."""
    *found, report = map(json.loads, ended.stdout.splitlines())
    assert report["kind"] == "report"
    assert report["clean"] == (ended.exit_code == 0) == (not found)
    return [each["kind"] for each in found]


def test_a_journal_that_agrees_with_the_log_ends_with_0(verify: Run) -> None:
    send(payload(1), payload(2), b"{}")

    ended = verify("journal")

    assert ended.exit_code == 0
    assert ended.stdout.splitlines() == [
        "3 events in 3 requests: 2 accepted, 1 refused, 0 unknown, 0 of these without an answer",
        "2 records: 2 of accepted events, 0 of unknown ones, 0 of what was sent again, 0 in no journal",
        "nothing is wrong",
    ]


def test_the_report_is_one_object_for_programs(verify: Run) -> None:
    send(payload(1), payload(2))
    send(payload(3), answered=False)

    report = json.loads(verify("journal", "--json").stdout)

    assert report == {
        "kind": "report",
        "clean": True,
        "requests": 3,
        "events": 3,
        "accepted": 2,
        "accepted_found": 2,
        "not_looked_at": 0,
        "refused": 0,
        "unknown": 1,
        "unanswered": 1,
        "unknown_stored": 1,
        "records": 3,
        "not_in_journal": 0,
        "stored_again": 0,
        "torn_lines": 0,
        "wrong": {},
    }


def lose() -> None:
    doctor('DELETE FROM log WHERE "offset" = 1')


def store_again() -> None:
    doctor("""INSERT INTO log (partition, "offset", timestamp_ms, "key", headers, value)
        SELECT partition, 99, timestamp_ms, "key", headers, value FROM log LIMIT 1""")


def alter() -> None:
    doctor('UPDATE log SET value = CAST(replace(value, \'"n": 2\', \'"n": 2.0\') AS BLOB) WHERE "offset" = 1')


def give_away() -> None:
    doctor('UPDATE log SET value = CAST(replace(value, \'"acme"\', \'"else"\') AS BLOB) WHERE "offset" = 1')


def exchange() -> None:
    for old, new in ((0, 77), (1, 0), (77, 1)):
        doctor('UPDATE log SET "offset" = ? WHERE "offset" = ?', new, old)


def answer_another_receipt() -> None:
    edit("/1", "/55")


def refuse_what_is_stored() -> None:
    edit('[{"status":202', '[{"status":422')


def answer_another_id() -> None:
    first, second = (
        json.loads(line)["results"][0]["event_id"] for line in Path("journal").read_text().split("\n")[1:4:2]
    )
    edit(second, first)


def store_in_another_order() -> None:
    exchange()
    text = Path("journal").read_text().replace('/0"', '/x"').replace('/1"', '/0"').replace('/x"', '/1"')
    Path("journal").write_text(text)


DOCTORED = {
    lose: "missing",
    store_again: "stored_twice",
    alter: "altered",
    give_away: "wrong_tenant",
    exchange: "wrong_receipt",
    answer_another_receipt: "wrong_receipt",
    refuse_what_is_stored: "refused_but_stored",
    answer_another_id: "wrong_event_id",
    store_in_another_order: "out_of_order",
}


@pytest.mark.parametrize(("doctored", "kind"), DOCTORED.items(), ids=lambda each: getattr(each, "__name__", each))
def test_whatever_is_doctored_ends_with_1_and_is_named(doctored: Callable[[], None], kind: str, verify: Run) -> None:
    send(payload(1), payload(2), payload(3))

    doctored()

    ended = verify("journal", "--json")
    assert ended.exit_code == 1
    assert kind in findings(ended)


def test_a_finding_says_which_event_of_which_line_it_is_and_where_it_should_be(verify: Run) -> None:
    send(payload(1), payload(2))
    doctor('DELETE FROM log WHERE "offset" = 1')

    for_people, for_programs = verify("journal"), verify("journal", "--json")

    finding = json.loads(for_programs.stdout.splitlines()[0])
    event_id, place = finding["event_id"], finding["place"]
    assert finding == {
        "kind": "missing",
        "message": "accepted, and nowhere in what is stored",
        "event_id": event_id,
        "place": place,
        "journal": "journal",
        "line": 3,
        "index": 0,
    }
    line, *_, last = for_people.stdout.splitlines()
    assert line == f"missing  {place}  {event_id}  journal, line 3, event 0  accepted, and nowhere in what is stored"
    assert last == "wrong: 1 missing"


def test_a_copy_of_what_was_sent_again_under_its_key_is_allowed_and_counted(verify: Run) -> None:
    keyed = payload(1, idempotency_key="k")
    send(keyed, answered=False)
    send(keyed)

    ended = verify("journal", "--json")

    assert findings(ended) == []
    assert json.loads(ended.stdout)["stored_again"] == 1


def test_others_records_are_no_findings_but_where_nobody_else_writes(verify: Run) -> None:
    send(payload(1))
    send(payload(2), journal=None)

    assert findings(verify("journal", "--json")) == []
    assert findings(verify("journal", "--json", "--only-journal")) == ["not_in_journal"]


def test_several_clients_have_several_journals(verify: Run) -> None:
    send(payload(1), journal="one")
    send(payload(2), journal="two")

    assert findings(verify("one", "two", "--only-journal", "--json")) == []


def test_what_was_sent_earlier_is_left_out_on_demand(verify: Run) -> None:
    for days in (9, 0):
        send(payload(days, user_id=f"u{days}"), at=NOW - timedelta(days=days))
    since = f"--since={NOW - timedelta(hours=1)}"

    ended = verify("journal", "--json", since)
    doctor("DELETE FROM log WHERE sequence = 2")

    assert findings(ended) == []
    assert json.loads(ended.stdout)["not_looked_at"] == 1
    assert findings(verify("journal", "--json", since)) == ["missing"]


def test_what_is_stored_while_it_reads_is_no_finding(verify: Run) -> None:
    """A client goes on: its journal ends between a request and its answer, and within a line."""
    send(payload(1), payload(2), payload(3))
    *whole, third, answer = Path("journal").read_text().splitlines(keepends=True)
    Path("journal").write_text("".join([*whole, third, answer[:20]]))

    ended = verify("journal")

    assert ended.exit_code == 0
    assert "1 journals end within a line, whose request had not left" in ended.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense\n", "journal, line 3: this is no line of a journal of version 1"),
        ('{"journal":2}\n', "journal, line 3: this is no line of a journal of version 1, but of version 2"),
        (
            '{"journal":1,"kind":"answered","attempt":"x","at_ms":1,"status":202}\n',
            "journal, line 3: attempt x is answered and was never sent",
        ),
    ],
)
def test_a_damaged_journal_is_one_clear_line(text: str, words: str, verify: Run) -> None:
    send(payload(1))
    with Path("journal").open("a") as journal:
        journal.write(text)

    ended = verify("journal", "--json")

    assert (ended.exit_code, ended.stdout, ended.stderr) == (1, "", f"cs-ingest: {words}\n")


def test_a_store_that_is_away_is_one_clear_line(verify: Run) -> None:
    send(payload(1))
    Path("events.db").unlink()

    ended = verify("journal")

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr == "cs-ingest: events.db can't be read: SQLITE_CANTOPEN\n"


def test_a_disk_that_is_full_is_one_clear_line(verify: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a private file that may have no further page."""
    send(*(payload(n, text="x" * 1_000) for n in range(20)))
    monkeypatch.setattr(tables, "TABLES", ("PRAGMA max_page_count = 10", *tables.TABLES))

    ended = verify("journal")

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.startswith("cs-ingest: no room to compare: database or disk is full")


def test_events_in_memory_are_nobody_elses_to_read(run: Run) -> None:
    Path("journal").touch()

    ended = run("verify", "journal", CS_INGEST_PUBLISHER_URL="memory:")

    assert (ended.exit_code, ended.stderr) == (1, "cs-ingest: events in memory can't be read from another process\n")


def test_an_escape_sequence_in_a_journal_does_not_reach_the_terminal(verify: Run) -> None:
    send(payload(1))
    doctor("DELETE FROM log")
    edit('"receipt":"events', '"receipt":"\\u001b[31m')

    assert "\x1b" not in verify("journal").stdout


def test_progress_is_told_in_plain_lines_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter([0.0, 9.9, 10.0, 10.0, 19.9]).__next__
    watch = command.lines(7_000, clock=clock)

    for count in (1_000, 2_000, 3_000):
        watch("records", count)

    assert capsys.readouterr().err == "cs-ingest: 2000 of 7000 records read\n"
