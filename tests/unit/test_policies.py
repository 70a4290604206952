"""Deadline, Admission and CachedKeys, in simulated time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_time import everyone_waits, run

from customersignal_ingest.adapters.outbound.memory import MemoryPublisher
from customersignal_ingest.domain.errors import Saturated
from customersignal_ingest.domain.event import Record
from customersignal_ingest.domain.outcome import Outcome, Stored, Unknown
from customersignal_ingest.policies import Admission, Deadline
from customersignal_ingest.testing.contracts import a_record
from customersignal_ingest.testing.faults import FaultyPublisher

RECORDS = [a_record(1), a_record(2)]


class Answering:
    """A publisher that does what it is told when it is asked."""

    def __init__(self, answer: Callable[[], Awaitable[Sequence[Outcome]]]) -> None:
        self._answer = answer

    async def publish(self, _: Sequence[Record], /) -> Sequence[Outcome]:
        return await self._answer()


async def kinds_and_bugs(answer: Callable[[], Awaitable[Sequence[Outcome]]]) -> tuple[list[type], list[type]]:
    bugs: list[BaseException] = []
    outcomes = await Deadline(Answering(answer), timeout_s=15, report=bugs.append).publish(RECORDS)
    return list(map(type, outcomes)), list(map(type, bugs))


def test_an_answer_in_time_passes() -> None:
    async def stored() -> Sequence[Outcome]:
        await asyncio.sleep(14)
        return await MemoryPublisher().publish(RECORDS)

    assert run(kinds_and_bugs(stored)) == ([Stored, Stored], [])


def test_no_answer_in_time_is_unknown() -> None:
    async def never() -> Sequence[Outcome]:
        await asyncio.Event().wait()
        return []

    assert run(kinds_and_bugs(never)) == ([Unknown, Unknown], [])


def test_the_deadline_is_kept_to_the_moment() -> None:
    async def answered_at_s() -> float:
        faulty = FaultyPublisher(MemoryPublisher(), ["hangs"])
        await Deadline(faulty, timeout_s=15, report=print).publish(RECORDS)
        return asyncio.get_running_loop().time()

    assert run(answered_at_s()) == pytest.approx(15)


@pytest.mark.parametrize("error", [ConnectionError, TimeoutError, ValueError, asyncio.CancelledError])
def test_a_publisher_that_raises_is_unknown(error: type[BaseException]) -> None:
    async def raises() -> Sequence[Outcome]:
        raise error

    assert run(kinds_and_bugs(raises))[0] == [Unknown, Unknown]


@pytest.mark.parametrize("error", [ConnectionError, ValueError, asyncio.CancelledError])
def test_what_a_publisher_raises_is_reported(error: type[BaseException]) -> None:
    async def raises() -> Sequence[Outcome]:
        raise error

    assert run(kinds_and_bugs(raises))[1] == [error]


def test_a_caller_that_leaves_is_let_go() -> None:
    async def left() -> bool:
        deadline = Deadline(FaultyPublisher(MemoryPublisher(), ["hangs"]), timeout_s=15, report=print)
        call = asyncio.create_task(deadline.publish(RECORDS))
        await everyone_waits()
        call.cancel()
        await asyncio.wait([call])
        return call.cancelled()

    assert run(left())


def admission() -> Admission:
    return Admission(events_max=10, bytes_max=1000, tenant_share=0.5)


def test_what_a_lease_took_is_given_back_at_its_end() -> None:
    bounds = admission()
    with bounds.lease("acme") as lease:
        lease.take(events=5, size_bytes=500)
        assert (bounds.events, bounds.bytes) == (5, 500)
    assert (bounds.events, bounds.bytes) == (0, 0)


def test_a_lease_holds_as_many_events_as_it_is_told_or_as_before() -> None:
    bounds = admission()
    with bounds.lease("acme") as lease:
        lease.hold(events=5)
        lease.hold(events=2)
        assert bounds.events == 2
        with pytest.raises(Saturated):
            lease.hold(events=6)
        assert bounds.events == 2
    assert bounds.events == 0


def test_what_a_lease_took_is_given_back_after_an_error() -> None:
    bounds = admission()

    def fail() -> None:
        with bounds.lease("acme") as lease:
            lease.take(events=5)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert bounds.events == 0


@pytest.mark.parametrize(("events", "size_bytes"), [(6, 0), (0, 501)])
def test_a_tenant_gets_no_more_than_its_share(events: int, size_bytes: int) -> None:
    with admission().lease("acme") as lease, pytest.raises(Saturated):
        lease.take(events=events, size_bytes=size_bytes)


def test_a_flooding_tenant_leaves_room_for_another() -> None:
    bounds = admission()
    with bounds.lease("acme") as flood, bounds.lease("globex") as other:
        flood.take(events=5)
        other.take(events=5)
        assert bounds.events == 10


@pytest.mark.parametrize(("events", "size_bytes"), [(1, 0), (0, 1)])
def test_a_full_process_takes_nobody(events: int, size_bytes: int) -> None:
    bounds = admission()
    with bounds.lease("a") as one, bounds.lease("b") as two, bounds.lease("c") as three:
        one.take(events=5, size_bytes=500)
        two.take(events=5, size_bytes=500)
        with pytest.raises(Saturated):
            three.take(events=events, size_bytes=size_bytes)


def test_what_was_refused_holds_nothing() -> None:
    bounds = admission()
    with bounds.lease("acme") as lease:
        lease.take(events=4)
        with pytest.raises(Saturated):
            lease.take(events=2)
        assert bounds.events == 4


def test_what_was_refused_is_not_given_back() -> None:
    bounds = admission()
    with bounds.lease("acme") as lease:
        lease.take(events=4)
        with pytest.raises(Saturated):
            lease.take(events=2)
    assert bounds.events == 0


TAKES = st.tuples(st.sampled_from(["acme", "globex", "initech"]), st.integers(0, 6), st.integers(0, 600))


@given(st.lists(st.tuples(TAKES, st.booleans()), max_size=30))
def test_no_bound_is_ever_exceeded_and_nothing_is_held_in_the_end(
    takes: list[tuple[tuple[str, int, int], bool]],
) -> None:
    bounds, leases = admission(), []
    for (tenant_id, events, size_bytes), ends_one in takes:
        lease = bounds.lease(tenant_id)
        try:
            lease.take(events=events, size_bytes=size_bytes)
            leases.append((lease, tenant_id, events, size_bytes))
        except Saturated:
            pass
        if ends_one and leases:
            leases.pop(0)[0].__exit__(None, None, None)
        held = {name: [(e, b) for _, owner, e, b in leases if owner == name] for _, name, _, _ in leases}
        assert bounds.events == sum(e for each in held.values() for e, _ in each) <= bounds.events_max
        assert bounds.bytes == sum(b for each in held.values() for _, b in each) <= bounds.bytes_max
        assert all(sum(e for e, _ in each) <= bounds.tenant_events_max for each in held.values())
        assert all(sum(b for _, b in each) <= bounds.tenant_bytes_max for each in held.values())
    for lease, *_ in leases:
        lease.__exit__(None, None, None)
    assert (bounds.events, bounds.bytes, bounds._held) == (0, 0, {})
