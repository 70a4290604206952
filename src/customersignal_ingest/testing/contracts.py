"""What every publisher must do, as tests. Subclass the contract, provide `harness`, and run pytest.

    class TestMine(EventPublisherContract):
        @pytest.fixture
        async def harness(self) -> AsyncIterator[PublisherHarness]:
            yield MyHarness(MyPublisher())

Needs pytest and anyio. The store behind the harness is a healthy one: what happens when it is not
is each adapter's own to test.
"""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import anyio
import anyio.lowlevel
import pytest
from msgspec.structs import replace

from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.event import Record, StoredRecord
from customersignal_ingest.domain.outcome import NotStored, Outcome, Stored
from customersignal_ingest.ports import EventPublisher, Resource
from customersignal_ingest.testing.planted import PROPERTY, USER_ID

DEADLINE_S = 30.0
VALUE_BYTES_LARGE = 900_000

# Brokers drop records that look weeks old, so the made-up records arrive about now.
_ARRIVED_MS = time.time_ns() // 1_000_000


class PublisherHarness(Protocol):
    """A publisher that is open and empty, and a way to its store that does not lead through it."""

    @property
    def publisher(self) -> EventPublisher:
        """The publisher under test, ready to publish."""
        ...

    @property
    def life(self) -> Resource | None:
        """The same publisher as something to close and ping; `None` if it has no life."""
        ...

    @property
    def unopened(self) -> Resource | None:
        """Another publisher that was never opened; `None` if it has no life."""
        ...

    async def stored(self) -> Sequence[StoredRecord]:
        """Read all records back, in order within each partition; works after a `close` too."""
        ...


def a_record(n: int, /, *, key: bytes | None = None, value: bytes | None = None) -> Record:
    """Return the nth example of a record: no two share their bytes, and every seventh shares a key."""
    event_id = f"event-{n:08}"
    return Record(
        key=f"acme:{USER_ID}-{n % 7}".encode() if key is None else key,
        value=f'{{"event_id":"{event_id}","properties":{{"n":{n},"is":"{PROPERTY}"}}}}'.encode()
        if value is None
        else value,
        headers=(("event_id", event_id.encode()), ("content-type", b"application/json")),
        timestamp_ms=_ARRIVED_MS + n,
        tenant_id="acme",
        event_id=event_id,
    )


def missing(records: Sequence[Record], stored: Sequence[StoredRecord], /) -> list[Record]:
    """Return the records that can't be read back byte for byte: key, value, headers and timestamp."""
    there = Counter(map(_bytes_of, stored))
    there.subtract(map(_bytes_of, records))
    return [record for record in records if there[_bytes_of(record)] < 0]


