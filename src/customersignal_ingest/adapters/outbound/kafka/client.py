"""aiokafka 0.14 behind our seam: the one file that touches its private names, all of which a test knows.

What it mends: no topic is made by asking for it; news of leaders comes from whoever answers first,
and not ten thousand times a second; a batch never expires before our own deadline; `abandon` ends
everything, where `stop` waits for ever; who gives up a silent broker leaves no connection open.
"""

# ruff: noqa: SLF001  aiokafka has no public way to any of this; its version is pinned, and a test holds the names.

import asyncio
import logging
import random
import ssl
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    InvalidTimestampError,
    KafkaError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)
from aiokafka.producer.message_accumulator import BatchBuilder, MessageBatch
from aiokafka.producer.sender import SendProduceReqHandler
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.produce import ProduceRequest

from customersignal_ingest.adapters.outbound.kafka.options import Compression, Options
from customersignal_ingest.adapters.outbound.kafka.producer import (
    Appended,
    Builder,
    Denied,
    Lost,
    NotTaken,
    TurnedDown,
    Verdict,
)
from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.event import Record

REACH_TIMEOUT_S = 1.5
ABANDON_TIMEOUT_S = 1.0
METADATA_PAUSE_S = 0.1
METADATA_MAX_AGE_MS = 30_000
RETRY_BACKOFF_MS = 100
MEMORY_KEPT = 4 * 1024 * 1024
REQUEST_BYTES_MAX = 100_000_000  # A bound of `send`, which we don't use; ours is the batch's.

_CODECS: dict[Compression, int] = {"none": 0, "gzip": 1, "lz4": 3, "zstd": 4}
_ABOUT_ITS_CONTENT = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidTimestampError, PolicyViolationError)
_NOT_ALLOWED = (TopicAuthorizationFailedError, ClusterAuthorizationFailedError)


log = logging.getLogger(__name__)


def new_batch(options: Options, bytes_max: int, /) -> Builder:
    """Return an empty batch for at most that many bytes; any producer may send it."""
    return AiokafkaBatch(bytes_max, _CODECS[options.compression], is_transactional=False)


def keep_memory() -> None:
    """Have blocks of a request's size taken from memory that is there, not from the system each time.

    glibc's malloc gives back what is larger than the largest block that was freed so far, and at first
    than 128 KiB: a quarter of what publishing cost was page faults. It learns from this one, which is never
    touched. Elsewhere nothing happens, nor where `MALLOC_MMAP_THRESHOLD_` is set.
    """
    bytes(MEMORY_KEPT)


async def reach(options: Options, /) -> str:
    """Return the first server that answers, all asked at once; raises `Unavailable` with each one's reason."""
    connection = options.connection() | {"request_timeout_ms": int(REACH_TIMEOUT_S * 1000)}
    asked = {asyncio.create_task(_ask(server, connection)): server for server in options.servers}
    try:
        async with asyncio.timeout(REACH_TIMEOUT_S):
            return await _first(asked)
    except TimeoutError:
        raise Unavailable(f"no Kafka broker answered within {REACH_TIMEOUT_S} s") from None
    finally:
        for task in asked:
            task.cancel()
        await asyncio.wait(asked)


async def _first(asked: dict[asyncio.Task[None], str]) -> str:
    waiting = set(asked)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.exception() is None:
                return asked[task]
    reasons = ", ".join(f"{server}: {_what_failed(task.exception())}" for task, server in asked.items())
    raise Unavailable(f"no Kafka broker answered ({reasons})")


def _what_failed(error: BaseException | None) -> str:
    """Name the error, and for TLS what is wrong with whose certificate. A broker's own words are left out."""
    cause = error.__cause__ if error is not None and error.__cause__ is not None else error
    name = type(cause).__name__
    match cause:
        case ssl.SSLCertVerificationError():
            return f"{name}, {cause.verify_message}"
        case ssl.SSLError():
            return f"{name}, {cause.reason}"
        case asyncio.IncompleteReadError():
            return "hung up without an answer, as a listener does that wants TLS"
    return name


async def _ask(server: str, connection: dict[str, Any]) -> None:
    host, _, port = server.rpartition(":")
    found: AIOKafkaConnection = await create_conn(host.strip("[]"), int(port), **connection)
    found.close()


def hang_up_when_cancelled(client: Any, connection: dict[str, Any], /) -> None:
    """Let the client's start close what it opened, also when it is cancelled before the broker has answered.

    `connection` is what the client was told.
    """
    client.bootstrap = partial(_bootstrap, client, connection)


async def _bootstrap(client: Any, connection: dict[str, Any]) -> None:
    [(host, port, _)] = client.hosts
    opened = await create_conn(host, port, **connection)
    try:
        client.cluster.update_metadata(await opened.send(MetadataRequest([])))
    finally:
        opened.close()
    client._sync_task = asyncio.create_task(client._md_synchronizer())


