"""API keys for measurements: a key store in SQLite, with as many tenants as one likes, each with a key."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import create_async_engine

from customersignal_ingest.adapters.outbound.sql.tables import api_keys, tenants
from customersignal_ingest.domain.key import digest, new_key
from tests.integration.servers.service import done

_PEPPER = "a pepper for measurements"
_AT_ONCE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Where the store is, and what is in it."""

    url: str
    pepper: str
    all: Sequence[str]

    @property
    def one(self) -> str:
        """Return the first tenant's key."""
        return self.all[0]


def make_keys(folder: Path, *, count: int = 1) -> Keys:
    """Make so many tenants, each with a live key."""
    url = f"sqlite:///{folder}/keys.db"
    done(folder, "migrate", KEYS_URL=url)
    made = [new_key("live", os.urandom) for _ in range(count)]
    now = datetime.now(UTC)
    rows = [
        {
            "key_id": key.key_id,
            "digest": digest(key.secret, _PEPPER.encode()),
            "tenant_id": f"tenant-{number:06}",
            "environment": "live",
            "created_at": now,
        }
        for number, key in enumerate(made)
    ]
    asyncio.run(_fill(folder, rows))
    return Keys(url=url, pepper=_PEPPER, all=[key.secret for key in made])


async def _fill(folder: Path, rows: Sequence[dict[str, object]]) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{folder}/keys.db")
    try:
        async with engine.begin() as connection:
            for first in range(0, len(rows), _AT_ONCE):
                some = rows[first : first + _AT_ONCE]
                known = [{name: row[name] for name in ("tenant_id", "created_at")} for row in some]
                await connection.execute(insert(tenants), known)
                await connection.execute(insert(api_keys), some)
    finally:
        await engine.dispose()
