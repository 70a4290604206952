"""Announcing changed keys to every process, by PostgreSQL's LISTEN and NOTIFY."""

import asyncio
import random
from collections.abc import Callable

import asyncpg

from customersignal_ingest.adapters.outbound.sql.postgres import Postgres
from customersignal_ingest.domain.key import Digest

CHANNEL = "cs_ingest_keys"
_HEARTBEAT_S = 5.0
_PAUSE_MIN_S, _PAUSE_MAX_S = 0.1, 2.0

OnChange = Callable[[Digest | None], None]


async def listen(postgres: Postgres, on_change: OnChange, /, *, heartbeat_s: float = _HEARTBEAT_S) -> None:
    """Call `on_change` with the digest of each key that changes, until cancelled.

    With `None` when any key may have changed unheard: each time the connection is made anew. One
    that says nothing is tried every `heartbeat_s`.
    """
    pause_s = _PAUSE_MIN_S
    while True:
        try:
            await _listen_once(postgres, on_change, heartbeat_s)
            pause_s = _PAUSE_MIN_S
        except postgres.errors:
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)
        await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311  Spreading processes out is no secret.


async def _listen_once(postgres: Postgres, on_change: OnChange, heartbeat_s: float) -> None:
    """Return when a connection that worked is lost."""
    connection = await postgres.connect()
    lost = asyncio.Event()
    connection.add_termination_listener(lambda _: lost.set())
    try:
        await connection.add_listener(CHANNEL, lambda _c, _pid, _channel, payload: on_change(_digest(payload)))
        on_change(None)
        while not lost.is_set():
            await _heartbeat(connection, lost, heartbeat_s)
    finally:
        connection.terminate()


async def _heartbeat(connection: asyncpg.Connection, lost: asyncio.Event, heartbeat_s: float) -> None:
    """Find out about a server that went away without a goodbye, which a silent listener never would."""
    try:
        async with asyncio.timeout(heartbeat_s):
            await lost.wait()
    except TimeoutError:
        await connection.execute("SELECT 1")


def _digest(payload: object) -> Digest | None:
    try:
        return bytes.fromhex(str(payload))
    except ValueError:  # Not ours; to doubt everything is always safe.
        return None
