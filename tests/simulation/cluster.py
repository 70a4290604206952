"""A Kafka cluster at the producer's seam: it keeps a log, and deals with each batch as fate has it."""

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from customersignal_ingest.adapters.outbound.kafka.producer import (
    Appended,
    Builder,
    Denied,
    Lost,
    NotTaken,
    TurnedDown,
    Verdict,
)
from customersignal_ingest.adapters.outbound.kafka.topic import MESSAGE_BYTES_MAX, Topic
from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.event import Record, StoredRecord
from tests.simulation.journal import Journal

TOPIC = "events_raw"
PARTITIONS = 6
INDIGESTIBLE = b'"indigestible":true'
"""No broker takes a batch with this in it."""

FATES = (
    "stored",
    "stored without a place",
    "stored twice",
    "stored, then an error",
    "stored, then silence",
    "stored late",
    "confirmed late",
    "error",
    "silence",
    "turned down",
    "denied",
    "not taken",
    "partition poisoned",
    "producer dies",
)
"""What may become of a batch, the best first."""
STARTS = ("starts", "starts slowly", "fails to start", "never starts")
ENDS = ("ends", "ends slowly")

Choose = Callable[[Sequence[str]], str]


class Owner(Protocol):
    """The process that a producer belongs to."""

    dead: bool


class Cluster:
    """Partitions, and what is wrong with them. `late_s` is a time after which nobody waits any more.

    `choose` decides what becomes of each batch, start and end. `stored` is the log as a reader
    that removes the cluster's own duplicates sees it.
    """

    def __init__(self, journal: Journal, chance: random.Random, *, late_s: float) -> None:
        self.journal, self.chance, self.late_s = journal, chance, late_s
        self.choose: Choose = lambda fates: fates[0]
        self.stored: list[StoredRecord] = []
        self.producers: list[SimulatedProducer] = []
        self.away = False
        self.leaderless: set[int] = set()
        self.dangers: tuple[str, ...] = ()
        self.message_bytes_max = MESSAGE_BYTES_MAX
        self.first_sequence = 0
        self.on_handed_over: Callable[[bytes], None] = lambda _value: None
        self.turned_down_alone: set[bytes] = set()
        self._ends = [0] * PARTITIONS

    def fate(self, fates: Sequence[str]) -> str:
        fate = self.choose(fates)
        self.journal.count("cluster", fate)
        return fate

    def append(self, partition: int, batch: "SimulatedBatch", *, copy: bool = False) -> int:
        base = self._ends[partition]
        self._ends[partition] += len(batch.records)
        self.journal.note(f"append {partition}/{base} {len(batch.records)}{' again' * copy}")
        if not copy:
            self.stored += [
                StoredRecord(
                    topic=TOPIC,
                    partition=partition,
                    offset=base + at,
                    key=record.key,
                    value=record.value,
                    headers=record.headers,
                    timestamp_ms=record.timestamp_ms,
                )
                for at, record in enumerate(batch.records)
            ]
        return base

    def heal(self) -> None:
        """Everything works from now on; what hangs goes on hanging."""
        self.away, self.dangers = False, ()
        self.leaderless.clear()
        self.choose = lambda fates: fates[0]

    @property
    def producers_left(self) -> list["SimulatedProducer"]:
        """Those that were begun, and neither died with their process nor ended."""
        return [each for each in self.producers if each.begun and not each.ended and not each.owner.dead]


class SimulatedKafka:
    """The cluster as one process sees it: what `KafkaPublisher` asks of a client library."""

    def __init__(self, cluster: Cluster, owner: Owner) -> None:
        self._cluster, self._owner = cluster, owner

    def producer(self) -> "SimulatedProducer":
        producer = SimulatedProducer(self._cluster, self._owner)
        self._cluster.producers.append(producer)
        return producer

    def new_batch(self, bytes_max: int, /) -> "SimulatedBatch":
        return SimulatedBatch(bytes_max)

    async def topic(self) -> Topic:
        await self._a_moment()
        return Topic(dangers=self._cluster.dangers, message_bytes_max=self._cluster.message_bytes_max)

    async def reach(self) -> object:
        await self._a_moment()
        return None

    async def _a_moment(self) -> None:
        await asyncio.sleep(self._cluster.chance.uniform(0.001, 0.05))
        if self._cluster.away:
            raise Unavailable("no broker answers")


