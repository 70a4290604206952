"""A reader that follows and hears nothing asks whether there is something: silence alone says neither yes nor no."""

from collections.abc import Sequence
from datetime import datetime
from itertools import count
from typing import Any

import pytest
from aiokafka import TopicPartition

from customersignal_ingest.adapters.outbound.kafka.options import read_options
from customersignal_ingest.adapters.outbound.kafka.reader import SILENCE_MAX_S, KafkaReader
from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.event import Span
from customersignal_ingest.registry import AdapterSettings

pytestmark = pytest.mark.anyio

PARTITION = TopicPartition("events_raw", 0)
REACHED = 10
AWAY = Unavailable("away")


class Silent:
    """A consumer that hears nothing."""

    async def getmany(self, **_: Any) -> dict[TopicPartition, list[Any]]:
        return {}

    async def position(self, _: TopicPartition) -> int:
        return REACHED


class Reader(KafkaReader):
    """A reader whose own questions get these answers, one after the other; the clock ticks at each look."""

    def __init__(self, *answers: int | Unavailable) -> None:
        ticks = count()
        super().__init__(read_options("kafka://127.0.0.1:1/events_raw", AdapterSettings()), clock=lambda: next(ticks))
        self.answers = list(answers)

    async def spans(self, *, since: datetime | None = None) -> Sequence[Span]:
        answer = self.answers.pop(0)
        if isinstance(answer, Unavailable):
            raise answer
        return [Span(0, 0, answer)]

    async def follow(self) -> None:
        async for _ in self._records(Silent(), {PARTITION: REACHED}, {}, follow=True):
            pass


async def test_a_topic_that_ends_before_what_was_read_has_lost_it() -> None:
    with pytest.raises(Unavailable, match="lost the end of a partition"):
        await Reader(REACHED, REACHED - 1).follow()


async def test_what_is_there_and_is_not_heard_of_is_silence() -> None:
    with pytest.raises(Unavailable, match=f"silent for {SILENCE_MAX_S:.0f} s"):
        await Reader(REACHED, REACHED + 1).follow()


async def test_who_follows_waits_for_a_kafka_that_is_away() -> None:
    reader = Reader(AWAY, AWAY, REACHED - 1)

    with pytest.raises(Unavailable, match="lost the end"):
        await reader.follow()

    assert reader.answers == []
