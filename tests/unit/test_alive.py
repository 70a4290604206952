"""The suite is alive: publishers, use cases and policies that are wrong on purpose are each caught."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from law import Draft, Law, Row
from msgspec.structs import replace
from simulated_time import run
from system import System, row_of

from customersignal_ingest.adapters.outbound.memory import MemoryPublisher
from customersignal_ingest.domain.event import IngestEvent, Record, StoredRecord, encode
from customersignal_ingest.domain.key import Tenant
from customersignal_ingest.domain.outcome import NotStored, Outcome, Result, Stored, Unknown
from customersignal_ingest.domain.rules import Limits, parse_event
from customersignal_ingest.ports import EventPublisher, Resource
from customersignal_ingest.testing.contracts import EventPublisherContract
from customersignal_ingest.testing.planted import IDEMPOTENCY_KEY

ACME, GLOBEX = Tenant(tenant_id="acme", key_id="k1"), Tenant(tenant_id="globex", key_id="k2")
BROKEN = Draft(broken=b'{"event_type":""}')
PLANS = ["ok", "lost", "refused", "ack_lost", "stored_late", "raises", "hangs", "ok lost ok", "ack_lost ok", "ok"]


async def complaints_about(system: System) -> list[str]:
    """Send two tenants' batches through every fault, again with the same keys; return what the law says."""
    law = Law(lambda: system.stored)
    batch = [Draft(user_id="ann"), BROKEN, Draft(idempotency_key=IDEMPOTENCY_KEY, user_id="ann"), Draft()]
    for plan in PLANS:
        for tenant in (ACME, GLOBEX):
            system.faults.plan(plan)
            await law.send(system.submit, tenant, batch)
    await system.faults.release()
    return law.check()


def caught(system: System) -> str:
    return "\n".join(run(complaints_about(system)))


@dataclass
class Wrong:
    """A publisher around another one; what is wrong with it is its subclass."""

    behind: EventPublisher

    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        return await self.behind.publish(records)


class AnswersBeforeTheStore(Wrong):
    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        self.task = asyncio.ensure_future(self.behind.publish(records))
        self.task.add_done_callback(lambda task: task.exception())
        return [Stored("events_raw", 0, at) for at, _ in enumerate(records)]


class TrustsEveryAnswer(Wrong):
    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        outcomes = await self.behind.publish(records)
        return [o if isinstance(o, Stored) else Stored("events_raw", 0, None) for o in outcomes]


class TakesDoubtForNo(Wrong):
    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        outcomes = await self.behind.publish(records)
        return [NotStored("surely not") if isinstance(o, Unknown) else o for o in outcomes]


class TakesAnExceptionForNo(Wrong):
    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        try:
            return await self.behind.publish(records)
        except ConnectionError:
            return [NotStored("no connection")] * len(records)


class DropsTheLast(Wrong):
    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        outcomes = list(await self.behind.publish(records[:-1]))
        return [*outcomes, *[Stored("events_raw", 0, 10_000)] * (len(records) - len(outcomes))]


class ReversesTheAnswers(Wrong):
    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        return list(reversed(await self.behind.publish(records)))


class StoresTwice(Wrong):
    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        await self.behind.publish(records)
        return await self.behind.publish(records)


class ReusesAnotherTenantsRecord(Wrong):
    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        mixed = [replace(record, key=record.key.replace(b"globex:", b"acme:")) for record in records]
        return await self.behind.publish(mixed)


class ChangesTheBytes(Wrong):
    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        changed = [replace(record, value=record.value.replace(b"1.0", b"1")) for record in records]
        return await self.behind.publish(changed)


class NewEventIdEachAttempt(System):
    """Takes the idempotency key for a field like any other."""

    async def ingest(self, tenant: Tenant, payloads: Sequence[bytes], **options: Any) -> Any:
        return await super().ingest(tenant, [p.replace(b"idempotency_key", b"idempotent") for p in payloads])


class TenantFromTheFirstRequest(System):
    """Remembers whom it spoke to first."""

    first: Tenant | None = None

    async def ingest(self, tenant: Tenant, payloads: Sequence[bytes], **options: Any) -> Any:
        self.first = self.first or tenant
        return await super().ingest(self.first, payloads)


class LeavesRejectedOnesOut(System):
    """Answers for what it published, and for nothing else."""

    async def submit(self, tenant: Tenant, payloads: Sequence[bytes], /) -> Sequence[Row]:
        rows = await super().submit(tenant, payloads)
        return [row for row in rows if row.event_id is not None]


