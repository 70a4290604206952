"""Whatever bytes arrive, they are an event or rejected, and other parsers agree with what we took."""

from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st

from customersignal_ingest.domain.flaws import Flaw
from customersignal_ingest.domain.rules import Limits, parse_event
from customersignal_ingest.domain.strict_json import read_slices
from customersignal_ingest.testing.strategies import ACME, broken_events, events, json_like, json_objects, json_values
from tests.hostile.oracles import about_event, about_slices

LIMITS = Limits(event_bytes_max=5_000, depth_max=4)
MOST = 5
# Bytes that mean something in JSON and UTF-8, and bytes that mean nothing.
PIECES = st.sampled_from(
    [
        *[b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"-", b"0", b" ", b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80"],
        *[b"\xef\xbb\xbf", b"\\u0000", b"\\ud800", b"NaN", b"null", b"1e400", b"9" * 400, b"[[[[["],
        *[b'"a":1,', b'"tenant_id":"acme",', b'"\\u0061":1,'],
    ]
) | st.binary(max_size=4)


def complaints(payload: bytes, *, limits: Limits = LIMITS) -> list[str]:
    outcome = parse_event(
        payload,
        tenant=ACME,
        received_at=datetime(2026, 11, 23, tzinfo=UTC),
        new_id=lambda _: "id",
        limits=limits,
    )
    return about_event(payload, outcome, limits=limits)


@st.composite
def harmed(draw: st.DrawFn, payloads: st.SearchStrategy[bytes]) -> bytes:
    """Good payloads with bytes flipped, put in, taken out, doubled and cut off."""
    payload = draw(payloads)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(payload)))
        end = at + draw(st.integers(0, 8))
        ways = st.sampled_from(["flip", "put in", "take out", "double", "cut", "swap"])
        match draw(ways):
            case "flip":
                payload = payload[:at] + bytes(byte ^ 1 << at % 8 for byte in payload[at : at + 1]) + payload[at + 1 :]
            case "put in":
                payload = payload[:at] + draw(PIECES) + payload[at:]
            case "take out":
                payload = payload[:at] + payload[end:]
            case "double":
                payload = payload[:end] + payload[at:]
            case "cut":
                payload = payload[:at]
            case _:
                payload = payload[end:] + payload[at:end] + payload[:at]
    return payload


@given(st.binary(max_size=300))
@example(b"")
@example(b"null")
@example(b" null ")
@example(b"[" * 100_000)
def test_any_bytes(payload: bytes) -> None:
    assert complaints(payload) == []


@given(json_like())
def test_anything_like_json(payload: bytes) -> None:
    assert complaints(payload) == []


@given(json_objects())
def test_any_json_object(text: str) -> None:
    assert complaints(text.encode()) == []


@given(harmed(events().map(lambda event: event.payload)))
def test_a_good_event_that_was_harmed(payload: bytes) -> None:
    assert complaints(payload) == []
    assert complaints(payload, limits=Limits()) == []


@given(harmed(broken_events().map(lambda event: event.payload)))
def test_a_broken_event_that_was_harmed(payload: bytes) -> None:
    assert complaints(payload, limits=Limits()) == []


def of_slices(body: bytes) -> list[str]:
    try:
        slices = read_slices(body, "events", most=MOST)
    except Flaw:
        return []
    return about_slices(body, slices, most=MOST)


ELEMENTS = json_values(3).map(str.encode) | json_like()
BODIES = st.lists(ELEMENTS, max_size=8).map(lambda elements: b'{"events":[%s]}' % b",".join(elements))


@given(BODIES)
def test_a_batch_is_cut_into_its_elements(body: bytes) -> None:
    assert of_slices(body) == []


@given(harmed(BODIES))
@example(b'{"events":[' + b"0," * 1_000 + b"0]}")
@example(b'{"events":[' + b"0," * 1_000 + b'0],"a":1}')
@example(b'{"events":[' + b"0," * 1_000 + b"0,]}")
def test_a_batch_that_was_harmed(body: bytes) -> None:
    assert of_slices(body) == []
