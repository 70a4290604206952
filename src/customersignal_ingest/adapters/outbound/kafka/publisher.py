"""The group commit: records of all calls in flight go out together, one batch a partition at a time."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Protocol

from customersignal_ingest.adapters.outbound.kafka.batch import Batch, Lane, PartitionOf
from customersignal_ingest.adapters.outbound.kafka.calls import (
    BYTES_MAX,
    RECORDS_MAX,
    STALL_S,
    Call,
    Confirmations,
    InFlight,
    Stall,
)
from customersignal_ingest.adapters.outbound.kafka.generations import Generation, Generations
from customersignal_ingest.adapters.outbound.kafka.options import Options
from customersignal_ingest.adapters.outbound.kafka.producer import (
    Appended,
    Builder,
    Denied,
    Lost,
    NotTaken,
    Producer,
    TurnedDown,
    Verdict,
)
from customersignal_ingest.adapters.outbound.kafka.topic import Topic
from customersignal_ingest.adapters.outbound.kafka.watch import TopicWatch
from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.event import Record
from customersignal_ingest.domain.outcome import NotStored, Outcome, Refused, Unknown

TICK_S = 0.1
MARGIN_S = 0.4  # Our answer comes this much before the publish time-out, whatever happens.
OPEN_TIMEOUT_S = 3.0
CLOSE_TIMEOUT_S = 2.0
SEAL_S = 1.0
BATCH_BYTES_MAX = 256 * 1024

log = logging.getLogger(__name__)


class Kafka(Protocol):
    """What the publisher needs of a Kafka client library."""

    def producer(self) -> Producer:
        """Make a producer that is not started yet."""
        ...

    def new_batch(self, bytes_max: int, /) -> Builder:
        """Return an empty batch."""
        ...

    async def topic(self) -> Topic:
        """Look at the topic's settings; raises `Unavailable` within seconds."""
        ...

    async def reach(self) -> object:
        """Return if any broker answers; raises `Unavailable` within a second or two."""
        ...


