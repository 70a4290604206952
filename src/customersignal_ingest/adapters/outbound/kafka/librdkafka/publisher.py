"""Records in, outcomes out: librdkafka makes the batches, we keep the deadlines."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from customersignal_ingest.adapters.outbound.kafka.calls import (
    BYTES_MAX,
    RECORDS_MAX,
    STALL_S,
    Confirmations,
    InFlight,
    Stall,
)
from customersignal_ingest.adapters.outbound.kafka.librdkafka.delivery import (
    Burst,
    Call,
    Failure,
    Line,
    NotSent,
    NotTaken,
    TurnedDown,
)
from customersignal_ingest.adapters.outbound.kafka.librdkafka.lines import Lines, MakesLines
from customersignal_ingest.adapters.outbound.kafka.librdkafka.outlook import Looks, Outlook
from customersignal_ingest.adapters.outbound.kafka.librdkafka.size import alone_bytes
from customersignal_ingest.adapters.outbound.kafka.options import Options
from customersignal_ingest.adapters.outbound.kafka.topic import ENVELOPE_BYTES, MESSAGE_BYTES_MAX, Topic
from customersignal_ingest.domain.errors import ConfigurationError, Unavailable
from customersignal_ingest.domain.event import Record
from customersignal_ingest.domain.outcome import NotStored, Outcome, Refused, Stored, Unknown

TICK_S = 0.1
MARGIN_S = 0.4  # Our answer comes this much before the publish time-out, whatever happens.
OPEN_TIMEOUT_S = 3.0
CLOSE_TIMEOUT_S = 2.0
GRACE_S = 2.0
BATCH_BYTES_MAX = 256 * 1024

log = logging.getLogger(__name__)


class Kafka(MakesLines, Looks, Protocol):
    """What the publisher needs of librdkafka, and of who looks."""


class LibrdkafkaPublisher:
    """Publishes to one topic. For one event loop, and a process that was not forked after `open`.

    `restarts` counts replaced producers by cause; `late_acks` counts records whose confirmation
    came after they had been answered `Unknown`.
    """

    def __init__(
        self,
        options: Options,
        kafka: Kafka,
        /,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        queue_records_max: int = RECORDS_MAX,
        queue_bytes_max: int = BYTES_MAX,
    ) -> None:
        """`clock` is monotonic seconds."""
        self._options, self._kafka = options, kafka
        self._clock, self._sleep = clock, sleep
        self._patience_s = max(options.publish_timeout_s - MARGIN_S, options.publish_timeout_s / 2)
        self._in_flight = InFlight(records_max=queue_records_max, bytes_max=queue_bytes_max)
        self._stall = Stall()
        self._outlook = Outlook(kafka, clock=clock, seen=self._learn)
        self._lines = Lines(kafka, self._settle, clock=clock, stuck_s=options.publish_timeout_s + GRACE_S)
        self._message_bytes_max = MESSAGE_BYTES_MAX
        self._ticking: asyncio.Task[None] | None = None
        self._confirmations = Confirmations()
        self._closed = False
        self.late_acks = 0

    @property
    def restarts(self) -> dict[str, int]:
        """How many producers were replaced, by cause."""
        return dict(self._lines.restarts)

    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        """Store the records, and say of each what became of it, shortly before the publish time-out at the latest."""
        if not records:
            return ()
        size_bytes = sum([record.size_bytes for record in records])
        reason = self._reason_against(len(records), size_bytes)
        line = self._lines.current
        if reason or line is None:
            return [NotStored(reason)] * len(records)
        call = Call(records, size_bytes, born_at=self._clock())
        self._in_flight.take(call)
        self._send_all(line, call)
        return await call.answer

    async def open(self) -> None:
        """Connect in the background; returns once that succeeded or failed for the first time.

        Raises `ConfigurationError` for certificates that can't be read. Kafka being away is no error.
        """
        self._options.security.ssl_context()
        self._lines.start(batch_bytes_max=BATCH_BYTES_MAX)
        self.tick()
        self._ticking = asyncio.create_task(self._keep_ticking())
        await self._outlook.first(OPEN_TIMEOUT_S)

    async def close(self) -> None:
        """Wait two seconds for what is out, then withdraw it and let go of everything within another one."""
        if self._closed:
            return
        self._closed = True
        await self._in_flight.wait(CLOSE_TIMEOUT_S)
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.wait({self._ticking})
        await self._lines.close()
        while (call := self._in_flight.oldest()) is not None:
            self._in_flight.answer(call)
        await self._outlook.close()

    async def ping(self) -> None:
        """Raise `Unavailable` with the reason why an event sent now would not be stored.

        Asks a broker for a sign of life unless a confirmation has just come.
        """
        reason = self._reason_against(1, 0) or self._outlook.watch.limits or self._stuck()
        if reason:
            raise Unavailable(reason)
        if self._clock() - self._confirmations.came_at > STALL_S:
            await self._kafka.reach()

    def tick(self) -> None:
        """Do what time alone brings: deadlines, a dead line, news of brokers and topic. Ten times a second."""
        now = self._clock()
        if self._stall.begins(now):
            return
        self._lines.tick()
        self._expire(now)
        line = self._lines.current
        lonely = line is not None and line.lonely()
        self._outlook.tick(doubt=lonely or self._in_flight.oldest_s(now) > STALL_S)

    def _reason_against(self, count: int, size_bytes: int) -> str:
        """Say why records can't be taken now, or nothing."""
        if self._closed:
            return "closed"
        reason = self._outlook.reason_against()
        if reason:
            return reason
        if self._lines.current is None:
            return "the Kafka producer is being replaced"
        return "" if self._in_flight.has_room(count, size_bytes) else "queue full"

    def _stuck(self) -> str:
        return self._confirmations.reason_against(self._in_flight, self._clock())

    # Records go out.

    def _send_all(self, line: Line, call: Call) -> None:
        doubtful_bytes = self._message_bytes_max - ENVELOPE_BYTES
        for index, record in enumerate(call.records):
            if record.size_bytes > doubtful_bytes and alone_bytes(record) > self._message_bytes_max:
                self._put(call, index, Refused(f"larger than the topic's {self._message_bytes_max} bytes"))
            else:
                self._send(line, call, index)

    def _send(self, line: Line, call: Call, index: int) -> None:
        try:
            line.send(call, index)
        except NotTaken as error:
            self._put(call, index, NotStored(str(error)))
        except Exception as error:
            log.exception("a record failed in the Kafka client")
            self._put(call, index, Unknown(type(error).__name__))

    # News comes back.

    def _settle(self, line: Line, burst: Burst) -> None:
        topic = self._options.topic
        for call, index, partition, offset in burst.stored:
            self._put(call, index, Stored(topic, partition, offset))
        for call, index, failure in burst.failed:
            if call.remaining:
                self._judge(call, index, failure)
        if burst.stored:
            self._confirmations.came_at = self._clock()
            self._outlook.confirmed()
        self._lines.heard(line)

    def _judge(self, call: Call, index: int, failure: Failure) -> None:
        match failure:
            case TurnedDown(reason, certain):
                self._outlook.watch.look_soon()
                if index in call.turned_down:
                    self._turn_down_again(call, index, reason, certain=certain)
                else:
                    self._send_again(call, index, reason, certain=certain)
            case NotSent(reason):
                self._put(call, index, NotStored(reason))
            case _:
                self._put(call, index, Unknown(failure.cause))

    def _send_again(self, call: Call, index: int, reason: str, *, certain: bool) -> None:
        """Send the record alone: it may have been turned down for its company only."""
        call.turned_down[index] = certain
        try:
            self._lines.careful().send(call, index)
        except (NotTaken, ConfigurationError):
            self._put(call, index, NotStored(reason) if certain else Unknown(reason))

    def _turn_down_again(self, call: Call, index: int, reason: str, *, certain: bool) -> None:
        certain = certain and call.turned_down[index]
        what = f"the broker does not take it: {reason}"
        self._put(call, index, Refused(what) if certain else Unknown(what))

    def _put(self, call: Call, index: int, outcome: Outcome) -> None:
        if not call.remaining:
            self.late_acks += isinstance(outcome, Stored)
            return
        call.outcomes[index] = outcome
        call.remaining -= 1
        if not call.remaining:
            self._in_flight.answer(call)

    # Time goes by.

    def _expire(self, now: float) -> None:
        while (oldest := self._in_flight.oldest()) is not None and oldest.born_at + self._patience_s <= now:
            self._confirmations.failed_at = now
            self._in_flight.answer(oldest)

    def _learn(self, topic: Topic) -> None:
        self._message_bytes_max = topic.message_bytes_max
        self._lines.limit_batches(min(BATCH_BYTES_MAX, topic.message_bytes_max))

    async def _keep_ticking(self) -> None:
        while True:
            await self._sleep(TICK_S)
            self.tick()
