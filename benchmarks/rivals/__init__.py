"""What a team might pick instead of our service, each installed into a cache.

Three small services do the same work as ours: look the key up, check the required fields, store one
JSON record with an id for each event, idempotently and on all in-sync replicas, and answer 202 after
that. The packaged product is an OpenTelemetry Collector made with its own builder: log records over
OTLP/HTTP in, one Kafka record a log record out, and no queue between, so that its 200 means the
same. It looks into no event and gives it no id.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from benchmarks.client import EVENT, Shape
from benchmarks.contestants import JSON, Contestant, Place

COLLECTOR_VERSION = "0.155.0"

_HERE = Path(__file__).parent
_UVICORN_FAST = ("--loop", "uvloop", "--http", "httptools", "--no-access-log")
_PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input")


def rivals(cache: Path) -> list[Contestant]:
    """Return all of them, none installed yet."""
    return [go(cache), express(cache), fastapi(cache), collector(cache), bare_python()]


def go(cache: Path) -> Contestant:
    """net/http and franz-go, compiled."""
    source, program = _HERE / "go-franz", cache / "go-franz"

    def version() -> str:
        franz = re.search(r"franz-go (v\S+)", (source / "go.mod").read_text())
        return f"franz-go {franz[1] if franz else '?'}, {_said('go', 'version').removeprefix('go version ')}"

    return Contestant(
        name="Go + franz-go",
        install=lambda: _run("go", "build", "-o", program, ".", cwd=source),
        version=version,
        command=[program],
        variables=_variables,
    )


def express(cache: Path) -> Contestant:
    """Express and kafkajs, as their lock file has them."""
    source, folder = _HERE / "express-kafkajs", cache / "express-kafkajs"

    def install() -> None:
        folder.mkdir(exist_ok=True)
        for file in source.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        _run("npm", "ci", "--omit=dev", "--no-audit", "--no-fund", "--silent", cwd=folder)

    def version() -> str:
        wanted = json.loads((source / "package.json").read_text())["dependencies"]
        return f"express {wanted['express']}, kafkajs {wanted['kafkajs']}, Node {_said('node', '--version')}"

    return Contestant(
        name="Express + kafkajs",
        install=install,
        version=version,
        command=["node", folder / "server.js"],
        variables=lambda place: {**_variables(place), "NODE_ENV": "production"},
    )


def fastapi(cache: Path) -> Contestant:
    """FastAPI and aiokafka, as their lock file has them, under uvicorn with its fast parts and without its log."""
    source, venv = _HERE / "fastapi-aiokafka", cache / "fastapi-aiokafka"
    python = venv / "bin" / "python"

    def install() -> None:
        if not python.exists():
            _run(sys.executable, "-m", "venv", venv)
        _run(python, *_PIP, "--require-hashes", "-r", source / "requirements.txt")

    def version() -> str:
        lines = re.findall(r"^([\w-]+)(?:\[.*])?==([\d.]+)", (source / "requirements.txt").read_text(), re.M)
        return ", ".join(f"{name} {dict(lines)[name]}" for name in ("fastapi", "uvicorn", "aiokafka"))

    uvicorn: list[str | Path] = [python, "-m", "uvicorn", "server:app", "--app-dir", source, *_UVICORN_FAST]
    return Contestant(
        name="FastAPI + aiokafka",
        install=install,
        version=version,
        command=["sh", "-c", 'exec "$@" --port "$PORT"', "sh", *uvicorn],
        variables=_variables,
    )


def collector(cache: Path) -> Contestant:
    """OpenTelemetry's Collector, made with its builder, which takes minutes; one of the same recipe is kept."""
    source, folder = _HERE / "otel-collector", cache / "otel-collector"
    recipe, made_from = source / "builder.yaml", folder / "made-from.yaml"

    def install() -> None:
        if made_from.exists() and made_from.read_text() == recipe.read_text():
            return
        folder.mkdir(exist_ok=True)
        builder = f"go.opentelemetry.io/collector/cmd/builder@v{COLLECTOR_VERSION}"
        _run("go", "install", builder, variables={"GOBIN": str(cache)})
        _run(cache / "builder", "--config", recipe, cwd=folder)
        made_from.write_text(recipe.read_text())

    return Contestant(
        name="OTel Collector",
        install=install,
        version=lambda: f"Collector {COLLECTOR_VERSION} with OTLP/HTTP receiver and Kafka exporter",
        command=[folder / "build" / "collector", "--config", source / "config.yaml"],
        variables=_variables,
        shapes=_log_shapes,
    )


def bare_python() -> Contestant:
    """No rival but a limit: our own libraries without a service around them."""
    libraries = ("httptools", "msgspec", "aiokafka")
    return Contestant(
        name="bare Python",
        install=lambda: None,
        version=lambda: ", ".join(f"{name} {metadata.version(name)}" for name in libraries),
        command=[sys.executable, _HERE / "bare-python" / "server.py"],
        variables=_variables,
    )


def _variables(place: Place) -> Mapping[str, str]:
    return {"BROKERS": place.bootstrap, "TOPIC": place.topic, "PORT": str(place.port), "API_KEY": place.keys.one}


def _log_shapes(key: str) -> tuple[Shape, Shape]:
    """Return requests with the same events, each the body of a log record."""
    event = EVENT.replace("\\", "\\\\").replace('"', '\\"')  # The client's marks stay as they are.
    shape = Shape(
        path="/v1/logs",
        headers={"Authorization": f"Bearer {key}", **JSON},
        before='{"resourceLogs":[{"scopeLogs":[{"logRecords":[',
        event='{"timeUnixNano":"1795428000123000000","body":{"stringValue":"' + event + '"}}',
        after="]}]}]}",
        accepted=(200,),
    )
    return shape, shape


def _run(*command: str | Path, cwd: Path | None = None, variables: Mapping[str, str] | None = None) -> None:
    try:
        subprocess.run(command, cwd=cwd, env={**os.environ, **(variables or {})}, check=True)
    except FileNotFoundError as error:
        raise SystemExit(f"{command[0]} is needed and not there; --only names who is to be measured") from error
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{' '.join(map(str, command))} failed: {error.returncode}") from error


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
