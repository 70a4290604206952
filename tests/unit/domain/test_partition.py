"""Partitions agree with Kafka's Java client."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customersignal_ingest.domain.partition import murmur2, partition_for


@pytest.mark.parametrize(
    ("data", "hashed"),
    [
        (b"21", -973932308),
        (b"abc", 479470107),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    ],
)
def test_the_hash_is_the_one_of_kafkas_own_tests(data: bytes, hashed: int) -> None:
    assert murmur2(data) == hashed % 2**32


def test_a_negative_hash_loses_its_sign_before_the_division() -> None:
    # Not with 8 partitions, where the sign would make no difference.
    assert partition_for(b"foobar", 6) == (-790332482 & 0x7FFFFFFF) % 6 != -790332482 % 2**32 % 6


@given(st.binary(max_size=64), st.integers(min_value=1, max_value=1000))
def test_every_key_has_a_partition_that_exists(key: bytes, partitions: int) -> None:
    assert 0 <= partition_for(key, partitions) < partitions
