"""Who is measured: our service, and what a team might pick instead. Each is installed into a cache, and started.

The three services in `rivals/` do the same work as ours: look the key up, check the required fields,
store one JSON record with an id for each event, idempotently and on all in-sync replicas, and answer
202 after that. The packaged one is an OpenTelemetry Collector, made with its own builder: log records
over OTLP/HTTP in, one Kafka record a log record out, without a queue between, so that its 200 means
the same. It looks into no event and gives it no id.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.client import EVENT, Shape
from benchmarks.key_store import Keys

RIVALS = Path(__file__).parent / "rivals"
COLLECTOR_VERSION = "0.155.0"

_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a contestant is to run."""

    bootstrap: str
    publisher_url: str
    topic: str
    port: int
    keys: Keys


class Contestant(Protocol):
    """One of those that are compared."""

    @property
    def name(self) -> str:
        """What it is called in tables."""
        ...

    def install(self) -> None:
        """Get everything that it needs; what is there already is kept."""
        ...

    def version(self) -> str:
        """Name what it is made of, with versions."""
        ...

    def command(self) -> Sequence[str | Path]:
        """Return what starts it."""
        ...

    def variables(self, place: Place) -> Mapping[str, str]:
        """Return what its environment has besides ours."""
        ...

    def shapes(self, key: str) -> tuple[Shape, Shape]:
        """Return its requests of one event and of many."""
        ...


def _shapes(key: str) -> tuple[Shape, Shape]:
    headers = {"X-CS-API-Key": key, **_JSON}
    many = Shape(path="/v1/events/batch", headers=headers, before='{"events":[', after="]}")
    return Shape(path="/v1/events", headers=headers), many


