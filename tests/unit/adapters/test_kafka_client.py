"""aiokafka's private names that we touch are there, and our reading of its answers is right."""

import asyncio
import inspect
import platform
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    NotEnoughReplicasError,
    OutOfOrderSequenceNumber,
    TopicAuthorizationFailedError,
)
from aiokafka.producer.message_accumulator import BatchBuilder, MessageAccumulator, MessageBatch
from aiokafka.producer.sender import Sender, SendProduceReqHandler
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.structs import RecordMetadata

from customersignal_ingest.adapters.outbound.kafka.client import (
    AiokafkaBatch,
    AiokafkaProducer,
    _Requests,
    _verdict,
    new_batch,
)
from customersignal_ingest.adapters.outbound.kafka.options import Options
from customersignal_ingest.adapters.outbound.kafka.producer import Appended, Denied, Lost, TurnedDown, Verdict
from customersignal_ingest.adapters.outbound.kafka.topic import look_at
from customersignal_ingest.domain.event import Record

pytestmark = pytest.mark.anyio

OPTIONS = Options(
    servers=("nowhere:1",), topic="events", client_id="test", publish_timeout_s=10, event_bytes_max=900_000
)
HERE = TopicPartition("events", 0)
METADATA = b"\x00\x03"  # Its number in Kafka's protocol.


async def producer() -> Any:
    made = AIOKafkaProducer(bootstrap_servers="nowhere:1", acks="all", enable_idempotence=True)
    made._closed = True  # Never started: nothing is there to close, and it must not warn.
    return made


def test_the_version_is_the_one_whose_source_was_read() -> None:
    assert version("aiokafka") == "0.14.0"


async def test_a_producer_has_the_parts_that_we_touch() -> None:
    made = await producer()

    assert isinstance(made._message_accumulator, MessageAccumulator)
    assert isinstance(made._sender, Sender)
    assert isinstance(made._txn_manager, TransactionManager)
    assert isinstance(made.client, AIOKafkaClient)
    assert made._sender.sender_task is None
    assert made.client._conns == {}


async def test_an_accumulator_has_the_parts_that_we_touch() -> None:
    accumulator = (await producer())._message_accumulator

    assert accumulator._batch_ttl == 40
    assert (accumulator._closed, accumulator._exception) == (False, None)
    assert accumulator.drain_by_nodes(ignore_nodes=set(), muted_partitions=set()) == ({}, False)
    assert not accumulator.waiter().done()


async def test_sequence_numbers_can_be_read_and_start_at_zero() -> None:
    assert (await producer())._txn_manager.sequence_number(HERE) == 0


def test_the_methods_that_we_replace_have_the_shape_that_we_know() -> None:
    assert list(inspect.signature(AIOKafkaClient._metadata_update).parameters) == ["self", "cluster_metadata", "topics"]
    assert list(inspect.signature(Sender._sender_routine).parameters) == ["self"]
    assert list(inspect.signature(SendProduceReqHandler.create_request).parameters) == ["self"]
    assert list(inspect.signature(ProduceRequest.build).parameters) == ["self", "request_struct_class"]
    assert list(inspect.signature(AIOKafkaClient._get_conn).parameters) == ["self", "node_id", "group", "no_hint"]


def test_the_replaced_methods_are_the_ones_that_are_called() -> None:
    assert "self._metadata_update(" in inspect.getsource(AIOKafkaClient._md_synchronizer)
    assert "self._sender_routine()" in inspect.getsource(Sender.start)
    assert "self.create_request()" in inspect.getsource(SendProduceReqHandler.do)
    assert "self.build(req_class)" in inspect.getsource(ProduceRequest.prepare)
    assert "_batch_ttl" in inspect.getsource(MessageAccumulator._append_batch)


