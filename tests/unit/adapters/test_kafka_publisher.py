"""The group commit and its supervisor over a Kafka client that does what each test says."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from customersignal_ingest.adapters.outbound.kafka.batch import Batch, Lane
from customersignal_ingest.adapters.outbound.kafka.calls import Call
from customersignal_ingest.adapters.outbound.kafka.generations import (
    AGE_MAX_S,
    ENDING_MAX,
    SEQUENCE_MAX,
    START_TIMEOUT_S,
)
from customersignal_ingest.adapters.outbound.kafka.options import Options
from customersignal_ingest.adapters.outbound.kafka.producer import (
    Appended,
    Builder,
    Denied,
    Lost,
    NotTaken,
    TurnedDown,
    Verdict,
)
from customersignal_ingest.adapters.outbound.kafka.publisher import TICK_S, KafkaPublisher
from customersignal_ingest.adapters.outbound.kafka.topic import Topic
from customersignal_ingest.adapters.outbound.kafka.watch import LOOK_AGAIN_S, LOOK_S
from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.event import Record
from customersignal_ingest.domain.outcome import NotStored, Outcome, Refused, Stored, Unknown
from tests.unit.simulated_time import SimulatedLoop, run

pytestmark = pytest.mark.anyio

TIMEOUT_S = 10.0


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Where nothing can happen any more, a test ends at once."""
    return "asyncio", {"loop_factory": SimulatedLoop}


def a_record(name: str, *, value: bytes = b"{}") -> Record:
    return Record(key=name.encode(), value=value, headers=(), timestamp_ms=1, tenant_id="acme", event_id=name)


class FakeBuilder:
    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.keys: list[bytes] = []
        self._size = 0

    def extend(self, records: Iterable[Record], /) -> int:
        before = len(self.keys)
        for record in records:
            if self.keys and self._size + len(record.value) > self._bytes_max:
                break
            self.keys.append(record.key)
            self._size += len(record.value)
        return len(self.keys) - before

    def size(self) -> int:
        return self._size


class FakeProducer:
    """A producer whose batches wait for the test's verdict."""

    def __init__(self, kafka: "FakeKafka") -> None:
        self._kafka = kafka
        self.sent: list[tuple[list[bytes], int, Callable[[Verdict], None]]] = []
        self.not_taken: NotTaken | None = None
        self.sequences = dict.fromkeys(range(kafka.partition_count), 0)
        self.dead = False
        self.looked_again = 0
        self.abandoned = False

    async def start(self) -> None:
        if self._kafka.starting_hangs:
            await asyncio.Event().wait()
        if self._kafka.away:
            raise Unavailable(self._kafka.away)

    def send(self, batch: Builder, partition: int, settled: Callable[[Verdict], None], /) -> None:
        if self.not_taken is not None:
            raise self.not_taken
        assert isinstance(batch, FakeBuilder)
        self.sequences[partition] += len(batch.keys)
        self.sent.append((batch.keys, partition, settled))

    def partitions(self) -> int:
        return self._kafka.partition_count

    def has_leader(self, partition: int, /) -> bool:
        return partition not in self._kafka.leaderless

    def look_again(self) -> None:
        self.looked_again += 1

    def sequence(self, partition: int, /) -> int:
        return self.sequences[partition]

    def is_dead(self) -> bool:
        return self.dead

    async def abandon(self) -> None:
        self.abandoned = True
        await self._kafka.may_end.wait()

    def settle(self, number: int, verdict: Verdict) -> None:
        """Give the verdict on the nth batch that was sent."""
        self.sent[number][2](verdict)

    @property
    def keys(self) -> list[list[bytes]]:
        return [keys for keys, _, _ in self.sent]


