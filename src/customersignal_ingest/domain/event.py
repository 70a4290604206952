"""The event as we understand it, the record as we store it, and the exact bytes between the two.

Encoding is msgspec's by adr/0008: it copies the client's JSON into the record unread.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, ClassVar

import msgspec

from customersignal_ingest.domain.key import Environment, Tenant

SCHEMA = "events_raw/1"
TEXT_MAX = 200
IDEMPOTENCY_KEY_MAX = 128

_CONTENT = (("content-type", b"application/json"), ("schema", SCHEMA.encode()))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Frozen(msgspec.Struct, frozen=True, gc=False):
    """A value that never changes, for what is made once an event: a frozen dataclass takes ten times as long."""


class Discreet(Frozen, frozen=True, gc=False):
    """Shows in `repr` those of its fields that it names, so that no log shows what a client sent."""

    shown: ClassVar[tuple[str, ...]]

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [(name, getattr(self, name)) for name in self.shown]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


class IngestEvent(Discreet, frozen=True, kw_only=True, gc=False):
    """A valid event of a known tenant: the command that `ingest` carries out.

    `properties` and `extra` are JSON objects in UTF-8, every number and string as the client sent
    them. `project_id` is the effective one: the key's, or else the event's.
    """

    shown = ("event_id", "tenant", "received_at", "traceparent")

    event_id: str
    tenant: Tenant
    event_type: str
    timestamp: str
    received_at: datetime
    properties: bytes
    project_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    idempotency_key: str | None = None
    extra: bytes | None = None
    traceparent: str | None = None


class Record(Discreet, frozen=True, kw_only=True, gc=False):
    """What a publisher stores, ready to send: it looks into none of it.

    `timestamp_ms` is the moment of arrival in Unix milliseconds, never the client's time.
    `tenant_id` and `event_id` repeat what key, value and headers say, for policies and logs.
    """

    shown = ("timestamp_ms", "tenant_id", "event_id")

    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int
    tenant_id: str
    event_id: str

    @property
    def size_bytes(self) -> int:
        """Key and value together: what the record weighs in queues."""
        return len(self.key) + len(self.value)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands in its topic."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Span:
    """What of a partition can be read: from the offset `start` on, up to the record before `end`."""

    partition: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """A record read back: where it stands and exactly what is there, of which `repr` shows nothing."""

    topic: str
    partition: int
    offset: int
    key: bytes = field(repr=False)
    value: bytes = field(repr=False)
    headers: tuple[tuple[str, bytes], ...] = field(repr=False)
    timestamp_ms: int

    @property
    def receipt(self) -> str:
        """`topic/partition/offset`, as the answer to the client had it."""
        return f"{self.topic}/{self.partition}/{self.offset}"


class _Value(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The public format of `events_raw`, in the order of its fields. A golden test holds its bytes."""

    event_id: str
    tenant_id: str
    project_id: str | None = None
    environment: Environment
    event_type: str
    timestamp: str
    received_at: str
    user_id: str | None = None
    session_id: str | None = None
    idempotency_key: str | None = None
    properties: msgspec.Raw
    extra: msgspec.Raw | None = None


_to_json = msgspec.json.Encoder().encode


def encode(event: IngestEvent, /) -> Record:
    """Return the record of this event: the same bytes for every publisher, today and tomorrow."""
    tenant_id = event.tenant.tenant_id
    received_at, timestamp_ms = moment(event.received_at)
    value = _Value(
        event_id=event.event_id,
        tenant_id=tenant_id,
        project_id=event.project_id,
        environment=event.tenant.environment,
        event_type=event.event_type,
        timestamp=event.timestamp,
        received_at=received_at,
        user_id=event.user_id,
        session_id=event.session_id,
        idempotency_key=event.idempotency_key,
        properties=msgspec.Raw(event.properties),
        extra=None if event.extra is None else msgspec.Raw(event.extra),
    )
    ids = (("event_id", event.event_id.encode()), ("tenant_id", tenant_id.encode()))
    trace = () if event.traceparent is None else (("traceparent", event.traceparent.encode()),)
    return Record(
        key=f"{tenant_id}:{event.user_id or event.session_id or event.event_id}".encode(),
        value=_to_json(value),
        headers=(*ids, *_CONTENT, *trace),
        timestamp_ms=timestamp_ms,
        tenant_id=tenant_id,
        event_id=event.event_id,
    )


def rfc3339(when: datetime, /) -> str:
    """Return the moment in UTC with microseconds, as `2026-11-23T10:00:00.123456Z`."""
    text = _to_json(when.astimezone(UTC)).decode()  # A tenth of the time of isoformat.
    return text[1:-1] if when.microsecond else text[1:-2] + ".000000Z"


def unix_ms(when: datetime, /) -> int:
    """Return the whole milliseconds since 1970: never a float, which is one too low here and there."""
    since = when - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


@lru_cache(maxsize=8)
def moment(received_at: datetime, /) -> tuple[str, int]:
    """Return it as `rfc3339` and as `unix_ms` have it: all events of a request share one, and its answer says it."""
    return rfc3339(received_at), unix_ms(received_at)
