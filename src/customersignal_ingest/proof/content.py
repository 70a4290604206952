"""What must be stored of an event that was sent, and what is: comparable, and written from the docs alone.

Both sides become a content: for each field its JSON in one exact spelling, in which strings have no
escapes to choose from, members their order by name, and numbers the very digits that were sent:
1.0 is not 1, and no digit is lost.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Protocol

Content = Mapping[str, str]

_TEXTS = ("user_id", "session_id", "idempotency_key")
_PASSED_ON = ("event_type", "timestamp", "properties")
_IDS = ("tenant_id", "project_id")
_SHALLOW = 100
_KNOWN = frozenset({*_TEXTS, *_PASSED_ON, *_IDS})
_HEADERS = {"content-type": b"application/json", "schema": b"events_raw/1"}
_MAY_HAVE = frozenset({"traceparent"})
ADDED = ("event_id", "environment", "received_at")
"""The fields that a stored record has beside what was sent."""


class StoredRecord(Protocol):
    """A record read back, as far as it is looked at."""

    @property
    def receipt(self) -> str:
        """`topic/partition/offset`."""
        ...

    @property
    def key(self) -> bytes:
        """What the partition was chosen by."""
        ...

    @property
    def value(self) -> bytes:
        """The record's JSON."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """Names and values, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Expected:
    """An event as it must be stored. `identity` is the same for whatever counts as the same event.

    That is the idempotency key, within tenant and project; without one, the whole content.
    `ordered_by` is shared by all events that must be stored in the order of their answers.
    """

    content: Content
    identity: bytes
    keyed: bool
    ordered_by: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """A record as it is stored. `flaws` says what is wrong with it whatever was sent."""

    content: Content
    identity: bytes
    keyed: bool
    event_id: str | None
    flaws: tuple[str, ...]


def expected(
    payload: bytes, /, *, tenant_id: str, project_id: str | None, idempotency_key: str | None
) -> Expected | None:
    """Return what must be stored of this payload, sent with a key of this tenant and project; `None` of no event.

    `idempotency_key` is the one that was sent beside the payload.
    """
    sent = _object(payload)
    if sent is None:
        return None
    content = {name: spelled(sent[name]) for name in _PASSED_ON if name in sent}
    content |= {name: spelled(sent[name]) for name in _TEXTS if sent.get(name) is not None}
    if idempotency_key is not None:
        content["idempotency_key"] = spelled(idempotency_key)
    content["tenant_id"] = spelled(tenant_id)
    if (project := project_id or sent.get("project_id")) is not None:
        content["project_id"] = spelled(project)
    if extra := tuple((name, sent[name]) for name in sorted(sent.keys() - _KNOWN)):
        content["extra"] = spelled(extra)
    who = _first(sent, "user_id", "session_id")
    return Expected(
        content=content,
        identity=_identity(content),
        keyed="idempotency_key" in content,
        ordered_by=None if who is None else f"{tenant_id}:{who}",
    )


def found(record: StoredRecord, /) -> Found | None:
    """Return what the record says; `None` where it is no JSON object, and so none of this service."""
    fields = _object(record.value)
    if fields is None:
        return None
    content = {name: spelled(value) for name, value in fields.items() if name not in ADDED}
    event_id = fields.get("event_id")
    return Found(
        content=content,
        identity=_identity(content),
        keyed="idempotency_key" in content,
        event_id=event_id if isinstance(event_id, str) else None,
        flaws=tuple(_flaws(record, fields)),
    )


def differing(one: Content, other: Content, /) -> list[str]:
    """Name the fields in which two contents differ, sorted."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def spelled(value: Any, /) -> str:
    """Return the one spelling of a value, as the parser of this module makes it."""
    return repr(value)


def _flaws(record: StoredRecord, fields: Mapping[str, Any]) -> list[str]:
    """Say where the record contradicts itself, or lacks what the service adds."""
    flaws = [f"the field {name} is missing" for name in ADDED if not isinstance(fields.get(name), str)]
    headers = dict(record.headers)
    wanted = {name: str(fields.get(name)).encode(errors="replace") for name in ("event_id", "tenant_id")} | _HEADERS
    known = headers.keys() - _MAY_HAVE
    wrong = [name for name in sorted(wanted.keys() | known) if headers.get(name) != wanted.get(name)]
    flaws += [f"the header {name} is wrong" for name in wrong]
    if len(headers) < len(record.headers):
        flaws.append("a header is there twice")
    key = f"{fields.get('tenant_id')}:{_first(fields, 'user_id', 'session_id', 'event_id')}"
    if record.key != key.encode(errors="replace"):
        flaws.append("the key is not the tenant and the first of user, session and event")
    return flaws


def _first(fields: Mapping[str, Any], *names: str) -> Any:
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _identity(content: Content) -> bytes:
    named = content
    if "idempotency_key" in content:
        named = {name: content[name] for name in (*_IDS, "idempotency_key") if name in content}
    return hashlib.blake2b(repr(sorted(named.items())).encode(), digest_size=16).digest()


class _Number(str):
    """A number as its literal: repr has it without quotes, so it is never taken for a string."""

    __slots__ = ()

    def __repr__(self) -> str:
        return self[:]


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _sorted_pairs(pairs: list[tuple[str, Any]]) -> tuple[tuple[str, Any], ...]:
    # Pairs and no dict: a name that is there twice within properties must be stored twice.
    return tuple(sorted(pairs, key=itemgetter(0)))


_values = json.JSONDecoder(
    object_pairs_hook=_sorted_pairs, parse_int=_Number, parse_float=_Number, parse_constant=_refuse
).decode


def _object(text: bytes) -> dict[str, Any] | None:
    """Return the fields of a JSON object; `None` of anything else, or where a field is there twice."""
    try:
        pairs = _values(text.decode())
        if text.count(b"[") + text.count(b"{") > _SHALLOW:
            repr([[[[pairs]]]])  # So deep that it can't be spelled: no service takes it, and so it is no event.
    except (ValueError, RecursionError):
        return None
    if not isinstance(pairs, tuple):
        return None
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else None
