"""The public format of `events_raw`, held byte for byte. A change here is a change for every consumer."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from customersignal_ingest.domain.event import IngestEvent, encode, rfc3339, unix_ms
from customersignal_ingest.domain.key import Tenant
from customersignal_ingest.domain.rules import Limits, parse_event
from customersignal_ingest.testing.strategies import ACME, ValidEvent, events

EVENT_ID = "019ab000-0000-7000-8000-000000000001"
AT = datetime(2026, 11, 23, 10, 0, 0, 123456, tzinfo=UTC)

MINIMAL = IngestEvent(
    event_id=EVENT_ID,
    tenant=Tenant(tenant_id="acme"),
    event_type="signed_up",
    timestamp="2026-11-23T09:59:59Z",
    received_at=AT,
    properties=b"{}",
)
FULL = replace(
    MINIMAL,
    tenant=Tenant(tenant_id="acme", project_id="web", environment="test", key_id="k1"),
    project_id="web",
    user_id="u1",
    session_id="s1",
    idempotency_key="order-7",
    properties=b'{"plan": "pro"}',
    extra=b'{"source":"app"}',
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)
START = f'{{"event_id":"{EVENT_ID}","tenant_id":"acme",'.encode()
MIDDLE = b'"event_type":"signed_up","timestamp":"2026-11-23T09:59:59Z","received_at":"2026-11-23T10:00:00.123456Z",'


def test_the_value_of_a_minimal_event() -> None:
    assert encode(MINIMAL).value == START + b'"environment":"live",' + MIDDLE + b'"properties":{}}'


def test_the_value_of_a_full_event() -> None:
    assert encode(FULL).value == (
        START
        + b'"project_id":"web","environment":"test",'
        + MIDDLE
        + b'"user_id":"u1","session_id":"s1","idempotency_key":"order-7",'
        + b'"properties":{"plan": "pro"},"extra":{"source":"app"}}'
    )


def test_the_headers_of_a_minimal_event() -> None:
    assert encode(MINIMAL).headers == (
        ("event_id", EVENT_ID.encode()),
        ("tenant_id", b"acme"),
        ("content-type", b"application/json"),
        ("schema", b"events_raw/1"),
    )


def test_a_traceparent_is_one_more_header() -> None:
    traceparent = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    assert encode(FULL).headers == (*encode(replace(FULL, traceparent=None)).headers, traceparent)


@pytest.mark.parametrize(
    ("user_id", "session_id", "key"),
    [
        ("u1", "s1", b"acme:u1"),
        ("u1", None, b"acme:u1"),
        (None, "s1", b"acme:s1"),
        (None, None, f"acme:{EVENT_ID}".encode()),
        ("größe-水-😀", None, "acme:größe-水-😀".encode()),
    ],
)
def test_the_key_is_the_tenant_and_the_first_of_user_session_and_event(
    user_id: str | None, session_id: str | None, key: bytes
) -> None:
    assert encode(replace(MINIMAL, user_id=user_id, session_id=session_id)).key == key


def test_texts_are_written_as_utf_8_with_few_escapes() -> None:
    event = replace(MINIMAL, event_type='größe 水 😀 " \\ / \n \x1f \x7f \u2028')
    written = '"event_type":"größe 水 😀 \\" \\\\ / \\n \\u001f \x7f \u2028"'.encode()
    assert written in encode(event).value


@pytest.mark.parametrize(
    "properties",
    [
        b'{"n": 1.0, "m": 1E5, "i": -0}',
        b'{"digits":12345678901234567890.12345678901234567890}',
        b'{"big":99999999999999999999999999}',
        b'{ "t" : "\\u00e9 \\/ \\ud83d\\ude00" }',
        b'{"a":1,"a":2}',
    ],
)
def test_properties_are_kept_byte_for_byte(properties: bytes) -> None:
    assert encode(replace(MINIMAL, properties=properties)).value.endswith(b'"properties":' + properties + b"}")


def test_the_record_says_tenant_event_and_size_once_more() -> None:
    record = encode(FULL)
    size_bytes = len(record.key) + len(record.value)
    assert (record.tenant_id, record.event_id, record.size_bytes) == ("acme", EVENT_ID, size_bytes)


def test_the_timestamp_is_the_moment_of_arrival() -> None:
    assert encode(MINIMAL).timestamp_ms == 1_795_428_000_123


def test_a_moment_elsewhere_is_written_in_utc() -> None:
    assert rfc3339(AT.astimezone(timezone(timedelta(hours=5, minutes=30)))) == "2026-11-23T10:00:00.123456Z"


@given(st.integers(10**11, 253_402_200_000_000_000), st.integers(-1439, 1439), st.sampled_from([1, 1000, 10**6]))
def test_a_moment_is_written_with_six_digits_of_a_second(microseconds: int, offset_min: int, step: int) -> None:
    utc = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds // step * step)
    elsewhere = utc.astimezone(timezone(timedelta(minutes=offset_min)))
    assert rfc3339(elsewhere) == rfc3339(utc) == utc.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@given(st.integers(0, 253_402_300_799_999))
@example(1_098_257_806_781)  # As a float of seconds, times a thousand, it is one less.
def test_whole_milliseconds_come_back_exactly(milliseconds: int) -> None:
    assert unix_ms(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)) == milliseconds


@given(events())
def test_the_value_is_json_that_says_what_the_event_said(sent: ValidEvent) -> None:
    event = parse_event(sent.payload, tenant=ACME, received_at=AT, new_id=lambda _: EVENT_ID, limits=Limits())
    assert isinstance(event, IngestEvent)
    value = json.loads(encode(event).value, parse_float=str, parse_int=str)

    kept = {"properties": sent.properties, "extra": b"{%s}" % b",".join(_member(*pair) for pair in sent.extra)}
    expected = {
        "event_id": event.event_id,
        "tenant_id": "acme",
        "project_id": sent.project_id,
        "environment": "live",
        "event_type": sent.event_type,
        "timestamp": sent.timestamp,
        "received_at": "2026-11-23T10:00:00.123456Z",
        "user_id": sent.user_id,
        "session_id": sent.session_id,
        "idempotency_key": sent.idempotency_key,
        "properties": _exact(kept["properties"]),
        "extra": _exact(kept["extra"]) or None,
    }
    assert list(value.items()) == [(name, said) for name, said in expected.items() if said is not None]


@given(events())
def test_encoding_is_the_same_every_time(sent: ValidEvent) -> None:
    event = parse_event(sent.payload, tenant=ACME, received_at=AT, new_id=lambda _: EVENT_ID, limits=Limits())
    assert isinstance(event, IngestEvent)
    assert encode(event) == encode(replace(event))


def _member(name: str, value: bytes) -> bytes:
    return json.dumps(name).encode() + b":" + value


def _exact(text: bytes) -> object:
    return json.loads(text, parse_float=str, parse_int=str)
