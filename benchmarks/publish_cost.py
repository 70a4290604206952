"""What publishing one event to Kafka costs in CPU: our adapter beside aiokafka's bare `send_batch` and `send`.

`python -m benchmarks.publish_cost`, against one broker of its own on this machine. Each figure is
the CPU time of this process, all threads, user and system, between the first call and the last
confirmation of a round, divided by the round's events; the records are made before. Rounds of the
kinds alternate, and the median counts. Garbage is looked for as rarely as in the service, for all of
them. What is in each figure:

- `bare`: `create_batch`, 100 times `append`, `send_batch` to one partition after the other, and the
  wait for each batch's confirmation. Nobody chooses partitions, and nobody learns an offset.
- `adapter, known users`: `publish` with 100 records, with everything that it is: bounds, partition
  by key, the group commit over all calls in flight, an outcome with its offset for every record,
  deadlines. The keys have come before, so that their partitions are remembered.
- `adapter, new users`: the same with keys that were never seen: each is hashed.
- `librdkafka, known users`: the same as the second by the other adapter, its threads included.
- `bare, single events`: one `send` an event to one partition after the other, and the wait for its
  confirmation; 64 callers at a time, or as many as are wanted.
- `adapter, single events`: `publish` with one record, by as many callers.
"""

import argparse
import asyncio
import gc
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count

from aiokafka import AIOKafkaProducer

from customersignal_ingest.adapters.outbound.kafka import open_publisher
from customersignal_ingest.domain.event import Record
from customersignal_ingest.domain.outcome import Stored
from customersignal_ingest.registry import AdapterSettings, open_url
from customersignal_ingest.serve.server import GARBAGE_THRESHOLDS
from tests.integration.servers.kafka import running

TARGET_US = 3.0
CALL_EVENTS = 100
VALUE = b'{"n":"' + b"x" * 292 + b'"}'
HEADERS = (
    ("event_id", b"0197f3c2-5b1e-7cc3-98c4-dc0c0c07398f"),
    ("tenant_id", b"acme"),
    ("content-type", b"application/json"),
    ("schema", b"events_raw/1"),
)
TOPIC = "events_raw"
BARE_SINGLE = "bare, single events"
USERS = 1000

_numbers = count()

