"""The use case, and who may use it."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_time import run
from system import System

from customersignal_ingest.adapters.outbound.memory import MemoryKeys, MemoryPublisher
from customersignal_ingest.domain.errors import KeyProblem, Unauthenticated, Unavailable
from customersignal_ingest.domain.event import Record
from customersignal_ingest.domain.flaws import CLOSE_VALUES_MAX
from customersignal_ingest.domain.key import ApiKey, Digest, Tenant, digest
from customersignal_ingest.domain.outcome import Outcome, Receipt, Rejected, Stored
from customersignal_ingest.domain.rules import Limits
from customersignal_ingest.ingest import STRETCH_BYTES, Turn, at_once, authenticate, ingest
from customersignal_ingest.testing.strategies import ACME, BrokenEvent, ValidEvent, batches

AT = datetime(2026, 11, 23, 10, tzinfo=UTC)
GOOD = b'{"event_type":"x","timestamp":"2026-11-23T10:00:00Z","properties":{}}'


class Counting:
    """Counts calls on their way to a publisher."""

    def __init__(self) -> None:
        self.log = MemoryPublisher()
        self.calls: list[int] = []

    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        self.calls.append(len(records))
        return await self.log.publish(records)


def ingested(payloads: Sequence[bytes], publisher: Counting, *, turn: Turn = at_once) -> Receipt:
    async def receipt() -> Receipt:
        ids = (str(number) for number in range(10_000))
        return await ingest(
            ACME, payloads, publisher=publisher, now=lambda: AT, new_id=lambda _: next(ids), limits=Limits(), turn=turn
        )

    result = run(receipt())
    assert isinstance(result, Receipt)
    return result


@given(batches(events_max=4))
def test_every_payload_has_its_own_fate_in_order(sent: list[ValidEvent | BrokenEvent]) -> None:
    receipt = ingested([event.payload for event in sent], Counting())
    kinds = [type(result.outcome) for result in receipt.results]
    assert kinds == [Stored if isinstance(event, ValidEvent) else Rejected for event in sent]


def test_exact_places_are_looked_for_until_enough_was_looked_through() -> None:
    many = b"0," * (CLOSE_VALUES_MAX // 3 * 2)
    flawed = GOOD.replace(b"{}", b'{"a":[' + many + b'"\\u0000"]}')

    receipt = ingested([flawed, flawed, flawed, b"{}"], Counting())

    fields = [result.outcome.field for result in receipt.results if isinstance(result.outcome, Rejected)]
    place = f"/properties/a/{CLOSE_VALUES_MAX // 3 * 2}"
    assert fields == [place, place, "/properties", "/event_type"]


def test_a_turn_is_waited_for_before_each_stretch_of_payloads() -> None:
    large = GOOD.replace(b"{}", b'{"a":"' + b"a" * STRETCH_BYTES + b'"}')
    asked: list[int] = []

    async def turn(size_bytes: int) -> None:
        asked.append(size_bytes)

    receipt = ingested([GOOD, large, b"[]", GOOD, large, GOOD], Counting(), turn=turn)

    small = len(GOOD)
    assert asked == [small + len(large), 2 + small + len(large), small]
    assert [type(result.outcome) for result in receipt.results] == [Stored, Stored, Rejected, Stored, Stored, Stored]


@given(batches(events_max=4))
def test_only_valid_events_reach_the_publisher(sent: list[ValidEvent | BrokenEvent]) -> None:
    publisher = Counting()
    ingested([event.payload for event in sent], publisher)
    assert len(publisher.log.stored) == sum(isinstance(event, ValidEvent) for event in sent)


def test_one_batch_is_one_call_of_the_publisher() -> None:
    publisher = Counting()
    ingested([GOOD] * 100, publisher)
    assert publisher.calls == [100]


def test_without_a_valid_event_the_publisher_is_left_alone() -> None:
    publisher = Counting()
    ingested([b"{}", b"nope"], publisher)
    assert publisher.calls == []


def test_all_events_of_a_request_arrive_at_one_moment() -> None:
    publisher = Counting()
    receipt = ingested([GOOD] * 3, publisher)
    assert {receipt.received_at, AT} == {AT}
    assert {record.timestamp_ms for record in publisher.log.stored} == {1_795_428_000_000}


def test_three_broken_events_of_a_hundred_are_rejected_alone() -> None:
    payloads = [GOOD] * 100
    payloads[3], payloads[50], payloads[99] = b"{}", b'{"event_type":1}', b"{"

    receipt = ingested(payloads, Counting())

    rejected = [at for at, result in enumerate(receipt.results) if isinstance(result.outcome, Rejected)]
    assert (rejected, receipt.count(Stored)) == ([3, 50, 99], 97)


def test_a_traceparent_reaches_every_record() -> None:
    async def headers() -> list[bytes]:
        system = System()
        await system.ingest(ACME, [GOOD, GOOD], traceparent="00-a-b-01")
        return [dict(record.headers)["traceparent"] for record in system.stored]

    assert run(headers()) == [b"00-a-b-01"] * 2


def test_cancelling_withdraws_nothing() -> None:
    async def stored() -> int:
        system = System()
        system.faults.plan("slow")
        call = asyncio.create_task(system.ingest(ACME, [GOOD]))
        await asyncio.sleep(1)
        call.cancel()
        await asyncio.wait([call])
        await system.faults.release()
        return len(system.stored)

    assert run(stored()) == 1


PEPPERS = (b"new pepper", b"old pepper")
TENANT = Tenant(tenant_id="acme", key_id="k1")


class Keys:
    """A key repository with one key, or one that can't tell."""

    def __init__(self, key: ApiKey | None = None, *, pepper: bytes = PEPPERS[0], away: bool = False) -> None:
        self.key, self.pepper, self.away = key, pepper, away
        self.asked = 0

    async def find(self, wanted: Digest, /) -> ApiKey | None:
        self.asked += 1
        if self.away:
            raise Unavailable("away")
        return self.key if wanted == digest("cs_live_good", self.pepper) else None


