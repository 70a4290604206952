"""The group commit: records of all calls in flight go out together, one batch a partition at a time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Protocol

from customersignal_ingest.adapters.outbound.kafka.batch import Batch, Call, Lane
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
from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.event import Record
from customersignal_ingest.domain.outcome import NotStored, Outcome, Refused, Unknown
from customersignal_ingest.domain.partition import partition_for

TICK_S = 0.1
MARGIN_S = 0.4  # Our answer comes this much before the publish time-out, whatever happens.
OPEN_TIMEOUT_S = 3.0
CLOSE_TIMEOUT_S = 2.0
STALL_S = 1.0
SEAL_S = 1.0
STUCK_S = 3.0
TOPIC_LOOK_S = 60.0
TOPIC_RETRY_S = 2.0
BATCH_BYTES_MAX = 256 * 1024
QUEUE_RECORDS_MAX = 50_000
QUEUE_BYTES_MAX = 64 * 1024 * 1024

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
        queue_records_max: int = QUEUE_RECORDS_MAX,
        queue_bytes_max: int = QUEUE_BYTES_MAX,
    ) -> None:
        """`clock` is monotonic seconds; `jitter` returns anything from 0 to 1."""
        self._options, self._kafka = options, kafka
        self._clock, self._sleep = clock, sleep
        self._patience_s = max(options.publish_timeout_s - MARGIN_S, options.publish_timeout_s / 2)
        self._queue_records_max, self._queue_bytes_max = queue_records_max, queue_bytes_max
        self._generations = Generations(
            kafka.producer,
            served=self._go_on,
            away=self._give_up_waiting,
            lost=self._lose,
            clock=clock,
            sleep=sleep,
            jitter=jitter,
        )
        self._topic: Topic | None = None
        self._look_at = 0.0
        self._looking: asyncio.Task[None] | None = None
        self._lanes: list[Lane] = []
        self._partitions = 0
        self._due: dict[Lane, None] = {}
        self._flushing: asyncio.Handle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._records = self._bytes = 0
        self._all_settled: asyncio.Future[None] | None = None
        self._ticked_at = self._confirmed_at = float("-inf")
        self._stalled = False
        self._closed = False
        self.late_acks = 0

    @property
    def restarts(self) -> dict[str, int]:
        """How many producers were replaced, by cause."""
        return dict(self._generations.restarts)

    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        """Store the records, and say of each what became of it, shortly before the publish time-out at the latest."""
        if not records:
            return ()
        size_bytes = sum([record.size_bytes for record in records])
        reason = self._reason_against(len(records), size_bytes)
        if reason:
            return [NotStored(reason)] * len(records)
        return await self._take(Call(records, size_bytes, asyncio.get_running_loop().create_future())).answer

    async def open(self) -> None:
        """Connect in the background; returns once that succeeded or failed for the first time.

        Raises `ConfigurationError` for certificates that can't be read. Kafka being away is no error.
        """
        self._options.security.ssl_context()
        self._ticked_at = self._clock()
        self._generations.connect()
        self.tick()
        self._start(self._keep_ticking())
        tried = asyncio.create_task(self._generations.tried.wait())
        await asyncio.wait({tried}, timeout=OPEN_TIMEOUT_S)
        tried.cancel()
        if self._looking is not None:
            await asyncio.wait({self._looking}, timeout=OPEN_TIMEOUT_S)

    async def close(self) -> None:
        """Wait two seconds for what is out, then let go of everything within another one."""
        if self._closed:
            return
        self._closed = True
        if self._records:
            self._all_settled = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._all_settled}, timeout=CLOSE_TIMEOUT_S)
        self._give_up_waiting("closed")
        await self._generations.close()
        tasks = {*self._tasks, *filter(None, [self._looking])}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def ping(self) -> None:
        """Raise `Unavailable` with the reason why an event sent now would not be stored.

        Asks a broker for a sign of life unless a confirmation has just come.
        """
        reason = self._reason_against(1, 0) or self._size_problem() or self._stuck()
        if reason:
            raise Unavailable(reason)
        if self._clock() - self._confirmed_at > STALL_S:
            await self._kafka.reach()

    def tick(self) -> None:
        """Do what time alone brings: deadlines, a dead producer, news of the topic. Ten times a second."""
        now = self._clock()
        # Answers may lie in the sockets when the loop was held up: they are read before anything expires.
        stalled, self._stalled = self._stalled, now - self._ticked_at > STALL_S
        self._ticked_at = now
        if self._stalled and not stalled:
            return
        self._generations.tick()
        self._learn_partitions()
        for lane in self._lanes:
            self._look_after(lane, now)
        if now >= self._look_at and (self._looking is None or self._looking.done()):
            self._look_at = float("inf")
            self._looking = asyncio.create_task(self._look_at_topic())

    def _reason_against(self, count: int, size_bytes: int) -> str:
        """Say why records can't be taken now, or nothing."""
        if self._closed:
            return "closed"
        if self._topic is None:
            return self._generations.reason or "the topic's settings are not known yet"
        if self._topic.dangers:
            return "; ".join(self._topic.dangers)
        if self._generations.reason:
            return self._generations.reason
        if not self._partitions:
            return f"the topic {self._options.topic} is missing"
        if self._records + count > self._queue_records_max or self._bytes + size_bytes > self._queue_bytes_max:
            return "queue full"
        return ""

    def _size_problem(self) -> str:
        return "" if self._topic is None else "; ".join(self._topic.limits)

    def _stuck(self) -> str:
        oldest = [lane.oldest for lane in self._lanes if lane.oldest]
        if oldest and self._clock() - min(batch.opened_at for batch in oldest) > STUCK_S:
            return f"no confirmation for {STUCK_S:.0f} s"
        return ""

    # Records come in.

    def _take(self, call: Call) -> Call:
        self._records += len(call.records)
        self._bytes += call.size_bytes
        lanes, partitions = self._lanes, self._partitions
        for index, record in enumerate(call.records):
            lane = lanes[partition_for(record.key, partitions)]
            batch = lane.open
            if batch is None or not batch.add(call, index):
                self._open_batch(lane, call, index)
        return call

    def _open_batch(self, lane: Lane, call: Call, index: int) -> None:
        now = self._clock()
        batch = Batch(lane.partition, self._new_builder(), opened_at=now, deadline=now + self._patience_s)
        batch.add(call, index)
        if self._topic is not None and batch.builder.size() > self._topic.message_bytes_max:
            self._answer(batch.settle(Refused(f"larger than the topic's {self._topic.message_bytes_max} bytes")))
            return
        lane.queue(batch)
        if lane.out is None:
            self._make_due(lane, self._options.linger_ms / 1000)

    def _new_builder(self) -> Builder:
        topic_max = BATCH_BYTES_MAX if self._topic is None else self._topic.message_bytes_max
        return self._kafka.new_batch(min(BATCH_BYTES_MAX, topic_max))

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
        batches = [lane.next() for lane in due if self._may_go(lane, generation)]
        generation.out.update(batches)
        if batches:
            self._start(self._hand_over(generation, batches))

    def _may_go(self, lane: Lane, generation: Generation) -> bool:
        if lane.out is not None or not lane.waiting or generation is not self._generations.current:
            return False
        if not generation.takes(lane.waiting[0]):
            self._generations.retire(generation, "sequence numbers", strike=False)
            return False
        # Without a leader it stays here, where it is certain that nobody has it; `tick` looks again.
        return generation.producer.has_leader(lane.partition)

    async def _hand_over(self, generation: Generation, batches: Sequence[Batch]) -> None:
        for batch in batches:
            settled = partial(self._judge, generation, batch)
            try:
                await generation.producer.send(batch.builder, batch.partition, settled)
            except NotTaken as error:
                self._not_taken(generation, batch, error)
            except Exception as error:
                log.exception("a batch failed in the Kafka client")
                settled(Lost(type(error).__name__))

    def _not_taken(self, generation: Generation, batch: Batch, error: NotTaken) -> None:
        generation.out.discard(batch)
        if batch.settled:
            generation.doubtful -= 1
            return
        if error.again:
            self._lanes[batch.partition].put_back([batch])
            self._generations.retire(generation, error.reason)
            self._make_due(self._lanes[batch.partition])
        else:
            self._free(batch)
            self._answer(batch.settle(NotStored(error.reason)))

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
                self._confirmed_at = self._clock()
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
        self._look_at = min(self._look_at, self._clock())
        if len(batch.members) == 1:
            self._answer(batch.settle(Refused(f"the broker does not take it: {reason}")))
        else:
            self._lanes[batch.partition].put_back(batch.parts(self._new_builder))

    def _free(self, batch: Batch) -> None:
        lane = self._lanes[batch.partition]
        if lane.out is batch:
            lane.out = None
            self._make_due(lane)

    def _lose(self, batch: Batch, cause: str) -> None:
        self._free(batch)
        self._answer(batch.settle(Unknown(cause)))

    def _answer(self, calls: Iterable[Call]) -> None:
        for call in calls:
            self._records -= len(call.records)
            self._bytes -= call.size_bytes
            if not call.answer.done():
                call.answer.set_result(call.outcomes)
        if not self._records and self._all_settled is not None and not self._all_settled.done():
            self._all_settled.set_result(None)

    # Time goes by.

    def _look_after(self, lane: Lane, now: float) -> None:
        for batch in lane.overdue(now):
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
        self._partitions = current.producer.partitions()
        if not self._partitions:
            current.producer.look_again()
        while len(self._lanes) < self._partitions:
            self._lanes.append(Lane(len(self._lanes)))

    async def _look_at_topic(self) -> None:
        pause_s = TOPIC_RETRY_S
        try:
            self._topic = await self._kafka.topic()
            pause_s = TOPIC_RETRY_S if self._topic.dangers else TOPIC_LOOK_S
        except Unavailable as error:
            log.warning("the topic's settings can't be read: %s", error)
        except Exception:
            log.exception("the topic's settings can't be understood")
        finally:
            self._look_at = self._clock() + pause_s

    async def _keep_ticking(self) -> None:
        while True:
            await self._sleep(TICK_S)
            self.tick()

    def _go_on(self) -> None:
        """A producer is in service."""
        self._learn_partitions()
        if self._topic is None:
            self._look_at = min(self._look_at, self._clock())
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