class SimulatedBatch:
    """Records as they were added; the first one is always taken."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._size = 61
        self.records: list[Record] = []

    def extend(self, records: Iterable[Record], /) -> int:
        before = len(self.records)
        for record in records:
            size = record.size_bytes + sum(len(name) + len(content) for name, content in record.headers) + 20
            if self.records and self._size + size > self._bytes_max:
                break
            self._size += size
            self.records.append(record)
        return len(self.records) - before

    def size(self) -> int:
        return self._size

    @property
    def indigestible(self) -> bool:
        return any(INDIGESTIBLE in record.value for record in self.records)


class SimulatedProducer:
    """An idempotent producer: after one failed batch its partition takes nothing more from it."""

    def __init__(self, cluster: Cluster, owner: Owner) -> None:
        self.owner = owner
        self.begun = self.ended = False
        self._cluster, self._journal, self._chance = cluster, cluster.journal, cluster.chance
        self._sequences = [cluster.first_sequence] * PARTITIONS
        self._poisoned: set[int] = set()
        self._out: set[int] = set()
        self._abandoned = self._died = False

    # What the publisher may ask.

    async def start(self) -> None:
        self.begun = True
        how = self._cluster.fate(STARTS)
        await asyncio.sleep(self._chance.uniform(0.001, 0.05))
        if how == "never starts":
            await _for_ever()
        if how == "starts slowly":
            await asyncio.sleep(self._chance.uniform(0.5, 14.0))
        if how == "fails to start" or self._cluster.away:
            raise Unavailable("no broker answers")

    def send(self, batch: Builder, partition: int, settled: Callable[[Verdict], None], /) -> None:
        assert isinstance(batch, SimulatedBatch)
        fate = self._fate_of(batch, partition)
        if self.owner.dead:
            return
        if fate == "not taken" or self._abandoned or self._died:
            raise NotTaken("the producer is closed")
        self._take(batch, partition, fate, settled)

    def partitions(self) -> int:
        return PARTITIONS

    def has_leader(self, partition: int, /) -> bool:
        return partition not in self._cluster.leaderless

    def look_again(self) -> None:
        """There is no news but what is known at once."""

    def sequence(self, partition: int, /) -> int:
        return self._sequences[partition]

    def is_dead(self) -> bool:
        return self._died

    async def abandon(self) -> None:
        self._abandoned = True
        if self._cluster.fate(ENDS) == "ends slowly":
            await asyncio.sleep(0.9)
        self.ended = True

    # What becomes of a batch.

    def _fate_of(self, batch: SimulatedBatch, partition: int) -> str:
        if self._cluster.away:
            return "silence"
        fate = self._cluster.fate(FATES)
        if partition in self._poisoned:
            return "error"
        return "turned down" if batch.indigestible and fate.startswith(("stored", "confirmed")) else fate

    def _take(self, batch: SimulatedBatch, partition: int, fate: str, settled: Callable[[Verdict], None]) -> None:
        if partition in self._out:
            self._journal.complain(f"two batches at once for partition {partition} of one producer")
        self._out.add(partition)
        self._sequences[partition] += len(batch.records)
        for record in batch.records:
            self._cluster.on_handed_over(record.value)
        self._journal.note(f"batch {partition} {len(batch.records)} {fate}")
        soon, later = (
            self._chance.uniform(0.001, 0.03),
            self._cluster.late_s * self._chance.choice([0.8, 0.9, 1.0, 1.5]),
        )
        verdict = self._verdict(fate, partition)
        if isinstance(verdict, TurnedDown) and len(batch.records) == 1:
            self._cluster.turned_down_alone.add(batch.records[0].value)
        if fate == "producer dies":
            self._died = True
        if fate == "partition poisoned" or isinstance(verdict, Lost | TurnedDown | Denied):
            self._poisoned.add(partition)
        asyncio.get_running_loop().call_later(
            later if fate == "stored late" else soon, self._arrive, batch, partition, fate, verdict, settled, later
        )

    def _verdict(self, fate: str, partition: int) -> Verdict | None:
        match fate:
            case "stored, then an error":
                return Lost("NetworkException")
            case "error":
                return Lost("OutOfOrderSequenceNumber" if partition in self._poisoned else "KafkaStorageError")
            case "turned down":
                return TurnedDown("InvalidRecord")
            case "denied":
                return Denied("TopicAuthorizationFailed")
            case "silence" | "stored, then silence" | "producer dies":
                return None
        return Appended(None)  # Its place is not known before it arrives.

    def _arrive(
        self,
        batch: SimulatedBatch,
        partition: int,
        fate: str,
        verdict: Verdict | None,
        settled: Callable[[Verdict], None],
        later: float,
    ) -> None:
        """Be appended, or not; what was on its way when the producer went may arrive all the same."""
        loop, cut_off = asyncio.get_running_loop(), self._abandoned or self._died or self.owner.dead
        lost_on_the_way = cut_off and fate != "stored late" and self._chance.random() < 0.5
        if fate.startswith(("stored", "confirmed", "partition")) and not lost_on_the_way:
            offset = self._cluster.append(partition, batch)
            if fate == "stored twice":
                self._cluster.append(partition, batch, copy=True)
            if fate not in ("stored, then an error", "stored, then silence"):
                verdict = Appended(None if fate == "stored without a place" else offset)
        elif isinstance(verdict, Appended):
            return
        if verdict is not None:
            answers_in = later if fate == "confirmed late" else self._chance.uniform(0.0, 0.03)
            loop.call_later(answers_in, self._answer, partition, verdict, settled)

    def _answer(self, partition: int, verdict: Verdict, settled: Callable[[Verdict], None]) -> None:
        if not (self._abandoned or self._died or self.owner.dead):
            self._out.discard(partition)
            settled(verdict)


async def _for_ever() -> None:
    await asyncio.Event().wait()
