"""Event ids: a fresh one on arrival, or one that follows from the client's idempotency key."""

import hashlib
from collections.abc import Callable
from datetime import datetime

from customersignal_ingest.domain.event import moment

_RANDOM_BYTES = 10
_BLOCK = 512
_VERSION_8 = 0x8 << 76
_VARIANT = 0b10 << 62
_WITH_VARIANT = bytes(0b10 << 6 | byte & 0b111111 for byte in range(256))


class FreshIds:
    """Makes UUIDs of version 7 (RFC 9562, 5.7): 48 bits of Unix milliseconds, 74 random bits.

    Random bytes are drawn and written down in blocks: a system call an event was measured to take a
    fifth of the whole path. One instance belongs to one thread, and must not live across a fork.
    """

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        """Take the source of randomness; nothing is drawn yet."""
        self._random_bytes = random_bytes
        self._ends: list[str] = []
        self._moment: datetime | None = None
        self._stem = ""

    def __call__(self, received_at: datetime, /) -> str:
        """Return the next id for something that arrived at this moment."""
        if received_at is not self._moment:  # All events of a request share one moment.
            digits = f"{moment(received_at)[1]:012x}"
            self._moment, self._stem = received_at, f"{digits[:8]}-{digits[8:]}-7"
        if not self._ends:
            self._ends = _random_ends(self._random_bytes(_RANDOM_BYTES * _BLOCK))
        return self._stem + self._ends.pop()


def _random_ends(block: bytes) -> list[str]:
    """Return what follows the version of an id, for each ten random bytes: 12 bits, the variant, and 62 bits."""
    fields = bytearray(block)
    fields[2::_RANDOM_BYTES] = block[2::_RANDOM_BYTES].translate(_WITH_VARIANT)
    return [f"{digits[1:4]}-{digits[4:8]}-{digits[8:]}" for digits in fields.hex(" ", _RANDOM_BYTES).split()]


def derived_id(tenant_id: str, project_id: str | None, idempotency_key: str, /) -> str:
    """Return the UUID of version 8 (RFC 9562, 5.8) that stands for this key of this tenant and project.

    It is made of SHA-256 over the three parts, each with its length before it, so that no two
    different triples can look alike.
    """
    parts = (tenant_id, "" if project_id is None else "+" + project_id, idempotency_key)
    named = b"".join(len(part).to_bytes(4) + part for part in (text.encode() for text in parts))
    number = int.from_bytes(hashlib.sha256(b"customersignal event_id/1\n" + named).digest()[:16])
    return _text(number & ~(0xF << 76 | 0b11 << 62) | _VERSION_8 | _VARIANT)


def _text(number: int) -> str:
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
