"""The librdkafka publisher over lines that do what each test says; and a line over no broker and a pretended one."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from confluent_kafka import KafkaError

from customersignal_ingest.adapters.outbound.kafka.librdkafka.client import Librdkafka, PolledLine, everyday_settings
from customersignal_ingest.adapters.outbound.kafka.librdkafka.delivery import (
    Burst,
    Call,
    Failure,
    Line,
    Lost,
    NotSent,
    NotTaken,
    Told,
    TurnedDown,
)
from customersignal_ingest.adapters.outbound.kafka.librdkafka.publisher import BATCH_BYTES_MAX, LibrdkafkaPublisher
from customersignal_ingest.adapters.outbound.kafka.librdkafka.size import alone_bytes
from customersignal_ingest.adapters.outbound.kafka.options import Options, Security
from customersignal_ingest.adapters.outbound.kafka.topic import Topic
from customersignal_ingest.domain.errors import ConfigurationError, Unavailable
from customersignal_ingest.domain.event import Record
from customersignal_ingest.domain.outcome import NotStored, Outcome, Refused, Stored, Unknown

pytestmark = pytest.mark.anyio

TIMEOUT_S = 10.0


def a_record(name: str, *, value: bytes = b"{}") -> Record:
    return Record(key=name.encode(), value=value, headers=(), timestamp_ms=1, tenant_id="acme", event_id=name)


class FakeLine:
    """A line whose records wait for the test's report."""

    def __init__(self, told: Told, batch_bytes_max: int) -> None:
        self._told = told
        self.batch_bytes_max = batch_bytes_max
        self.sent: list[tuple[Call, int]] = []
        self.out = 0
        self.not_taken = ""
        self.cause = ""
        self.is_lonely = False
        self.ending = asyncio.Event()
        self.hangs = False

    def send(self, call: Call, index: int, /) -> None:
        if self.not_taken:
            raise NotTaken(self.not_taken)
        self.sent.append((call, index))
        self.out += 1

    def dead(self) -> str:
        return self.cause

    def lonely(self) -> bool:
        lonely, self.is_lonely = self.is_lonely, False
        return lonely

    def end(self) -> None:
        self.ending.set()

    async def ended(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()

    @property
    def names(self) -> list[str]:
        return [call.records[index].event_id for call, index in self.sent]

    def store(self, *numbers: int, offset: int | None = 0) -> None:
        """Confirm the nth records that were sent."""
        self.out -= len(numbers)
        self._told(self, Burst(stored=[(*self.sent[n], 0, None if offset is None else offset + n) for n in numbers]))

    def fail(self, failure: Failure, *numbers: int) -> None:
        self.out -= len(numbers)
        self._told(self, Burst(failed=[(*self.sent[n], failure) for n in numbers]))


class FakeKafka:
    def __init__(self) -> None:
        self.lines: list[FakeLine] = []
        self.careful_lines: list[FakeLine] = []
        self.away = ""
        self.found = Topic()
        self.reached = self.looked = 0

    def line(self, told: Told, /, *, batch_bytes_max: int) -> Line:
        self.lines.append(FakeLine(told, batch_bytes_max))
        return self.lines[-1]

    def careful_line(self, told: Told, /) -> Line:
        self.careful_lines.append(FakeLine(told, 1))
        return self.careful_lines[-1]

    async def topic(self) -> Topic:
        self.looked += 1
        return self.found

    async def reach(self) -> object:
        self.reached += 1
        if self.away:
            raise Unavailable(self.away)
        return None


class Bench:
    """A publisher, its Kafka, and the test's hand on the clock."""

    def __init__(self, kafka: FakeKafka, **bounds: int) -> None:
        self.kafka, self.now_s = kafka, 1000.0
        options = Options(
            servers=("kafka:9092",),
            topic="events_raw",
            client_id="test",
            publish_timeout_s=TIMEOUT_S,
            event_bytes_max=900_000,
        )
        self.publisher = LibrdkafkaPublisher(options, kafka, clock=lambda: self.now_s, sleep=self._never, **bounds)

    async def _never(self, _seconds: float) -> None:
        await asyncio.Event().wait()

    @property
    def line(self) -> FakeLine:
        return self.kafka.lines[-1]

    async def publish(self, *records: Record) -> "asyncio.Task[Sequence[Outcome]]":
        """Begin to publish, and return once the records were handed over."""
        task = asyncio.create_task(self.publisher.publish(records))
        await asyncio.sleep(0)
        return task

    async def answer(self, *records: Record) -> Sequence[Outcome]:
        """Publish where nothing has to be reported first."""
        call = await self.publish(*records)
        assert call.done(), "it waits for something"
        return call.result()

    async def passes(self, seconds: float) -> None:
        """Let time pass, a tick at a time."""
        for _ in range(round(seconds * 10)):
            self.now_s += 0.1
            self.publisher.tick()
            for _ in range(4):
                await asyncio.sleep(0)


@asynccontextmanager
async def opened(kafka: FakeKafka | None = None, **bounds: int) -> AsyncIterator[Bench]:
    bench = Bench(kafka or FakeKafka(), **bounds)
    await bench.publisher.open()
    try:
        yield bench
    finally:
        for line in [*bench.kafka.lines, *bench.kafka.careful_lines]:
            line.hangs = False
        while (call := bench.publisher._in_flight.oldest()) is not None:  # Who still waits would be waited for.
            bench.publisher._in_flight.answer(call)
        await bench.publisher.close()


async def test_a_confirmed_record_is_stored_at_its_place() -> None:
    async with opened() as bench:
        task = await bench.publish(a_record("a"), a_record("b"))
        bench.line.store(0, 1, offset=7)

        assert await task == [Stored("events_raw", 0, 7), Stored("events_raw", 0, 8)]


async def test_a_record_that_the_broker_had_already_is_stored_at_no_place() -> None:
    async with opened() as bench:
        task = await bench.publish(a_record("a"))
        bench.line.store(0, offset=None)

        assert await task == [Stored("events_raw", 0, None)]


async def test_what_is_not_confirmed_by_the_deadline_is_unknown_and_the_rest_is_not() -> None:
    async with opened() as bench:
        task = await bench.publish(a_record("a"), a_record("b"))
        bench.line.store(0)
        await bench.passes(TIMEOUT_S - 0.2)

        assert [type(outcome) for outcome in await task] == [Stored, Unknown]


async def test_a_confirmation_after_the_deadline_is_counted() -> None:
    async with opened() as bench:
        task = await bench.publish(a_record("a"))
        await bench.passes(TIMEOUT_S)
        await task
        bench.line.store(0)

        assert bench.publisher.late_acks == 1


async def test_a_record_that_the_line_does_not_take_is_not_stored() -> None:
    async with opened() as bench:
        bench.line.not_taken = "queue full"

        assert await bench.answer(a_record("a")) == [NotStored("queue full")]


@pytest.mark.parametrize("bounds", [{"queue_records_max": 1}, {"queue_bytes_max": 5}])
async def test_what_does_not_fit_into_the_queue_is_not_stored(bounds: dict[str, int]) -> None:
    async with opened(**bounds) as bench:
        await bench.publish(a_record("a"))

        assert await bench.answer(a_record("b")) == [NotStored("queue full")]


async def test_a_record_over_the_topics_limit_is_refused_unsent() -> None:
    kafka = FakeKafka()
    kafka.found = Topic(message_bytes_max=5000)
    async with opened(kafka) as bench:
        outcomes = await bench.answer(a_record("a", value=b"x" * 5000))

    assert [type(outcome) for outcome in outcomes] == [Refused]
    assert [line.names for line in kafka.lines] == [[], []]


async def test_the_largest_record_that_fits_is_sent() -> None:
    record = a_record("a", value=b"x" * 5000)
    kafka = FakeKafka()
    kafka.found = Topic(message_bytes_max=alone_bytes(record))
    async with opened(kafka) as bench:
        await bench.publish(record)

        assert bench.line.names == ["a"]


async def test_batches_stay_below_the_topics_limit() -> None:
    kafka = FakeKafka()
    async with opened(kafka) as bench:
        kafka.found = Topic(message_bytes_max=100_000)
        await bench.passes(61)

        assert [line.batch_bytes_max for line in kafka.lines] == [BATCH_BYTES_MAX, 100_000]


async def test_a_line_with_an_old_limit_may_deliver_what_it_has() -> None:
    kafka = FakeKafka()
    async with opened(kafka) as bench:
        await bench.passes(59)
        kafka.found = Topic(message_bytes_max=100_000)
        task = await bench.publish(a_record("a"))
        await bench.passes(1.2)
        assert len(kafka.lines) == 2
        kafka.lines[0].store(0)

        assert [type(outcome) for outcome in await task] == [Stored]


async def test_what_was_turned_down_in_company_is_sent_again_alone_and_stored() -> None:
    async with opened() as bench:
        task = await bench.publish(a_record("a"), a_record("b"))
        bench.line.fail(TurnedDown("MSG_SIZE_TOO_LARGE", certain=True), 0, 1)
        careful = bench.kafka.careful_lines[0]
        careful.store(0)
        careful.fail(TurnedDown("MSG_SIZE_TOO_LARGE", certain=True), 1)

        assert careful.names == ["a", "b"]
        assert [type(outcome) for outcome in await task] == [Stored, Refused]


async def test_a_record_is_refused_only_if_nothing_of_it_was_appended_before() -> None:
    async with opened() as bench:
        task = await bench.publish(a_record("a"))
        bench.line.fail(TurnedDown("INVALID_TIMESTAMP", certain=False), 0)
        bench.kafka.careful_lines[0].fail(TurnedDown("INVALID_TIMESTAMP", certain=True), 0)

        assert [type(outcome) for outcome in await task] == [Unknown]


async def test_the_careful_line_ends_when_it_is_not_needed() -> None:
    async with opened() as bench:
        task = await bench.publish(a_record("a"))
        bench.line.fail(TurnedDown("INVALID_RECORD", certain=True), 0)
        bench.kafka.careful_lines[0].store(0)
        await task
        await bench.passes(11)

        assert bench.kafka.careful_lines[0].ending.is_set()


@pytest.mark.parametrize(("failure", "outcome"), [(NotSent("X"), NotStored("X")), (Lost("Y"), Unknown("Y"))])
async def test_only_what_was_certainly_not_sent_is_not_stored(failure: Failure, outcome: Outcome) -> None:
    async with opened() as bench:
        task = await bench.publish(a_record("a"))
        bench.line.fail(failure, 0)

        assert await task == [outcome]


async def test_a_dead_line_is_replaced_within_a_second_and_counted() -> None:
    async with opened() as bench:
        await bench.passes(5)
        bench.line.cause = "INVALID_PRODUCER_EPOCH"
        await bench.passes(0.2)

        assert bench.publisher.restarts == {"INVALID_PRODUCER_EPOCH": 1}
        assert [line.ending.is_set() for line in bench.kafka.lines] == [True, False]


async def test_a_line_that_dies_at_once_again_and_again_is_not_replaced_all_the_time() -> None:
    async with opened() as bench:
        for _ in range(50):
            bench.line.cause = "fatal"
            await bench.passes(0.1)

        assert len(bench.kafka.lines) <= 12


async def test_a_line_that_says_nothing_for_long_is_replaced() -> None:
    async with opened() as bench:
        await bench.publish(a_record("a"))
        await bench.passes(TIMEOUT_S + 3)

        assert bench.publisher.restarts == {"no progress": 1}


async def test_without_a_broker_nothing_is_taken_and_it_recovers_by_itself() -> None:
    kafka = FakeKafka()
    kafka.away = "no Kafka broker answered"
    async with opened(kafka) as bench:
        refused = await bench.answer(a_record("a"))
        kafka.away = ""
        await bench.passes(1)
        await bench.publish(a_record("b"))

        assert refused == [NotStored("no Kafka broker answered")]
        assert bench.line.names == ["b"]


async def test_brokers_that_leave_later_are_noticed_while_records_wait() -> None:
    async with opened() as bench:
        await bench.publish(a_record("a"))
        bench.kafka.away = "no Kafka broker answered"
        await bench.passes(2)

        assert await bench.answer(a_record("b")) == [NotStored("no Kafka broker answered")]


async def test_brokers_that_leave_later_are_noticed_when_the_line_says_so() -> None:
    async with opened() as bench:
        bench.kafka.away = "no Kafka broker answered"
        bench.line.is_lonely = True
        await bench.passes(0.7)

        assert await bench.answer(a_record("a")) == [NotStored("no Kafka broker answered")]


async def test_an_unsafe_topic_gets_nothing() -> None:
    kafka = FakeKafka()
    kafka.found = Topic(dangers=("min.insync.replicas is 1",))
    async with opened(kafka) as bench:
        outcomes = await bench.answer(a_record("a"))
        with pytest.raises(Unavailable, match=r"min\.insync\.replicas is 1"):
            await bench.publisher.ping()

    assert outcomes == [NotStored("min.insync.replicas is 1")]


async def test_the_topic_is_looked_at_every_minute() -> None:
    async with opened() as bench:
        await bench.passes(121)

        assert bench.kafka.looked == 3


async def test_ping_asks_for_a_sign_of_life_unless_a_confirmation_has_just_come() -> None:
    async with opened() as bench:
        await bench.publish(a_record("a"))
        bench.line.store(0)
        bench.kafka.away = "no Kafka broker answered"
        await bench.publisher.ping()
        bench.now_s += 2

        with pytest.raises(Unavailable, match="no Kafka broker answered"):
            await bench.publisher.ping()


async def test_ping_says_when_no_confirmation_comes() -> None:
    async with opened() as bench:
        await bench.publish(a_record("a"))
        bench.now_s += 4

        with pytest.raises(Unavailable, match="no confirmation for 3 s"):
            await bench.publisher.ping()


async def test_after_a_call_that_waited_in_vain_only_a_confirmation_makes_ping_return() -> None:
    async with opened() as bench:
        lost = await bench.publish(a_record("a"))
        await bench.passes(11)
        assert isinstance((await lost)[0], Unknown)
        line = bench.line
        await bench.publish(a_record("b"))
        await bench.passes(1)
        with pytest.raises(Unavailable, match="no confirmation"):
            await bench.publisher.ping()

        line.store(line.names.index("b"))
        await bench.publish(a_record("c"))
        await bench.passes(1)

        await bench.publisher.ping()


async def test_that_nobody_waits_after_a_call_in_vain_is_no_sign_of_health_for_ten_seconds() -> None:
    async with opened() as bench:
        lost = await bench.publish(a_record("a"))
        await bench.passes(11)
        assert isinstance((await lost)[0], Unknown)
        await bench.passes(8)
        with pytest.raises(Unavailable, match="waited in vain"):
            await bench.publisher.ping()

        await bench.passes(3)

        await bench.publisher.ping()


async def test_a_loop_that_was_held_up_reads_confirmations_before_anything_expires() -> None:
    async with opened() as bench:
        task = await bench.publish(a_record("a"))
        bench.now_s += 20
        bench.publisher.tick()
        bench.line.store(0)

        assert [type(outcome) for outcome in await task] == [Stored]


async def test_close_waits_for_what_is_out() -> None:
    async with opened() as bench:
        task = await bench.publish(a_record("a"))
        closing = asyncio.create_task(bench.publisher.close())
        await asyncio.sleep(0)
        bench.line.store(0)
        await closing

        assert [type(outcome) for outcome in await task] == [Stored]


async def test_after_close_no_line_begins() -> None:
    async with opened() as bench:
        line = bench.line
        await bench.publisher.close()
        line.cause = "fatal"
        await bench.passes(2)

        assert bench.kafka.lines == [line]


def records(*names: str) -> Call:
    return Call([a_record(name) for name in names], 0, born_at=0)


class Listener:
    """Waits for what a line tells."""

    def __init__(self) -> None:
        self.bursts: list[Burst] = []
        self._news = asyncio.Event()

    def __call__(self, _line: Line, burst: Burst) -> None:
        self.bursts.append(burst)
        self._news.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(20):
            while sum(map(len, self.bursts)) < count:
                self._news.clear()
                await self._news.wait()


async def test_a_line_reports_every_record_and_leaves_nothing_behind() -> None:
    told = Listener()
    pretended = {"bootstrap.servers": "nobody:1", "test.mock.num.brokers": 1, "log_level": 0, "linger.ms": 5}
    line = PolledLine("events_raw", pretended, told)
    call = records("a", "b", "c")
    for index in range(3):
        line.send(call, index)

    await told.until(3)
    line.end()
    async with asyncio.timeout(20):
        await line.ended()

    stored = [entry[:2] for burst in told.bursts for entry in burst.stored]
    assert sorted(index for _, index in stored) == [0, 1, 2]
    assert line.out == 0


async def test_while_nothing_is_confirmed_a_line_looks_where_partitions_are_led() -> None:
    """librdkafka by itself would ask once a second, for which a partition has a leader again and gets nothing."""
    told, asked = Listener(), [0]

    def count(statistics: str) -> None:
        brokers = json.loads(statistics)["brokers"].values()
        asked.append(sum(broker["req"].get("Metadata", 0) for broker in brokers))

    slow = {"test.mock.num.brokers": 1, "test.mock.broker.rtt": 500, "log_level": 0, "linger.ms": 5}
    line = PolledLine(
        "events_raw", slow | {"bootstrap.servers": "nobody:1", "statistics.interval.ms": 50, "stats_cb": count}, told
    )
    line.send(records("a"), 0)
    await told.until(1)
    line.send(records("b"), 0)
    before = asked[-1]
    await told.until(2)
    line.end()
    async with asyncio.timeout(20):
        await line.ended()

    assert asked[-1] >= before + 2


async def test_a_line_without_a_broker_withdraws_what_it_has_when_it_ends() -> None:
    told = Listener()
    options = Options(
        servers=("127.0.0.1:1",), topic="events_raw", client_id="test", publish_timeout_s=10, event_bytes_max=900_000
    )
    line = Librdkafka(options).line(told, batch_bytes_max=BATCH_BYTES_MAX)
    line.send(records("a"), 0)

    line.end()
    async with asyncio.timeout(20):
        await line.ended()

    assert [type(failure) for burst in told.bursts for _, _, failure in burst.failed] in ([NotSent], [Lost])


class Late:
    """A record that librdkafka reports on so many seconds after it was handed over."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def latency(self) -> float:
        return self._seconds


async def failure(code: int, seconds: float, *, once: bool = False) -> Failure:
    """Return what a line makes of an error."""
    line = PolledLine("events_raw", {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}, Listener(), once=once)
    line.end()
    return line._failure(KafkaError(code), Late(seconds))


@pytest.mark.parametrize(
    ("seconds", "once", "certain"), [(0.1, False, True), (0.3, False, False), (-1.0, False, False), (0.3, True, True)]
)
async def test_what_is_turned_down_was_certainly_not_appended_at_the_first_attempt_only(
    seconds: float, once: bool, certain: bool
) -> None:
    said = await failure(KafkaError.MSG_SIZE_TOO_LARGE, seconds, once=once)

    assert said == TurnedDown("MSG_SIZE_TOO_LARGE", certain)


@pytest.mark.parametrize(
    ("code", "seconds", "kind"),
    [
        (KafkaError._PURGE_QUEUE, 0.1, NotSent),
        (KafkaError._PURGE_QUEUE, 0.3, Lost),  # An earlier attempt may have arrived.
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, 0.1, NotSent),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, 0.3, Lost),
        (KafkaError._PURGE_INFLIGHT, 0.1, Lost),
        (KafkaError._MSG_TIMED_OUT, 0.1, Lost),
        (KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND, 0.1, Lost),
        (KafkaError._TRANSPORT, 0.1, Lost),
    ],
)
async def test_only_what_never_left_is_certainly_not_sent(code: int, seconds: float, kind: type[Failure]) -> None:
    assert type(await failure(code, seconds)) is kind


def test_over_tls_certificates_and_names_are_verified() -> None:
    options = Options(
        servers=("kafka:9093",),
        topic="events_raw",
        client_id="test",
        publish_timeout_s=TIMEOUT_S,
        event_bytes_max=900_000,
        security=Security(protocol="SSL"),
    )

    settings = everyday_settings(options, 1)

    assert settings["enable.ssl.certificate.verification"] is True
    assert settings["ssl.endpoint.identification.algorithm"] == "https"


async def test_settings_that_librdkafka_does_not_take_are_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="librdkafka can't be set up"):
        PolledLine("events_raw", {"no.such.setting": 1}, Listener())


@pytest.mark.parametrize(
    ("record", "size"),
    [
        # By the layout of Kafka's record batch, version 2: 61 bytes, then length and body of the record.
        (a_record("a", value=b""), 61 + 1 + 7),
        (a_record("a", value=b"x" * 64), 61 + 2 + 72),
    ],
)
def test_the_size_of_a_record_alone_is_that_of_its_batch(record: Record, size: int) -> None:
    assert alone_bytes(record) == size
