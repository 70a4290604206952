"""The checker: a journal and a log that agree are clean, and whatever is done to one of them is named."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from customersignal_ingest.domain.event import IngestEvent, StoredRecord, encode
from customersignal_ingest.domain.key import Tenant
from customersignal_ingest.domain.partition import partition_for
from customersignal_ingest.domain.rules import Limits, parse_event
from customersignal_ingest.proof.checker import Checker
from customersignal_ingest.proof.journal import Answered, Entry, JournalError, Result, Sent
from customersignal_ingest.proof.report import Kind, Report
from customersignal_ingest.testing import strategies

AT = datetime(2026, 11, 23, 10, tzinfo=UTC)
ACME = Tenant(tenant_id="acme")
PARTITIONS = 3

Fate = Literal["stored", "kept", "lost", "refused"]
"""What becomes of a valid event: accepted; unknown and stored; unknown and not stored; not stored."""


@dataclass
class World:
    """A journal and a log, as a service that keeps its word makes them."""

    entries: list[tuple[int, Entry]] = field(default_factory=list)
    records: list[StoredRecord] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)

    def send(
        self,
        payloads: Sequence[bytes],
        fates: Sequence[Fate] = (),
        *,
        tenant: Tenant = ACME,
        key: str | None = None,
        answered: bool = True,
        at_ms: int = 0,
    ) -> None:
        """Send a request, and do with its events what the fates say; all are stored if they say nothing."""
        attempt = f"a-{next(self._numbers)}"
        events = tuple(map(msgspec.Raw, payloads))
        self._add(
            Sent(
                journal=1,
                attempt=attempt,
                at_ms=at_ms,
                tenant_id=tenant.tenant_id,
                events=events,
                project_id=tenant.project_id,
                idempotency_key=key,
            )
        )
        given = fates or ["stored"] * len(payloads)
        results = [self._result(p, fate, tenant, key) for p, fate in zip(payloads, given, strict=True)]
        if answered:
            self._add(Answered(journal=1, attempt=attempt, at_ms=0, status=207, results=tuple(results)))

    def append(self, record: StoredRecord) -> StoredRecord:
        """Store a record once more, at the end of its partition."""
        copy = replace(record, offset=sum(each.partition == record.partition for each in self.records))
        self.records.append(copy)
        return copy

    def check(
        self, *, only_journal: bool = False, since_ms: int | None = None, starts: dict[int, int] | None = None
    ) -> Report:
        with Checker(only_journal=only_journal, since_ms=since_ms) as judge:
            judge.add_journal("journal", self.entries)
            for record in self.records:
                judge.add_record(record)
            return judge.report(starts)

    def wrong(self) -> set[Kind]:
        return set(self.check().wrong)

    @property
    def results(self) -> list[tuple[int, int, Result]]:
        """Each result with its place: the entry's, and its own within that."""
        answers = [(at, entry) for at, (_, entry) in enumerate(self.entries) if isinstance(entry, Answered)]
        return [(at, index, result) for at, entry in answers for index, result in enumerate(entry.results)]

    def answer(self, at: int, index: int, result: Result) -> None:
        """Have another answer in the journal."""
        line, entry = self.entries[at]
        assert isinstance(entry, Answered)
        results = (*entry.results[:index], result, *entry.results[index + 1 :])
        self.entries[at] = (line, msgspec.structs.replace(entry, results=results))

    def at(self, receipt: str | None) -> int:
        return next(n for n, record in enumerate(self.records) if record.receipt == receipt)

    def _add(self, entry: Entry) -> None:
        self.entries.append((len(self.entries) + 1, entry))

    def _result(self, payload: bytes, fate: Fate, tenant: Tenant, key: str | None) -> Result:
        event = parse_event(
            payload,
            tenant=tenant,
            received_at=AT,
            new_id=lambda _: f"id-{next(self._numbers)}",
            limits=Limits(),
            idempotency_key=key,
        )
        if not isinstance(event, IngestEvent):
            return Result(422, code=event.reason)
        if fate == "refused":
            return Result(503, event.event_id, code="NOT_STORED")
        if fate == "lost":
            return Result(504, event.event_id, code="OUTCOME_UNKNOWN")
        record = encode(event)
        stored = self.append(
            StoredRecord(
                topic="events_raw",
                partition=partition_for(record.key, PARTITIONS),
                offset=0,
                key=record.key,
                value=record.value,
                headers=record.headers,
                timestamp_ms=record.timestamp_ms,
            )
        )
        if fate == "kept":
            return Result(504, event.event_id, code="OUTCOME_UNKNOWN")
        return Result(202, event.event_id, stored.receipt)


