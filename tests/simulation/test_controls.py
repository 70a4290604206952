"""The simulation is alive: services that are wrong on purpose are each caught, within a few seeds."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest

from customersignal_ingest.adapters.outbound.kafka.producer import Builder, Verdict
from customersignal_ingest.adapters.outbound.kafka.publisher import Kafka
from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.event import Record
from customersignal_ingest.domain.key import ApiKey, Digest, Tenant
from customersignal_ingest.domain.outcome import NotStored, Outcome, Refused, Stored, Unknown
from customersignal_ingest.ingest import Authenticate, Ingest
from customersignal_ingest.metrics import Counted
from customersignal_ingest.policies import CachedKeys
from customersignal_ingest.ports import EventPublisher, KeyRepository
from tests.simulation.cluster import SimulatedKafka, SimulatedProducer
from tests.simulation.process import Process
from tests.simulation.scenario import simulate

SEEDS = 300


@dataclass
class Around:
    """A publisher around the right one; what is wrong with it is its subclass."""

    behind: EventPublisher

    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        return await self.behind.publish(records)


class AnswersAtOnce(Around):
    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        self.later = asyncio.ensure_future(self.behind.publish(records))
        return [Stored("events_raw", 0, None)] * len(records)


class TakesTheDeadlineForStored(Around):
    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        outcomes = await self.behind.publish(records)
        return [Stored("events_raw", 0, None) if isinstance(each, Unknown) else each for each in outcomes]


class TakesTheDeadlineForNotStored(Around):
    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        outcomes = await self.behind.publish(records)
        return [NotStored("not yet") if isinstance(each, Unknown) else each for each in outcomes]


class SendsAgainWhatIsUnknown(Around):
    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        outcomes = await self.behind.publish(records)
        if any(isinstance(each, Unknown) for each in outcomes):
            return await self.behind.publish(records)
        return outcomes


class HasNoDeadline(Around):
    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        outcomes = await self.behind.publish(records)
        if any(isinstance(each, Unknown) for each in outcomes):
            await asyncio.sleep(5)
        return outcomes


def with_publisher(around: Callable[[EventPublisher], EventPublisher]) -> type[Process]:
    class Wrong(Process):
        def make_publisher(self) -> EventPublisher:
            return around(super().make_publisher())

    Wrong.__name__ = getattr(around, "__name__", "Wrong")
    return Wrong


class CutsWhatIsInFlightAtItsEnd(Process):
    async def drain(self, parts: Any) -> None:
        self.listening = False
        for task in list(self.handling):
            task.cancel()


class NeverEnds(Process):
    async def drain(self, parts: Any) -> None:
        await super().drain(parts)
        await asyncio.sleep(60)


class MixedUpProducer(SimulatedProducer):
    """Takes every verdict on a partition for one on the latest batch there, whichever producer it came from."""

    latest: dict[int, Callable[[Verdict], None]]

    def send(self, batch: Builder, partition: int, settled: Callable[[Verdict], None], /) -> None:
        self.latest[partition] = settled
        super().send(batch, partition, lambda verdict: self.latest[partition](verdict))


class MixedUpKafka(SimulatedKafka):
    def producer(self) -> SimulatedProducer:
        producer = MixedUpProducer(self._cluster, self._owner)
        producer.latest = self.__dict__.setdefault("latest", {})
        self._cluster.producers.append(producer)
        return producer


class TakesALateSuccessForANewOne(Process):
    def make_kafka(self) -> Kafka:
        return MixedUpKafka(self.cluster, self)


@dataclass
class TakesAnErrorForNo:
    behind: KeyRepository

    async def find(self, digest: Digest, /) -> ApiKey | None:
        try:
            return await self.behind.find(digest)
        except Unavailable:
            return None


class TakesADatabaseErrorForNo(Process):
    def make_keys(self) -> KeyRepository:
        return TakesAnErrorForNo(super().make_keys())


class NeverAsksAgain(Process):
    def make_authenticate(self) -> Authenticate:
        self.known_keys = CachedKeys(self.keys, ttl_s=1e9, stale_s=1e9, clock=self.clock)
        self.known_keys.forget = lambda _: None  # type: ignore[method-assign]  # wrong on purpose
        return super().make_authenticate()


class NewIdForEachAttempt(Process):
    def make_ingest(self, publisher: EventPublisher) -> Ingest:
        right, numbers = super().make_ingest(publisher), count()

        async def wrong(tenant: Tenant, payloads: Sequence[Any], /, **options: Any) -> Any:
            return await right(
                tenant, [p.replace(b'"order-', b'"order%d-' % next(numbers)) for p in payloads], **options
            )

        return wrong


class LogsTheKey(Process):
    def make_authenticate(self) -> Authenticate:
        right = super().make_authenticate()

        async def wrong(api_key: str | None, /) -> Tenant:
            self.log.info("a key", key=api_key)
            return await right(api_key)

        return wrong


class CountsTwice(Process):
    def make_ingest(self, publisher: EventPublisher) -> Ingest:
        return Counted(super().make_ingest(publisher), self.metrics)


class RefusesAWholeBatchForOneRecord(Around):
    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        outcomes = await self.behind.publish(records)
        refused = [each for each in outcomes if isinstance(each, Refused)]
        return refused[:1] * len(outcomes) if refused else outcomes


class KeepsItsLeases(Process):
    def make_publisher(self) -> EventPublisher:
        self.admission.give_back = lambda *_: None  # type: ignore[method-assign]  # wrong on purpose
        return super().make_publisher()


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (with_publisher(AnswersAtOnce), "accepted, and nothing is stored"),
        (with_publisher(TakesTheDeadlineForStored), "accepted, and nothing is stored"),
        (with_publisher(TakesTheDeadlineForNotStored), "answered not_stored, and stored all the same"),
        (with_publisher(SendsAgainWhatIsUnknown), "stored 2 times"),
        (with_publisher(HasNoDeadline), "of which 0.00 s for its body"),
        (CutsWhatIsInFlightAtItsEnd, "ended without an answer"),
        (NeverEnds, "of SIGTERM"),
        (TakesALateSuccessForANewOne, "accepted, and another event is stored"),
        (TakesADatabaseErrorForNo, "its key is said to be unknown"),
        (NeverAsksAgain, "after its key was revoked"),
        (NewIdForEachAttempt, "event_ids"),
        (LogsTheKey, "a secret is in the log"),
        (CountsTwice, "the metrics"),
        (with_publisher(RefusesAWholeBatchForOneRecord), "refused, and no broker turned it down alone"),
        (KeepsItsLeases, "in flight, and nobody waits"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_a_wrong_service_is_caught_within_a_few_seeds(wrong: type[Process], complaint: str) -> None:
    assert any(complaint in each for seed in range(SEEDS) for each in simulate(seed, process=wrong).complaints)
