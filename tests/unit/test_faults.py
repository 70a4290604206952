"""The publisher with faults on purpose does what its plan says, and nothing else."""

import asyncio

import pytest
from simulated_time import everyone_waits, run

from customersignal_ingest.adapters.outbound.memory import MemoryPublisher
from customersignal_ingest.domain.outcome import Outcome
from customersignal_ingest.testing.contracts import a_record
from customersignal_ingest.testing.faults import FAULTS, FaultyPublisher


def names(outcomes: list[Outcome]) -> list[str]:
    return [type(outcome).__name__ for outcome in outcomes]


@pytest.mark.parametrize(
    ("word", "outcome", "stored"),
    [
        ("ok", "Stored", 1),
        ("stored", "Stored", 1),
        ("lost", "NotStored", 0),
        ("refused", "Refused", 0),
        ("ack_lost", "Unknown", 1),
        ("stored_late", "Unknown", 0),
    ],
)
def test_a_word_decides_what_is_stored_and_what_is_answered(word: str, outcome: str, stored: int) -> None:
    log = MemoryPublisher()
    outcomes = run(FaultyPublisher(log, [word]).publish([a_record(1)]))
    assert (names(outcomes), len(log.stored)) == ([outcome], stored)


def test_what_is_late_is_stored_at_the_release() -> None:
    async def stored() -> int:
        log = MemoryPublisher()
        faulty = FaultyPublisher(log, ["stored_late"])
        await faulty.publish([a_record(1), a_record(2)])
        await faulty.release()
        return len(log.stored)

    assert run(stored()) == 2


def test_what_is_slow_is_answered_at_the_release() -> None:
    async def outcomes() -> tuple[int, list[str]]:
        faulty = FaultyPublisher(MemoryPublisher(), ["slow"])
        call = asyncio.create_task(faulty.publish([a_record(1)]))
        await everyone_waits()
        held = faulty.held
        await faulty.release()
        return held, names(list(await call))

    assert run(outcomes()) == (1, ["Stored"])


@pytest.mark.parametrize(("word", "stored"), [("slow", 1), ("hangs", 1)])
def test_cancelling_withdraws_nothing(word: str, stored: int) -> None:
    async def left_behind() -> int:
        log = MemoryPublisher()
        faulty = FaultyPublisher(log, [word])
        call = asyncio.create_task(faulty.publish([a_record(1)]))
        await everyone_waits()
        call.cancel()
        await everyone_waits()
        await faulty.release()
        return len(log.stored)

    assert run(left_behind()) == stored


def test_what_hangs_never_answers() -> None:
    async def answered() -> bool:
        call = asyncio.create_task(FaultyPublisher(MemoryPublisher(), ["hangs"]).publish([a_record(1)]))
        done, _ = await asyncio.wait([call], timeout=86_400)
        call.cancel()
        return bool(done)

    assert not run(answered())


def test_what_raises_has_stored_all_the_same() -> None:
    log = MemoryPublisher()
    with pytest.raises(ConnectionError):
        run(FaultyPublisher(log, ["raises"]).publish([a_record(1)]))
    assert len(log.stored) == 1


def test_each_call_takes_the_next_entry_and_then_all_is_well() -> None:
    async def outcomes() -> list[str]:
        faulty = FaultyPublisher(MemoryPublisher(), ["ack_lost", "lost"])
        return names([(await faulty.publish([a_record(n)]))[0] for n in range(4)])

    assert run(outcomes()) == ["Unknown", "NotStored", "Stored", "Stored"]


def test_several_words_go_record_by_record() -> None:
    faulty = FaultyPublisher(MemoryPublisher(), ["ok lost ack_lost"])
    outcomes = run(faulty.publish([a_record(n) for n in range(5)]))
    assert names(outcomes) == ["Stored", "NotStored", "Unknown", "Stored", "Stored"]


def test_one_word_goes_for_every_record() -> None:
    outcomes = run(FaultyPublisher(MemoryPublisher(), ["lost"]).publish([a_record(n) for n in range(3)]))
    assert names(outcomes) == ["NotStored"] * 3


def test_a_new_plan_takes_the_place_of_the_old_one() -> None:
    faulty = FaultyPublisher(MemoryPublisher(), ["lost"])
    faulty.plan("refused")
    assert names(run(faulty.publish([a_record(1)]))) == ["Refused"]


@pytest.mark.parametrize("entry", ["late", "ok oops", "", "OK"])
def test_a_wrong_word_is_refused_with_the_known_ones(entry: str) -> None:
    with pytest.raises(ValueError, match=", ".join(FAULTS)):
        FaultyPublisher(MemoryPublisher(), [entry])