def payload(n: int = 1, **fields: Any) -> bytes:
    event = {"event_type": "a", "timestamp": "2026-11-23T10:00:00Z", "user_id": "u1", "properties": {"n": n}}
    return json.dumps(event | fields).encode()


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Worlds of good and broken events, of several tenants, with every fate."""
    world = World()
    for _ in range(draw(st.integers(1, 4))):
        tenant = draw(st.sampled_from([ACME, Tenant(tenant_id="b", project_id="web"), Tenant(tenant_id="acme:u1")]))
        payloads = [event.payload for event in draw(strategies.batches(tenant, 4))]
        fates = st.sampled_from(["stored", "stored", "stored", "kept", "lost", "refused"])
        drawn = draw(st.lists(fates, min_size=len(payloads), max_size=len(payloads)))
        world.send([as_in_a_journal(each) for each in payloads], drawn, tenant=tenant, answered=draw(st.booleans()))
    world.send([payload(1), payload(2)])
    return world


def as_in_a_journal(payload: bytes) -> bytes:
    """Return what a client reads back from its journal."""
    from customersignal_ingest.proof.journal import _embeddable

    return _embeddable(payload)


def test_an_empty_journal_and_an_empty_log_agree() -> None:
    assert World().check().clean


@given(world=worlds())
def test_a_service_that_keeps_its_word_is_clean(world: World) -> None:
    report = world.check(only_journal=True)

    assert report.clean, report.findings
    assert report.accepted == report.accepted_found
    assert report.events == report.accepted + report.refused + report.unknown
    assert report.records == report.accepted + report.unknown_stored


Tamper = Callable[[World, Callable[[st.SearchStrategy[Any]], Any]], None]
"""Does something to a world that must be found."""


def _victim(world: World, draw: Callable[[st.SearchStrategy[Any]], Any]) -> tuple[int, Result]:
    """Choose an accepted event; return where its record is, and its result."""
    accepted = [result for _, _, result in world.results if result.status == 202]
    result = draw(st.sampled_from(accepted))
    return world.at(result.receipt), result


def _rewrite(world: World, at: int, old: bytes, new: bytes) -> None:
    record = world.records[at]
    assert old in record.value
    world.records[at] = replace(record, value=record.value.replace(old, new, 1))


def lose_a_record(world: World, draw: Any) -> None:
    at, _ = _victim(world, draw)
    del world.records[at]


def store_a_record_again(world: World, draw: Any) -> None:
    at, _ = _victim(world, draw)
    world.append(world.records[at])


def add_a_property(world: World, draw: Any) -> None:
    at, _ = _victim(world, draw)
    _rewrite(world, at, b'"properties":', b'"properties":{"new":1},"was":')


def drop_the_value(world: World, draw: Any) -> None:
    at, _ = _victim(world, draw)
    world.records[at] = replace(world.records[at], value=draw(st.sampled_from([b"", b"{", b"[]", b"null"])))


def change_a_header(world: World, draw: Any) -> None:
    at, _ = _victim(world, draw)
    name = draw(st.sampled_from(["event_id", "content-type", "schema"]))
    headers = tuple((each, b"x" if each == name else value) for each, value in world.records[at].headers)
    world.records[at] = replace(world.records[at], headers=headers)


def drop_what_the_service_adds(world: World, draw: Any) -> None:
    at, _ = _victim(world, draw)
    _rewrite(world, at, b'"received_at"', b'"received"')


def move_to_another_key(world: World, draw: Any) -> None:
    at, _ = _victim(world, draw)
    world.records[at] = replace(world.records[at], key=b"acme:somebody else")


def give_it_to_another_tenant(world: World, draw: Any) -> None:
    at, _ = _victim(world, draw)
    _rewrite(world, at, b'"tenant_id":"', b'"tenant_id":"another-')


def give_it_to_another_tenant_in_the_header(world: World, draw: Any) -> None:
    at, _ = _victim(world, draw)
    headers = tuple((name, b"x" if name == "tenant_id" else value) for name, value in world.records[at].headers)
    world.records[at] = replace(world.records[at], headers=headers)


def give_it_another_id(world: World, draw: Any) -> None:
    at, _ = _victim(world, draw)
    _rewrite(world, at, b'"event_id":"', b'"event_id":"x')


def exchange_two_records(world: World, draw: Any) -> None:
    (one, _), (other, _) = _victim(world, draw), _victim(world, draw)
    first, second = world.records[one], world.records[other]
    assume(_without_ids(first) != _without_ids(second))
    world.records[one] = replace(second, partition=first.partition, offset=first.offset)
    world.records[other] = replace(first, partition=second.partition, offset=second.offset)


def _without_ids(record: StoredRecord) -> Any:
    return {name: value for name, value in json.loads(record.value).items() if name != "event_id"}


def answer_another_receipt(world: World, draw: Any) -> None:
    accepted = [each for each in world.results if each[2].status == 202]
    at, index, result = draw(st.sampled_from(accepted))
    world.answer(at, index, Result(202, result.event_id, "events_raw/77/7"))


def refuse_what_is_stored(world: World, draw: Any) -> None:
    accepted = [each for each in world.results if each[2].status == 202]
    at, index, result = draw(st.sampled_from(accepted))
    refused = draw(st.sampled_from([Result(422, code="FIELD_VALUE"), Result(503, result.event_id, code="NOT_STORED")]))
    world.answer(at, index, refused)


def accept_what_is_lost(world: World, draw: Any) -> None:
    world.send([payload(77)], ["lost"])
    at, index, result = world.results[-1]
    world.answer(
        at, index, Result(202, result.event_id, draw(st.sampled_from([None, "events_raw/0/-", "events_raw/0/99"])))
    )


def answer_too_little(world: World, draw: Any) -> None:
    line, entry = world.entries[-1]
    assert isinstance(entry, Answered)
    world.entries[-1] = (line, msgspec.structs.replace(entry, results=entry.results[:-1]))


def answer_with_the_id_of_another(world: World, draw: Any) -> None:
    world.send([payload(77), payload(78)], ["lost", "lost"])
    at, index, result = world.results[-1]
    world.answer(at, index - 1, result)


def change_the_id_of_a_key(world: World, draw: Any) -> None:
    for _ in range(2):
        world.send([payload(77, idempotency_key="k")], ["lost"])
    world.answer(*world.results[-1][:2], Result(504, "another"))


def store_in_another_order(world: World, draw: Any) -> None:
    for n in range(2):
        world.send([payload(n, user_id="orderly")])
    (one, _, first), (other, _, second) = world.results[-2:]
    world.answer(one, 0, Result(202, first.event_id, second.receipt))
    world.answer(other, 0, Result(202, second.event_id, first.receipt))
    a, b = world.records[-2:]
    world.records[-2:] = [replace(a, offset=b.offset), replace(b, offset=a.offset)]


TAMPERS: dict[Tamper, Kind] = {
    lose_a_record: Kind.MISSING,
    store_a_record_again: Kind.STORED_TWICE,
    add_a_property: Kind.ALTERED,
    drop_the_value: Kind.ALTERED,
    change_a_header: Kind.ALTERED,
    drop_what_the_service_adds: Kind.ALTERED,
    move_to_another_key: Kind.ALTERED,
    give_it_to_another_tenant: Kind.WRONG_TENANT,
    give_it_to_another_tenant_in_the_header: Kind.WRONG_TENANT,
    give_it_another_id: Kind.WRONG_EVENT_ID,
    exchange_two_records: Kind.WRONG_RECEIPT,
    answer_another_receipt: Kind.WRONG_RECEIPT,
    refuse_what_is_stored: Kind.REFUSED_BUT_STORED,
    accept_what_is_lost: Kind.MISSING,
    answer_too_little: Kind.WRONG_ANSWER,
    answer_with_the_id_of_another: Kind.WRONG_EVENT_ID,
    change_the_id_of_a_key: Kind.WRONG_EVENT_ID,
    store_in_another_order: Kind.OUT_OF_ORDER,
}


@pytest.mark.parametrize(("tamper", "kind"), TAMPERS.items(), ids=lambda each: getattr(each, "__name__", each))
@settings(max_examples=settings.default.max_examples // 2)  # Forty tampered worlds for each of so many ways.
@given(world=worlds(), data=st.data())
def test_whatever_is_done_to_them_is_named(tamper: Tamper, kind: Kind, world: World, data: st.DataObject) -> None:
    tamper(world, data.draw)

    assert kind in world.wrong()


def test_every_kind_is_found_by_a_test() -> None:
    assert {*TAMPERS.values(), Kind.NOT_IN_JOURNAL, Kind.UNREADABLE} == set(Kind)


def test_a_record_that_is_in_no_journal_is_wrong_where_nobody_else_writes() -> None:
    world = World()
    world.send([payload(1), payload(2)])
    del world.entries[:]

    assert set(world.check(only_journal=True).wrong) == {Kind.NOT_IN_JOURNAL}
    assert (world.check().clean, world.check().not_in_journal) == (True, 2)


def aged(n: int = 4) -> World:
    """A log of one partition of which the first records have been deleted: two are left, and all were accepted."""
    world = World()
    for each in range(n):
        world.send([payload(each)])
    del world.records[:-2]
    return world


def partition_of(world: World) -> int:
    [partition] = {record.partition for record in world.records}
    return partition


def test_what_can_not_be_read_any_more_is_neither_missing_nor_fine() -> None:
    world = aged()

    report = world.check(starts={partition_of(world): 2})

    assert report.wrong == {Kind.UNREADABLE: 2}
    assert (report.accepted, report.accepted_found) == (4, 2)


def test_a_loss_after_the_first_record_that_can_be_read_is_missing() -> None:
    world = aged()

    assert world.check(starts={partition_of(world): 1}).wrong == {Kind.UNREADABLE: 1, Kind.MISSING: 1}


@pytest.mark.parametrize(
    ("receipt", "starts", "kind"),
    [
        ("events_raw/2/-", {2: 1}, Kind.UNREADABLE),
        ("events_raw/2/-", {1: 1, 2: 0}, Kind.MISSING),
        (None, {1: 1}, Kind.UNREADABLE),
        (None, {1: 0}, Kind.MISSING),
        ("nonsense", {1: 1}, Kind.UNREADABLE),
        ("events_raw/9/5", {1: 7}, Kind.MISSING),
    ],
)
def test_an_answer_without_a_place_may_be_of_what_is_gone(
    receipt: str | None, starts: dict[int, int], kind: Kind
) -> None:
    world = World()
    world.send([payload(1)], ["lost"])
    at, index, result = world.results[0]
    world.answer(at, index, Result(202, result.event_id, receipt))

    assert world.check(starts=starts).wrong == {kind: 1}


def test_a_copy_that_is_left_is_not_taken_for_one_that_is_gone() -> None:
    """The first attempt is accepted and deleted by retention; the second, without an answer, was stored later."""
    world = World()
    world.send([payload(1, idempotency_key="k")])
    world.send([payload(1, idempotency_key="k")], ["kept"])
    gone = world.records.pop(0)

    assert world.check(starts={gone.partition: gone.offset + 1}).wrong == {Kind.UNREADABLE: 1}


def test_a_copy_more_is_allowed_where_it_was_sent_more_than_once() -> None:
    world = World()
    for fate in ("kept", "stored", "lost"):
        world.send([payload(1, idempotency_key="k")], [fate])

    report = world.check()

    assert (report.clean, report.stored_again) == (True, 1)


def test_what_was_sent_before_the_time_in_question_is_not_looked_at() -> None:
    world = World()
    for at_ms in (1_000, 2_000):
        world.send([payload(at_ms)], at_ms=at_ms)
    gone = world.records.pop(0)

    report = world.check(since_ms=2_000, starts={gone.partition: gone.offset + 1})

    assert (report.clean, report.not_looked_at, report.accepted_found) == (True, 1, 1)


def test_what_was_sent_before_the_time_in_question_is_missing_where_it_was_looked_for() -> None:
    world = World()
    world.send([payload(1)], at_ms=1_000)
    del world.records[:]

    assert world.check(since_ms=2_000).wrong == {Kind.MISSING: 1}


def split(world: World, at: int) -> Report:
    """Check it with its journal in two files, which part before an entry."""
    with Checker() as judge:
        judge.add_journal("old", [(line, entry) for line, entry in world.entries[:at]])
        judge.add_journal("new", [(line - at, entry) for line, entry in world.entries[at:]])
        for record in world.records:
            judge.add_record(record)
        return judge.report()


def test_an_answer_may_stand_in_a_later_file_than_its_request() -> None:
    world = World()
    world.send([payload(1)])

    assert split(world, 1).clean


def test_an_answer_in_a_later_file_is_known_to_nobody_before() -> None:
    """Three overlap; the first is stored last, and its answer comes when the others have left."""
    world = World()
    for n in range(3):
        world.send([payload(n)])
    [first, *others] = [world.results[0], *world.results[1:]]
    receipts = [result.receipt for _, _, result in world.results]
    for (at, index, result), receipt in zip([*others, first], receipts, strict=True):
        world.answer(at, index, Result(202, result.event_id, receipt))
    world.records = [replace(world.records[n], offset=world.records[m].offset) for n, m in ((1, 0), (2, 1), (0, 2))]
    sent, answers = world.entries[0::2], world.entries[1::2]
    world.entries = [(n, entry) for n, (_, entry) in enumerate([*sent, *answers], start=1)]

    assert split(world, 3).clean


def test_files_in_the_wrong_order_are_an_error_that_names_the_line() -> None:
    world = World()
    world.send([payload(1)])

    with Checker() as judge, pytest.raises(JournalError, match="new, line 1: attempt a-0 is answered and was never"):
        judge.add_journal("new", [(1, world.entries[1][1])])


def test_a_journal_that_is_given_twice_is_an_error() -> None:
    world = World()
    world.send([payload(1)])

    with Checker() as judge:
        judge.add_journal("one", world.entries)
        with pytest.raises(JournalError, match="one, line 1: attempt a-0 is there twice"):
            judge.add_journal("one", world.entries)
