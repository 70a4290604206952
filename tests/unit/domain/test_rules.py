"""What may enter: every rule and reason of the contract, one example and one property each."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from customersignal_ingest.domain.event import IngestEvent
from customersignal_ingest.domain.event_id import derived_id
from customersignal_ingest.domain.key import Tenant
from customersignal_ingest.domain.outcome import Reason, Rejected
from customersignal_ingest.domain.rules import Limits, parse_event
from customersignal_ingest.testing.strategies import (
    ACME,
    BrokenEvent,
    ValidEvent,
    broken_events,
    events,
    json_like,
    json_objects,
    tenants,
    texts,
)

EVENT_ID = "019ab000-0000-7000-8000-000000000001"
AT = datetime(2026, 11, 23, 10, 0, 0, 123456, tzinfo=UTC)
BOUND = Tenant(tenant_id="acme", project_id="web")
GOOD: dict[str, Any] = {"event_type": "signed_up", "timestamp": "2026-11-23T10:00:00Z", "properties": {}}


def parse(
    payload: bytes, tenant: Tenant = ACME, limits: Limits | None = None, beside: str | None = None
) -> IngestEvent | Rejected:
    return parse_event(
        payload,
        tenant=tenant,
        received_at=AT,
        new_id=lambda _: EVENT_ID,
        limits=limits or Limits(),
        idempotency_key=beside,
    )


def accepted(payload: bytes, tenant: Tenant = ACME, beside: str | None = None) -> IngestEvent:
    event = parse(payload, tenant, beside=beside)
    assert isinstance(event, IngestEvent), event
    return event


def rejected(payload: bytes, tenant: Tenant = ACME, beside: str | None = None) -> tuple[Reason, str | None]:
    event = parse(payload, tenant, beside=beside)
    assert isinstance(event, Rejected), event
    return event.reason, event.field


def changed(**fields: Any) -> bytes:
    return json.dumps(GOOD | fields).encode()


def without(field: str) -> bytes:
    return json.dumps({name: value for name, value in GOOD.items() if name != field}).encode()


@pytest.mark.parametrize("field", ["event_type", "timestamp", "properties"])
def test_a_required_field_must_be_there(field: str) -> None:
    assert rejected(without(field)) == (Reason.FIELD_REQUIRED, f"/{field}")


@pytest.mark.parametrize("field", ["event_type", "timestamp", "properties"])
def test_a_required_field_must_not_be_null(field: str) -> None:
    assert rejected(changed(**{field: None})) == (Reason.FIELD_TYPE, f"/{field}")


@pytest.mark.parametrize("value", [7, 1.5, True, [], {}])
@pytest.mark.parametrize(
    "field", ["event_type", "timestamp", "user_id", "session_id", "idempotency_key", "project_id", "tenant_id"]
)
def test_a_text_field_must_be_a_string(field: str, value: object) -> None:
    assert rejected(changed(**{field: value})) == (Reason.FIELD_TYPE, f"/{field}")


@pytest.mark.parametrize("value", [7, "{}", True, []])
def test_properties_must_be_an_object(value: object) -> None:
    assert rejected(changed(properties=value)) == (Reason.FIELD_TYPE, "/properties")


@pytest.mark.parametrize(
    "field", ["event_type", "timestamp", "user_id", "session_id", "idempotency_key", "project_id", "tenant_id"]
)
def test_a_text_field_must_not_be_empty(field: str) -> None:
    assert rejected(changed(**{field: ""})) == (Reason.FIELD_VALUE, f"/{field}")


LONGEST = [("event_type", 200), ("user_id", 200), ("session_id", 200), ("project_id", 200), ("idempotency_key", 128)]


@pytest.mark.parametrize(("field", "longest"), LONGEST)
def test_a_text_field_may_be_as_long_as_the_contract_says(field: str, longest: int) -> None:
    assert accepted(changed(**{field: "😀" * longest}))


@pytest.mark.parametrize(("field", "longest"), LONGEST)
def test_a_text_field_must_not_be_longer(field: str, longest: int) -> None:
    assert rejected(changed(**{field: "a" * (longest + 1)})) == (Reason.FIELD_TOO_LONG, f"/{field}")


@pytest.mark.parametrize("field", ["user_id", "session_id", "idempotency_key", "project_id"])
def test_an_optional_field_that_is_null_counts_as_absent(field: str) -> None:
    assert accepted(changed(**{field: None})) == accepted(json.dumps(GOOD).encode())


def test_a_tenant_of_another_is_rejected() -> None:
    assert rejected(changed(tenant_id="globex")) == (Reason.TENANT_MISMATCH, "/tenant_id")


def test_the_tenant_of_the_key_may_be_named() -> None:
    assert accepted(changed(tenant_id="acme")).extra is None


def test_another_project_than_the_bound_one_is_rejected() -> None:
    assert rejected(changed(project_id="app"), BOUND) == (Reason.PROJECT_MISMATCH, "/project_id")


def test_a_bound_project_needs_no_mention() -> None:
    assert accepted(changed(), BOUND).project_id == "web"


def test_without_a_bound_project_the_event_names_it() -> None:
    assert accepted(changed(project_id="app")).project_id == "app"


@pytest.mark.parametrize(
    ("name", "pointer"), [("event_type", "/event_type"), ("properties", "/properties"), ("x~/y", "/x~0~1y")]
)
def test_a_field_must_not_be_there_twice(name: str, pointer: str) -> None:
    payload = json.dumps(GOOD | {"x~/y": 1}).encode()[:-1] + b"," + json.dumps(name).encode() + b":{}}"
    assert rejected(payload) == (Reason.FIELD_REPEATED, pointer)


def test_a_field_is_there_twice_however_it_is_written() -> None:
    assert rejected(changed()[:-1] + b',"event\\u005ftype":"x"}') == (Reason.FIELD_REPEATED, "/event_type")


def test_a_name_within_properties_may_repeat() -> None:
    properties = b'{"a":1,"a":2}'
    payload = b'{"event_type":"x","timestamp":"2026-11-23T10:00:00Z","properties":%s}' % properties
    assert accepted(payload).properties == properties


@pytest.mark.parametrize("field", ["properties", "x"])
def test_nesting_may_be_as_deep_as_depth_max(field: str) -> None:
    assert accepted(changed(**{field: nested(32)}))


@pytest.mark.parametrize("field", ["properties", "x"])
def test_nesting_must_not_be_deeper(field: str) -> None:
    assert rejected(changed(**{field: nested(33)})) == (Reason.TOO_DEEP, f"/{field}" + "/a" * 32)


def test_nesting_that_no_parser_can_follow_is_too_deep() -> None:
    payload = b'{"event_type":"x","properties":%s1%s}' % (b"[" * 100_000, b"]" * 100_000)
    assert rejected(payload) == (Reason.TOO_DEEP, None)


def test_brackets_in_a_string_are_no_nesting() -> None:
    assert accepted(changed(properties={"a": "[{" * 100}))


def test_an_event_may_be_as_large_as_event_bytes_max() -> None:
    assert isinstance(parse(changed(), limits=Limits(event_bytes_max=len(changed()))), IngestEvent)


def test_a_larger_event_is_rejected_unread() -> None:
    outcome = parse(b"{" + b" " * 100, limits=Limits(event_bytes_max=100))
    assert isinstance(outcome, Rejected)
    assert (outcome.reason, outcome.field) == (Reason.EVENT_TOO_LARGE, None)


@pytest.mark.parametrize("payload", [b"", b" ", b"{", b"nope", b"{'a':1}", b'{"a":1,}', b'{"a":01}', b"{} {}", b"\x00"])
def test_what_is_not_json_is_malformed(payload: bytes) -> None:
    assert rejected(payload) == (Reason.MALFORMED_JSON, None)


@pytest.mark.parametrize("text", [b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xe4"])
def test_what_is_not_utf_8_is_malformed(text: bytes) -> None:
    assert rejected(b'{"a":"%s"}' % text) == (Reason.MALFORMED_JSON, None)


def test_a_byte_order_mark_is_malformed() -> None:
    assert rejected(b"\xef\xbb\xbf" + changed()) == (Reason.MALFORMED_JSON, None)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_are_malformed_and_pointed_at(value: str) -> None:
    payload = changed(properties={"a": [0]}).replace(b"[0]", f"[{value}]".encode())
    assert rejected(payload) == (Reason.MALFORMED_JSON, "/properties/a/0")


@pytest.mark.parametrize("value", ["1e400", "-1e400", "9" * 310, "1" + "0" * 5000, "1.7976931348623159e308"])
def test_a_number_out_of_range_is_rejected(value: str) -> None:
    payload = changed(properties={"a": [0]}).replace(b"[0]", f"[{value}]".encode())
    assert rejected(payload) == (Reason.FIELD_VALUE, "/properties/a/0")


@pytest.mark.parametrize("value", ["9" * 308, "1.7976931348623157e308", "1e-400", "0." + "1" * 500, "-0"])
def test_a_number_in_range_is_kept_as_sent(value: str) -> None:
    payload = changed(properties={"a": 0}).replace(b'"a": 0', f'"a":{value}'.encode())
    assert accepted(payload).properties == f'{{"a":{value}}}'.encode()


@pytest.mark.parametrize("text", ["\\ud800", "\\udc00", "a\\udc00\\ud800", "\\u0000", "\\uD83D"])
def test_half_surrogates_and_nul_are_rejected_as_values(text: str) -> None:
    payload = changed(properties={"a": 0}).replace(b'"a": 0', f'"a":"{text}"'.encode())
    assert rejected(payload) == (Reason.FIELD_VALUE, "/properties/a")


@pytest.mark.parametrize("text", ["\\ud800", "\\u0000"])
def test_half_surrogates_and_nul_are_rejected_as_names(text: str) -> None:
    payload = changed(properties={"a": 0}).replace(b'"a": 0', f'"{text}":0'.encode())
    assert rejected(payload) == (Reason.FIELD_VALUE, "/properties")


def test_an_escaped_backslash_before_u0000_is_no_nul() -> None:
    assert accepted(changed(properties={"a": "\\u0000"}))


@pytest.mark.parametrize("payload", [b"null", b"[]", b"7", b'"x"', b"true", b"[{}]"])
def test_an_event_is_an_object(payload: bytes) -> None:
    assert rejected(payload) == (Reason.FIELD_TYPE, "")


@pytest.mark.parametrize(
    "payload", [changed(event_type=["s3cret"]), changed(tenant_id="s3cret"), changed(timestamp="s3cret")]
)
def test_a_message_never_repeats_the_value(payload: bytes) -> None:
    outcome = parse(payload)
    assert isinstance(outcome, Rejected)
    assert "s3cret" not in outcome.message


def test_a_pointer_to_a_huge_name_is_cut() -> None:
    outcome = parse(changed(**{"x" * 100_000: nested(40)}))
    assert isinstance(outcome, Rejected)
    assert len(outcome.field or "") <= 200


def test_fields_that_we_do_not_know_are_kept_under_extra() -> None:
    payload = b'{"source": "app","v":1.0,' + changed()[1:-1] + b',"tags" : [ "a" ]}'
    assert accepted(payload).extra == b'{"source":"app","v":1.0,"tags":[ "a" ]}'


def test_without_an_idempotency_key_the_event_gets_a_fresh_id() -> None:
    assert accepted(changed()).event_id == EVENT_ID


def test_with_an_idempotency_key_the_id_follows_from_it() -> None:
    event = accepted(changed(idempotency_key="k", project_id="app"))
    assert event.event_id == derived_id("acme", "app", "k")


def test_the_same_key_gives_the_same_id_whatever_the_payload() -> None:
    one, other = changed(idempotency_key="k"), changed(idempotency_key="k", properties={"a": 1})
    assert accepted(one).event_id == accepted(other).event_id


def test_a_bound_and_a_named_project_give_the_same_id() -> None:
    assert accepted(changed(idempotency_key="k"), BOUND).event_id == (
        accepted(changed(idempotency_key="k", project_id="web")).event_id
    )


def test_a_key_beside_the_payload_stands_for_the_field() -> None:
    assert accepted(changed(), beside="k") == accepted(changed(idempotency_key="k"))


def test_the_same_key_beside_and_within_is_fine() -> None:
    assert accepted(changed(idempotency_key="k"), beside="k") == accepted(changed(idempotency_key="k"))


def test_a_different_key_beside_and_within_is_an_invalid_request() -> None:
    assert rejected(changed(idempotency_key="k"), beside="l") == (Reason.INVALID_REQUEST, "/idempotency_key")


@pytest.mark.parametrize(
    ("beside", "reason"),
    [
        ("", Reason.FIELD_VALUE),
        ("k" * 129, Reason.FIELD_TOO_LONG),
        ("\ud800", Reason.FIELD_VALUE),
        ("a\0", Reason.FIELD_VALUE),
    ],
)
def test_a_key_beside_the_payload_has_the_rules_of_the_field(beside: str, reason: Reason) -> None:
    assert rejected(changed(), beside=beside) == (reason, "/idempotency_key")


def test_a_bad_timestamp_is_pointed_at() -> None:
    assert rejected(changed(timestamp="now")) == (Reason.FIELD_VALUE, "/timestamp")


@given(tenants(), st.data())
def test_a_valid_event_means_what_it_says(tenant: Tenant, data: st.DataObject) -> None:
    sent: ValidEvent = data.draw(events(tenant))

    event = accepted(sent.payload, tenant)

    key = sent.idempotency_key
    assert event == IngestEvent(
        event_id=EVENT_ID if key is None else derived_id(tenant.tenant_id, sent.project_id, key),
        tenant=tenant,
        event_type=sent.event_type,
        timestamp=sent.timestamp,
        received_at=AT,
        properties=sent.properties,
        project_id=sent.project_id,
        user_id=sent.user_id,
        session_id=sent.session_id,
        idempotency_key=key,
        extra=event.extra,
    )


@given(events())
def test_extra_is_kept_byte_for_byte(sent: ValidEvent) -> None:
    members = [json.dumps(name, ensure_ascii=False).encode() + b":" + value for name, value in sent.extra]
    assert normal(accepted(sent.payload).extra) == normal(b"{%s}" % b",".join(members) if members else None)


@given(json_objects())
def test_any_json_object_is_kept_byte_for_byte_as_properties(properties: str) -> None:
    payload = b'{"event_type":"x","properties":%s,"timestamp":"2026-11-23T10:00:00Z"}' % properties.encode()
    assert accepted(payload).properties == properties.strip(" \t\r\n").encode()


@given(tenants(), st.data())
def test_a_broken_event_gets_its_reason_and_its_place(tenant: Tenant, data: st.DataObject) -> None:
    sent: BrokenEvent = data.draw(broken_events(tenant))
    assert rejected(sent.payload, tenant) == (sent.reason, sent.field)


@given(st.binary(max_size=200), st.none() | texts())
@example(b"[" * 5000, None)
@example(b'{"a":' * 5000, None)
@example(b'{"a":' + b"9" * 5000 + b"}", None)
def test_any_bytes_are_an_event_or_rejected(payload: bytes, beside: str | None) -> None:
    assert isinstance(parse(payload, beside=beside), IngestEvent | Rejected)


@given(json_like())
def test_anything_like_json_is_an_event_or_rejected(payload: bytes) -> None:
    assert isinstance(parse(payload), IngestEvent | Rejected)


@given(json_like())
def test_a_message_is_short(payload: bytes) -> None:
    outcome = parse(payload)
    assert isinstance(outcome, IngestEvent) or len(outcome.message) < 400


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def normal(extra: bytes | None) -> object:
    """Numbers and strings as written, and every name with its value, in order."""
    return extra and json.loads(extra, parse_float=str, parse_int=str, object_pairs_hook=list)
