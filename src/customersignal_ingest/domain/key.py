"""API keys: the text a client sends, the digest we keep, and the tenant it stands for.

Keys that we make look like `cs_live_<key id>_<secret>_<checksum>`: 256 random bits, and a CRC-32
so that a secret scanner can tell a real key from noise. The checksum is no secret and no proof.
A key of any other shape that the repository knows is as good.
"""

import hashlib
import hmac
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Literal

Environment = Literal["live", "test"]
Digest = bytes

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_BYTES = 32
_KEY_ID_BYTES = 6
_BLOCK_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """Whom a key speaks for. Made by `authenticate` alone; nothing in a body can change it."""

    tenant_id: str
    project_id: str | None = None
    environment: Environment = "live"
    key_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What a key repository knows of one key: never the key itself.

    `pepper_id` names the pepper that its digest was made with, where that is known. `last_used_at`
    is coarse, and is no part of what makes two of these equal.
    """

    key_id: str
    tenant: Tenant
    name: str | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    pepper_id: str | None = None
    last_used_at: datetime | None = field(default=None, compare=False)


def digest(api_key: str, pepper: bytes, /) -> Digest:
    """Return the HMAC-SHA-256 of the whole key under the pepper: 32 bytes, all that is ever kept.

    A slow hash would add nothing: the keys have 256 random bits, and its cost would be a lever
    for denial of service.
    """
    inner, outer = _begun(pepper)
    inner, outer = inner.copy(), outer.copy()
    inner.update(api_key.encode())
    outer.update(inner.digest())
    return outer.digest()


@lru_cache(maxsize=16)
def _begun(pepper: bytes) -> "tuple[hashlib._Hash, hashlib._Hash]":
    """Return the inner and the outer hash as every HMAC under this pepper begins them (RFC 2104).

    `hmac` begins anew for each key, and OpenSSL looks for its algorithm again: three times as long.
    """
    block = (hashlib.sha256(pepper).digest() if len(pepper) > _BLOCK_BYTES else pepper).ljust(_BLOCK_BYTES, b"\0")
    return hashlib.sha256(bytes(byte ^ 0x36 for byte in block)), hashlib.sha256(bytes(byte ^ 0x5C for byte in block))


def pepper_id(pepper: bytes, /) -> str:
    """Return a short name of the pepper that does not tell it: to see which keys were made under which."""
    return hmac.digest(pepper, b"the name of this pepper", "sha256").hex()[:8]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NewKey:
    """A key just made: the only moment at which its secret exists here."""

    key_id: str
    secret: str


def new_key(environment: Environment, random_bytes: Callable[[int], bytes], /) -> NewKey:
    """Make a key from `random_bytes`, which must come from the system's secure source."""
    key_id = "k" + _base62(random_bytes(_KEY_ID_BYTES), 9)
    body = f"cs_{environment}_{key_id}_{_base62(random_bytes(_SECRET_BYTES), 43)}"
    return NewKey(key_id=key_id, secret=f"{body}_{checksum(body)}")


def has_our_shape(api_key: str, /) -> bool:
    """Tell whether the text is a key as `new_key` makes them, checksum included."""
    body, _, end = api_key.rpartition("_")
    parts = body.split("_")
    return (
        len(parts) == 4
        and parts[0] == "cs"
        and parts[1] in ("live", "test")
        and len(parts[2]) == 10
        and len(parts[3]) == 43
        and all(c in _ALPHABET for c in parts[2] + parts[3])
        and end == checksum(body)
    )


def checksum(body: str, /) -> str:
    """Return the CRC-32 of the key's other parts, six base-62 digits."""
    return _base62(zlib.crc32(body.encode()).to_bytes(4), 6)


def _base62(data: bytes, width: int) -> str:
    number, digits = int.from_bytes(data), ""
    for _ in range(width):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
