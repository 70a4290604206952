"""What must be true of whatever the service makes of some bytes, told by the standard library's parser and msgspec's.

Nothing here knows how the service reads JSON: it reads the same bytes itself, strictly, and compares.
"""

import json
from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Any

import msgspec

from customersignal_ingest.domain.event import IngestEvent, Record, encode
from customersignal_ingest.domain.outcome import Reason, Rejected
from customersignal_ingest.domain.rules import Limits

MESSAGE_MAX = 400
KNOWN = (
    *("event_type", "timestamp", "properties", "user_id", "session_id"),
    *("idempotency_key", "project_id", "tenant_id"),
)
Pairs = list[tuple[str, Any]]


class _Pairs(list[tuple[str, Any]]):
    """An object with all its names, those that repeat too, so that an array is never equal to it."""


class _Written(str):
    """A number as written, so that a text is never equal to it."""


def about_event(payload: bytes, outcome: object, /, *, limits: Limits) -> list[str]:
    """Return what is wrong with what `parse_event` made of these bytes."""
    if isinstance(outcome, Rejected):
        return list(_about_a_rejection(payload, outcome, limits))
    if isinstance(outcome, IngestEvent):
        return list(_about_an_event(payload, outcome, limits))
    return [f"neither an event nor a rejection: {type(outcome).__name__}"]


def about_slices(body: bytes, slices: Sequence[bytes], /, *, most: int) -> list[str]:
    """Return what is wrong with the elements that a batch was cut into; more than `most` are refused unread."""
    if len(slices) > most:
        return []
    tree = as_written(body)
    if not isinstance(tree, _Pairs) or [name for name, _ in tree] != ["events"]:
        return ["sliced what is not one array of events"]
    elements = tree[0][1]
    if isinstance(elements, _Pairs) or not isinstance(elements, list):
        return ["sliced events that are no array"]
    if len(elements) > most:
        return ["left so many events out that the rest would be taken"]
    if [as_written(each) for each in slices] != elements:
        return ["a slice is not the element in its place"]
    return []


def as_written(text: bytes, /) -> Any:
    """Return the JSON with every number and name as written; `None` where it is not strict JSON, and for `null`."""
    try:
        return json.loads(
            text.decode(), object_pairs_hook=_Pairs, parse_int=_Written, parse_float=_Written, parse_constant=_refuse
        )
    except (ValueError, RecursionError):
        return None


def depth_of(value: Any, /) -> int:
    """Return how many levels of objects and arrays there are."""
    levels, level = 0, [value]
    while level := [each for each in level if isinstance(each, list)]:
        levels += 1
        level = [inner for each in level for inner in (_values(each) if isinstance(each, _Pairs) else each)]
    return levels


def _about_a_rejection(payload: bytes, rejected: Rejected, limits: Limits) -> Iterator[str]:
    tree = as_written(payload)
    names = [name for name, _ in tree] if isinstance(tree, _Pairs) else []
    claims: dict[Reason, bool] = {
        Reason.MALFORMED_JSON: tree is None and payload.strip(b" \t\r\n") != b"null",
        Reason.FIELD_REPEATED: len(set(names)) < len(names),
        # Of what is nested too deep for the standard library, nobody can tell how deep it is.
        Reason.TOO_DEEP: tree is None or depth_of(tree) > limits.depth_max + 1,
        Reason.EVENT_TOO_LARGE: len(payload) > limits.event_bytes_max,
    }
    if not claims.get(rejected.reason, True):
        yield f"{rejected.reason} of bytes that are not so"
    if len(rejected.message) > MESSAGE_MAX or len(rejected.field or "") > MESSAGE_MAX:
        yield "a message that is not short"


def _about_an_event(payload: bytes, event: IngestEvent, limits: Limits) -> Iterator[str]:
    tree = as_written(payload)
    if not isinstance(tree, _Pairs):
        yield "accepted what is no strict JSON object"
        return
    fields = dict(tree)
    yield from _about_the_tree(tree, fields, limits)
    yield from _about_values(payload)
    yield from _about_fields(fields, event)
    yield from _about_the_record(tree, fields, event, encode(event))


def _about_the_tree(tree: Pairs, fields: dict[str, Any], limits: Limits) -> Iterator[str]:
    if len(fields) < len(tree):
        yield "accepted a field that is there twice"
    if depth_of(tree) > limits.depth_max + 1:
        yield "accepted more levels than depth_max"
    if not all(_good_leaf(leaf) for leaf in _leaves(tree)):
        yield "accepted a NUL, half a pair or a number out of range"


def _about_values(payload: bytes) -> Iterator[str]:
    """Two parsers that consumers use read the same values."""
    try:
        same = msgspec.json.decode(payload) == json.loads(payload)
    except (ValueError, RecursionError):
        same = False
    if not same:
        yield "msgspec and the standard library do not read the same values"


def _about_fields(fields: dict[str, Any], event: IngestEvent) -> Iterator[str]:
    for name in ("event_type", "timestamp", "user_id", "session_id", "idempotency_key"):
        if fields.get(name) != getattr(event, name):
            yield f"{name} is not what was sent"
    if fields.get("tenant_id") not in (None, event.tenant.tenant_id):
        yield "another tenant's event was accepted"
    if as_written(event.properties) != fields["properties"]:
        yield "the properties are not what was sent"


def _about_the_record(tree: Pairs, fields: dict[str, Any], event: IngestEvent, record: Record) -> Iterator[str]:
    value = as_written(record.value)
    if not isinstance(value, _Pairs) or len(dict(value)) < len(value):
        yield "the record is no strict JSON object"
        return
    kept = dict(value)
    rest = [(name, each) for name, each in tree if name not in KNOWN]
    if kept["properties"] != fields["properties"] or kept.get("extra", []) != rest:
        yield "the record does not have what was sent"
    if kept["tenant_id"] != event.tenant.tenant_id or kept["event_id"] != event.event_id:
        yield "the record is another tenant's, or another event"
    if not record.key.startswith(event.tenant.tenant_id.encode() + b":"):
        yield "the record's key is another tenant's"


def _leaves(value: Any) -> Iterator[str | _Written]:
    todo = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, _Pairs):
            todo += [part for pair in each for part in pair]
        elif isinstance(each, list):
            todo += each
        elif isinstance(each, str):
            yield each


def _good_leaf(leaf: str) -> bool:
    if isinstance(leaf, _Written):
        return isfinite(float(leaf))
    return "\0" not in leaf and not any("\ud800" <= character <= "\udfff" for character in leaf)


def _values(pairs: Pairs) -> list[Any]:
    return [value for _, value in pairs]


def _refuse(constant: str) -> Any:
    raise ValueError(constant)