@pytest.mark.parametrize("starts", [AIOKafkaProducer.start, AIOKafkaAdminClient.start])
def test_a_start_begins_with_the_method_that_we_replace(starts: Callable[..., Any]) -> None:
    assert ".bootstrap()" in inspect.getsource(starts)
    source = inspect.getsource(AIOKafkaClient.bootstrap)
    assert "self.hosts" in source
    assert "self._sync_task = create_task(self._md_synchronizer())" in source


class SilentBroker:
    """Says which requests it knows, and answers none of them."""

    def __init__(self) -> None:
        self.asked, self.left = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                request = await reader.readexactly(int.from_bytes(await reader.readexactly(4)))
                kind, correlation = request[:2], request[4:8]
                if kind == METADATA:
                    self.asked.set()
                    await reader.read()
                    self.left.set()
                    break
                knows = METADATA + bytes((0, 0, 0, 5))
                answer = correlation + bytes((0, 0, 0, 0, 0, 1)) + knows
                writer.write(len(answer).to_bytes(4) + answer)
        writer.close()


async def start_and_abandon(options: Options) -> None:
    producer = AiokafkaProducer(options)
    try:
        await producer.start()
    finally:
        await producer.abandon()


@pytest.mark.parametrize("start", [start_and_abandon, look_at])
async def test_who_gives_up_a_silent_broker_leaves_no_connection_open(
    start: Callable[[Options], Coroutine[Any, Any, object]],
) -> None:
    broker = SilentBroker()
    async with broker.serving() as server, asyncio.timeout(10):
        starting = asyncio.create_task(start(replace(OPTIONS, servers=(server,))))
        await broker.asked.wait()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await broker.left.wait()


def test_a_connection_has_a_writer_to_abort() -> None:
    assert "self._writer" in inspect.getsource(AIOKafkaConnection.connect)


async def test_a_batch_that_is_taken_wakes_the_sender_and_has_a_future() -> None:
    accumulator = (await producer())._message_accumulator
    waiter = accumulator.waiter()

    taken = accumulator._append_batch(BatchBuilder(1000, 0), HERE)

    assert waiter.done()
    assert isinstance(taken, MessageBatch)
    assert not taken.future.done()


@pytest.mark.parametrize("version", [each for each in ProduceRequest._CLASSES if each.API_VERSION >= 3])
async def test_a_request_that_is_encoded_in_one_piece_is_what_aiokafka_makes_of_it(version: Any) -> None:
    """Only from the third version on batches are numbered."""
    sender, batches = (await producer())._sender, {}
    for partition in (3, 0):
        builder = AiokafkaBatch(1000, 0)
        builder.extend([a_record(partition)])
        batches[TopicPartition("events", partition)] = MessageBatch(HERE, builder, 10, 0)

    ours = _Requests(sender, batches).create_request().build(version)
    theirs = SendProduceReqHandler(sender, batches).create_request().build(version)

    assert ours.encode() == theirs.encode()
    assert (ours.API_KEY, ours.API_VERSION, ours.RESPONSE_TYPE) == (
        version.API_KEY,
        version.API_VERSION,
        theirs.RESPONSE_TYPE,
    )