class AiokafkaBatch(BatchBuilder):  # type: ignore[misc]
    """aiokafka's, without a function of Python around each record: its own `append` is a third of what it costs."""

    _relative_offset: int

    def extend(self, records: Iterable[Record], /) -> int:
        """Do what `append` does, for each of them, and keep the same books."""
        if self._closed:
            return 0
        append, first = self._builder.append, self._relative_offset
        at = first
        for record in records:
            if append(at, record.timestamp_ms, record.key, record.value, [*record.headers]) is None:
                self.close()
                break
            at += 1
        self._relative_offset = at
        return at - first


class _Requests(SendProduceReqHandler):  # type: ignore[misc]
    """aiokafka's way with a request for one broker."""

    def create_request(self) -> Any:
        """Return the batches, ready to be encoded."""
        sender = self._sender
        [topic] = {place.topic for place in self._batches}
        batches = [(place.partition, batch.get_data_buffer()) for place, batch in self._batches.items()]
        return _ProduceRequest(None, sender._acks, sender._request_timeout_ms, [(topic, batches)])


class _ProduceRequest(ProduceRequest):  # type: ignore[misc]
    """aiokafka's, but encoded in one piece: its own way copies every batch five times."""

    def build(self, version: Any) -> Any:
        """Return what is encoded."""
        return super().build(_in_one_piece(version))


@cache
def _in_one_piece(version: Any) -> Any:
    return type(version.__name__, (version,), {"encode": _encode})


def _encode(request: Any) -> bytes:
    [(topic, batches)] = request.topics
    without = request.SCHEMA.encode([None, request.required_acks, request.timeout, [(topic, [])]])
    parts = [without[:-4], len(batches).to_bytes(4)]  # They come last, in all versions.
    for partition, records in batches:
        parts += partition.to_bytes(4), len(records).to_bytes(4), records
    return b"".join(parts)


