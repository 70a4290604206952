"""The use case. Read this first.

    bytes -> transport -> payloads -> ingest -> parse_event -> IngestEvent -> encode -> Record -> publisher
    reply <- transport <- Receipt  <- settle <- outcomes, by position <-------------------------'

A transport (HTTP, standard input, yours) first turns an API key into a `Tenant` with
`authenticate`, then hands over payloads, each the bytes of one event's JSON. Everything about an
event is decided here, once, for all transports.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Protocol

from customersignal_ingest.domain.errors import KeyProblem, Unauthenticated
from customersignal_ingest.domain.event import IngestEvent, Record, encode
from customersignal_ingest.domain.flaws import CLOSE_VALUES_MAX
from customersignal_ingest.domain.key import Tenant, digest
from customersignal_ingest.domain.outcome import Receipt, Rejected, settle
from customersignal_ingest.domain.rules import Limits, Payload, parse_event
from customersignal_ingest.ports import EventPublisher, KeyRepository

Turn = Callable[[int], Awaitable[None]]
"""Asked before each stretch of work, with its size in bytes; returns when it may be done."""
STRETCH_BYTES = 16 * 1024
"""So many bytes of payloads, or one larger payload, are worked on without a pause."""


async def at_once(_: int, /) -> None:
    """Let any amount of work be done at once: the `Turn` of those whom nobody waits beside."""


async def ingest(
    tenant: Tenant,
    payloads: Sequence[Payload],
    /,
    *,
    publisher: EventPublisher,
    now: Callable[[], datetime],
    new_id: Callable[[datetime], str],
    limits: Limits,
    turn: Turn = at_once,
    idempotency_key: str | None = None,
    traceparent: str | None = None,
) -> Receipt:
    """Store what is valid and say, payload by payload, what became of it.

    Returns one result per payload, in their order, once the publisher has told each record's
    fate. Calls may overlap. Cancelling withdraws nothing that was handed to the publisher.
    `idempotency_key` and `traceparent` came beside the payloads: the first is for a single one.
    """
    received_at = now()
    parsed: list[IngestEvent | Rejected] = []
    records: list[Record] = []
    looked_through = 0  # Once that is enough, flaws are no longer looked at closely.
    for stretch, size_bytes in _stretches(payloads):
        await turn(size_bytes)
        closely = looked_through <= CLOSE_VALUES_MAX
        events = [
            parse_event(
                payload,
                tenant=tenant,
                received_at=received_at,
                new_id=new_id,
                limits=limits,
                idempotency_key=idempotency_key,
                traceparent=traceparent,
                closely=closely,
            )
            for payload in stretch
        ]
        good = [encode(event) for event in events if isinstance(event, IngestEvent)]
        if len(good) < len(events):
            looked_through += sum(payload.count(b",") for payload in stretch)
        parsed += events
        records += good
    outcomes = await publisher.publish(records) if records else ()
    return settle(received_at, parsed, outcomes)


async def authenticate(
    api_key: str | None, /, *, keys: KeyRepository, peppers: Sequence[bytes], now: Callable[[], datetime]
) -> Tenant:
    """Return the tenant that this API key speaks for.

    Raises `Unauthenticated` for a key that opens nothing, and `Unavailable` when that can't be
    told now: never the one for the other. A key is looked up under each pepper, newest first.
    A revoked key is refused whatever our clock says, which may be behind the one that dated it.
    """
    if not api_key:
        raise Unauthenticated(KeyProblem.MISSING)
    for pepper in peppers:
        found = await keys.find(digest(api_key, pepper))
        if found is None:
            continue
        if found.revoked_at is not None:
            raise Unauthenticated(KeyProblem.REVOKED)
        if found.expires_at is not None and found.expires_at <= now():
            raise Unauthenticated(KeyProblem.EXPIRED)
        return found.tenant
    raise Unauthenticated(KeyProblem.INVALID)


class Ingest(Protocol):
    """`ingest` with publisher, clock, ids and limits already given: what a transport gets."""

    async def __call__(
        self,
        tenant: Tenant,
        payloads: Sequence[Payload],
        /,
        *,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
    ) -> Receipt:
        """Ingest, as described there."""
        ...


class Authenticate(Protocol):
    """`authenticate` with key repository, peppers and clock already given: what a transport gets."""

    async def __call__(self, api_key: str | None, /) -> Tenant:
        """Authenticate, as described there."""
        ...


def _stretches(payloads: Sequence[Payload]) -> Iterable[tuple[Sequence[Payload], int]]:
    return [(payloads, len(payloads[0]))] if len(payloads) == 1 else _cut(payloads)


def _cut(payloads: Sequence[Payload]) -> Iterator[tuple[Sequence[Payload], int]]:
    start = size_bytes = 0
    for end, payload in enumerate(payloads, 1):
        size_bytes += len(payload)
        if size_bytes >= STRETCH_BYTES or end == len(payloads):
            yield payloads[start:end], size_bytes
            start, size_bytes = end, 0
