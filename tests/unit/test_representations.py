"""What the things of this package look like when somebody prints them: never like what a client sent, or a secret."""

import asyncio
import dataclasses
import importlib
import pkgutil
import sys
from datetime import UTC, datetime
from typing import Any, get_type_hints

import msgspec
import pytest
from rich.pretty import pretty_repr

import customersignal_ingest
from customersignal_ingest.adapters.inbound.http.answers import Answer
from customersignal_ingest.adapters.inbound.http.exchange import Exchange
from customersignal_ingest.adapters.inbound.http.problem import Code, Problem
from customersignal_ingest.adapters.outbound.kafka.options import Security
from customersignal_ingest.adapters.outbound.sql.backend import backend_at
from customersignal_ingest.adapters.outbound.sqlite_log.writer import Call
from customersignal_ingest.cli.keys import MadeKey
from customersignal_ingest.domain.errors import KeyProblem, Unauthenticated
from customersignal_ingest.domain.event import IngestEvent, StoredRecord, encode
from customersignal_ingest.domain.key import ApiKey, NewKey, Tenant
from customersignal_ingest.domain.rules import Limits, parse_event
from customersignal_ingest.environment import Effective
from customersignal_ingest.policies import Admission
from customersignal_ingest.registry import AdapterSettings
from customersignal_ingest.settings import Settings
from customersignal_ingest.testing.planted import API_KEY, IDEMPOTENCY_KEY, MARK, PEPPER, PROPERTY, SESSION_ID, USER_ID

ACME = Tenant(tenant_id="acme", key_id="k1")
PAYLOAD = f"""{{"event_type": "{MARK}", "timestamp": "2026-11-23T10:00:00Z", "properties": {{"is": "{PROPERTY}"}},
"user_id": "{USER_ID}", "session_id": "{SESSION_ID}", "idempotency_key": "{IDEMPOTENCY_KEY}", "{MARK}": 1}}""".encode()
# Made up by tests, and there to be looked at: the test kit, and the proof, which knows nothing of the service.
MADE_UP = ("customersignal_ingest.testing.", "customersignal_ingest.proof.")
OF_CLIENTS = {
    *["user_id", "session_id", "idempotency_key", "properties", "extra", "event_type", "payload", "payloads"],
    *["key", "value", "headers", "body", "secret", "secrets", "password", "keyfile_password", "login", "pepper"],
}
# Of these, each names something else than what a client or an operator keeps to himself.
HARMLESS = {("Answer", "headers"), ("Bound", "value"), ("MadeKey", "key"), ("_Known", "key")}


def event() -> IngestEvent:
    parsed = parse_event(
        PAYLOAD,
        tenant=ACME,
        received_at=datetime(2026, 11, 23, 10, tzinfo=UTC),
        new_id=lambda _: "id",
        limits=Limits(),
    )
    assert isinstance(parsed, IngestEvent)
    return parsed


def stored_record() -> StoredRecord:
    record = encode(event())
    place = {"topic": "events_raw", "partition": 0, "offset": 0}
    return StoredRecord(
        **place, key=record.key, value=record.value, headers=record.headers, timestamp_ms=record.timestamp_ms
    )


def exchange() -> Exchange:
    headers = {"x-cs-api-key": API_KEY, "idempotency-key": IDEMPOTENCY_KEY}
    return Exchange(method="POST", route="/v1/events", headers=headers, request_id="r", started=0.0, tenant=ACME)


def settings() -> Settings:
    return Settings(
        publisher_url=f"kafka://{MARK}/t",
        keys_url=f"postgresql://ada:{MARK}@db/keys",
        key_pepper=PEPPER,
        kafka_sasl_password=MARK,
        transports=(f"nats://ada:{MARK}@h",),
    )


def call() -> Call:
    loop = asyncio.new_event_loop()
    loop.close()
    return Call(records=[encode(event())], size_bytes=1, answer=loop.create_future())


THINGS: dict[str, Any] = {
    "event": event,
    "record": lambda: encode(event()),
    "stored record": stored_record,
    "exchange": exchange,
    "answer": lambda: Answer(status=422, body=PAYLOAD, headers={}),
    "lease": lambda: Admission(events_max=1, bytes_max=1, tenant_share=1).lease("acme"),
    "call of the embedded log": call,
    "new key": lambda: NewKey(key_id="k1", secret=API_KEY),
    "made key": lambda: MadeKey(key=ApiKey(key_id="k1", tenant=ACME), secret=API_KEY),
    "settings": settings,
    "settings with origins": lambda: Effective(settings=settings(), origins={}),
    "adapter settings": lambda: AdapterSettings(secrets={"kafka_sasl_password": MARK}),
    "Kafka's log-in": lambda: Security(username="ada", password=MARK, keyfile_password=MARK),
    "PostgreSQL's log-in": lambda: backend_at(f"postgresql://ada:{MARK}@db/keys", instance="here"),
    "refusal": lambda: Unauthenticated(KeyProblem.INVALID),
    "problem": lambda: Problem(Code.INVALID_REQUEST, "the header is there twice"),
}


@pytest.mark.parametrize("thing", THINGS)
def test_nothing_shows_a_secret_or_what_a_client_sent(thing: str) -> None:
    made = THINGS[thing]()

    assert MARK not in f"{made!r} {made} {getattr(made, 'args', '')!r}"


def test_a_thing_still_shows_what_it_is() -> None:
    assert "event_id=" in repr(event())
    assert "event_id=" in repr(encode(event()))
    assert "events_raw" in repr(stored_record())


@pytest.mark.parametrize("thing", ["event", "record"])
def test_a_printer_that_looks_into_things_sees_what_their_representation_shows(thing: str) -> None:
    made = THINGS[thing]()

    assert pretty_repr(made, max_width=10_000) == repr(made)


def kinds_of_the_package() -> list[type]:
    """Return the dataclasses, and the structs that anybody may hold."""
    for module in pkgutil.walk_packages(customersignal_ingest.__path__, "customersignal_ingest."):
        if not module.name.endswith(("__main__", "migrations.env")):
            importlib.import_module(module.name)
    found: set[type] = set()
    for name, module in dict(sys.modules).items():
        if name.startswith("customersignal_ingest.") and not name.startswith(MADE_UP):
            here = [kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == name]
            found |= {kind for kind in here if dataclasses.is_dataclass(kind)}
            found |= {kind for kind in here if issubclass(kind, msgspec.Struct) and not kind.__name__.startswith("_")}
    return sorted(found, key=lambda kind: kind.__qualname__)


def shown_by(kind: Any) -> list[tuple[str, str]]:
    """Return what a representation shows, each field with the name of its type."""
    if dataclasses.is_dataclass(kind):
        hidden = "repr=False" in str(kind.__dataclass_params__)  # type: ignore[attr-defined]  # it has them
        return [(field.name, str(field.type)) for field in dataclasses.fields(kind) if field.repr and not hidden]
    shown = getattr(kind, "shown", kind.__struct_fields__)
    return [(name, str(each)) for name, each in get_type_hints(kind).items() if name in shown]


def test_no_field_that_a_client_or_an_operator_keeps_to_himself_is_in_a_representation() -> None:
    """A new class with such a field, or with bytes, hides it or says here why not."""
    kinds = kinds_of_the_package()

    shown = {
        (kind.__name__, name)
        for kind in kinds
        for name, type_of_it in shown_by(kind)
        if name in OF_CLIENTS or ("bytes" in type_of_it and "Callable" not in type_of_it)
    }

    assert len(kinds) > 30
    assert shown - HARMLESS == set()
