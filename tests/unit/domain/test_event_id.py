"""Ids of events: fresh ones are UUIDs of version 7, derived ones follow from the idempotency key."""

import os
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import RFC_4122, UUID

from hypothesis import assume, example, given
from hypothesis import strategies as st

from customersignal_ingest.domain.event import unix_ms
from customersignal_ingest.domain.event_id import FreshIds, derived_id

AT = datetime(2026, 11, 23, 10, 0, 0, 123456, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOMENTS = st.integers(0, 253_402_300_799_999_999).map(lambda microseconds: EPOCH + timedelta(microseconds=microseconds))
# Few letters and the separators that a careless concatenation would use.
PARTS = st.text("a+:/\n\0\x01", max_size=6)
TRIPLES = st.tuples(PARTS, st.none() | PARTS, PARTS)


def seeded(seed: int) -> Callable[[int], bytes]:
    return random.Random(seed).randbytes


def test_a_fresh_id_of_known_bytes() -> None:
    ids = FreshIds(lambda count: bytes(range(10)) * (count // 10))
    assert ids(AT) == "01a207d9-217b-7001-8203-040506070809"


@given(MOMENTS, st.integers())
def test_a_fresh_id_is_a_uuid_of_version_7(moment: datetime, seed: int) -> None:
    uuid = UUID(FreshIds(seeded(seed))(moment))
    assert (uuid.version, uuid.variant) == (7, RFC_4122)


@given(MOMENTS, st.integers())
def test_a_fresh_id_begins_with_the_moment(moment: datetime, seed: int) -> None:
    assert UUID(FreshIds(seeded(seed))(moment)).int >> 80 == unix_ms(moment)


@given(st.lists(MOMENTS, min_size=2, max_size=5))
def test_each_fresh_id_has_its_own_moment(moments: list[datetime]) -> None:
    ids = FreshIds(os.urandom)
    assert [UUID(ids(moment)).int >> 80 for moment in moments] == list(map(unix_ms, moments))


def test_fresh_ids_of_one_moment_differ() -> None:
    ids = FreshIds(os.urandom)
    assert len({ids(AT) for _ in range(10_000)}) == 10_000


def test_fresh_ids_of_later_milliseconds_are_greater() -> None:
    ids = FreshIds(os.urandom)
    made = [ids(AT + timedelta(milliseconds=n)) for n in range(1000)]
    assert made == sorted(made)


def test_all_random_bits_are_used() -> None:
    ids = FreshIds(seeded(1))
    made = [UUID(ids(AT)).int for _ in range(2000)]
    ever_one, ever_zero = 0, 0
    for number in made:
        ever_one, ever_zero = ever_one | number, ever_zero | ~number
    assert (ever_one & ever_zero & (1 << 80) - 1).bit_count() == 74


def test_randomness_is_drawn_in_blocks() -> None:
    drawn: list[int] = []
    ids = FreshIds(lambda count: drawn.append(count) or os.urandom(count))
    for _ in range(512):
        ids(AT)
    assert drawn == [5120]


def test_a_derived_id_is_the_same_for_ever() -> None:
    assert derived_id("acme", None, "order-7") == "13fafb28-5c8d-888b-848a-4aa570f32d4d"


def test_a_derived_id_with_a_project_is_the_same_for_ever() -> None:
    assert derived_id("größe", "web", "order-7") == "6a985d25-f1f1-8868-95d6-c9e3429d23cc"


@given(TRIPLES)
def test_a_derived_id_is_a_uuid_of_version_8(triple: tuple[str, str | None, str]) -> None:
    uuid = UUID(derived_id(*triple))
    assert (uuid.version, uuid.variant) == (8, RFC_4122)


@given(TRIPLES)
def test_the_same_triple_gives_the_same_id(triple: tuple[str, str | None, str]) -> None:
    assert derived_id(*triple) == derived_id(*triple)


@given(TRIPLES, TRIPLES)
@example(("a", "b", "c"), ("a", "bc", ""))
@example(("ab", None, "c"), ("a", None, "bc"))
@example(("a", None, "b"), ("a", "", "b"))
@example(("a", "+", "b"), ("a", "", "b"))
@example(("a", "b", "c"), ("b", "a", "c"))
@example(("a:b", None, "c"), ("a", "b", "c"))
def test_different_triples_give_different_ids(
    one: tuple[str, str | None, str], other: tuple[str, str | None, str]
) -> None:
    assume(one != other)
    assert derived_id(*one) != derived_id(*other)


@given(TRIPLES, st.data())
def test_moving_text_from_one_part_to_the_next_gives_another_id(
    triple: tuple[str, str | None, str], data: st.DataObject
) -> None:
    tenant, project, key = triple
    assume(tenant)
    at = data.draw(st.integers(0, len(tenant) - 1))
    moved = (tenant[:at], tenant[at:] + (project or ""), key)
    assert derived_id(*moved) != derived_id(*triple)