class AiokafkaProducer:
    """An `AIOKafkaProducer` as the seam wants it."""

    def __init__(self, options: Options, /) -> None:
        self._options = options
        self._topic = options.topic
        self._producer: Any = None
        self._requests: set[asyncio.Task[None]] = set()
        self._busy_nodes: set[int] = set()
        self._busy_partitions: set[TopicPartition] = set()
        self._asked_at = 0.0

    async def start(self) -> None:
        """Connect through the first server that answers, and learn the topic's partitions."""
        keep_memory()
        server = await reach(self._options)
        self._producer = self._made(server)
        try:
            await self._producer.start()
            known = await self._producer.client.add_topic(self._topic)
        except (KafkaError, OSError, TimeoutError) as error:
            raise Unavailable(f"Kafka does not start a producer: {type(error).__name__}") from error
        if not known:
            raise Unavailable("Kafka does not describe its topics")
        if self._is_denied():
            raise Unavailable(f"not allowed to see the topic {self._topic}")

    def _made(self, server: str) -> Any:
        connection = self._options.connection()
        producer = AIOKafkaProducer(
            bootstrap_servers=server,
            acks="all",
            enable_idempotence=True,
            max_request_size=REQUEST_BYTES_MAX,
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
            retry_backoff_ms=RETRY_BACKOFF_MS,
            **connection,
        )
        # Without a leader a batch would expire after the request's time-out and poison its partition;
        # our deadline comes first, and replaces the producer.
        producer._message_accumulator._batch_ttl = 2 * self._options.publish_timeout_s
        hang_up_when_cancelled(producer.client, connection)
        producer.client._metadata_update = partial(self._update_metadata, producer.client)
        producer._sender._sender_routine = self._keep_sending
        return producer

    async def _update_metadata(self, client: Any, metadata: Any, topics: set[str]) -> bool:
        """Ask broker after broker; never lets one make the topic, and waits for none for long."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._asked_at + METADATA_PAUSE_S - loop.time())
        self._asked_at = loop.time()
        request = MetadataRequest(list(topics), allow_auto_topic_creation=False)
        brokers = [broker.nodeId for broker in metadata.brokers()]
        for node_id in random.sample(brokers, len(brokers)):
            try:
                async with asyncio.timeout(self._options.request_timeout_ms / 2000):
                    connection = await client._get_conn(node_id)
                    if connection is None:
                        continue
                    answer = await connection.send(request)
            except (KafkaError, TimeoutError):
                continue
            if answer.brokers:
                metadata.update_metadata(answer)
                return True
        metadata.failed_update(None)
        return False

    async def _keep_sending(self) -> None:
        """Do what aiokafka's own routine does, but for transactions.

        That one builds a set for `asyncio.wait` twice a request. Here the one future that a new batch
        completes is waited for, and an answer completes it, too.
        """
        accumulator = self._producer._message_accumulator
        try:
            while True:
                self._send_what_waits()
                await accumulator.waiter()
                for request in [each for each in self._requests if each.done()]:
                    self._requests.remove(request)
                    request.result()  # It raises nothing, or there is a bug.
        except Exception:
            log.exception("sending failed in the Kafka client")
            accumulator.fail_all(KafkaError())  # Whatever failed, it is no broker's word on a batch.

    def _send_what_waits(self) -> None:
        """Send a request to every broker that has none to answer."""
        waiting, leaderless = self._producer._message_accumulator.drain_by_nodes(
            ignore_nodes=self._busy_nodes, muted_partitions=self._busy_partitions
        )
        for node, batches in waiting.items():
            self._busy_nodes.add(node)
            self._busy_partitions.update(batches)
            request = asyncio.create_task(self._send_request(node, batches))
            self._requests.add(request)
            request.add_done_callback(self._wake)
        if leaderless:
            self._producer.client.force_metadata_update().add_done_callback(self._wake)

    def _wake(self, _done: object) -> None:
        waiter = self._producer._message_accumulator.waiter()
        if not waiter.done():
            waiter.set_result(None)

    async def _send_request(self, node: int, batches: dict[TopicPartition, MessageBatch]) -> None:
        await _Requests(self._producer._sender, batches).do(node)
        self._busy_nodes.remove(node)
        self._busy_partitions.difference_update(batches)

    def send(self, batch: Builder, partition: int, settled: Callable[[Verdict], None], /) -> None:
        """Put the batch where it waits for its broker.

        aiokafka's `send_batch` comes to the same, and takes a set of all partitions, two futures and a task more.
        """
        accumulator = self._producer._message_accumulator
        if accumulator._closed or accumulator._exception is not None:
            raise NotTaken("the producer is closed" if accumulator._closed else "the producer failed")
        taken = accumulator._append_batch(batch, TopicPartition(self._topic, partition))
        taken.future.add_done_callback(partial(_settle, taken, settled))

    def partitions(self) -> int:
        """Return how many partitions the last news had."""
        return len(self._producer.client.cluster.partitions_for_topic(self._topic) or ())

    def has_leader(self, partition: int, /) -> bool:
        """Tell whether the last news had a leader."""
        leader = self._producer.client.cluster.leader_for_partition(TopicPartition(self._topic, partition))
        return leader is not None and leader != -1

    def look_again(self) -> None:
        """Wake the task that asks for news."""
        self._producer.client.force_metadata_update()

    def sequence(self, partition: int, /) -> int:
        """Return what aiokafka numbers the next record with."""
        return int(self._producer._txn_manager.sequence_number(TopicPartition(self._topic, partition)))

    def is_dead(self) -> bool:
        """Tell whether aiokafka's sender has ended, or may not see the topic any more."""
        task = self._producer._sender.sender_task
        return task is None or task.done() or self._is_denied()

    def _is_denied(self) -> bool:
        return self._topic in self._producer.client.cluster.unauthorized_topics

    async def abandon(self) -> None:
        """Cancel who sends, cut the connections, and let go."""
        producer = self._producer
        if producer is None or producer._closed:
            return
        producer._closed = producer._message_accumulator._closed = True
        for connection in producer.client._conns.values():
            if connection._writer is not None:
                # `close` would first wait for a frozen broker to read what is in the buffer.
                connection._writer.transport.abort()
        sending = [*self._requests, *filter(None, [producer._sender.sender_task])]
        for task in sending:
            task.cancel()
        closing = asyncio.create_task(producer.client.close())
        await asyncio.wait({closing, *sending}, timeout=ABANDON_TIMEOUT_S)
        closing.cancel()


def _settle(batch: MessageBatch, settled: Callable[[Verdict], None], acknowledged: "asyncio.Future[Any]") -> None:
    settled(_verdict(batch, acknowledged))


def _verdict(batch: MessageBatch, acknowledged: "asyncio.Future[Any]") -> Verdict:
    if acknowledged.cancelled():
        return Lost("the batch was cancelled")
    error = acknowledged.exception()
    if error is None:
        return _appended(acknowledged.result())
    name = type(error).__name__
    # A broker that turns a batch down at the first attempt has not appended it. Later ones prove
    # nothing: an earlier attempt whose answer was lost may have been appended.
    if batch.retry_count == 1 and isinstance(error, _ABOUT_ITS_CONTENT):
        return TurnedDown(name)
    if batch.retry_count == 1 and isinstance(error, _NOT_ALLOWED):
        return Denied(name)
    return Lost(name)


def _appended(result: Any) -> Verdict:
    if result is None:
        return Lost("no confirmation")
    # A batch that the broker knows already is confirmed without its place (offset -1).
    return Appended(result.offset if result.offset >= 0 else None)
