"""Which partition a key belongs to, as Kafka's Java client decides it.

Every publisher and every other producer of the topic must agree on this, or the events of one
user part ways.
"""

from functools import lru_cache
from struct import iter_unpack

PARTITIONS_DEFAULT = 8

_M = 0x5BD1E995
_SEED = 0x9747B28C
_32_BITS = 0xFFFFFFFF
_WITHOUT_SIGN = 0x7FFFFFFF


@lru_cache(maxsize=16_384)  # Busy users come again within moments, and the hash costs microseconds.
def partition_for(key: bytes, partitions: int, /) -> int:
    """Return the partition of the key, from 0 to `partitions` - 1."""
    return (murmur2(key) & _WITHOUT_SIGN) % partitions


def murmur2(data: bytes, /) -> int:
    """Return the 32-bit MurmurHash2 with the seed of Kafka's Java client, without a sign."""
    whole = len(data) & ~3
    mixed = _SEED ^ len(data)
    for (word,) in iter_unpack("<I", data[:whole]):
        word = word * _M & _32_BITS
        mixed = mixed * _M & _32_BITS ^ (word ^ word >> 24) * _M & _32_BITS
    if tail := data[whole:]:
        mixed = (mixed ^ int.from_bytes(tail, "little")) * _M & _32_BITS
    mixed = (mixed ^ mixed >> 13) * _M & _32_BITS
    return mixed ^ mixed >> 15
