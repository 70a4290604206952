"""What may enter: every rule of an event, in the order in which it is checked."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from customersignal_ingest.domain.event import IDEMPOTENCY_KEY_MAX as IDEMPOTENCY_KEY_MAX
from customersignal_ingest.domain.event import TEXT_MAX as TEXT_MAX
from customersignal_ingest.domain.event import IngestEvent
from customersignal_ingest.domain.event_id import derived_id
from customersignal_ingest.domain.flaws import Flaw, kind_of, pointer_to, text_problem
from customersignal_ingest.domain.key import Tenant
from customersignal_ingest.domain.outcome import Reason, Rejected
from customersignal_ingest.domain.strict_json import Fields, join_object, read_object, read_plain

Payload = bytes

YEAR_MIN = 1970

_KNOWN = frozenset(
    {
        "event_type",
        "timestamp",
        "properties",
        "user_id",
        "session_id",
        "idempotency_key",
        "project_id",
        "tenant_id",
    }
)
# As nearly all are written. Each is a moment: the one day that not every year has is left out.
_ORDINARY_TIMESTAMP = re.compile(
    r"(?:19[789]|2[0-9]{2})[0-9]-"
    r"(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,30})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
# RFC 3339, and of ISO 8601 the same with seconds left out or a comma before the fraction.
_TIMESTAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([01][0-9]:[0-5][0-9]|2[0-3]:[0-5][0-9])(:[0-9]{2}(?:[.,][0-9]{1,30})?)?"
    r"([Zz]|[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is too much of one event: its size in bytes, its depth in levels below it."""

    event_bytes_max: int = 900_000
    depth_max: int = 32


class _Broken(Exception):
    def __init__(self, reason: Reason, message: str, field: str | None = None) -> None:
        self.rejected = Rejected(reason, message, None if field is None else pointer_to(field))


def parse_event(
    payload: Payload,
    /,
    *,
    tenant: Tenant,
    received_at: datetime,
    new_id: Callable[[datetime], str],
    limits: Limits,
    idempotency_key: str | None = None,
    traceparent: str | None = None,
    closely: bool = True,
) -> IngestEvent | Rejected:
    """Return the event that these bytes are, or why they are none. Never raises.

    `idempotency_key` is what came beside the payload: it stands for the field of that name, and
    must not differ from it. Without `closely`, JSON with a flaw is pointed at field by field only,
    which is done in a fraction of the time.
    """
    if len(payload) > limits.event_bytes_max:
        return Rejected(Reason.EVENT_TOO_LARGE, f"the event is larger than event_bytes_max={limits.event_bytes_max}")
    try:
        fields, properties, extra = _plainly(payload, tenant, limits, idempotency_key) or _carefully(
            payload, tenant, limits, idempotency_key, closely
        )
    except Flaw as flaw:
        return flaw.rejected
    except _Broken as broken:
        return broken.rejected
    # The project is the key's, or the event's if the key has none.
    project_id, key = tenant.project_id or fields.project_id, fields.idempotency_key
    return IngestEvent(
        event_id=new_id(received_at) if key is None else derived_id(tenant.tenant_id, project_id, key),
        tenant=tenant,
        event_type=fields.event_type,
        timestamp=fields.timestamp,
        received_at=received_at,
        properties=properties,
        project_id=project_id,
        user_id=fields.user_id,
        session_id=fields.session_id,
        idempotency_key=key,
        extra=extra,
        traceparent=traceparent,
    )


def is_timestamp(text: str, /) -> bool:
    """Tell whether the text is a moment: RFC 3339 or its ISO 8601 twin, with an offset, from 1970 on."""
    if _ORDINARY_TIMESTAMP.fullmatch(text) is not None:
        return True
    found = _TIMESTAMP.fullmatch(text)
    if found is None:
        return False
    day, minute, second, offset = found.groups()
    # A leap second is a good moment that datetime does not know (RFC 3339, 5.7).
    second = ":59" if second is not None and second.startswith(":60") else (second or ":00")[:3]
    try:
        return datetime.fromisoformat(f"{day}T{minute}{second}{offset.upper()}").year >= YEAR_MIN
    except ValueError:
        return False


_Read = tuple[Fields, bytes, bytes | None]  # The fields that we know, `properties`, `extra`.


