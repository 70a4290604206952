"""The real service as a process, over the embedded log and keys of every kind, and all that it leaves behind."""

import asyncio
import json
import re
import secrets
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from customersignal_ingest.adapters.outbound.sql import open_key_repository
from customersignal_ingest.cli.keys import make_key
from customersignal_ingest.domain.key import new_key
from customersignal_ingest.registry import AdapterSettings
from customersignal_ingest.testing.planted import leaked
from tests.hostile.corpus import GOOD_EVENT
from tests.hostile.words import KEYS, PRIVATE, SECRET
from tests.integration.servers.service import Service

BODY_READ_TIMEOUT_S = 3
TENANT = "acme"
"""Whose the key of that name is, and the one that is bound to a project."""
PEPPER = secrets.token_hex(32)


@dataclass
class Stage:
    """One running service. `words` are its keys by name, as rows of the corpus speak of them."""

    service: Service
    words: Mapping[str, bytes]
    process: psutil.Process = field(init=False)

    def __post_init__(self) -> None:
        self.process = psutil.Process(self.service.process.pid)

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.service.port

    @property
    def secrets(self) -> list[bytes]:
        """Whatever no answer may have."""
        return [*(self.words[name] for name in KEYS), PEPPER.encode(), SECRET.encode()]

    def is_serving(self) -> bool:
        """Tell whether a good event is stored."""
        event = b"{%s}" % b",".join(b'"%s":%s' % (name.encode(), value.encode()) for name, value in GOOD_EVENT.items())
        return self.service.post(self.words["key"].decode(), event).status_code == 202

    def stored(self) -> dict[str | None, list[bytes]]:
        """Return the values in the log by the trace that they carry, read without any code of the service."""
        found: dict[str | None, list[bytes]] = {}
        with closing(self._log()) as log:
            for headers, value in log.execute("SELECT headers, value FROM log ORDER BY sequence"):
                found.setdefault(dict(json.loads(headers)).get("traceparent"), []).append(value)
        return found

    def stored_count(self) -> int:
        """Return how many records are in the log."""
        with closing(self._log()) as log:
            return int(log.execute("SELECT count(*) FROM log").fetchone()[0])

    def leaks(self) -> list[str]:
        """Return the lines of log and metrics that have what they must not."""
        written = "".join((self.service.folder / name).read_text(errors="replace") for name in ("out.txt", "err.txt"))
        told = written + self.service.get("/metrics").text
        errors = [line for line in written.splitlines() if re.search(r'"level": ?"(error|critical)"|Traceback', line)]
        return [*leaked(told, *(secret.decode() for secret in self.secrets)), *errors]

    def logged(self) -> Counter[int]:
        """Return how many requests ended with each status, as the log has it, those for its health aside."""
        lines = map(_parsed, (self.service.folder / "out.txt").read_bytes().splitlines())
        asked = [line for line in lines if line.get("message") == "request" and "/health" not in line["http.route"]]
        return Counter(line["http.response.status_code"] for line in asked)

    def files(self) -> int:
        """Return how many file descriptors it has open."""
        return int(self.process.num_fds())

    def memory_mib(self) -> float:
        """Return what it holds in memory."""
        return float(self.process.memory_info().rss) / 2**20

    def _log(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self.service.folder}/data/events.db?mode=ro", uri=True)


@contextmanager
def staged(folder: Path, **variables: str) -> Iterator[Stage]:
    """Serve, with these settings on top, until the block ends."""
    (folder / "data").mkdir()
    words = asyncio.run(_make_keys(f"sqlite:///{folder}/data/keys.db"))
    given = {
        "PUBLISHER_URL": "sqlite:///data/events.db",
        "KEYS_URL": "sqlite:///data/keys.db",
        "KEY_PEPPER": PEPPER,
        "BODY_READ_TIMEOUT_S": str(BODY_READ_TIMEOUT_S),
        "DRAIN_DELAY_S": "0",
        "LOG_FORMAT": "json",
    }
    service = Service(folder, {**given, **variables})
    try:
        yield Stage(service.ready(), words)
    finally:
        service.kill()


async def _make_keys(url: str) -> dict[str, bytes]:
    store: Any = open_key_repository(url, settings=AdapterSettings())
    pepper = PEPPER.encode()
    try:
        await store.migrate()
        for tenant_id in (TENANT, "other"):
            await store.create_tenant(tenant_id)
        made = {
            "key": await make_key(store, pepper, tenant_id=TENANT),
            "other": await make_key(store, pepper, tenant_id="other"),
            "bound": await make_key(store, pepper, tenant_id=TENANT, project_id="shop"),
            "revoked": await make_key(store, pepper, tenant_id=TENANT),
            "expired": await make_key(store, pepper, tenant_id=TENANT, expires_in=timedelta()),
        }
        await store.revoke(made["revoked"].key.key_id, datetime.now(UTC))
    finally:
        await store.close()
    unknown = new_key("live", secrets.token_bytes).secret
    words = {name: key.secret for name, key in made.items()} | {
        "unknown": unknown,
        "secret": SECRET,
        "private": PRIVATE,
    }
    return {name: text.encode() for name, text in words.items()}


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:
        return {}
    return found