class FakeKafka:
    def __init__(self, *, partitions: int = 1) -> None:
        self.partition_count = partitions
        self.producers: list[FakeProducer] = []
        self.leaderless: set[int] = set()
        self.away = ""
        self.starting_hangs = False
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.found = Topic()
        self.reached = 0

    def producer(self) -> FakeProducer:
        self.producers.append(FakeProducer(self))
        return self.producers[-1]

    def new_batch(self, bytes_max: int, /) -> FakeBuilder:
        return FakeBuilder(bytes_max)

    async def topic(self) -> Topic:
        return self.found

    async def reach(self) -> object:
        self.reached += 1
        if self.away:
            raise Unavailable(self.away)
        return None

    @property
    def latest(self) -> FakeProducer:
        return self.producers[-1]


class Bench:
    """A publisher, its Kafka, and the test's hand on the clock."""

    def __init__(self, kafka: FakeKafka, **bounds: int) -> None:
        self.kafka = kafka
        self.now = 1000.0
        self.naps: list[float] = []
        self.woken = asyncio.Event()
        options = Options(
            servers=("nowhere:1",),
            topic="events",
            client_id="test",
            publish_timeout_s=TIMEOUT_S,
            event_bytes_max=900_000,
        )
        self.publisher = KafkaPublisher(
            options, kafka, clock=lambda: self.now, sleep=self._sleep, jitter=lambda: 0.5, **bounds
        )

    async def _sleep(self, seconds: float) -> None:
        if seconds == TICK_S:  # The test ticks by itself.
            await asyncio.Event().wait()
        elif seconds:
            self.naps.append(seconds)
            await self.woken.wait()
            self.woken.clear()

    async def turn(self) -> None:
        """Let everything run that can run."""
        for _ in range(16):
            await asyncio.sleep(0)

    async def tick(self, seconds: float = 0.0) -> None:
        """Let time go by, a second at a time, as the publisher would see it."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + 1)
            self.publisher.tick()
            await self.turn()
        self.publisher.tick()
        await self.turn()

    async def call(self, *names: str, value: bytes = b"{}") -> "asyncio.Task[Sequence[Outcome]]":
        task = asyncio.create_task(self.publisher.publish([a_record(name, value=value) for name in names]))
        await self.turn()
        return task

    async def answer(self, *names: str, value: bytes = b"{}") -> Sequence[Outcome]:
        """Publish where no verdict is needed."""
        return await (await self.call(*names, value=value))


@asynccontextmanager
async def opened(kafka: FakeKafka | None = None, **bounds: int) -> AsyncIterator[Bench]:
    bench = Bench(kafka or FakeKafka(), **bounds)
    await bench.publisher.open()
    try:
        yield bench
    finally:
        for producer in bench.kafka.producers:
            for number, (_, _, settled) in enumerate(producer.sent):
                settled(Lost(f"the test is over ({number})"))
        await bench.publisher.close()
        assert (bench.publisher._in_flight.records, bench.publisher._in_flight.bytes) == (0, 0)


def kinds(outcomes: Sequence[Outcome]) -> list[type[Outcome]]:
    return [type(outcome) for outcome in outcomes]


async def test_calls_that_come_together_travel_in_one_batch() -> None:
    async with opened() as bench:
        first = asyncio.create_task(bench.publisher.publish([a_record("a"), a_record("b")]))
        second = asyncio.create_task(bench.publisher.publish([a_record("c")]))
        await bench.turn()

        assert bench.kafka.latest.keys == [[b"a", b"b", b"c"]]
        bench.kafka.latest.settle(0, Appended(7))
        assert await first == [Stored("events", 0, 7), Stored("events", 0, 8)]
        assert await second == [Stored("events", 0, 9)]


async def test_what_comes_while_a_batch_is_out_goes_together_after_it() -> None:
    async with opened() as bench:
        first, second, third = await bench.call("a"), await bench.call("b"), await bench.call("c")
        assert bench.kafka.latest.keys == [[b"a"]]

        bench.kafka.latest.settle(0, Appended(0))
        await bench.turn()

        assert bench.kafka.latest.keys == [[b"a"], [b"b", b"c"]]
        bench.kafka.latest.settle(1, Appended(1))
        assert kinds([*await first, *await second, *await third]) == [Stored] * 3


async def test_what_comes_while_a_slow_broker_thinks_goes_together_however_long_that_takes() -> None:
    async with opened() as bench:
        calls = [await bench.call("a")]
        for name in ("b", "c", "d"):
            await bench.tick(1.2)
            calls.append(await bench.call(name))

        bench.kafka.latest.settle(0, Appended(0))
        await bench.turn()

        assert bench.kafka.latest.keys == [[b"a"], [b"b", b"c", b"d"]]
        bench.kafka.latest.settle(1, Appended(1))
        assert [await call for call in calls] == [[Stored("events", 0, n)] for n in range(4)]


async def test_nobody_is_taken_along_by_a_batch_that_has_little_time_left() -> None:
    async with opened() as bench:
        calls = [await bench.call("a"), await bench.call("b")]
        await bench.tick(TIMEOUT_S * 0.7)
        calls.append(await bench.call("c"))
        bench.kafka.latest.settle(0, Appended(0))
        await bench.turn()
        assert bench.kafka.latest.keys == [[b"a"], [b"b"]]

        bench.kafka.latest.settle(1, Appended(1))
        await bench.turn()
        bench.kafka.latest.settle(2, Appended(2))

        assert [await call for call in calls] == [[Stored("events", 0, n)] for n in range(3)]


async def test_a_call_of_which_two_shares_travel_together_is_complete_once() -> None:
    call = Call([a_record(name, value=b"x" * 50) for name in "abc"], 0, born_at=0.0)
    lane, batch = Lane(0), Batch(0, opened_at=0.0, deadline=10.0)
    batch.add(call, [0, 1, 2])
    lane.queue(batch)
    lane.put_back([lane.next(lambda: FakeBuilder(100), until=5.0)])  # Two found room, and were not taken.

    again = lane.next(lambda: FakeBuilder(200), until=5.0)

    assert again.stored("events", 7) == [call]
    assert call.outcomes == [Stored("events", 0, offset) for offset in (7, 8, 9)]


async def test_a_confirmation_without_a_place_is_stored_without_an_offset() -> None:
    async with opened() as bench:
        call = await bench.call("a", "b")
        bench.kafka.latest.settle(0, Appended(None))

        assert await call == [Stored("events", 0, None)] * 2


async def test_a_lost_batch_is_unknown_and_its_producer_replaced() -> None:
    async with opened() as bench:
        call = await bench.call("a")
        bench.kafka.latest.settle(0, Lost("OutOfOrderSequenceNumber"))
        assert await call == [Unknown("OutOfOrderSequenceNumber")]
        await bench.turn()

        after = await bench.call("b")
        assert len(bench.kafka.producers) == 2
        bench.kafka.latest.settle(0, Appended(0))
        assert kinds(await after) == [Stored]
        assert bench.publisher.restarts == {"OutOfOrderSequenceNumber": 1}


async def test_a_replaced_producer_is_abandoned() -> None:
    async with opened() as bench:
        await bench.call("a")
        bench.kafka.latest.settle(0, Lost("x"))
        await bench.tick()

        assert [producer.abandoned for producer in bench.kafka.producers] == [True, False]


async def test_no_producer_begins_while_too_many_are_on_their_way_out() -> None:
    async with opened() as bench:
        bench.kafka.may_end.clear()
        for name in "abcdefgh":
            await bench.call(name)
            if bench.kafka.latest.sent:
                bench.kafka.latest.settle(0, TurnedDown("x"))
            await bench.tick()
        assert [producer.abandoned for producer in bench.kafka.producers] == [True] * ENDING_MAX

        bench.kafka.may_end.set()
        await bench.tick()

        assert [producer.abandoned for producer in bench.kafka.producers] == [True] * ENDING_MAX + [False]


async def test_other_partitions_of_a_replaced_producer_still_get_their_answer() -> None:
    async with opened(FakeKafka(partitions=2)) as bench:
        call = await bench.call(*[f"{n}" for n in range(20)])
        first = bench.kafka.latest
        assert len(first.sent) == 2
        first.settle(0, Lost("x"))
        await bench.tick(1)
        assert not first.abandoned

        first.settle(1, Appended(0))

        assert set(kinds(await call)) == {Unknown, Stored}


async def test_a_failure_of_a_replaced_producer_leaves_the_new_one_in_service() -> None:
    async with opened(FakeKafka(partitions=2)) as bench:
        await bench.call(*[f"{n}" for n in range(20)])
        first = bench.kafka.latest
        first.settle(0, Lost("x"))
        await bench.turn()
        first.settle(1, Lost("y"))
        await bench.turn()

        assert bench.publisher.restarts == {"x": 1}
        assert len(bench.kafka.producers) == 2


async def test_a_producer_that_was_denied_is_replaced() -> None:
    async with opened() as bench:
        await bench.call("a")
        bench.kafka.latest.settle(0, Denied("TopicAuthorizationFailed"))
        await bench.turn()

        assert bench.publisher.restarts == {"TopicAuthorizationFailed": 1}
        assert len(bench.kafka.producers) == 2


async def test_one_bad_record_is_refused_and_its_company_stored_in_order() -> None:
    async with opened() as bench:
        call = await bench.call("a", "b", "bad", "c", "d")
        stored: list[bytes] = []
        while not call.done():
            producer = bench.kafka.latest
            for keys, _, settled in list(producer.sent):
                producer.sent.clear()
                if b"bad" in keys:
                    settled(TurnedDown("MessageSizeTooLarge"))
                else:
                    settled(Appended(len(stored)))
                    stored += keys
            await bench.turn()

        assert kinds(await call) == [Stored, Stored, Refused, Stored, Stored]
        assert stored == [b"a", b"b", b"c", b"d"]


async def test_what_a_replaced_producer_was_turned_down_goes_out_in_parts_by_the_new_one_at_once() -> None:
    async with opened(FakeKafka(partitions=2)) as bench:
        await bench.call(*[f"{n}" for n in range(20)])
        first = bench.kafka.latest
        first.settle(0, Lost("x"))
        await bench.turn()

        first.settle(1, TurnedDown("InvalidRecord"))
        await bench.turn()

        keys = first.keys[1]
        assert bench.kafka.latest.keys == [keys[: (len(keys) + 1) // 2]]


async def test_the_company_of_a_bad_record_is_stored_even_if_batches_became_smaller_meanwhile() -> None:
    async with opened() as bench:
        call = await bench.call(*[f"{n}" for n in range(12)], value=b"x" * 50)
        bench.kafka.found = Topic(message_bytes_max=100)
        bench.publisher._watch.look_soon()
        await bench.tick()
        bench.kafka.latest.settle(0, TurnedDown("MessageSizeTooLarge"))
        for part in range(6):
            await bench.turn()
            bench.kafka.latest.settle(part, Appended(2 * part))

        assert await call == [Stored("events", 0, n) for n in range(12)]


async def test_a_batch_that_may_not_be_written_is_not_stored() -> None:
    async with opened() as bench:
        call = await bench.call("a")
        bench.kafka.latest.settle(0, Denied("TopicAuthorizationFailed"))

        assert await call == [NotStored("TopicAuthorizationFailed")]


async def test_a_batch_that_a_producer_does_not_take_is_sent_by_the_next() -> None:
    async with opened() as bench:
        bench.kafka.latest.not_taken = NotTaken("the producer is closed")
        call = await bench.call("a")
        bench.kafka.latest.settle(0, Appended(1))

        assert len(bench.kafka.producers) == 2
        assert kinds(await call) == [Stored]


async def test_producers_that_never_do_any_good_are_replaced_ever_more_slowly() -> None:
    async with opened() as bench:
        for _ in range(4):
            await bench.call("a")
            bench.kafka.latest.settle(0, Lost("x"))
            await bench.turn()
            bench.woken.set()
            await bench.turn()

        assert bench.naps == pytest.approx([0.075, 0.15, 0.3])
        assert len(bench.kafka.producers) == 5


async def test_a_dead_producer_is_replaced_and_what_it_had_is_unknown() -> None:
    async with opened() as bench:
        warm = await bench.call("a")
        bench.kafka.latest.settle(0, Appended(0))
        await warm
        call, waiting = await bench.call("b"), await bench.call("c")
        bench.kafka.latest.dead = True
        await bench.tick()

        assert kinds(await call) == [Unknown]
        assert bench.kafka.producers[0].abandoned
        bench.kafka.latest.settle(0, Appended(1))
        assert kinds(await waiting) == [Stored]


async def test_no_confirmation_within_the_deadline_is_unknown() -> None:
    async with opened() as bench:
        call = await bench.call("a")
        await bench.tick(TIMEOUT_S)

        assert kinds(await call) == [Unknown]
        assert bench.publisher.restarts == {"no progress": 1}


async def test_what_was_never_sent_within_the_deadline_is_not_stored_and_never_sent() -> None:
    async with opened() as bench:
        bench.kafka.leaderless = {0}
        call = await bench.call("a")
        await bench.tick(TIMEOUT_S)
        assert kinds(await call) == [NotStored]

        bench.kafka.leaderless = set()
        await bench.tick(1)

        assert [producer.keys for producer in bench.kafka.producers] == [[]]


async def test_a_partition_is_served_as_soon_as_it_has_a_leader_again() -> None:
    async with opened() as bench:
        bench.kafka.leaderless = {0}
        call = await bench.call("a")
        await bench.tick(1)
        assert bench.kafka.latest.looked_again
        bench.kafka.leaderless = set()

        await bench.tick()

        bench.kafka.latest.settle(0, Appended(0))
        assert kinds(await call) == [Stored]


async def test_who_comes_late_to_a_stuck_lane_gets_a_batch_with_more_time() -> None:
    async with opened() as bench:
        bench.kafka.leaderless = {0}
        early = await bench.call("a")
        await bench.tick(5)
        late = await bench.call("b")
        await bench.tick(5)

        assert early.done()
        assert not late.done()
        await bench.tick(TIMEOUT_S)


async def test_a_late_confirmation_is_counted_and_changes_no_answer() -> None:
    async with opened() as bench:
        call = await bench.call("a")
        await bench.tick(TIMEOUT_S)
        bench.kafka.producers[0].settle(0, Appended(0))

        assert kinds(await call) == [Unknown]
        assert bench.publisher.late_acks == 1


async def test_a_late_confirmation_stands_for_no_other_batch() -> None:
    async with opened() as bench:
        await bench.call("a")
        await bench.tick(TIMEOUT_S)
        call = await bench.call("b")
        assert bench.kafka.latest.keys == [[b"b"]]

        bench.kafka.producers[0].settle(0, Appended(0))
        await bench.turn()
        assert not call.done()

        bench.kafka.latest.settle(0, Lost("x"))
        assert await call == [Unknown("x")]


async def test_answers_in_the_sockets_are_read_first_after_the_loop_was_held_up() -> None:
    async with opened() as bench:
        call = await bench.call("a")
        bench.now += 60
        bench.publisher.tick()
        bench.kafka.latest.settle(0, Appended(0))

        assert kinds(await call) == [Stored]


async def test_a_producer_is_replaced_before_its_numbers_run_out() -> None:
    async with opened() as bench:
        bench.kafka.latest.sequences[0] = SEQUENCE_MAX - 1
        call = await bench.call("a", "b")

        assert bench.kafka.producers[0].keys == []
        bench.kafka.latest.settle(0, Appended(0))
        assert kinds(await call) == [Stored, Stored]


async def test_a_producer_is_replaced_when_it_is_old() -> None:
    async with opened() as bench:
        bench.now += AGE_MAX_S
        await bench.tick()
        await bench.tick()

        assert bench.publisher.restarts == {"age": 1}
        assert len(bench.kafka.producers) == 2


async def test_while_kafka_is_away_nobody_waits() -> None:
    kafka = FakeKafka()
    kafka.away = "no Kafka broker answered"
    async with opened(kafka) as bench:
        assert await bench.answer("a") == [NotStored("no Kafka broker answered")]
        with pytest.raises(Unavailable, match="no Kafka broker answered"):
            await bench.publisher.ping()


async def test_the_publisher_recovers_by_itself_when_kafka_comes_back() -> None:
    kafka = FakeKafka()
    kafka.away = "no Kafka broker answered"
    async with opened(kafka) as bench:
        kafka.away = ""
        bench.woken.set()
        await bench.tick(3)

        call = await bench.call("a")
        kafka.latest.settle(0, Appended(0))
        assert kinds(await call) == [Stored]


async def test_attempts_to_connect_become_rare_and_never_end() -> None:
    kafka = FakeKafka()
    kafka.away = "no Kafka broker answered"
    async with opened(kafka) as bench:
        for _ in range(12):
            bench.woken.set()
            await bench.turn()

    assert bench.naps[:3] == pytest.approx([0.075, 0.15, 0.3])
    assert max(bench.naps) == bench.naps[-1] == pytest.approx(3.75)
    assert all(producer.abandoned for producer in kafka.producers)


async def test_a_start_that_hangs_is_given_up() -> None:
    bench = Bench(FakeKafka())
    bench.kafka.starting_hangs = True
    opening = asyncio.create_task(bench.publisher.open())
    await bench.turn()
    await bench.tick(START_TIMEOUT_S)
    await opening

    assert kinds(await bench.answer("a")) == [NotStored]
    assert bench.kafka.producers[0].abandoned
    await bench.publisher.close()


async def test_a_full_queue_takes_nothing_more_and_recovers() -> None:
    async with opened(queue_records_max=2) as bench:
        call = await bench.call("a", "b")
        assert await bench.answer("c") == [NotStored("queue full")]

        bench.kafka.latest.settle(0, Appended(0))
        await call

        assert (await bench.call("d")).done() is False


async def test_the_queue_is_bounded_in_bytes() -> None:
    async with opened(queue_bytes_max=1000) as bench:
        await bench.call("a", value=b"x" * 900)

        assert await bench.answer("b", value=b"x" * 900) == [NotStored("queue full")]


async def test_a_record_over_the_topics_limit_is_refused_unsent() -> None:
    kafka = FakeKafka()
    kafka.found = Topic(message_bytes_max=100)
    async with opened(kafka) as bench:
        call = await bench.call("large", value=b"x" * 101)

        assert await call == [Refused("larger than the topic's 100 bytes")]
        assert kafka.latest.keys == []


async def test_a_full_batch_makes_room_for_the_next_in_order() -> None:
    kafka = FakeKafka()
    kafka.found = Topic(message_bytes_max=100)
    async with opened(kafka) as bench:
        call = await bench.call("a", "b", "c", value=b"x" * 50)
        kafka.latest.settle(0, Appended(0))
        await bench.turn()
        kafka.latest.settle(1, Appended(2))

        assert kafka.latest.keys == [[b"a", b"b"], [b"c"]]
        assert await call == [Stored("events", 0, n) for n in range(3)]


async def test_what_finds_no_room_goes_before_what_came_later() -> None:
    kafka = FakeKafka()
    kafka.found = Topic(message_bytes_max=100)
    async with opened(kafka) as bench:
        kafka.leaderless = {0}
        await bench.call("a", "b", "c", value=b"x" * 50)
        await bench.tick(2)  # Who comes now gets a batch of his own.
        await bench.call("d", value=b"x" * 50)
        kafka.leaderless = set()
        await bench.tick()
        kafka.latest.settle(0, Appended(0))
        await bench.turn()

        assert kafka.latest.keys == [[b"a", b"b"], [b"c", b"d"]]


async def test_an_unsafe_topic_gets_nothing() -> None:
    kafka = FakeKafka()
    kafka.found = Topic(dangers=("min.insync.replicas is 1, needs 2",))
    async with opened(kafka) as bench:
        assert await bench.answer("a") == [NotStored("min.insync.replicas is 1, needs 2")]
        with pytest.raises(Unavailable, match=r"min\.insync\.replicas"):
            await bench.publisher.ping()


async def test_a_topic_that_becomes_unsafe_gets_nothing_within_a_minute() -> None:
    async with opened() as bench:
        bench.kafka.found = Topic(dangers=("cleanup.policy is compact",))
        await bench.tick(LOOK_S)

        assert kinds(await bench.answer("a")) == [NotStored]


async def test_a_topic_that_was_made_safe_is_used_within_seconds() -> None:
    kafka = FakeKafka()
    kafka.found = Topic(dangers=("cleanup.policy is compact",))
    async with opened(kafka) as bench:
        kafka.found = Topic()
        await bench.tick(LOOK_AGAIN_S)

        call = await bench.call("a")
        kafka.latest.settle(0, Appended(0))
        assert kinds(await call) == [Stored]


async def test_a_topic_that_could_not_be_looked_at_gets_nothing() -> None:
    class Silent(FakeKafka):
        async def topic(self) -> Topic:
            raise Unavailable("Kafka does not say how events is set")

    async with opened(Silent()) as bench:
        assert await bench.answer("a") == [NotStored("Kafka does not say how events is set")]


async def test_a_topic_that_disappears_gets_nothing() -> None:
    async with opened() as bench:
        bench.kafka.partition_count = 0
        await bench.tick()

        assert await bench.answer("a") == [NotStored("the topic events is missing")]


async def test_partitions_that_are_added_are_used() -> None:
    async with opened() as bench:
        bench.kafka.partition_count = 4
        bench.kafka.latest.sequences = dict.fromkeys(range(4), 0)
        await bench.tick()
        await bench.call(*[f"{n}" for n in range(40)])

        assert {partition for _, partition, _ in bench.kafka.latest.sent} == {0, 1, 2, 3}


async def test_ping_asks_a_broker_only_if_no_confirmation_has_just_come() -> None:
    async with opened() as bench:
        await bench.publisher.ping()
        assert bench.kafka.reached == 1
        call = await bench.call("a")
        bench.kafka.latest.settle(0, Appended(0))
        await call

        await bench.publisher.ping()

        assert bench.kafka.reached == 1


async def test_ping_raises_while_confirmations_do_not_come() -> None:
    async with opened() as bench:
        await bench.call("a")
        await bench.tick(4)

        with pytest.raises(Unavailable, match="no confirmation"):
            await bench.publisher.ping()


async def test_after_a_call_that_waited_in_vain_only_a_confirmation_makes_ping_return() -> None:
    async with opened() as bench:
        lost = await bench.call("a")
        await bench.tick(11)
        assert isinstance((await lost)[0], Unknown)
        await bench.call("b")
        await bench.tick(1)
        with pytest.raises(Unavailable, match="no confirmation"):
            await bench.publisher.ping()

        bench.kafka.latest.settle(0, Appended(0))
        await bench.call("c")
        await bench.tick(1)

        await bench.publisher.ping()


async def test_that_nobody_waits_after_a_call_in_vain_is_no_sign_of_health_for_ten_seconds() -> None:
    async with opened() as bench:
        lost = await bench.call("a")
        await bench.tick(11)
        assert isinstance((await lost)[0], Unknown)
        await bench.tick(8)
        with pytest.raises(Unavailable, match="waited in vain"):
            await bench.publisher.ping()

        await bench.tick(3)

        await bench.publisher.ping()


async def test_a_cancelled_call_withdraws_nothing_and_gives_its_room_back() -> None:
    async with opened(queue_records_max=1) as bench:
        call = await bench.call("a")
        call.cancel()
        await bench.turn()
        assert await bench.answer("b") == [NotStored("queue full")]

        bench.kafka.latest.settle(0, Appended(0))

        assert (await bench.call("c")).done() is False


async def test_close_tells_those_whose_batch_is_out_that_it_is_unknown() -> None:
    async with opened() as bench:
        out, waiting = await bench.call("a"), await bench.call("b")
        closing = asyncio.create_task(bench.publisher.close())
        await bench.turn()
        bench.publisher._give_up_waiting("closed")
        await bench.publisher._generations.close()
        await closing

        assert kinds(await out) == [Unknown]
        assert kinds(await waiting) == [NotStored]
        assert bench.kafka.latest.abandoned


async def test_close_waits_for_what_is_about_to_be_confirmed() -> None:
    async with opened() as bench:
        call = await bench.call("a")
        closing = asyncio.create_task(bench.publisher.close())
        await bench.turn()
        bench.kafka.latest.settle(0, Appended(0))
        await closing

        assert kinds(await call) == [Stored]


async def test_a_producer_that_comes_of_age_while_all_end_has_no_successor_that_nobody_ends() -> None:
    async with opened() as bench:
        bench.now += AGE_MAX_S
        closing = asyncio.create_task(bench.publisher.close())
        while not closing.done():
            await asyncio.sleep(0)
            bench.publisher.tick()
        await bench.turn()

        assert [producer.abandoned for producer in bench.kafka.producers] == [True]


class Whim(FakeProducer):
    """A producer that does to each batch what is drawn, over a log of what is really there."""

    def __init__(self, kafka: "WhimsicalKafka") -> None:
        super().__init__(kafka)
        self._whims = kafka

    def send(self, batch: Builder, partition: int, settled: Callable[[Verdict], None], /) -> None:
        assert isinstance(batch, FakeBuilder)
        fate = self._whims.draw()
        if fate == "not taken":
            raise NotTaken(fate)
        if fate == "dies":
            self.dead = True
        if b"bad" in b"".join(batch.keys):
            settled(TurnedDown("bad"))
            return
        if fate in ("stored", "stored, answer lost", "stored, no answer", "stored, late answer"):
            base = len(self._whims.log)
            self._whims.log += batch.keys
        verdicts: dict[str, Verdict] = {"stored, answer lost": Lost(fate), "lost": Lost(fate), "denied": Denied(fate)}
        if fate == "stored":
            settled(Appended(base))
        elif fate == "stored, late answer":
            self._whims.late.append(lambda: settled(Appended(base)))
        elif fate in verdicts:
            settled(verdicts[fate])


class WhimsicalKafka(FakeKafka):
    def __init__(self, draw: Callable[[], str]) -> None:
        super().__init__(partitions=1)
        self.draw = draw
        self.log: list[bytes] = []
        self.late: list[Callable[[], None]] = []

    def producer(self) -> FakeProducer:
        self.producers.append(Whim(self))
        return self.producers[-1]


FATES = st.sampled_from(
    [
        "stored",
        "stored, answer lost",
        "stored, no answer",
        "stored, late answer",
        "lost",
        "denied",
        "hangs",
        "dies",
        "not taken",
    ]
)


@given(
    calls=st.lists(st.lists(st.sampled_from(["good", "good", "good", "bad"]), min_size=1, max_size=5), max_size=5),
    data=st.data(),
)
@settings(max_examples=30, deadline=None)
def test_whatever_kafka_does_no_answer_is_false(calls: list[list[str]], data: st.DataObject) -> None:
    async def live() -> None:
        kafka = WhimsicalKafka(lambda: data.draw(FATES))
        async with opened(kafka) as bench:
            tasks = []
            for number, call in enumerate(calls):
                tasks.append(await bench.call(*[f"{number}-{n}-{kind}" for n, kind in enumerate(call)]))
                bench.woken.set()
                await bench.tick(data.draw(st.sampled_from([0.0, 0.5, 5.0])))
            for late in kafka.late:
                late()
            await bench.tick(TIMEOUT_S)
            for number, (call, task) in enumerate(zip(calls, tasks, strict=True)):
                assert task.done()
                for n, (kind, outcome) in enumerate(zip(call, task.result(), strict=True)):
                    key = f"{number}-{n}-{kind}".encode()
                    check(key, outcome, kafka.log)

    run(live())


def check(key: bytes, outcome: Outcome, log: list[bytes]) -> None:
    match outcome:
        case Stored(offset=offset):
            assert offset is not None
            assert log[offset] == key
            assert log.count(key) == 1
        case NotStored() | Refused():
            assert key not in log
        case Unknown():
            assert log.count(key) <= 1
