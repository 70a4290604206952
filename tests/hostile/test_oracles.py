"""The oracles miss nothing: each of these would be a wrong answer of the service."""

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from customersignal_ingest.domain.event import IngestEvent
from customersignal_ingest.domain.outcome import Reason, Rejected
from customersignal_ingest.domain.rules import Limits, parse_event
from customersignal_ingest.testing.strategies import ACME
from tests.hostile.oracles import about_event, about_slices, depth_of

LIMITS = Limits(depth_max=3)
GOOD = b'{"event_type":"a","timestamp":"2026-11-23T10:00:00Z","properties":{"n":1.0},"x":"y"}'


def parsed(payload: bytes = GOOD) -> IngestEvent:
    event = parse_event(
        payload, tenant=ACME, received_at=datetime(2026, 11, 23, tzinfo=UTC), new_id=lambda _: "id", limits=Limits()
    )
    assert isinstance(event, IngestEvent)
    return event


def test_a_good_event_is_no_complaint() -> None:
    assert about_event(GOOD, parsed(), limits=LIMITS) == []


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"\xef\xbb\xbf" + GOOD,
        GOOD + b"x",
        GOOD.replace(b"1.0", b"NaN"),
        GOOD.replace(b"1.0", b"1"),
        GOOD.replace(b"1.0", b"1e400"),
        GOOD.replace(b"1.0", b'"\\u0000"'),
        GOOD.replace(b"1.0", b'"\\ud800"'),
        GOOD.replace(b"1.0", b'"\xff"'),
        GOOD.replace(b"1.0", b"[[[]]]"),
        GOOD.replace(b'"x"', b'"x":1,"x"'),
        GOOD.replace(b'"y"', b'"z"'),
        GOOD.replace(b'"a"', b'"b"'),
        GOOD.replace(b'"x"', b'"tenant_id":"other","x"'),
    ],
)
def test_an_event_that_is_not_what_was_sent_is_a_complaint(payload: bytes) -> None:
    assert about_event(payload, parsed(), limits=LIMITS) != []


def test_what_is_neither_an_event_nor_a_rejection_is_a_complaint() -> None:
    assert about_event(GOOD, None, limits=LIMITS) != []


@pytest.mark.parametrize(
    "reason", [Reason.MALFORMED_JSON, Reason.FIELD_REPEATED, Reason.TOO_DEEP, Reason.EVENT_TOO_LARGE]
)
def test_a_rejection_without_ground_is_a_complaint(reason: Reason) -> None:
    assert about_event(GOOD, Rejected(reason, "no"), limits=LIMITS) != []


def test_a_long_message_is_a_complaint() -> None:
    assert about_event(GOOD, Rejected(Reason.FIELD_VALUE, "x" * 500), limits=LIMITS) != []


def test_a_record_without_what_was_sent_is_a_complaint() -> None:
    assert about_event(GOOD, replace(parsed(), extra=None), limits=LIMITS) != []
    assert about_event(GOOD, replace(parsed(), properties=b'{"n":1}'), limits=LIMITS) != []


@pytest.mark.parametrize(
    ("body", "slices"),
    [
        (b'{"events":[1,2]}', [b"1"]),
        (b'{"events":[1,2]}', [b"2", b"1"]),
        (b'{"events":[1.0]}', [b"1"]),
        (b'{"events":{}}', []),
        (b'{"events":[1],"a":1}', [b"1"]),
        (b'{"events":[1],"events":[1]}', [b"1"]),
        (b'{"events":[1]', [b"1"]),
        (b'{"events":[1,2,3,4]}', [b"1", b"2", b"3"]),
    ],
)
def test_wrong_slices_are_a_complaint(body: bytes, slices: list[bytes]) -> None:
    assert about_slices(body, slices, most=3) != []


def test_the_elements_as_sent_are_no_complaint() -> None:
    assert about_slices(b'{"events":[ 1.0 , {"a":[]}]}', [b"1.0", b'{"a":[]}'], most=3) == []


def test_depth_counts_objects_and_arrays() -> None:
    assert [depth_of(value) for value in ("a", [], [[], "a"], [[[]]])] == [0, 1, 2, 3]
