"""aiokafka 0.14 behind our seam: the one file that touches its private names, all of which a test knows.

What it mends: no topic is made by asking for it; news of leaders comes from whoever answers first,
and not ten thousand times a second; a batch never expires before our own deadline; `abandon` ends
everything, where `stop` waits for ever; who gives up a silent broker leaves no connection open.
"""

# ruff: noqa: SLF001  aiokafka has no public way to any of this; its version is pinned, and a test holds the names.

import asyncio
import random
import ssl
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

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
    UnknownTopicOrPartitionError,
)
from aiokafka.producer.message_accumulator import BatchBuilder, MessageBatch
from aiokafka.protocol.metadata import MetadataRequest

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
REQUEST_BYTES_MAX = 100_000_000  # A bound of `send`, which we don't use; ours is the batch's.

_CODECS: dict[Compression, int] = {"none": 0, "gzip": 1, "lz4": 3, "zstd": 4}
_ABOUT_ITS_CONTENT = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidTimestampError, PolicyViolationError)
_NOT_ALLOWED = (TopicAuthorizationFailedError, ClusterAuthorizationFailedError)


def new_batch(options: Options, bytes_max: int, /) -> Builder:
    """Return an empty batch for at most that many bytes; any producer may send it."""
    return AiokafkaBatch(bytes_max, _CODECS[options.compression], is_transactional=False)


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


class AiokafkaProducer:
    """An `AIOKafkaProducer` as the seam wants it."""

    def __init__(self, options: Options, /) -> None:
        self._options = options
        self._topic = options.topic
        self._producer: Any = None
        self._requests: set[asyncio.Task[Any]] = set()
        self._asked_at = 0.0

    async def start(self) -> None:
        """Connect through the first server that answers, and learn the topic's partitions."""
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
        producer._sender._send_produce_req = partial(self._send_request, producer._sender._send_produce_req)
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

    async def _send_request(self, send: Callable[..., Any], *arguments: Any) -> None:
        """Remember who sends, so that `abandon` finds them."""
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._requests.add(task)
        try:
            await send(*arguments)
        finally:
            self._requests.discard(task)

    async def send(self, batch: Builder, partition: int, settled: Callable[[Verdict], None], /) -> None:
        """Hand the batch to aiokafka's sender."""
        try:
            acknowledged = await self._producer.send_batch(batch, self._topic, partition=partition)
        except AssertionError as error:
            raise NotTaken(f"the topic has no partition {partition}", again=False) from error
        except UnknownTopicOrPartitionError as error:
            raise NotTaken(f"the topic {self._topic} is missing", again=False) from error
        except TopicAuthorizationFailedError as error:
            raise NotTaken(f"not allowed to write to {self._topic}", again=False) from error
        except KafkaError as error:
            raise NotTaken(type(error).__name__, again=True) from error
        queue = self._producer._message_accumulator._batches[TopicPartition(self._topic, partition)]
        acknowledged.add_done_callback(partial(_settle, queue[-1], settled))

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