class KafkaPublisher:
    """Publishes to one topic. For one event loop, and a process of its own.

    `restarts` counts replaced producers by cause; `late_acks` counts batches whose confirmation
    came after they had been answered `Unknown`.
    """

    def __init__(
        self,
        options: Options,
        kafka: Kafka,
        /,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = lambda: 0.5,
        queue_records_max: int = RECORDS_MAX,
        queue_bytes_max: int = BYTES_MAX,
    ) -> None:
        """`clock` is monotonic seconds; `jitter` returns anything from 0 to 1."""
        self._options, self._kafka = options, kafka
        self._clock, self._sleep = clock, sleep
        self._patience_s = max(options.publish_timeout_s - MARGIN_S, options.publish_timeout_s / 2)
        self._in_flight = InFlight(records_max=queue_records_max, bytes_max=queue_bytes_max)
        self._watch = TopicWatch(kafka.topic, clock=clock)
        self._stall = Stall()
        self._generations = Generations(
            kafka.producer,
            served=self._go_on,
            away=self._give_up_waiting,
            lost=self._lose,
            clock=clock,
            sleep=sleep,
            jitter=jitter,
        )
        self._lanes: list[Lane] = []
        self._partition_of = PartitionOf(0)
        self._due: dict[Lane, None] = {}
        self._flushing: asyncio.Handle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._confirmations = Confirmations()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.late_acks = 0

    @property
    def restarts(self) -> dict[str, int]:
        """How many producers were replaced, by cause."""
        return dict(self._generations.restarts)

    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        """Store the records, and say of each what became of it, shortly before the publish time-out at the latest."""
        if not records:
            return ()
        size_bytes = sum([len(record.key) + len(record.value) for record in records])
        reason = self._reason_against(len(records), size_bytes)
        if reason:
            return [NotStored(reason)] * len(records)
        call = Call(records, size_bytes, born_at=self._clock(), loop=self._loop)
        self._in_flight.take(call)
        self._deal_out(call)
        return await call.answer

    async def open(self) -> None:
        """Connect in the background; returns once that succeeded or failed for the first time.

        Raises `ConfigurationError` for certificates that can't be read. Kafka being away is no error.
        """
        self._loop = asyncio.get_running_loop()  # To ask for it in every call would be a system call.
        self._options.security.ssl_context()
        self._generations.connect()
        self.tick()
        self._start(self._keep_ticking())
        tried = asyncio.create_task(self._generations.tried.wait())
        await asyncio.wait({tried}, timeout=OPEN_TIMEOUT_S)
        tried.cancel()
        await self._watch.first(OPEN_TIMEOUT_S)

    async def close(self) -> None:
        """Wait two seconds for what is out, then let go of everything within another one."""
        if self._closed:
            return
        self._closed = True
        await self._in_flight.wait(CLOSE_TIMEOUT_S)
        self._give_up_waiting("closed")
        await self._generations.close()
        await self._watch.close()
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def ping(self) -> None:
        """Raise `Unavailable` with the reason why an event sent now would not be stored.

        Asks a broker for a sign of life unless a confirmation has just come.
        """
        reason = self._reason_against(1, 0) or self._watch.limits or self._stuck()
        if reason:
            raise Unavailable(reason)
        if self._clock() - self._confirmations.came_at > STALL_S:
            await self._kafka.reach()

    def tick(self) -> None:
        """Do what time alone brings: deadlines, a dead producer, news of the topic. Ten times a second."""
        now = self._clock()
        if self._stall.begins(now):
            return
        self._generations.tick()
        self._learn_partitions()
        for lane in self._lanes:
            self._look_after(lane, now)
        self._watch.tick()

    def _reason_against(self, count: int, size_bytes: int) -> str:
        """Say why records can't be taken now, or nothing."""
        if self._closed:
            return "closed"
        reason = self._watch.reason_against(self._generations.reason)
        if reason:
            return reason
        if not self._partition_of.partitions:
            return f"the topic {self._options.topic} is missing"
        return "" if self._in_flight.has_room(count, size_bytes) else "queue full"

    def _stuck(self) -> str:
        return self._confirmations.reason_against(self._in_flight, self._clock())

    # Records come in.

    def _deal_out(self, call: Call) -> None:
        partition_of = self._partition_of
        shares: defaultdict[int, list[int]] = defaultdict(list)
        for index, record in enumerate(call.records):
            shares[partition_of[record.key]].append(index)
        for partition, indices in shares.items():
            lane = self._lanes[partition]
            (lane.open or self._open_batch(lane, call)).add(call, indices)

    def _open_batch(self, lane: Lane, call: Call) -> Batch:
        batch = Batch(lane.partition, opened_at=call.born_at, deadline=call.born_at + self._patience_s)
        lane.queue(batch)
        if lane.out is None:
            self._make_due(lane, self._options.linger_ms / 1000)
        return batch

    def _new_builder(self) -> Builder:
        return self._kafka.new_batch(min(BATCH_BYTES_MAX, self._watch.message_bytes_max))

    def _make_due(self, lane: Lane, delay_s: float = 0.0) -> None:
        self._due[lane] = None
        if self._flushing is None:
            loop = asyncio.get_running_loop()
            self._flushing = loop.call_later(delay_s, self._flush) if delay_s else loop.call_soon(self._flush)

    # Batches go out.

    def _flush(self) -> None:
        self._flushing = None
        due, self._due = self._due, {}
        generation = self._generations.current
        if generation is None:
            return  # Every lane is due again once a producer is in service.
        batches = [batch for lane in due if (batch := self._next(lane, generation)) is not None]
        self._hand_over(generation, batches)

    def _next(self, lane: Lane, generation: Generation) -> Batch | None:
        """Load what is to go out now, if anything may."""
        bytes_max = self._watch.message_bytes_max
        until = self._clock() + self._patience_s / 2  # Who is taken along has half of its time, or more.
        while self._may_go(lane, generation):
            batch = lane.next(self._new_builder, until=until)
            if batch.builder.size() <= bytes_max:
                generation.out.add(batch)
                return batch
            lane.out = None  # It is a single record: others are taken only as long as there is room.
            self._answer(batch.settle(Refused(f"larger than the topic's {bytes_max} bytes")))
        return None

    def _may_go(self, lane: Lane, generation: Generation) -> bool:
        if lane.out is not None or not lane.waiting or generation is not self._generations.current:
            return False
        if not generation.takes(lane.waiting[0]):
            self._generations.retire(generation, "sequence numbers", strike=False)
            return False
        # Without a leader it stays here, where it is certain that nobody has it; `tick` looks again.
        return generation.producer.has_leader(lane.partition)

    def _hand_over(self, generation: Generation, batches: Sequence[Batch]) -> None:
        for batch in batches:
            settled = partial(self._judge, generation, batch)
            try:
                generation.producer.send(batch.builder, batch.partition, settled)
            except NotTaken as error:
                self._not_taken(generation, batch, error)
            except Exception as error:
                log.exception("a batch failed in the Kafka client")
                settled(Lost(type(error).__name__))

    def _not_taken(self, generation: Generation, batch: Batch, error: NotTaken) -> None:
        generation.out.discard(batch)
        self._put_back([batch])
        self._generations.retire(generation, error.reason)

    # Verdicts come back.

    def _judge(self, generation: Generation, batch: Batch, verdict: Verdict) -> None:
        generation.out.discard(batch)
        if batch.settled:
            generation.doubtful -= 1
            self.late_acks += isinstance(verdict, Appended)
            return
        self._free(batch)
        match verdict:
            case Appended(offset):
                generation.acknowledged = True
                self._confirmations.came_at = self._clock()
                self._answer(batch.stored(self._options.topic, offset))
            case TurnedDown(reason):
                self._generations.retire(generation, reason, strike=False)
                self._find_culprit(batch, reason)
            case Denied(reason):
                self._generations.retire(generation, reason)
                self._answer(batch.settle(NotStored(reason)))
            case Lost(cause):
                self._generations.retire(generation, cause)
                self._answer(batch.settle(Unknown(cause)))

    def _find_culprit(self, batch: Batch, reason: str) -> None:
        """Send what was turned down in parts, until one record stands alone; the others are stored."""
        self._watch.look_soon()
        if batch.records == 1:
            self._answer(batch.settle(Refused(f"the broker does not take it: {reason}")))
        else:
            self._put_back(batch.halves())

    def _free(self, batch: Batch) -> None:
        lane = self._lanes[batch.partition]
        if lane.out is batch:
            lane.out = None
            if lane.waiting:
                self._make_due(lane)

    def _put_back(self, batches: Sequence[Batch]) -> None:
        lane = self._lanes[batches[0].partition]
        lane.put_back(batches)
        self._make_due(lane)

    def _lose(self, batch: Batch, cause: str) -> None:
        self._confirmations.failed_at = self._clock()
        self._free(batch)
        self._answer(batch.settle(Unknown(cause)))

    def _answer(self, calls: Iterable[Call]) -> None:
        for call in calls:
            self._in_flight.answer(call)

    # Time goes by.

    def _look_after(self, lane: Lane, now: float) -> None:
        for batch in lane.overdue(now):
            self._confirmations.failed_at = now
            self._answer(batch.settle(NotStored("could not be sent within the deadline")))
        if lane.open is not None and now - lane.open.opened_at > SEAL_S:
            lane.open = None  # Its deadline is the first record's; who comes later gets a batch with more time.
        out = lane.out
        if out is not None and out.deadline <= now:
            self._expire(out)
        if lane.waiting and lane.out is None:
            self._make_due(lane)
            self._look_for_leader(lane)

    def _expire(self, batch: Batch) -> None:
        generation = self._generations.holder(batch)
        if generation is not None:
            generation.out.discard(batch)
            generation.doubtful += 1
            self._generations.retire(generation, "no progress")
        self._lose(batch, "no confirmation within the deadline")

    def _look_for_leader(self, lane: Lane) -> None:
        current = self._generations.current
        if current is not None and not current.producer.has_leader(lane.partition):
            current.producer.look_again()

    def _learn_partitions(self) -> None:
        current = self._generations.current
        if current is None:
            return
        partitions = current.producer.partitions()
        if not partitions:
            current.producer.look_again()
        if partitions != self._partition_of.partitions:
            self._partition_of = PartitionOf(partitions)
        self._lanes += [Lane(partition) for partition in range(len(self._lanes), partitions)]

    async def _keep_ticking(self) -> None:
        while True:
            await self._sleep(TICK_S)
            self.tick()

    def _go_on(self) -> None:
        """A producer is in service."""
        self._learn_partitions()
        if self._watch.topic is None:
            self._watch.look_soon()
        for lane in self._lanes:
            if lane.waiting:
                self._make_due(lane)

    def _give_up_waiting(self, reason: str) -> None:
        """There is no producer, and none is expected at once: who waits is better told now."""
        for lane in self._lanes:
            for batch in lane.empty():
                self._answer(batch.settle(NotStored(reason)))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
