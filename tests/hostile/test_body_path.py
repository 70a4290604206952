"""The path that is fuzzed: every seed goes down it, and what is wrong on it is found."""

import pytest
from msgspec.structs import replace

from customersignal_ingest.domain.event import IngestEvent
from customersignal_ingest.domain.outcome import Reason, Rejected
from tests.hostile.body_path import BATCH, GZIP, PLAIN, SINGLE, TO_GZIP, TO_ZSTD, BodyPath, Finding, Parse, parse, seeds

EVENT = b'{"event_type":"a","timestamp":"2026-11-23T10:00:00Z","properties":{"n":1.0}}'


def sent(body: bytes, *, way: int = PLAIN, route: int = SINGLE) -> bytes:
    return bytes([way << 1 | route]) + body


def take_all(path: BodyPath) -> None:
    for seed in seeds():
        path.take(seed)


def test_no_seed_leads_to_a_finding_and_together_they_reach_every_end() -> None:
    path = BodyPath()

    take_all(path)

    ends = {reason for reason in Reason if reason not in (Reason.PROJECT_MISMATCH, Reason.INVALID_REQUEST)}
    assert path.tally["accepted"] > 100
    assert path.tally.keys() >= {*ends, "not decoded", "no batch"}


@pytest.mark.parametrize("way", [PLAIN, TO_GZIP, TO_ZSTD])
@pytest.mark.parametrize("route", [SINGLE, BATCH])
def test_a_good_event_is_accepted_whichever_way_it_goes(way: int, route: int) -> None:
    path = BodyPath()
    path.take(sent(EVENT if route == SINGLE else b'{"events":[%s]}' % EVENT, way=way, route=route))

    assert path.tally["accepted"] == 1


def test_what_can_not_be_decoded_ends_there() -> None:
    path = BodyPath()
    path.take(sent(EVENT, way=GZIP))

    assert path.tally["not decoded"] == 1


def careless(payload: bytes) -> IngestEvent | Rejected:
    """A parser with a bug: it takes everything for the good event."""
    return parse(EVENT)


def forgetful(payload: bytes) -> IngestEvent | Rejected:
    """A parser with another bug: it stores a number as it understood it."""
    event = parse(payload)
    return replace(event, properties=b'{"n":1}') if isinstance(event, IngestEvent) else event


@pytest.mark.parametrize("parse", [careless, forgetful])
def test_a_bug_is_found_by_some_seed(parse: Parse) -> None:
    path = BodyPath(parse)

    with pytest.raises(Finding):
        take_all(path)


def test_what_is_raised_is_not_hidden() -> None:
    def broken(_: bytes) -> IngestEvent:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        BodyPath(broken).take(sent(EVENT))
