"""The short way of an ordinary event: it is taken, and it never says anything else than the careful way."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from customersignal_ingest.domain import rules
from customersignal_ingest.domain.key import Tenant
from customersignal_ingest.domain.rules import Limits
from customersignal_ingest.testing.strategies import (
    ACME,
    broken_events,
    events,
    json_like,
    json_objects,
    json_texts,
    json_values,
    tenants,
    timestamps,
)

DEPTH_MAX = 4
LIMITS = Limits(depth_max=DEPTH_MAX)
GOOD: dict[str, Any] = {"event_type": "signed_up", "timestamp": "2026-11-23T10:00:00Z", "properties": {}}
EVENT = b'{"event_type":"x","timestamp":"2026-11-23T10:00:00Z","properties":%s}'
TEXTS = ["user_id", "session_id", "idempotency_key", "project_id", "tenant_id"]

LENGTHS = st.sampled_from([1, 2, 3, 128, 128, 129, 200, 201])
LONG_TEXTS = st.builds(
    lambda letter, length: json.dumps(letter * length, ensure_ascii=False), st.sampled_from("aß水😀"), LENGTHS
)
ANY_VALUES = json_values(4) | st.sampled_from(
    ["null", '""', '"\\u0000"', '"\\ud800"', "9" * 400, "1e400", "[" * 5 + "]" * 5]
)
TYPED = st.text(st.characters(codec="utf-8", min_codepoint=0x20, exclude_characters='"\\'), min_size=1, max_size=20)
VALUES: dict[str, st.SearchStrategy[str]] = {
    "event_type": json_texts(),
    "timestamp": timestamps().map(json.dumps),
    "properties": json_objects(),
    "user_id": json_texts(),
    "session_id": LONG_TEXTS,
    "idempotency_key": LONG_TEXTS,
    "project_id": st.sampled_from(['"web"', '"app"']),
    "tenant_id": st.sampled_from(['"acme"', '"acme"', '"globex"']),
}


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """Objects of the fields that an event has: some twice, some with another field's value, or with any."""
    names = draw(st.lists(st.sampled_from(TEXTS), unique=True, max_size=3))
    names = draw(st.permutations(["event_type", "timestamp", "properties", *names]))
    if draw(st.integers(0, 3)) == 0:
        names.insert(draw(st.integers(0, len(names))), draw(st.sampled_from([*VALUES, "x"])))
    odd = draw(st.sampled_from([None, None, *names]))
    members = [f"{json.dumps(name)}:{draw(ANY_VALUES if name in (odd, 'x') else VALUES[name])}" for name in names]
    blank = draw(st.sampled_from(["", " ", "\r\n\t"]))
    return f"{blank}{{{blank}{f'{blank},{blank}'.join(members)}{blank}}}{blank}".encode()


def said(read: rules._Read, tenant: Tenant) -> tuple[object, ...]:
    fields, properties, extra = read
    texts = (fields.event_type, fields.timestamp, fields.user_id, fields.session_id, fields.idempotency_key)
    return (*texts, tenant.project_id or fields.project_id, properties, extra)


def plainly(payload: bytes, tenant: Tenant = ACME) -> rules._Read | None:
    return rules._plainly(payload, tenant, LIMITS, None)


@given(
    objects()
    | objects()
    | json_like()
    | events().map(lambda sent: sent.payload)
    | broken_events().map(lambda sent: sent.payload),
    tenants(),
)
@example(EVENT % b'{"a":"\\u0000"}', ACME)
@example((EVENT % b"{}").replace(b'"x"', b'"\\u0000"'), ACME)
@example(EVENT % b'{"a":%s}' % (b"9" * 309), ACME)
@example(EVENT % b'{"a":1,"b":%s}' % (b"9" * 400), ACME)
@example(EVENT % b'{"a":1e400}', ACME)
@example(EVENT % b'{"a":"\xff"}', ACME)
@example(EVENT % b'{"a":[[[[]]]]}', ACME)
@example(EVENT % b"[]", ACME)
@example(EVENT % b"null", ACME)
@example(EVENT % b'{},"event_type":"y"', ACME)
@example(EVENT % b'{},"event\\u005ftype":"y"', ACME)
@example(EVENT % b'{},"user_id":null', ACME)
@example(EVENT % b'{},"properties":{}', ACME)
@example(EVENT % b'{"a":"\xff"},"properties":{}', ACME)
@example(EVENT % b'{},"x":NaN', ACME)
@example(EVENT % b'{},"tenant_id":"globex"', ACME)
@example(EVENT % b'{},"project_id":"app"', Tenant(tenant_id="acme", project_id="web"))
@example(EVENT % b"{}}", ACME)
def test_what_is_taken_the_short_way_is_what_the_careful_way_takes(payload: bytes, tenant: Tenant) -> None:
    plain = plainly(payload, tenant)

    assert plain is None or said(plain, tenant) == said(rules._carefully(payload, tenant, LIMITS, None, True), tenant)


@pytest.mark.parametrize(
    "fields",
    [
        *[{}, dict.fromkeys(TEXTS, "acme"), {"user_id": "größe-水-😀"}, {"user_id": "u" * 200}],
        *[{"timestamp": "2026-11-30T10:00:00.123456+05:30"}, {"timestamp": "2024-02-29 10:00Z"}],
        *[{"properties": {"price": 59.90, "tags": ["linen"], "is": 'a "quote" \\ and \n'}}],
        *[{"properties": {"cart": [{"sku": "1"}] * 100}}, {"properties": {"n": 10**307}}],
        {"properties": {"a": [{"b": [1]}]}},
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_an_ordinary_event_goes_the_short_way(fields: dict[str, Any], indent: int | None) -> None:
    assert plainly(json.dumps(GOOD | fields, ensure_ascii=False, indent=indent).encode()) is not None


@given(
    st.fixed_dictionaries({"event_type": TYPED, "timestamp": timestamps()}, optional=dict.fromkeys(TEXTS[:4], TYPED))
)
def test_texts_without_escapes_go_the_short_way(texts: dict[str, str]) -> None:
    assert plainly(json.dumps(GOOD | texts, ensure_ascii=False).encode()) is not None


def test_with_a_key_beside_it_an_event_goes_the_careful_way() -> None:
    assert rules._plainly(EVENT % b"{}", ACME, LIMITS, "k") is None
