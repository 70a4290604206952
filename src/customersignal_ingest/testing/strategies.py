"""Hypothesis strategies: what clients send, good and bad, and what publishers are given.

Every good event comes with its meaning, every broken one with the rejection that it must get, so
that a property needs no second implementation of the rules.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from hypothesis import strategies as st

from customersignal_ingest.domain.event import Record
from customersignal_ingest.domain.flaws import pointer_to
from customersignal_ingest.domain.key import Tenant
from customersignal_ingest.domain.outcome import Reason
from customersignal_ingest.domain.rules import IDEMPOTENCY_KEY_MAX, TEXT_MAX, Limits
from customersignal_ingest.testing.faults import FAULTS

Members = list[tuple[str, str]]
"""The fields of an object: each name as a text, each value as JSON."""

ACME = Tenant(tenant_id="acme", key_id="k1")
"""The tenant whose events are made when no other is asked for."""

_CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")
_WAYS = st.sampled_from(["plain", "ascii", "escaped"])
_BLANKS = st.sampled_from(["", "", " ", "\n", "\t", " \r\n "])
_ODD_NUMBERS = ["-0", "0.0", "1.0", "1E5", "0.10", "1e+02", "-0.0e-0", "5e-324", "1e-400", "1.7976931348623157e308"]
_NASTY = [
    *["NaN", "Infinity", "-Infinity", "1e400", "9" * 400, "01", "1.", ".5", "+1", "-", "0x1", "tru", "'a'"],
    *['"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"\0"', '"\\x"', '"\\u12"', '"\t"', '"', "\\", "\ufeff", "\0"],
    *["{", "}", "[", "]", ",", ":", ",,", "//", "/**/", '"a":1,"a":2', '"\\u0061":1,"a":2', "[" * 40, "[" * 3000],
]
_NOT_TEXTS = ["true", "1.5", "[]", "{}"]
_NOT_TIMESTAMPS = [
    *["yesterday", "2026-11-23", "2026-11-23T10:00:00", "2026-02-29T10:00:00Z", "2026-11-23T24:00:00Z"],
    *["1969-12-31T23:59:59Z", "12026-01-01T00:00:00Z", "2026-11-23T10:00:61Z", "2026-11-23T10:00:00+24:00"],
    *["2026-11-23T10:00:00+10:60", " 2026-11-23T10:00:00Z", "2026-11-23T10:00:00Z\n", "٢٠٢٦-11-23T10:00:00Z"],
]
_REQUIRED = ["event_type", "timestamp", "properties"]
_OPTIONAL_TEXTS = ["user_id", "session_id", "idempotency_key", "project_id"]
_SOME_OPTIONAL = st.lists(st.sampled_from(_OPTIONAL_TEXTS), unique=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidEvent:
    """A payload that every rule lets in, and what it says; `extra` is in the order of the payload."""

    payload: bytes
    event_type: str
    timestamp: str
    properties: bytes
    user_id: str | None = None
    session_id: str | None = None
    idempotency_key: str | None = None
    project_id: str | None = None
    extra: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenEvent:
    """A payload with one flaw, and the rejection that it must get under the default limits."""

    payload: bytes
    reason: Reason
    field: str | None = None


@cache
def texts(longest: int = TEXT_MAX) -> st.SearchStrategy[str]:
    """Texts that are good for a field: not empty, no NUL, else anything that UTF-8 can hold."""
    short = st.text(_CHARACTERS, min_size=1, max_size=12)
    return short | st.builds(str.__mul__, st.sampled_from("aß水😀\t\"\\/'\u2028"), st.integers(1, longest))


@cache
def timestamps() -> st.SearchStrategy[str]:
    """Moments in every way in which the contract lets them be written."""
    moments = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31))  # noqa: DTZ001  The offset comes after it.
    steps = st.sampled_from(["minutes", "seconds", "milliseconds", "microseconds"])
    written = st.builds(datetime.isoformat, moments, st.sampled_from("Tt "), steps)
    return st.builds(str.__add__, written, st.sampled_from("Zz") | _offsets())


@cache
def json_texts() -> st.SearchStrategy[str]:
    """JSON strings, in several of the many ways to write each."""
    return st.builds(_write, st.just("") | texts(20), _WAYS)


@cache
def json_numbers() -> st.SearchStrategy[str]:
    """JSON numbers as text: long, precise and odd ones, all in the range of a double."""
    return st.one_of(
        st.sampled_from(_ODD_NUMBERS),
        st.integers().map(str),
        st.integers(10**19, 10**300).map(str),
        st.floats(allow_nan=False, allow_infinity=False).map(repr),
        st.decimals(-1000, 1000, places=25).map("{:f}".format),
    )


@cache
def json_values(leaves_max: int = 6) -> st.SearchStrategy[str]:
    """Any JSON values as text, with odd numbers, blanks and escapes, and names that repeat."""
    leaves = st.sampled_from(["null", "true", "false"]) | json_numbers() | json_texts()
    return st.recursive(leaves, lambda inner: _arrays(inner) | _objects(inner), max_leaves=leaves_max)


@cache
def json_objects() -> st.SearchStrategy[str]:
    """Any JSON objects as text, with names that may repeat."""
    return _objects(json_values(4))


@st.composite
def json_like(draw: st.DrawFn) -> bytes:
    """What is nearly JSON: an event or a value with pieces cut out and nasty ones put in."""
    text = draw(json_values().map(str.encode) | json_objects().map(str.encode) | events().map(_payload))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text)))
        end = start + draw(st.integers(0, 8))
        put_in = draw(st.sampled_from(_NASTY).map(str.encode) | st.binary(max_size=3))
        text = text[:start] + put_in + text[end:]
    return text


def tenants() -> st.SearchStrategy[Tenant]:
    """Tenants, some bound to a project, some with names that need care."""
    return st.builds(
        Tenant,
        tenant_id=st.sampled_from(["acme", "globex", "initech", "größe-水", "a:b"]),
        project_id=st.sampled_from([None, "web", "app"]),
        environment=st.sampled_from(["live", "test"]),
        key_id=st.just("k1"),
    )


@cache
@st.composite
def events(draw: st.DrawFn, tenant: Tenant = ACME) -> ValidEvent:
    """Valid events of this tenant, with their meaning."""
    members = draw(_members(tenant))
    said = {name: json.loads(value, parse_int=str) for name, value in members if name != "properties"}
    return ValidEvent(
        payload=draw(_objects_of(members)),
        event_type=said["event_type"],
        timestamp=said["timestamp"],
        properties=_as_kept(dict(members)["properties"]),
        user_id=said.get("user_id"),
        session_id=said.get("session_id"),
        idempotency_key=said.get("idempotency_key"),
        project_id=tenant.project_id or said.get("project_id"),
        extra=tuple((name, _as_kept(value)) for name, value in members if name.startswith("x")),
    )


@cache
@st.composite
def broken_events(draw: st.DrawFn, tenant: Tenant = ACME) -> BrokenEvent:
    """Events of this tenant that are valid but for one flaw, of every kind that there is."""
    flaw = draw(st.sampled_from([_bad_value, _bad_value, _bad_value, _missing, _repeated, _cut, _not_utf8, _no_object]))
    return draw(flaw(draw(_members(tenant)), tenant))


@cache
def batches(tenant: Tenant = ACME, events_max: int = 8) -> st.SearchStrategy[list[ValidEvent | BrokenEvent]]:
    """Good and broken events of this tenant, mixed."""
    return st.lists(events(tenant) | broken_events(tenant), min_size=1, max_size=events_max)


def fault_plans(words: Sequence[str] = tuple(FAULTS), calls_max: int = 4) -> st.SearchStrategy[list[str]]:
    """Fault plans of these words, some for whole calls, some record by record."""
    record_by_record = st.lists(st.sampled_from(words), min_size=2, max_size=4).map(" ".join)
    return st.lists(st.sampled_from(words) | record_by_record, max_size=calls_max)


def records() -> st.SearchStrategy[Record]:
    """Records with any bytes: a publisher looks into none of them."""
    return st.builds(
        Record,
        key=st.binary(min_size=1, max_size=40),
        value=st.binary(min_size=1, max_size=200),
        headers=st.lists(st.tuples(texts(10), st.binary(max_size=20)), max_size=5).map(tuple),
        timestamp_ms=st.integers(0, 253_402_300_799_999),
        tenant_id=texts(20),
        event_id=st.uuids().map(str),
    )


@st.composite
def _members(draw: st.DrawFn, tenant: Tenant) -> Members:
    optional = draw(_SOME_OPTIONAL)
    members = [
        ("event_type", _write(draw(texts()), draw(_WAYS))),
        ("timestamp", _write(draw(timestamps()), draw(_WAYS))),
        ("properties", draw(json_objects())),
        *[(name, _write(draw(_optional_texts(name, tenant)), draw(_WAYS))) for name in optional],
        *[("x" + name, value) for name, value in draw(_extra()).items()],
    ]
    if draw(st.booleans()):
        members.append(("tenant_id", json.dumps(tenant.tenant_id)))
        members += [(name, "null") for name in _OPTIONAL_TEXTS if name not in optional]
    return draw(st.permutations(members))


@cache
def _extra() -> st.SearchStrategy[dict[str, str]]:
    return st.dictionaries(texts(20), json_values(3), max_size=3)


def _optional_texts(name: str, tenant: Tenant) -> st.SearchStrategy[str]:
    if name == "project_id" and tenant.project_id is not None:
        return st.just(tenant.project_id)
    return texts(IDEMPOTENCY_KEY_MAX if name == "idempotency_key" else TEXT_MAX)


def _bad_value(members: Members, tenant: Tenant) -> st.SearchStrategy[BrokenEvent]:
    return st.sampled_from(_bad_values(tenant)).flatmap(
        lambda bad: _objects_of(_with(members, bad[0], bad[1])).map(
            lambda payload: BrokenEvent(payload=payload, reason=bad[2], field=f"/{bad[0]}{bad[3]}")
        )
    )


def _bad_values(tenant: Tenant) -> list[tuple[str, str, Reason, str]]:
    """Name, value, reason, and the rest of the pointer."""
    deep = Limits().depth_max
    all_texts = ["event_type", "timestamp", "tenant_id", *_OPTIONAL_TEXTS]
    return [
        *[(name, value, Reason.FIELD_TYPE, "") for name in all_texts for value in _NOT_TEXTS],
        *[(name, '""', Reason.FIELD_VALUE, "") for name in all_texts],
        *[(name, json.dumps("é" * 201), Reason.FIELD_TOO_LONG, "") for name in all_texts],
        *[(name, value, Reason.FIELD_VALUE, "") for name in all_texts for value in ['"\\u0000"', '"\\udc00"']],
        *[(name, "null", Reason.FIELD_TYPE, "") for name in _REQUIRED],
        *[("properties", value, Reason.FIELD_TYPE, "") for value in ["true", "0", "[]", '"{}"']],
        *[("timestamp", json.dumps(text), Reason.FIELD_VALUE, "") for text in _NOT_TIMESTAMPS],
        ("idempotency_key", json.dumps("k" * 129), Reason.FIELD_TOO_LONG, ""),
        ("tenant_id", json.dumps(tenant.tenant_id + "2"), Reason.TENANT_MISMATCH, ""),
        ("properties", '{"a":' * (deep + 1) + "1" + "}" * (deep + 1), Reason.TOO_DEEP, "/a" * deep),
        ("x", "[" * (deep + 1) + "]" * (deep + 1), Reason.TOO_DEEP, "/0" * deep),
        *[("properties", f'{{"a~/":[0,{text}]}}', Reason.FIELD_VALUE, "/a~0~1/1") for text in ["1e400", "9" * 400]],
        *[("x", f'[{{"a":{text}}}]', Reason.MALFORMED_JSON, "/0/a") for text in ["NaN", "Infinity", "-Infinity"]],
        ("properties", '{"\\u0000":1}', Reason.FIELD_VALUE, ""),
        *([("project_id", '"another"', Reason.PROJECT_MISMATCH, "")] if tenant.project_id is not None else []),
    ]


@st.composite
def _missing(draw: st.DrawFn, members: Members, _: Tenant) -> BrokenEvent:
    missing = draw(st.sampled_from(_REQUIRED))
    payload = draw(_objects_of([member for member in members if member[0] != missing]))
    return BrokenEvent(payload=payload, reason=Reason.FIELD_REQUIRED, field=f"/{missing}")


@st.composite
def _repeated(draw: st.DrawFn, members: Members, _: Tenant) -> BrokenEvent:
    name, value = draw(st.sampled_from(members))
    payload = draw(_objects_of([*members, (name, draw(st.just(value) | json_values(2)))]))
    return BrokenEvent(payload=payload, reason=Reason.FIELD_REPEATED, field=pointer_to(name))


@st.composite
def _cut(draw: st.DrawFn, members: Members, _: Tenant) -> BrokenEvent:
    payload = draw(_objects_of(members)).rstrip()
    end = draw(st.integers(0, len(payload) - 1))
    return BrokenEvent(payload=payload[:end], reason=Reason.MALFORMED_JSON)


@st.composite
def _not_utf8(draw: st.DrawFn, members: Members, _: Tenant) -> BrokenEvent:
    payload = draw(_objects_of(members))
    at = draw(st.integers(0, len(payload)))
    wrong = draw(st.sampled_from([b"\xff", b"\xc0\x80", b"\xed\xa0\x80"]))
    return BrokenEvent(payload=payload[:at] + wrong + payload[at:], reason=Reason.MALFORMED_JSON)


@st.composite
def _no_object(draw: st.DrawFn, members: Members, _: Tenant) -> BrokenEvent:
    inner = draw(_objects_of(members)).decode()
    other = draw(st.sampled_from(["null", "true", "-1", '"{}"', "[]", f"[{inner}]", json.dumps(inner)]))
    return BrokenEvent(payload=other.encode(), reason=Reason.FIELD_TYPE, field="")


def _with(members: Members, name: str, value: str) -> Members:
    return [member for member in members if member[0] != name] + [(name, value)]


def _objects_of(members: Members) -> st.SearchStrategy[bytes]:
    return st.builds(_object_of, st.just(members), _WAYS, _BLANKS)


def _object_of(members: Members, way: str, blank: str) -> bytes:
    return _object([(_write(name, way), value) for name, value in members], blank).encode()


def _objects(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(_object, st.lists(st.tuples(json_texts(), inner), max_size=4), _BLANKS)


def _object(members: Iterable[tuple[str, str]], blank: str) -> str:
    return blank.join(["", "{", ",".join(f"{blank}{name}{blank}:{blank}{value}" for name, value in members), "}", ""])


def _arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(lambda items, blank: f"[{f'{blank},'.join(items)}{blank}]", st.lists(inner, max_size=4), _BLANKS)


def _write(text: str, way: str) -> str:
    match way:
        case "plain":
            return json.dumps(text, ensure_ascii=False)
        case "ascii":
            return json.dumps(text).replace("/", "\\/")
        case _:
            units = text.encode("utf-16-be")
            return '"' + "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2)) + '"'


def _offsets() -> st.SearchStrategy[str]:
    parts = st.tuples(st.sampled_from("+-"), st.integers(0, 23), st.integers(0, 59), st.sampled_from([":", ""]))
    return parts.map(lambda part: f"{part[0]}{part[1]:02}{part[3]}{part[2]:02}")


def _payload(event: ValidEvent) -> bytes:
    return event.payload


def _as_kept(value: str) -> bytes:
    return value.strip(" \t\r\n").encode()