def _variables(place: Place) -> Mapping[str, str]:
    return {
        "BROKERS": place.bootstrap,
        "TOPIC": place.topic,
        "PORT": str(place.port),
        "API_KEY": place.keys.one,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """This service, as it is set by default: with its log, its metrics, its limits."""

    name: str = "this service"
    python: str = sys.executable
    workers: int = 1

    def install(self) -> None:
        """It is."""

    def version(self) -> str:
        """Ask it."""
        asked = [self.python, "-m", "customersignal_ingest", "--version"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip().replace("\n", ", ")

    def command(self) -> Sequence[str]:
        """Start it as its image does."""
        return [self.python, "-m", "customersignal_ingest", "serve"]

    def variables(self, place: Place) -> Mapping[str, str]:
        """Set what has no default."""
        return {
            "CS_INGEST_LISTEN": f"127.0.0.1:{place.port}",
            "CS_INGEST_PUBLISHER_URL": place.publisher_url,
            "CS_INGEST_KEYS_URL": place.keys.url,
            "CS_INGEST_KEY_PEPPER": place.keys.pepper,
            "CS_INGEST_DRAIN_DELAY_S": "0",
            "CS_INGEST_WORKERS": str(self.workers),
        }

    def shapes(self, key: str) -> tuple[Shape, Shape]:
        """As its users send them."""
        return _shapes(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Go:
    """net/http and franz-go."""

    cache: Path
    name: str = "Go + franz-go"
    source: Path = RIVALS / "go-franz"

    def install(self) -> None:
        """Compile it."""
        _run("go", "build", "-o", self._program, ".", cwd=self.source)

    def version(self) -> str:
        """Read its module file."""
        franz = re.search(r"franz-go (v\S+)", (self.source / "go.mod").read_text())
        return f"franz-go {franz[1] if franz else '?'}, {_said('go', 'version').removeprefix('go version ')}"

    def command(self) -> Sequence[str | Path]:
        """It is one program."""
        return [self._program]

    def variables(self, place: Place) -> Mapping[str, str]:
        """Say where Kafka is, and which key is good."""
        return _variables(place)

    def shapes(self, key: str) -> tuple[Shape, Shape]:
        """The same as ours."""
        return _shapes(key)

    @property
    def _program(self) -> Path:
        return self.cache / "go-franz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Express:
    """Express and kafkajs."""

    cache: Path
    name: str = "Express + kafkajs"
    source: Path = RIVALS / "express-kafkajs"

    def install(self) -> None:
        """Install what its lock file says, beside a copy of it."""
        _copy(self.source, self._folder)
        _run("npm", "ci", "--omit=dev", "--no-audit", "--no-fund", "--silent", cwd=self._folder)

    def version(self) -> str:
        """Read its manifest."""
        wanted = json.loads((self.source / "package.json").read_text())["dependencies"]
        return f"express {wanted['express']}, kafkajs {wanted['kafkajs']}, Node {_said('node', '--version')}"

    def command(self) -> Sequence[str | Path]:
        """Run it in Node."""
        return ["node", self._folder / "server.js"]

    def variables(self, place: Place) -> Mapping[str, str]:
        """Say where Kafka is, and which key is good."""
        return {**_variables(place), "NODE_ENV": "production"}

    def shapes(self, key: str) -> tuple[Shape, Shape]:
        """The same as ours."""
        return _shapes(key)

    @property
    def _folder(self) -> Path:
        return self.cache / "express-kafkajs"


@dataclass(frozen=True, slots=True, kw_only=True)
class FastApi:
    """FastAPI and aiokafka, under uvicorn with its fast parts."""

    cache: Path
    name: str = "FastAPI + aiokafka"
    source: Path = RIVALS / "fastapi-aiokafka"

    def install(self) -> None:
        """Make an environment of its own from its lock file."""
        if not self._python.exists():
            _run(sys.executable, "-m", "venv", self._python.parents[1])
        wanted = self.source / "requirements.txt"
        quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
        _run(self._python, "-m", "pip", "install", *quiet, "--require-hashes", "-r", wanted)

    def version(self) -> str:
        """Read its lock file."""
        locked = dict(
            re.findall(r"^([\w-]+)(?:\[.*])?==([\d.]+)", (self.source / "requirements.txt").read_text(), re.M)
        )
        return ", ".join(f"{name} {locked[name]}" for name in ("fastapi", "uvicorn", "aiokafka"))

    def command(self) -> Sequence[str | Path]:
        """Run it without a log, as the others do."""
        uvicorn: list[str | Path] = [self._python, "-m", "uvicorn", "server:app", "--app-dir", self.source]
        return ["sh", "-c", 'exec "$@" --port "$PORT"', "sh", *uvicorn, *_FAST]

    def variables(self, place: Place) -> Mapping[str, str]:
        """Say where Kafka is, and which key is good."""
        return _variables(place)

    def shapes(self, key: str) -> tuple[Shape, Shape]:
        """The same as ours."""
        return _shapes(key)

    @property
    def _python(self) -> Path:
        return self.cache / "fastapi-aiokafka" / "bin" / "python"


_FAST = ("--loop", "uvloop", "--http", "httptools", "--no-access-log")


@dataclass(frozen=True, slots=True, kw_only=True)
class Collector:
    """OpenTelemetry's Collector, made with its builder."""

    cache: Path
    name: str = "OTel Collector"
    source: Path = RIVALS / "otel-collector"

    def install(self) -> None:
        """Have its builder make it, which takes minutes; one of the same recipe is kept."""
        recipe = (self.source / "builder.yaml").read_text()
        if self._made_from.exists() and self._made_from.read_text() == recipe:
            return
        builder = f"go.opentelemetry.io/collector/cmd/builder@v{COLLECTOR_VERSION}"
        _run("go", "install", builder, variables={"GOBIN": str(self.cache)})
        self._folder.mkdir(exist_ok=True)
        _run(self.cache / "builder", "--config", self.source / "builder.yaml", cwd=self._folder)
        self._made_from.write_text(recipe)

    def version(self) -> str:
        """It is the builder's."""
        return f"Collector {COLLECTOR_VERSION}, OTLP/HTTP receiver, Kafka exporter"

    def command(self) -> Sequence[str | Path]:
        """Give it its configuration."""
        return [self._folder / "build" / "collector", "--config", self.source / "config.yaml"]

    def variables(self, place: Place) -> Mapping[str, str]:
        """Its configuration reads these."""
        return _variables(place)

    def shapes(self, key: str) -> tuple[Shape, Shape]:
        """The same events as bodies of log records."""
        body = '{"stringValue":' + _quoted(EVENT) + "}"
        shape = Shape(
            path="/v1/logs",
            headers={"Authorization": f"Bearer {key}", **_JSON},
            before='{"resourceLogs":[{"scopeLogs":[{"logRecords":[',
            event='{"timeUnixNano":"1795428000123000000","body":' + body + "}",
            after="]}]}]}",
            accepted=(200,),
        )
        return shape, shape

    @property
    def _folder(self) -> Path:
        return self.cache / "otel-collector"

    @property
    def _made_from(self) -> Path:
        return self._folder / "made-from.yaml"


def rivals(cache: Path) -> list[Contestant]:
    """Return all of them, none installed yet."""
    return [Go(cache=cache), Express(cache=cache), FastApi(cache=cache), Collector(cache=cache)]


def _quoted(event: str) -> str:
    """Return the event as a JSON string; the client's marks stay as they are."""
    return '"' + event.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _copy(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())


def _run(*command: str | Path, cwd: Path | None = None, variables: Mapping[str, str] | None = None) -> None:
    try:
        subprocess.run(command, cwd=cwd, env={**os.environ, **(variables or {})}, check=True)
    except FileNotFoundError as error:
        raise SystemExit(f"{command[0]} is needed and not there; --only names who is to be measured") from error
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{' '.join(map(str, command))} failed: {error.returncode}") from error


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