class EventPublisherContract:
    """What every publisher must do. Subclass it and provide `harness`."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture(scope="session")
    @staticmethod
    def anyio_backend() -> str:
        """Adapters run on asyncio."""
        return "asyncio"

    @pytest.fixture
    async def harness(self) -> PublisherHarness:
        """Provide an open publisher over an empty store, and close it afterwards. Override this."""
        raise NotImplementedError

    async def test_a_stored_record_can_be_read_back_byte_for_byte(self, harness: PublisherHarness) -> None:
        """Key, value, headers and timestamp are in the store as they were handed over."""
        records = [a_record(n) for n in range(100)]

        outcomes = await _publish(harness, records)

        assert _stored(outcomes)
        assert missing(records, await harness.stored()) == []

    @pytest.mark.parametrize("count", [0, 1, 2, 1000])
    async def test_every_record_has_one_outcome(self, harness: PublisherHarness, count: int) -> None:
        """As many outcomes as records, and nothing else in the store."""
        outcomes = await _publish(harness, [a_record(n) for n in range(count)])

        assert len(_stored(outcomes)) == count
        assert len(await harness.stored()) == count

    async def test_an_outcome_belongs_to_the_record_at_its_position(self, harness: PublisherHarness) -> None:
        """A receipt points at that very record, not at its neighbour."""
        records = [a_record(n) for n in range(50)]

        outcomes = await _publish(harness, records)

        there = {record.receipt: _bytes_of(record) for record in await harness.stored()}
        pairs = zip(records, _stored(outcomes), strict=True)
        assert all(there[o.receipt] == _bytes_of(record) for record, o in pairs if o.offset is not None)

    async def test_records_of_one_key_in_one_call_keep_their_order(self, harness: PublisherHarness) -> None:
        """As they stood in the sequence, so they stand in the store."""
        records = [a_record(n) for n in range(70)]

        await _publish(harness, records)

        assert _by_key(await harness.stored()) == _by_key(records)

    async def test_records_of_one_key_in_calls_that_wait_keep_their_order(self, harness: PublisherHarness) -> None:
        """A call that began after another had returned comes after it."""
        records = [a_record(n) for n in range(28)]

        for record in records:
            await _publish(harness, [record])

        assert _by_key(await harness.stored()) == _by_key(records)

    async def test_records_of_one_key_share_a_partition(self, harness: PublisherHarness) -> None:
        """A key has one partition, in every call."""
        records = [a_record(n, key=b"acme:ann") for n in range(20)]

        outcomes = [*_stored(await _publish(harness, records[:10])), *_stored(await _publish(harness, records[10:]))]

        assert len({outcome.partition for outcome in outcomes}) == 1

    async def test_overlapping_calls_all_settle(self, harness: PublisherHarness) -> None:
        """Many callers at once: each gets its own outcomes, and all that was promised is there."""
        calls = [[a_record(10 * call + n) for n in range(10)] for call in range(50)]

        answers = await _publish_at_once(harness, calls)

        assert [len(_stored(answer)) for answer in answers] == [10] * 50
        assert missing([record for call in calls for record in call], await harness.stored()) == []

    async def test_no_two_records_share_a_receipt(self, harness: PublisherHarness) -> None:
        """A place in the store is given once, also among callers at once."""
        calls = [[a_record(10 * call + n) for n in range(10)] for call in range(50)]

        answers = await _publish_at_once(harness, calls)

        receipts = [o.receipt for answer in answers for o in _stored(answer) if o.offset is not None]
        assert len(set(receipts)) == len(receipts)

    async def test_a_cancelled_call_does_not_disturb_the_next(self, harness: PublisherHarness) -> None:
        """Whoever gives up leaves the publisher as it was."""
        for n in range(10):
            await _publish_and_give_up(harness, [a_record(n)])

        outcomes = await _publish(harness, [a_record(10)])

        assert _stored(outcomes)
        assert missing([a_record(10)], await harness.stored()) == []

    async def test_a_cancelled_call_leaves_its_records_whole_or_not_at_all(self, harness: PublisherHarness) -> None:
        """What a cancelled call left behind is what was handed over, at most once."""
        given_up = [a_record(n) for n in range(10)]
        later = [a_record(n, key=b"acme:later") for n in range(10, 20)]

        for record in given_up:
            await _publish_and_give_up(harness, [record])
        await _publish(harness, later)

        assert Counter(map(_bytes_of, await harness.stored())) <= Counter(map(_bytes_of, given_up + later))

    @pytest.mark.parametrize(
        "value",
        [b"", b"\0", b"a\0b\0", bytes(range(256)), b"\xff\xfe\xed", b"x" * VALUE_BYTES_LARGE],
        ids=["empty", "nul", "nul_within", "every_byte", "not_utf_8", "large"],
    )
    async def test_odd_bytes_are_stored_as_they_are(self, harness: PublisherHarness, value: bytes) -> None:
        """A publisher looks into nothing and changes nothing."""
        record = a_record(1, key=b"acme:\0\xff odd", value=value)

        outcomes = await _publish(harness, [record])

        assert _stored(outcomes)
        assert missing([record], await harness.stored()) == []

    async def test_odd_bytes_in_headers_are_stored_as_they_are(self, harness: PublisherHarness) -> None:
        """Headers are bytes in their order, and a name may come twice."""
        headers = (("odd", bytes(range(256))), ("empty", b""), ("twice", b"1"), ("twice", "é".encode()))
        record = replace(a_record(1), headers=headers)

        outcomes = await _publish(harness, [record])

        assert _stored(outcomes)
        assert missing([record], await harness.stored()) == []

    async def test_the_records_handed_over_stay_as_they_were(self, harness: PublisherHarness) -> None:
        """The caller's list is the caller's."""
        records = [a_record(n) for n in range(5)]

        await _publish(harness, records)

        assert records == [a_record(n) for n in range(5)]

    async def test_after_close_nothing_is_stored(self, harness: PublisherHarness) -> None:
        """A closed publisher says `NotStored`, and means it."""
        await _alive(harness.life).close()

        outcomes = await _publish(harness, [a_record(1), a_record(2)])

        assert [type(outcome) for outcome in outcomes] == [NotStored, NotStored]
        assert list(await harness.stored()) == []

    async def test_close_keeps_what_was_stored(self, harness: PublisherHarness) -> None:
        """A promise outlives the publisher."""
        records = [a_record(n) for n in range(10)]
        await _publish(harness, records)

        await _alive(harness.life).close()

        assert missing(records, await harness.stored()) == []

    async def test_close_may_come_twice(self, harness: PublisherHarness) -> None:
        """The second does nothing."""
        life = _alive(harness.life)
        with anyio.fail_after(DEADLINE_S):
            await life.close()
            await life.close()

    async def test_close_may_come_without_open(self, harness: PublisherHarness) -> None:
        """What was never opened can be closed."""
        with anyio.fail_after(DEADLINE_S):
            await _alive(harness.unopened).close()

    async def test_ping_returns_while_open(self, harness: PublisherHarness) -> None:
        """A healthy store answers."""
        with anyio.fail_after(DEADLINE_S):
            await _alive(harness.life).ping()

    async def test_ping_raises_once_closed(self, harness: PublisherHarness) -> None:
        """A closed publisher is `Unavailable`."""
        life = _alive(harness.life)
        await life.close()
        with anyio.fail_after(DEADLINE_S), pytest.raises(Unavailable):
            await life.ping()


async def _publish(harness: PublisherHarness, records: Sequence[Record]) -> Sequence[Outcome]:
    with anyio.fail_after(DEADLINE_S):
        return await harness.publisher.publish(records)


async def _publish_at_once(harness: PublisherHarness, calls: Sequence[Sequence[Record]]) -> Sequence[Sequence[Outcome]]:
    answers: list[Sequence[Outcome]] = [()] * len(calls)

    async def publish(number: int) -> None:
        answers[number] = await _publish(harness, calls[number])

    async with anyio.create_task_group() as tasks:
        for number in range(len(calls)):
            tasks.start_soon(publish, number)
    return answers


async def _publish_and_give_up(harness: PublisherHarness, records: Sequence[Record]) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(harness.publisher.publish, records)
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()


def _stored(outcomes: Sequence[Outcome]) -> list[Stored]:
    """Return the outcomes, all of which a healthy store must have made `Stored`."""
    stored = [outcome for outcome in outcomes if isinstance(outcome, Stored)]
    assert stored == list(outcomes)
    return stored


def _bytes_of(record: Record | StoredRecord) -> tuple[bytes, bytes, tuple[tuple[str, bytes], ...], int]:
    return record.key, record.value, tuple(record.headers), record.timestamp_ms


def _by_key(records: Sequence[Record] | Sequence[StoredRecord]) -> dict[bytes, list[bytes]]:
    values: dict[bytes, list[bytes]] = {}
    for record in records:
        values.setdefault(record.key, []).append(record.value)
    return values


def _alive(resource: Resource | None) -> Resource:
    if resource is None:
        pytest.skip("this publisher has no life: its harness says so")
    return resource
