"""Several servers on one port: a parent that starts them, replaces those that die, and ends with them.

Each worker is the whole service in a process of its own. Each writes its metrics into a folder of
the parent's every second, and answers `/metrics` with those of all, told apart by the label `worker`.
"""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from customersignal_ingest.adapters.inbound.http.port import accepting, reserve, resolved
from customersignal_ingest.metrics import Metrics
from customersignal_ingest.serve.stop import Stop
from customersignal_ingest.settings import Settings
from customersignal_ingest.version import __version__

MISCONFIGURED = 78
"""The exit code of a worker that would never start, however often it was tried (sysexits' EX_CONFIG)."""

END_MARGIN_S = 7.0
WRITE_INTERVAL_S = 1.0

_PAUSE_MIN_S, _PAUSE_MAX_S = 0.2, 10.0
_LIVED_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What one of several servers knows of the others: its number, and the folder they share."""

    number: int
    folder: Path

    def metrics(self, settings: Settings, /) -> "SharedMetrics":
        """Return the metrics to use instead of those of a server alone."""
        return SharedMetrics(publisher=settings.publisher_scheme, worker=self)

    def watch_parent(self, on_gone: Callable[[], None], /) -> None:
        """Have `on_gone` called when the parent has ended: standard input is a pipe that it holds open."""
        loop = asyncio.get_running_loop()

        def heard() -> None:
            if not os.read(sys.stdin.fileno(), 1):
                loop.remove_reader(sys.stdin.fileno())
                on_gone()

        loop.add_reader(sys.stdin.fileno(), heard)


class SharedMetrics(Metrics):
    """The metrics of one worker, whose text is that of all workers."""

    def __init__(self, *, publisher: str, worker: Worker) -> None:
        """Write them into the shared folder from now on."""
        super().__init__(version=__version__, publisher=publisher)
        self._folder = worker.folder
        self._file = worker.folder / f"{worker.number}.prom"
        self._writing = asyncio.get_running_loop().create_task(self._write_for_ever())

    def text(self) -> bytes:
        """Return this worker's metrics as they are, the others' as they were a second ago."""
        self._write()
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric once, with the samples of all workers."""
        metrics: dict[str, Metric] = {}
        for file in sorted(self._folder.glob("*.prom")):
            for found in text_string_to_metric_families(file.read_text()):
                metric = metrics.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                for name, labels, value, *_ in found.samples:
                    metric.add_sample(name, {**labels, "worker": file.stem}, value)
        yield from metrics.values()

    async def _write_for_ever(self) -> None:
        while True:
            self._write()
            await asyncio.sleep(WRITE_INTERVAL_S)

    def _write(self) -> None:
        new = self._file.with_suffix(".new")
        new.write_bytes(super().text())
        new.replace(self._file)


def run_workers(settings: Settings, /) -> int:
    """Serve with `settings.workers` processes until SIGTERM or SIGINT, and return the exit code."""
    return asyncio.run(_Parent(settings).life())


class _Parent:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._log = structlog.get_logger("customersignal_ingest")
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._misconfigured = asyncio.Event()
        self._failed = False

    async def life(self) -> int:
        stop = Stop(on_asked=lambda: None)
        stop.starting = False
        address = resolved(self._settings.address)
        with reserve(address), tempfile.TemporaryDirectory(prefix="cs-ingest-") as folder:
            keepers = [asyncio.create_task(self._keep(1, Path(folder), stop))]
            # The others begin when the first has shown that the settings are good: one fault, one line.
            await self._until(accepting(address), stop.asked.wait(), self._misconfigured.wait())
            others = range(2, self._settings.workers + 1)
            keepers += [asyncio.create_task(self._keep(number, Path(folder), stop)) for number in others]
            await self._until(stop.asked.wait(), self._misconfigured.wait())
            await self._end(keepers, stop)
        stop.over()
        return 1 if self._failed else 0

    async def _keep(self, number: int, folder: Path, stop: Stop) -> None:
        """Have this worker run until the end, started again when it dies."""
        pause_s = _PAUSE_MIN_S
        while not stop.asked.is_set() and not self._misconfigured.is_set():
            began = time.monotonic()
            code = await self._run(number, folder)
            if code == MISCONFIGURED:
                self._failed = True
                self._misconfigured.set()
            elif stop.asked.is_set():
                self._failed = self._failed or code not in (0, -signal.SIGTERM)  # It may hear us before it can listen.
            else:
                self._log.error("a worker died", worker=number, exit_code=code)
                pause_s = _PAUSE_MIN_S if time.monotonic() - began > _LIVED_S else min(2 * pause_s, _PAUSE_MAX_S)
                await self._until(stop.asked.wait(), asyncio.sleep(pause_s))

    async def _run(self, number: int, folder: Path) -> int:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "customersignal_ingest", "serve", "--worker", str(number), str(folder)),
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is the parent's to hear, who asks once.
        )
        self._processes[number] = process
        try:
            return await process.wait()
        finally:
            del self._processes[number]

    async def _end(self, keepers: "list[asyncio.Task[None]]", stop: Stop) -> None:
        """Ask all to stop, hasten them when hastened, and kill those who do not listen."""
        self._ask_all()
        hastening = asyncio.create_task(self._hasten(stop))
        bound_s = self._settings.drain_delay_s + self._settings.publish_timeout_s + END_MARGIN_S
        await asyncio.wait(keepers, timeout=bound_s)
        hastening.cancel()
        for process in self._processes.values():
            self._failed = True
            process.kill()
        await asyncio.wait(keepers)

    async def _hasten(self, stop: Stop) -> None:
        await stop.hastened.wait()
        self._ask_all()

    def _ask_all(self) -> None:
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                process.terminate()

    @staticmethod
    async def _until(*events: Coroutine[Any, Any, object]) -> None:
        """Return when the first of these is there."""
        tasks = [asyncio.create_task(event) for event in events]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