Call = list[Record]
Publish = Callable[[Call], Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A way to publish; `beside` names the one that its ratio is made with."""

    name: str
    beside: str
    publish: Publish
    callers: int
    call_events: int = CALL_EVENTS
    new_users: bool = False

    def calls(self, events: int) -> list[Call]:
        """Make the records of so many events, call by call."""
        return [
            [a_record(next(_numbers), new_users=self.new_users) for _ in range(self.call_events)]
            for _ in range(events // self.call_events)
        ]


def a_record(number: int, *, new_users: bool) -> Record:
    user = f"new-{number:012}" if new_users else f"user-{number % USERS:011}"
    return Record(
        key=b"acme:" + user.encode(),
        value=VALUE,
        headers=HEADERS,
        timestamp_ms=int(time.time() * 1000),
        tenant_id="acme",
        event_id=f"event-{number}",
    )


async def cost_us(publish: Publish, calls: Sequence[Call], *, callers: int) -> float:
    """Return the CPU time an event, in microseconds, of so many callers who take one call after the other."""
    waiting, answers = iter(calls), list[object]()

    async def be_a_caller() -> None:
        for call in waiting:
            answers.append(await publish(call))

    began = time.process_time()
    await asyncio.gather(*(be_a_caller() for _ in range(callers)))
    spent_s = time.process_time() - began
    _check(answers)
    return spent_s / sum(map(len, calls)) * 1e6


def _check(answers: Sequence[object]) -> None:
    """Fail if anything was not stored; only the adapter's answers say so, bare futures raise."""
    lists = [answer for answer in answers if isinstance(answer, list)]
    if wrong := [outcome for outcomes in lists for outcome in outcomes if not isinstance(outcome, Stored)]:
        raise RuntimeError(f"{len(wrong)} events were not stored: {wrong[0]}")


def bare(producer: AIOKafkaProducer, partitions: int) -> Publish:
    turns = count()

    async def publish(call: Call) -> object:
        batch = producer.create_batch()
        for record in call:
            batch.append(
                key=record.key, value=record.value, timestamp=record.timestamp_ms, headers=list(record.headers)
            )
        return await (await producer.send_batch(batch, TOPIC, partition=next(turns) % partitions))

    return publish


def bare_single(producer: AIOKafkaProducer, partitions: int) -> Publish:
    turns = count()

    async def publish(call: Call) -> object:
        [record] = call
        stored = await producer.send(
            TOPIC,
            key=record.key,
            value=record.value,
            timestamp_ms=record.timestamp_ms,
            headers=list(record.headers),
            partition=next(turns) % partitions,
        )
        return await stored

    return publish


async def measure(bootstrap: str, url: str, arguments: argparse.Namespace) -> dict[Kind, list[float]]:
    settings = AdapterSettings(instance="benchmark")
    publisher = open_publisher(url, settings=settings)
    other = open_url("publishers", url.replace("kafka:", "kafka+librdkafka:", 1), settings=settings)
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, max_batch_size=256 * 1024
    )
    await publisher.open()
    await other.open()
    await producer.start()
    many, single = arguments.callers, arguments.single_callers
    one_by_one = bare_single(producer, arguments.partitions)
    kinds = [
        Kind(name="bare", beside="bare", publish=bare(producer, arguments.partitions), callers=many),
        Kind(name="adapter, known users", beside="bare", publish=publisher.publish, callers=many),
        Kind(name="adapter, new users", beside="bare", publish=publisher.publish, callers=many, new_users=True),
        Kind(name="librdkafka, known users", beside="bare", publish=other.publish, callers=many),
        Kind(name=BARE_SINGLE, beside=BARE_SINGLE, publish=one_by_one, callers=single, call_events=1),
        Kind(
            name="adapter, single events", beside=BARE_SINGLE, publish=publisher.publish, callers=single, call_events=1
        ),
    ]
    costs: dict[Kind, list[float]] = {kind: [] for kind in kinds}
    try:
        for number in range(arguments.rounds + 1):
            for kind in kinds:
                cost = await cost_us(kind.publish, kind.calls(arguments.events), callers=kind.callers)
                if number:  # The first round warms up.
                    costs[kind].append(cost)
    finally:
        await producer.stop()
        await publisher.close()
        await other.close()
    return costs


def print_table(costs: dict[Kind, list[float]], arguments: argparse.Namespace) -> None:
    print(
        f"CPU an event: {CALL_EVENTS} events a call, {arguments.callers} callers, "
        f"or single events, {arguments.single_callers} callers; "
        f"values of {len(VALUE)} bytes, {len(HEADERS)} headers, {arguments.partitions} partitions, "
        f"{arguments.rounds} rounds of {arguments.events} events, 1 broker, Python {sys.version.split()[0]}"
    )
    medians = {kind.name: statistics.median(each) for kind, each in costs.items()}
    print(f"{'':24} {'median µs':>10} {'least':>7} {'most':>7} {'ratio':>7}")
    for kind, each in costs.items():
        middle = medians[kind.name]
        print(f"{kind.name:24} {middle:10.2f} {min(each):7.2f} {max(each):7.2f} {middle / medians[kind.beside]:7.2f}")
    reached = medians["adapter, known users"] <= TARGET_US
    print(f"target: at most {TARGET_US:g} µs through the adapter, known users: {'reached' if reached else 'MISSED'}")


def main() -> None:
    """Start a broker, measure, print."""
    parser = argparse.ArgumentParser(description="What publishing one event to Kafka costs in CPU.")
    parser.add_argument("--events", type=int, default=20_000, help="events a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--callers", type=int, default=8, help="calls in flight at once")
    parser.add_argument("--single-callers", type=int, default=64, help="the same for single events")
    parser.add_argument("--partitions", type=int, default=8)
    arguments = parser.parse_args()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    with running(nodes=1) as kafka:
        kafka.create_topic(TOPIC, partitions=arguments.partitions)
        costs = asyncio.run(measure(kafka.bootstrap, kafka.url(TOPIC), arguments))
    print_table(costs, arguments)


if __name__ == "__main__":
    main()
