"""Reads a topic back for `cs-ingest tail`, as a consumer without a group: it leaves no trace."""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from customersignal_ingest.adapters.outbound.kafka.client import reach
from customersignal_ingest.adapters.outbound.kafka.options import Options
from customersignal_ingest.adapters.outbound.kafka.topic import hang_up, partitions_of
from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.event import Place, Span, StoredRecord

POLL_MS = 500
SILENCE_MAX_S = 15.0
LOST = "Kafka has lost the end of a partition, which was read before"


class KafkaReader:
    """Reads all partitions of one topic. Those added while it follows are not seen."""

    def __init__(self, options: Options, /, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._options, self._clock = options, clock

    async def read(
        self, *, follow: bool = False, since: datetime | None = None, start: Place | None = None
    ) -> AsyncIterator[StoredRecord]:
        """Yield records, in the order of each partition; end at the ends that the partitions had at the start.

        Raises `Unavailable` when Kafka can't be read, when it falls silent before the end, and when
        it has lost what was read before.
        """
        async with self._consumer() as consumer:
            spans = await self._spans(consumer, since)
            if start is not None:
                spans = _from(spans, start)
            partitions = {TopicPartition(self._options.topic, span.partition): span for span in spans}
            consumer.assign(list(partitions))
            for partition, span in partitions.items():
                consumer.seek(partition, span.start)
            ends = {partition: span.end for partition, span in partitions.items() if span.start < span.end}
            starts = {partition: span.start for partition, span in partitions.items()}
            async for record in self._records(consumer, starts, ends, follow=follow):
                yield record

    async def spans(self, *, since: datetime | None = None) -> Sequence[Span]:
        """Return for each partition what retention has left, of it what has arrived since; as the leaders have it."""
        async with self._consumer() as consumer:
            return await self._spans(consumer, since)

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[Any]:
        """Provide a consumer that goes on where a partition begins when retention was faster than we."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=await reach(self._options),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            **self._options.connection(),
        )
        try:
            await consumer.start()
            yield consumer
        except (KafkaError, OSError, TimeoutError) as error:
            raise Unavailable(f"Kafka can't be read: {type(error).__name__}") from error
        finally:
            await hang_up(consumer.stop())

    async def _spans(self, consumer: Any, since: datetime | None) -> list[Span]:
        partitions = [TopicPartition(self._options.topic, number) for number in await partitions_of(self._options)]
        starts, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        if since is not None:
            found = await consumer.offsets_for_times(dict.fromkeys(partitions, int(since.timestamp() * 1000)))
            starts = {each: ends[each] if at is None else at.offset for each, at in found.items()}
        return [Span(each.partition, starts[each], ends[each]) for each in partitions]

    async def _records(
        self, consumer: Any, reached: dict[TopicPartition, int], ends: dict[TopicPartition, int], *, follow: bool
    ) -> AsyncIterator[StoredRecord]:
        heard_at = self._clock()
        while follow or ends:
            batches = await consumer.getmany(timeout_ms=POLL_MS)
            for partition, records in batches.items():
                heard_at = self._clock()
                if records[0].offset < reached[partition]:
                    raise Unavailable(LOST)
                reached[partition] = records[-1].offset + 1
                for record in records:
                    if follow or record.offset < ends.get(partition, 0):
                        yield _stored(record)
            for partition in [each for each, end in ends.items() if await consumer.position(each) >= end]:
                del ends[partition]
            if self._clock() - heard_at <= SILENCE_MAX_S:
                continue
            if ends:
                raise Unavailable(f"Kafka fell silent for {SILENCE_MAX_S:.0f} s before the end of the topic")
            heard_at, ends = self._clock(), await self._ends_beyond(reached)

    async def _ends_beyond(self, reached: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Ask a consumer of its own what there is to read, while ours hears nothing.

        Ours may ask the former leaders for ever: of a topic that was deleted and made again it was seen to.
        """
        try:
            spans = await self.spans()
        except Unavailable:
            return {}  # Who follows waits for Kafka to come back.
        now = {TopicPartition(self._options.topic, span.partition): span.end for span in spans}
        if any(now.get(partition, 0) < offset for partition, offset in reached.items()):
            raise Unavailable(LOST)
        return {partition: now[partition] for partition, offset in reached.items() if now.get(partition, 0) > offset}


def _from(spans: Sequence[Span], place: Place) -> list[Span]:
    """Return the span of the place's partition, from that place on."""
    found = [span for span in spans if span.partition == place.partition]
    if not found:
        raise Unavailable("the topic has no such partition")
    return [replace(span, start=min(max(span.start, place.offset), span.end)) for span in found]


def _stored(record: "ConsumerRecord[bytes, bytes]") -> StoredRecord:
    return StoredRecord(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=record.key or b"",
        value=record.value or b"",
        headers=tuple(record.headers),
        timestamp_ms=record.timestamp,
    )
