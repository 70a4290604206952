"""No rival but a limit: the least that one Python process does for an event, with the libraries that ours is made of.

Environment: BROKERS (commas between them), PORT, TOPIC, API_KEY. asyncio, httptools, msgspec and aiokafka,
used in the cheapest way that is known to us: no task and no future for a request, one Kafka batch a
partition at a time, and an answer made of ready pieces. Like the rivals it looks the key up by its SHA-256,
checks that the required fields are there, stores one JSON record an event, idempotently, and answers 202
once all in-sync replicas have it.

It is no service: it has no deadline, no bound, no log, no metrics and no error but a closed connection, and
takes JSON and HTTP that two readers would read in two ways. What ours costs beyond this is what those cost.
"""

import asyncio
import hashlib
import os
import random
import signal
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from zlib import crc32

import httptools
import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder

TOPIC = os.environ["TOPIC"]
TENANTS = {hashlib.sha256(os.environ["API_KEY"].encode()).digest(): "acme"}
BATCH_BYTES = 256 * 1024


class Event(msgspec.Struct):
    """What a client sends."""

    event_type: str
    timestamp: str
    properties: msgspec.Raw
    user_id: str | None = None
    session_id: str | None = None


class Batch(msgspec.Struct):
    """Several of them."""

    events: list[Event]


class StoredEvent(msgspec.Struct):
    """What consumers read."""

    event_id: str
    tenant_id: str
    event_type: str
    timestamp: str
    received_at: datetime
    user_id: str | None
    session_id: str | None
    properties: msgspec.Raw


read_event = msgspec.json.Decoder(Event).decode
read_batch = msgspec.json.Decoder(Batch).decode
to_json = msgspec.json.Encoder().encode


class Answer:
    """Sent once all records of a request are stored."""

    __slots__ = ("body", "missing", "transport")

    def __init__(self, transport: asyncio.Transport, missing: int, body: bytes) -> None:
        self.transport, self.missing, self.body = transport, missing, body

    def stored(self) -> None:
        self.missing -= 1
        if not self.missing:
            head = b"HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: "
            self.transport.write(b"%s%d\r\n\r\n%s" % (head, len(self.body), self.body))


class Lane:
    """One partition: a batch that is filled while another one is out."""

    def __init__(self, producer: AIOKafkaProducer, partition: int) -> None:
        self.producer, self.partition = producer, partition
        self.builder: BatchBuilder | None = None
        self.answers: list[Answer] = []
        self.out: Sequence[Answer] = ()

    def add(self, key: bytes, value: bytes, timestamp_ms: int, answer: Answer) -> None:
        if self.builder is None:
            self.builder = self.producer.create_batch()
            if not self.out:
                asyncio.get_running_loop().call_soon(self.flush)
        self.builder.append(key=key, value=value, timestamp=timestamp_ms)
        self.answers.append(answer)

    def flush(self) -> None:
        builder, self.builder = self.builder, None
        self.out, self.answers = self.answers, []
        self.sending = asyncio.create_task(self.send(builder))

    async def send(self, builder: BatchBuilder | None) -> None:
        stored = await self.producer.send_batch(builder, TOPIC, partition=self.partition)
        stored.add_done_callback(self.settle)

    def settle(self, stored: asyncio.Future[object]) -> None:
        stored.result()
        answers, self.out = self.out, ()
        if self.builder is not None:
            self.flush()
        for answer in answers:
            answer.stored()


class Connection(asyncio.Protocol):
    """One client's, with a request at a time."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self.lanes = lanes
        self.parser = httptools.HttpRequestParser(self)
        self.key = self.url = self.body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        del self.parser

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url, self.body = url, b""

    def on_header(self, name: bytes, value: bytes) -> None:
        if name == b"X-CS-API-Key":
            self.key = value

    def on_body(self, body: bytes) -> None:
        self.body = self.body + body if self.body else body

    def on_message_complete(self) -> None:
        tenant_id = TENANTS[hashlib.sha256(self.key).digest()]
        now_s = time.time()
        now, now_ms = datetime.fromtimestamp(now_s, UTC), int(now_s * 1000)
        if self.url == b"/v1/events":
            event, event_id = read_event(self.body), _new_id()
            body = b'{"status":"accepted","event_id":"%s"}' % event_id.encode()
            self.store(event, event_id, tenant_id, now, now_ms, Answer(self.transport, 1, body))
            return
        events = read_batch(self.body).events
        answer = Answer(self.transport, len(events), b'{"status":"accepted","accepted":%d}' % len(events))
        for event in events:
            self.store(event, _new_id(), tenant_id, now, now_ms, answer)

    def store(self, event: Event, event_id: str, tenant_id: str, now: datetime, now_ms: int, answer: Answer) -> None:
        value = to_json(
            StoredEvent(
                event_id,
                tenant_id,
                event.event_type,
                event.timestamp,
                now,
                event.user_id,
                event.session_id,
                event.properties,
            )
        )
        key = f"{tenant_id}:{event.user_id or event_id}".encode()
        self.lanes[crc32(key) % len(self.lanes)].add(key, value, now_ms, answer)


def _new_id() -> str:
    return f"{random.getrandbits(128):032x}"


async def main() -> None:
    """Serve until SIGTERM."""
    producer = AIOKafkaProducer(
        bootstrap_servers=os.environ["BROKERS"], acks="all", enable_idempotence=True, max_batch_size=BATCH_BYTES
    )
    await producer.start()
    lanes = [Lane(producer, partition) for partition in sorted(await producer.partitions_for(TOPIC))]
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    await loop.create_server(lambda: Connection(lanes), "127.0.0.1", int(os.environ["PORT"]), backlog=2048)
    await ended.wait()
    await producer.stop()


asyncio.run(main())