class RejectsTheWholeBatch(System):
    """One broken event spoils the others."""

    async def submit(self, tenant: Tenant, payloads: Sequence[bytes], /) -> Sequence[Row]:
        rows = await super().submit(tenant, payloads)
        return [Row(status="rejected")] * len(rows) if any(row.status == "rejected" for row in rows) else rows


class SettlesWithoutCounting(System):
    """Takes it that a publisher which returned has stored everything."""

    async def submit(self, tenant: Tenant, payloads: Sequence[bytes], /) -> Sequence[Row]:
        moment = self.now()
        parsed = [
            parse_event(p, tenant=tenant, received_at=moment, new_id=self.new_id, limits=Limits()) for p in payloads
        ]
        good = [event for event in parsed if isinstance(event, IngestEvent)]
        outcomes = await self.publisher.publish([encode(event) for event in good])
        stored = [Row(status="accepted", event_id=e.event_id, receipt="events_raw/0/0") for e in good if outcomes]
        return [
            row_of(Result(None, event)) if not isinstance(event, IngestEvent) else stored.pop(0) for event in parsed
        ]


def test_the_right_system_keeps_the_law() -> None:
    assert caught(System()) == ""


@pytest.mark.parametrize(
    ("publisher", "complaint"),
    [
        (AnswersBeforeTheStore, "accepted, and nothing is stored"),
        (TrustsEveryAnswer, "accepted, and nothing is stored"),
        (TakesDoubtForNo, "answered not_stored, and stored all the same"),
        (TakesAnExceptionForNo, "answered not_stored, and stored all the same"),
        (DropsTheLast, "accepted, and nothing is stored"),
        (ReversesTheAnswers, "accepted, and another event is stored"),
        (StoresTwice, "stored 2 times"),
        (ReusesAnotherTenantsRecord, "stored for another tenant"),
        (ChangesTheBytes, "stored otherwise than sent"),
    ],
)
def test_a_wrong_publisher_is_caught_by_the_law(publisher: Callable[[EventPublisher], Wrong], complaint: str) -> None:
    assert complaint in caught(System(around=publisher))


@pytest.mark.parametrize(
    ("system", "complaint"),
    [
        (NewEventIdEachAttempt, "event_ids for one idempotency key"),
        (TenantFromTheFirstRequest, "stored for another tenant"),
        (LeavesRejectedOnesOut, "3 rows for 4 events"),
        (RejectsTheWholeBatch, "valid, and rejected by our rules"),
        (SettlesWithoutCounting, "accepted, and another event is stored"),
    ],
)
def test_a_wrong_use_case_is_caught_by_the_law(system: Callable[[], System], complaint: str) -> None:
    assert complaint in caught(system())


@dataclass
class Harness:
    """A wrong publisher over a good store."""

    log: MemoryPublisher
    publisher: EventPublisher
    life: Resource | None = None
    unopened: Resource | None = None

    async def stored(self) -> Sequence[StoredRecord]:
        return self.log.stored


async def every_record_has_one_outcome(contract: EventPublisherContract, harness: Harness) -> None:
    await contract.test_every_record_has_one_outcome(harness, 2)


CLAIMS = [
    every_record_has_one_outcome,
    EventPublisherContract.test_a_stored_record_can_be_read_back_byte_for_byte,
    EventPublisherContract.test_an_outcome_belongs_to_the_record_at_its_position,
    EventPublisherContract.test_overlapping_calls_all_settle,
    EventPublisherContract.test_no_two_records_share_a_receipt,
]


def broken_claims(wrong: Callable[[EventPublisher], EventPublisher]) -> list[str]:
    """Return the names of the contract's claims that this publisher does not keep."""
    return [claim.__name__ for claim in CLAIMS if not run(_kept(claim, wrong))]


async def _kept(claim: Any, wrong: Callable[[EventPublisher], EventPublisher]) -> bool:
    log = MemoryPublisher()
    try:
        await claim(EventPublisherContract(), Harness(log, wrong(log)))
    except (AssertionError, KeyError):
        return False
    return True


def test_the_right_publisher_keeps_the_contract() -> None:
    assert broken_claims(Wrong) == []


@pytest.mark.parametrize("wrong", [AnswersBeforeTheStore, DropsTheLast, ReversesTheAnswers, StoresTwice])
def test_a_wrong_publisher_is_caught_by_the_contract(wrong: Callable[[EventPublisher], EventPublisher]) -> None:
    assert broken_claims(wrong) != []
