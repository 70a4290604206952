"""Who is measured, and how each is started: a contestant, and our service as one."""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.client import Shape
from benchmarks.key_store import Keys

JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a contestant is to run."""

    bootstrap: str
    publisher_url: str
    topic: str
    port: int
    keys: Keys


def event_shapes(key: str) -> tuple[Shape, Shape]:
    """Return the requests of our API, of one event and of many."""
    headers = {"X-CS-API-Key": key, **JSON}
    many = Shape(path="/v1/events/batch", headers=headers, before='{"events":[', after="]}")
    return Shape(path="/v1/events", headers=headers), many


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One of those that are compared.

    `install` gets everything that it needs and keeps what is there; `version` names what it is made
    of; `variables` is what its environment has besides ours; `shapes` are its requests with this API key.
    """

    name: str
    install: Callable[[], None]
    version: Callable[[], str]
    command: Sequence[str | Path]
    variables: Callable[[Place], Mapping[str, str]]
    shapes: Callable[[str], tuple[Shape, Shape]] = event_shapes


def ours(*, name: str = "this service", python: str = sys.executable, workers: int = 1) -> Contestant:
    """Return our service as it is by default, with its log, metrics and limits; `python` has it installed."""
    program = [python, "-m", "customersignal_ingest"]

    def version() -> str:
        asked = subprocess.run([*program, "--version"], capture_output=True, text=True, check=True)
        return ", ".join(asked.stdout.split("\n")).strip(", ")

    def variables(place: Place) -> Mapping[str, str]:
        return {
            "CS_INGEST_LISTEN": f"127.0.0.1:{place.port}",
            "CS_INGEST_PUBLISHER_URL": place.publisher_url,
            "CS_INGEST_KEYS_URL": place.keys.url,
            "CS_INGEST_KEY_PEPPER": place.keys.pepper,
            "CS_INGEST_DRAIN_DELAY_S": "0",
            "CS_INGEST_WORKERS": str(workers),
        }

    return Contestant(
        name=name, install=lambda: None, version=version, command=[*program, "serve"], variables=variables
    )
