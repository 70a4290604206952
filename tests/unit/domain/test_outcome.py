"""Settling: each payload gets its own outcome, and a publisher that lies gets nothing past us."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from customersignal_ingest.domain.event import IngestEvent
from customersignal_ingest.domain.key import Tenant
from customersignal_ingest.domain.outcome import (
    NotStored,
    Outcome,
    Reason,
    Refused,
    Rejected,
    Result,
    Stored,
    Unknown,
    settle,
)

AT = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
EVENT = IngestEvent(
    event_id="0",
    tenant=Tenant(tenant_id="acme"),
    event_type="x",
    timestamp="2026-11-23T10:00:00Z",
    received_at=AT,
    properties=b"{}",
)
REJECTED = Rejected(Reason.FIELD_REQUIRED, "event_type is required", "/event_type")
OUTCOMES: list[Outcome] = [Stored("events_raw", 3, 1289), Refused("too large"), NotStored("closed"), Unknown("late")]
KINDS: list[Any] = [Stored, Refused, NotStored, Unknown, Rejected]
PARSED = st.lists(st.booleans(), max_size=8).map(
    lambda good: [replace(EVENT, event_id=str(at)) if is_good else REJECTED for at, is_good in enumerate(good)]
)
LIES: list[Any] = [None, True, 1, "stored", b"stored", {}, Stored, REJECTED, ("events_raw", 3, 1289), object()]


def records(parsed: list[IngestEvent | Rejected]) -> int:
    return sum(isinstance(event, IngestEvent) for event in parsed)


@given(PARSED, st.data())
def test_each_payload_gets_its_own_outcome_in_order(parsed: list[IngestEvent | Rejected], data: st.DataObject) -> None:
    count = records(parsed)
    outcomes = data.draw(st.lists(st.sampled_from(OUTCOMES), min_size=count, max_size=count))

    receipt = settle(AT, parsed, outcomes)

    told = iter(outcomes)
    assert receipt.results == tuple(
        Result(None, event) if isinstance(event, Rejected) else Result(event.event_id, next(told)) for event in parsed
    )


@given(PARSED, st.integers(0, 12))
def test_too_few_or_too_many_answers_confirm_nothing(parsed: list[IngestEvent | Rejected], answers: int) -> None:
    receipt = settle(AT, parsed, [OUTCOMES[0]] * answers)
    assert receipt.count(Stored) == (answers if answers == records(parsed) else 0)


@given(PARSED, st.integers(0, 12))
def test_there_is_always_one_result_a_payload(parsed: list[IngestEvent | Rejected], answers: int) -> None:
    assert len(settle(AT, parsed, [OUTCOMES[0]] * answers).results) == len(parsed)


@pytest.mark.parametrize("lie", LIES)
def test_an_answer_that_is_no_outcome_is_unknown(lie: object) -> None:
    receipt = settle(AT, [EVENT, EVENT], [cast("Outcome", lie), OUTCOMES[0]])
    assert [type(result.outcome) for result in receipt.results] == [Unknown, Stored]


@pytest.mark.parametrize("lie", [*LIES, iter(OUTCOMES[:1]), {OUTCOMES[0]}, {0: OUTCOMES[0]}])
def test_something_else_than_a_sequence_of_answers_confirms_nothing(lie: Any) -> None:
    receipt = settle(AT, [EVENT], lie)
    assert [type(result.outcome) for result in receipt.results] == [Unknown]


@given(st.lists(st.sampled_from(OUTCOMES), max_size=8))
def test_a_receipt_counts_by_kind(outcomes: list[Outcome]) -> None:
    receipt = settle(AT, [EVENT] * len(outcomes), outcomes)
    assert sum(map(receipt.count, [Stored, Refused, NotStored, Unknown])) == len(outcomes)


@given(PARSED, st.data())
def test_a_tally_has_what_a_receipt_counts(parsed: list[IngestEvent | Rejected], data: st.DataObject) -> None:
    count = records(parsed)
    receipt = settle(AT, parsed, data.draw(st.lists(st.sampled_from(OUTCOMES), min_size=count, max_size=count)))

    assert {kind: receipt.tally[kind] for kind in KINDS} == {kind: receipt.count(kind) for kind in KINDS}
    assert sum(receipt.tally.values()) == len(parsed)


def test_a_tally_is_counted_once() -> None:
    receipt = settle(AT, [EVENT], OUTCOMES[:1])
    assert receipt.tally is receipt.tally


@pytest.mark.parametrize(("offset", "receipt"), [(1289, "events_raw/3/1289"), (None, "events_raw/3/-")])
def test_a_receipt_names_the_place(offset: int | None, receipt: str) -> None:
    assert Stored("events_raw", 3, offset).receipt == receipt