MEMORY = """
import resource
from customersignal_ingest.adapters.outbound.kafka.client import keep_memory

def use():
    first = bytearray(1_000_000)
    second = bytes(first)
    return second + b"more"

keep_memory()
use()
before = resource.getrusage(0).ru_minflt
for _ in range(100):
    use()
print(resource.getrusage(0).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="others keep or give back what they like")
def test_the_memory_of_a_request_is_kept_for_the_next() -> None:
    """In a process of its own: what was freed before has taught the allocator already."""
    faults = subprocess.run([sys.executable, "-c", MEMORY], check=True, capture_output=True).stdout

    assert int(faults) < 1000  # One for each page would be 73 000.


def a_record(number: int, *, value_bytes: int = 400) -> Record:
    return Record(
        key=b"k%d" % number,
        value=b"x" * value_bytes,
        headers=(("event_id", b"%d" % number), ("odd", b"\xff")),
        timestamp_ms=1_795_428_000_000 - number,
        tenant_id="acme",
        event_id=str(number),
    )


@pytest.mark.parametrize("compression", ["none", "gzip", "lz4", "zstd"])
def test_an_empty_batch_takes_records_until_it_is_full(compression: Any) -> None:
    batch = new_batch(Options(**{**fields(), "compression": compression}), 1000)
    records = iter([a_record(number) for number in range(4)])

    assert batch.extend(records) == 2
    assert batch.extend(records) == 0


def test_a_first_record_is_taken_whatever_its_size() -> None:
    batch = new_batch(OPTIONS, 1000)

    assert batch.extend([a_record(0, value_bytes=5000)]) == 1
    assert batch.size() > 5000


@pytest.mark.parametrize("shares", [(1,), (2, 3), (4, 0, 1), (5, 5, 5)])
def test_records_that_come_in_shares_are_the_batch_that_aiokafka_makes_of_them_one_by_one(
    shares: tuple[int, ...],
) -> None:
    records = [a_record(number) for number in range(sum(shares))]
    theirs, ours, waiting = BatchBuilder(4000, 0, is_transactional=False), new_batch(OPTIONS, 4000), iter(records)
    for each in records:
        theirs.append(timestamp=each.timestamp_ms, key=each.key, value=each.value, headers=list(each.headers))

    taken = sum(ours.extend([next(waiting) for _ in range(share)]) for share in shares)

    assert isinstance(ours, BatchBuilder)
    assert taken == ours.record_count() == theirs.record_count()
    assert (ours.closed(), ours.size()) == (theirs.closed(), theirs.size())
    assert ours._build() == theirs._build()


def fields() -> dict[str, Any]:
    return {name: getattr(OPTIONS, name) for name in OPTIONS.__dataclass_fields__}


async def verdict_on(answer: object, *, attempts: int = 1) -> Verdict:
    batch = MessageBatch(HERE, BatchBuilder(1000, 0), 10, 0)
    batch._retry_count = attempts
    acknowledged = asyncio.get_running_loop().create_future()
    if isinstance(answer, Exception):
        acknowledged.set_exception(answer)
    else:
        acknowledged.set_result(answer)
    return _verdict(batch, acknowledged)


def metadata(offset: int) -> RecordMetadata:
    return RecordMetadata("events", 0, HERE, offset, -1, 0, 0)


async def test_a_confirmation_has_an_offset() -> None:
    assert await verdict_on(metadata(7)) == Appended(7)


async def test_a_batch_that_the_broker_knew_is_confirmed_without_an_offset() -> None:
    assert await verdict_on(metadata(-1)) == Appended(None)


async def test_nothing_is_no_confirmation() -> None:
    assert isinstance(await verdict_on(None), Lost)


async def test_what_is_turned_down_at_once_was_not_appended() -> None:
    assert isinstance(await verdict_on(MessageSizeTooLargeError()), TurnedDown)
    assert isinstance(await verdict_on(TopicAuthorizationFailedError("events")), Denied)


async def test_what_is_turned_down_at_the_second_attempt_may_have_been_appended_by_the_first() -> None:
    assert isinstance(await verdict_on(MessageSizeTooLargeError(), attempts=2), Lost)
    assert isinstance(await verdict_on(TopicAuthorizationFailedError("events"), attempts=2), Lost)


@pytest.mark.parametrize("error", [OutOfOrderSequenceNumber, NotEnoughReplicasError, KafkaError])
async def test_any_other_error_proves_nothing(error: type[Exception]) -> None:
    assert isinstance(await verdict_on(error()), Lost)


async def test_a_cancelled_batch_proves_nothing() -> None:
    acknowledged = asyncio.get_running_loop().create_future()
    acknowledged.cancel()

    assert isinstance(_verdict(MessageBatch(HERE, BatchBuilder(1000, 0), 10, 0), acknowledged), Lost)