def known(*, expires_in_s: float | None = None, revoked_for_s: float | None = None) -> ApiKey:
    expires_at = None if expires_in_s is None else AT + timedelta(seconds=expires_in_s)
    revoked_at = None if revoked_for_s is None else AT - timedelta(seconds=revoked_for_s)
    return ApiKey(key_id="k1", tenant=TENANT, expires_at=expires_at, revoked_at=revoked_at)


def outcome(api_key: str | None, keys: Keys) -> Tenant | KeyProblem | str:
    try:
        tenant = run(authenticate(api_key, keys=keys, peppers=PEPPERS, now=lambda: AT))
    except Unauthenticated as error:
        return error.problem
    except Unavailable:
        return "unavailable"
    assert isinstance(tenant, Tenant)
    return tenant


@pytest.mark.parametrize(
    ("api_key", "keys", "expected"),
    [
        ("cs_live_good", Keys(known()), TENANT),
        ("cs_live_good", Keys(known(), pepper=PEPPERS[1]), TENANT),
        ("cs_live_good", Keys(known(), pepper=b"third"), KeyProblem.INVALID),
        ("cs_live_good", Keys(known(expires_in_s=1)), TENANT),
        ("cs_live_good", Keys(known(expires_in_s=0)), KeyProblem.EXPIRED),
        ("cs_live_good", Keys(known(expires_in_s=-1), pepper=PEPPERS[1]), KeyProblem.EXPIRED),
        ("cs_live_good", Keys(known(revoked_for_s=0)), KeyProblem.REVOKED),
        ("cs_live_good", Keys(known(revoked_for_s=-1)), KeyProblem.REVOKED),  # Our clock is behind.
        ("cs_live_good", Keys(known(revoked_for_s=1, expires_in_s=-1)), KeyProblem.REVOKED),
        ("cs_live_good", Keys(known(revoked_for_s=1), away=True), "unavailable"),
        ("cs_live_bad", Keys(known()), KeyProblem.INVALID),
        ("cs_live_bad", Keys(away=True), "unavailable"),
        ("not a key", Keys(known()), KeyProblem.INVALID),
        ("größe", Keys(known()), KeyProblem.INVALID),
        ("", Keys(known()), KeyProblem.MISSING),
        (None, Keys(known()), KeyProblem.MISSING),
        (None, Keys(away=True), KeyProblem.MISSING),
    ],
)
def test_each_case_of_a_key_has_its_own_answer(
    api_key: str | None, keys: Keys, expected: Tenant | KeyProblem | str
) -> None:
    assert outcome(api_key, keys) == expected


@given(st.text(min_size=1, max_size=60), st.booleans())
def test_an_outage_never_turns_a_key_away_and_a_bad_key_is_never_an_outage(api_key: str, away: bool) -> None:
    answer = outcome(api_key, Keys(known(), away=away))
    assert answer == ("unavailable" if away else TENANT if api_key == "cs_live_good" else KeyProblem.INVALID)


def test_a_missing_key_costs_no_look_up() -> None:
    keys = Keys(known())
    outcome(None, keys)
    assert keys.asked == 0


def test_a_key_under_the_newest_pepper_costs_one_look_up() -> None:
    keys = Keys(known())
    outcome("cs_live_good", keys)
    assert keys.asked == 1


def test_a_key_that_was_made_opens_its_tenant() -> None:
    async def opened() -> Tenant:
        keys = MemoryKeys()
        await keys.create_tenant("acme")
        await keys.add_key(known(), digest("any shape will do", PEPPERS[1]))
        return await authenticate("any shape will do", keys=keys, peppers=PEPPERS, now=lambda: AT)

    assert run(opened()) == TENANT


def test_a_refusal_never_repeats_the_key() -> None:
    with pytest.raises(Unauthenticated) as refused:
        run(authenticate("cs_live_s3cret", keys=Keys(), peppers=PEPPERS, now=lambda: AT))
    assert "s3cret" not in repr(refused.value)
