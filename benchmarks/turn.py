"""One turn: a contestant is started on an empty topic, warmed up, loaded, looked at and ended."""

import http.client
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.broker import TOPIC, Broker
from benchmarks.client import KEY, NUMBER, USER, Client, Load, Report, Shape
from benchmarks.contestants import Contestant, Place
from benchmarks.key_store import Keys
from benchmarks.machine import Shares, Stopwatch, Tree, on
from tests.integration.servers.kafka import _dies_with_us
from tests.integration.servers.service import free_port

_READY_S, _END_S = 60, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one load of one contestant showed. CPU is that of the server and all its children."""

    requests_s: float
    events_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    cpu_us: float
    """An event."""
    server_cores: float
    others_cores: float
    """So many cores were busy with broker and client."""
    elsewhere: float
    """Which part of the machine was busy with what is none of ours."""
    resident_mb: float
    not_accepted: int

    def to_json(self) -> dict[str, float]:
        """Return all of it by name."""
        return asdict(self)


class Untrue(Exception):
    """A server said what is not so: the measurement is worth nothing."""


class Running:
    """A contestant that takes requests."""

    def __init__(self, stage: "Stage", contestant: Contestant, process: subprocess.Popen[bytes], port: int) -> None:
        """Made by `Stage.running`."""
        self._stage, self._port = stage, port
        self._shapes = contestant.shapes(KEY * len(stage.keys.one))
        self.tree = Tree(process.pid)

    def measure(self, load: Load) -> Measured:
        """Load it; raises `Untrue` unless the store has grown by exactly what was accepted."""
        broker = self._stage.broker
        stored, cpu_s, others_s, watch = broker.stored(), self.tree.cpu_s(), broker.cpu_s(), Stopwatch()
        report = self._send(load)
        cpu_s, others_s = self.tree.cpu_s() - cpu_s, broker.cpu_s() - others_s + report.cpu_seconds
        elsewhere, seconds = watch.elsewhere, watch.seconds
        check(report, broker.stored() - stored, batch=load.batch)
        return Measured(
            requests_s=report.requests / report.seconds,
            events_s=report.events / report.seconds,
            p50_ms=report.p50_ms,
            p99_ms=report.p99_ms,
            p999_ms=report.p999_ms,
            cpu_us=cpu_s / max(1, report.stored) * 1e6,
            server_cores=cpu_s / seconds,
            others_cores=others_s / seconds,
            elsewhere=elsewhere,
            resident_mb=self.tree.resident_mb(),
            not_accepted=_not_accepted(report, batch=load.batch),
        )

    def _send(self, load: Load) -> Report:
        shape = self._shapes[load.batch > 1]
        return self._stage.client.run(self._port, shape, load, self._stage.keys.all[: load.tenants])


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What all turns have in common."""

    broker: Broker
    client: Client
    keys: Keys
    shares: Shares
    partitions: int
    logs: Path

    @contextmanager
    def running(self, contestant: Contestant, *, partitions: int | None = None) -> Iterator[Running]:
        """Start the contestant on an empty topic, and end it with the block."""
        self.broker.fresh_topic(partitions=partitions or self.partitions)
        place = Place(
            bootstrap=self.broker.bootstrap,
            publisher_url=self.broker.url(TOPIC),
            topic=TOPIC,
            port=free_port(),
            keys=self.keys,
        )
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            process = self._start(contestant, contestant.variables(place), Path(folder))
            try:
                _wait_until_it_stores(process, place.port, contestant.shapes(self.keys.one)[0])
                yield Running(self, contestant, process, place.port)
            finally:
                _end(process)

    def _start(self, contestant: Contestant, variables: Mapping[str, str], folder: Path) -> subprocess.Popen[bytes]:
        # Nobody's settings but ours: a variable of this shell must not change what is measured.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CS_INGEST_")}
        log = self.logs / f"{contestant.name.replace(' ', '-').lower()}.log"
        with on(self.shares.server), log.open("wb") as out:
            return subprocess.Popen(
                [*_dies_with_us(), *contestant.command],
                cwd=folder,
                env={**clean, **variables},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )


def check(report: Report, grown: int, *, batch: int) -> None:
    """Raise `Untrue` unless exactly what was accepted is stored; what was not accepted may or may not be."""
    doubtful = _not_accepted(report, batch=batch)
    if not report.stored <= grown <= report.stored + doubtful:
        raise Untrue(f"{report.stored} events were accepted, {doubtful} were not, and {grown} are stored")


def _not_accepted(report: Report, *, batch: int) -> int:
    return (sum(report.statuses.values()) + report.unanswered) * batch - report.stored


def _wait_until_it_stores(process: subprocess.Popen[bytes], port: int, shape: Shape) -> None:
    body = shape.before + shape.event.replace(NUMBER, "0").replace(USER, "0") + shape.after
    give_up_at = time.monotonic() + _READY_S
    while _status(port, shape, body) not in shape.accepted:
        if process.poll() is not None or time.monotonic() > give_up_at:
            raise RuntimeError(f"it does not start: {process.args!r}; see its log")
        time.sleep(0.1)


def _status(port: int, shape: Shape, body: str) -> int | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", shape.path, body, dict(shape.headers))
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
