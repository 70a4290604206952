"""The client that loads a server: what it is asked to send, and what it reports. The client itself is in `load/`."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from benchmarks.machine import Cores, on

NUMBER, USER, KEY = "\x01", "\x02", "\x03"
"""Runs of these marks are overwritten: by the event's number, by its user's, by an API key."""

EVENT = (
    '{"event_type":"product_viewed","timestamp":"2026-11-23T10:00:00.123Z",'
    f'"user_id":"user-{USER * 8}","session_id":"session-{NUMBER * 16}",'
    '"properties":{"product_id":"sku-48213","name":"Linen shirt, blue","price":59.90,"currency":"EUR",'
    '"position":3,"referrer":"/search?q=shirt","tags":["linen","summer"],"in_stock":true}}'
)
"""One event of some three hundred bytes."""

_SOURCE = Path(__file__).parent / "load"
_PATIENCE_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a server wants its requests: `before` and `after` stand around the events of a body."""

    path: str
    headers: Mapping[str, str]
    before: str = ""
    event: str = EVENT
    after: str = ""
    accepted: Sequence[int] = (202,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the client does. With a `rate` it sends so many requests a second, whatever the answers do."""

    connections: int
    batch: int = 1
    rate: float = 0.0
    seconds: float = 5.0
    users: int = 10_000
    tenants: int = 1

    def for_seconds(self, seconds: float) -> Self:
        """Return the same for another time."""
        return replace(self, seconds=seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the client saw: `requests` and `events` within the time, `stored` also after it."""

    requests: int
    events: int
    stored: int
    statuses: Mapping[str, int]
    unanswered: int
    seconds: float
    cpu_seconds: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


class Client:
    """Runs loads against one address, from a process of its own; no event is sent twice."""

    def __init__(self, program: Path, cores: Cores) -> None:
        """`program` is what `build` made."""
        self._program, self._cores = program, cores
        self._sent = 0

    def run(self, port: int, shape: Shape, load: Load, keys: Sequence[str]) -> Report:
        """Send, and return when every answer is there; the keys are used in turns.

        Raises `RuntimeError` when the server does not keep up.
        """
        self._sent += 10**9  # More than any load sends.
        with on(self._cores):
            done = subprocess.run(
                [self._program],
                input=json.dumps(_spec(port, shape, load) | {"keys": [*keys], "first": self._sent}),
                capture_output=True,
                text=True,
                timeout=load.seconds + _PATIENCE_S,
            )
        if done.returncode:
            raise RuntimeError(f"the client failed: {done.stderr.strip()}")
        return Report(**json.loads(done.stdout))


def _spec(port: int, shape: Shape, load: Load) -> dict[str, Any]:
    wanted = asdict(load) | {"address": f"127.0.0.1:{port}"}
    headers = [f"{name}: {value}" for name, value in shape.headers.items()]
    return wanted | asdict(shape) | {"headers": headers}


def build(cache: Path) -> Path:
    """Compile the client, which needs Go; return the program."""
    program = cache / "load"
    subprocess.run(["go", "build", "-o", program, "."], cwd=_SOURCE, check=True)
    return program