def _plainly(payload: Payload, tenant: Tenant, limits: Limits, beside: str | None) -> _Read | None:
    """Read what is an event for certain; `None` for all else, be it good or bad: no rule is broken here."""
    plain = read_plain(payload, depth_max=limits.depth_max) if beside is None else None
    if plain is None:
        return None
    fields, properties = plain
    good = (
        (fields.tenant_id is None or fields.tenant_id == tenant.tenant_id)
        and (fields.project_id is None or tenant.project_id is None or fields.project_id == tenant.project_id)
        and is_timestamp(fields.timestamp)
    )
    return (fields, properties, None) if good else None


def _carefully(payload: Payload, tenant: Tenant, limits: Limits, beside: str | None, closely: bool) -> _Read:
    """Read any event by every rule, in their order; raises `Flaw` or `_Broken`."""
    values, sent = read_object(payload, depth_max=limits.depth_max, closely=closely)
    project_id = _project(values, tenant)
    idempotency_key = _idempotency_key(values, beside)
    event_type, timestamp = _required_text(values, "event_type"), _timestamp(values)
    properties = _properties(values, sent)
    fields = Fields(
        event_type=event_type,
        timestamp=timestamp,
        user_id=_text(values, "user_id"),
        session_id=_text(values, "session_id"),
        idempotency_key=idempotency_key,
        project_id=project_id,
    )
    return fields, properties, _extra(sent)


def _required_text(values: dict[str, Any], field: str) -> str:
    if field not in values:
        raise _Broken(Reason.FIELD_REQUIRED, f"{field} is required", field)
    return _checked_text(values[field], field, TEXT_MAX)


def _text(values: dict[str, Any], field: str, longest: int = TEXT_MAX) -> str | None:
    value = values.get(field)
    return None if value is None else _checked_text(value, field, longest)


def _checked_text(value: Any, field: str, longest: int) -> str:
    if not isinstance(value, str):
        raise _Broken(Reason.FIELD_TYPE, f"{field} must be a string, not {kind_of(value)}", field)
    if not value:
        raise _Broken(Reason.FIELD_VALUE, f"{field} must not be empty", field)
    if len(value) > longest:
        raise _Broken(Reason.FIELD_TOO_LONG, f"{field} must have at most {longest} characters", field)
    return value


def _timestamp(values: dict[str, Any]) -> str:
    text = _required_text(values, "timestamp")
    if not is_timestamp(text):
        raise _Broken(
            Reason.FIELD_VALUE,
            "timestamp must be RFC 3339 with Z or an offset, in the years 1970 to 9999, as 2026-11-23T10:00:00Z",
            "timestamp",
        )
    return text


def _properties(values: dict[str, Any], sent: dict[str, bytes]) -> bytes:
    if "properties" not in values:
        raise _Broken(Reason.FIELD_REQUIRED, "properties is required; it may be {}", "properties")
    if not isinstance(values["properties"], dict):
        kind = kind_of(values["properties"])
        raise _Broken(Reason.FIELD_TYPE, f"properties must be an object, not {kind}", "properties")
    return bytes(sent["properties"])


def _project(values: dict[str, Any], tenant: Tenant) -> str | None:
    """Return the project that the event names: tenant and project must be the key's, where it has one."""
    if _text(values, "tenant_id") not in (None, tenant.tenant_id):
        raise _Broken(Reason.TENANT_MISMATCH, "tenant_id is not the tenant of the API key", "tenant_id")
    project_id = _text(values, "project_id")
    if tenant.project_id is not None and project_id not in (None, tenant.project_id):
        raise _Broken(Reason.PROJECT_MISMATCH, "project_id is not the project of the API key", "project_id")
    return project_id


def _idempotency_key(values: dict[str, Any], beside: str | None) -> str | None:
    within = _text(values, "idempotency_key", IDEMPOTENCY_KEY_MAX)
    if beside is None:
        return within
    _checked_text(beside, "idempotency_key", IDEMPOTENCY_KEY_MAX)
    if problem := text_problem(beside):
        raise _Broken(Reason.FIELD_VALUE, f"idempotency_key is a string with {problem}", "idempotency_key")
    if within not in (None, beside):
        raise _Broken(Reason.INVALID_REQUEST, "Idempotency-Key and idempotency_key differ", "idempotency_key")
    return beside


def _extra(sent: dict[str, bytes]) -> bytes | None:
    if sent.keys() <= _KNOWN:
        return None
    return join_object((name, value) for name, value in sent.items() if name not in _KNOWN)
