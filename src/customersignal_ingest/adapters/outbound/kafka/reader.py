"""Reads a topic back for `cs-ingest tail`, as a consumer without a group: it leaves no trace."""

import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from customersignal_ingest.adapters.outbound.kafka.client import reach
from customersignal_ingest.adapters.outbound.kafka.options import Options
from customersignal_ingest.adapters.outbound.kafka.topic import hang_up, partitions_of
from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.event import Place, StoredRecord

POLL_MS = 500
SILENCE_MAX_S = 15.0


class KafkaReader:
    """Reads all partitions of one topic. Those added while it follows are not seen."""

    def __init__(self, options: Options, /, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._options, self._clock = options, clock

    async def read(
        self, *, follow: bool = False, since: datetime | None = None, start: Place | None = None
    ) -> AsyncIterator[StoredRecord]:
        """Yield records, in the order of each partition; end at the ends that the partitions had at the start.

        Raises `Unavailable` when Kafka can't be read, and when it falls silent before the end.
        """
        consumer = AIOKafkaConsumer(
            bootstrap_servers=await reach(self._options), enable_auto_commit=False, **self._options.connection()
        )
        try:
            await consumer.start()
            ends = await self._assign(consumer, since, start)
            async for record in self._records(consumer, ends, follow=follow):
                yield record
        except (KafkaError, OSError, TimeoutError) as error:
            raise Unavailable(f"Kafka can't be read: {type(error).__name__}") from error
        finally:
            await hang_up(consumer.stop())

    async def _assign(self, consumer: Any, since: datetime | None, start: Place | None) -> dict[TopicPartition, int]:
        """Go to where reading begins; return where each partition ends now."""
        numbers = [each for each in await partitions_of(self._options) if start is None or each == start.partition]
        if not numbers:
            raise Unavailable("the topic has no such partition")
        partitions = [TopicPartition(self._options.topic, number) for number in numbers]
        consumer.assign(partitions)
        begins, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        if since is not None:
            found = await consumer.offsets_for_times(dict.fromkeys(partitions, int(since.timestamp() * 1000)))
            begins = {each: ends[each] if at is None else at.offset for each, at in found.items()}
        if start is not None:
            begins = {each: min(max(at, start.offset), ends[each]) for each, at in begins.items()}
        for each, offset in begins.items():
            consumer.seek(each, offset)
        return {each: end for each, end in ends.items() if begins[each] < end}

    async def _records(
        self, consumer: Any, ends: dict[TopicPartition, int], *, follow: bool
    ) -> AsyncIterator[StoredRecord]:
        heard_at = self._clock()
        while follow or ends:
            batches = await consumer.getmany(timeout_ms=POLL_MS)
            for partition, records in batches.items():
                heard_at = self._clock()
                for record in records:
                    if follow or record.offset < ends.get(partition, 0):
                        yield _stored(record)
            for partition in [each for each, end in ends.items() if await consumer.position(each) >= end]:
                del ends[partition]
            if ends and self._clock() - heard_at > SILENCE_MAX_S:
                raise Unavailable(f"Kafka fell silent for {SILENCE_MAX_S:.0f} s before the end of the topic")


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
