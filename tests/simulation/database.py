"""A database of API keys behind a network: up, slow, away or silent, and what operators did to it."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from customersignal_ingest.adapters.outbound.memory import MemoryKeys
from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.key import ApiKey, Digest, Tenant, digest
from tests.simulation.journal import Journal

TIMEOUT_S = 1.0
"""An adapter's own deadline: what takes longer is `Unavailable`."""
PEPPERS = (b"new pepper", b"old pepper")

Mode = Literal["up", "slow", "away", "silent"]
MODES: tuple[Mode, ...] = ("up", "slow", "away", "silent")


@dataclass(slots=True, kw_only=True)
class Key:
    """A key as its operator knows it. Times are the simulation's, `expires_at` is a date."""

    key_id: str
    secret: str
    tenant: Tenant
    made_at: float
    revoked_at: float = float("inf")
    announced_at: float = float("inf")
    expires_at: datetime | None = None
    expiry_set_at: float = float("-inf")


class KeyDatabase:
    """The rows, and every mode since when. For one run; processes come and go."""

    def __init__(self, journal: Journal, chance: random.Random) -> None:
        self._journal, self._chance = journal, chance
        self._rows = MemoryKeys()
        self.modes: list[tuple[float, Mode]] = [(float("-inf"), "up")]
        self._listeners: list[Callable[[Digest | None], None]] = []
        self.keys: list[Key] = []

    @property
    def mode(self) -> Mode:
        return self.modes[-1][1]

    def become(self, mode: Mode) -> None:
        self._journal.count("keys", mode)
        self._journal.note(f"key database {mode}")
        self.modes.append((_now(), mode))

    def worst_mode(self, since: float, until: float) -> Mode:
        """Return the worst mode of that time."""
        later = [at for at, _ in self.modes[1:]] + [float("inf")]
        within = [mode for (at, mode), end in zip(self.modes, later, strict=True) if at <= until and end >= since]
        return max(within, key=MODES.index)

    async def make(self, tenant: Tenant, *, expires_at: datetime | None = None) -> Key:
        key_id = f"k{len(self.keys)}"
        secret = f"cs_live_{key_id}_TopSecretOf{key_id}"
        key = Key(key_id=key_id, secret=secret, tenant=replace(tenant, key_id=key_id), made_at=_now())
        key.expires_at = expires_at
        await self._rows.create_tenant(tenant.tenant_id)
        row = ApiKey(key_id=key_id, tenant=key.tenant, expires_at=expires_at)
        hashed = digest(secret, PEPPERS[len(self.keys) % 2])
        await self._rows.add_key(row, hashed)
        self.keys.append(key)
        self._changed(key, "made")
        return key

    async def revoke(self, key: Key, at: datetime) -> None:
        await self._rows.revoke(key.key_id, at)
        key.revoked_at = min(key.revoked_at, _now())
        self._changed(key, "revoked")

    async def expire(self, key: Key, at: datetime) -> None:
        await self._rows.expire(key.key_id, at)
        if key.expires_at is None or at < key.expires_at:
            key.expires_at, key.expiry_set_at = at, _now()
        self._changed(key, "expires")

    def _changed(self, key: Key, how: str) -> None:
        self._journal.count("keys", how)
        self._journal.note(f"{key.key_id} {how}")
        if self.mode in ("up", "slow") and self._chance.random() < 0.5:  # Announcements may be lost.
            asyncio.get_running_loop().call_later(self._chance.uniform(0.0, 0.1), self._announce, key)

    def _announce(self, key: Key) -> None:
        for tell in self._listeners:
            for pepper in PEPPERS:
                tell(digest(key.secret, pepper))
        if key.revoked_at <= _now():
            key.announced_at = min(key.announced_at, _now())

    async def answer(self, wanted: Digest) -> ApiKey | None:
        """Look up, early or late within the time it takes."""
        if self.mode == "silent":
            await asyncio.sleep(TIMEOUT_S)
            raise Unavailable("no answer from the database")
        early = self._chance.random() < 0.5
        found = await self._rows.find(wanted) if early else None
        await asyncio.sleep(self._chance.uniform(*((0.0005, 0.004) if self.mode == "up" else (0.1, 0.45))))
        if self.mode in ("away", "silent"):
            raise Unavailable("the database is away")
        return found if early else await self._rows.find(wanted)

    def client(self) -> "KeyClient":
        """Return the database as one process sees it."""
        return KeyClient(self, self._listeners)


class KeyClient:
    """A key repository; `Unavailable` when the database is away."""

    def __init__(self, database: KeyDatabase, listeners: list[Callable[[Digest | None], None]]) -> None:
        self._database, self._listeners = database, listeners

    def watch(self, on_change: Callable[[Digest | None], None]) -> None:
        self._listeners[:] = [on_change]

    async def find(self, digest: Digest, /) -> ApiKey | None:
        return await self._database.answer(digest)

    async def ping(self) -> None:
        await self._database.answer(b"")


def _now() -> float:
    return asyncio.get_running_loop().time()
