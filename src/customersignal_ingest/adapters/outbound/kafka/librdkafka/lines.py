"""Keeps a line in service, and replaces one that will never deliver again."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from customersignal_ingest.adapters.outbound.kafka.librdkafka.delivery import Line, Told
from customersignal_ingest.domain.errors import ConfigurationError

RESTART_PAUSE_S = 0.5
CAREFUL_IDLE_S = 10.0
END_TIMEOUT_S = 1.0

log = logging.getLogger(__name__)


class MakesLines(Protocol):
    """Where lines come from."""

    def line(self, told: Told, /, *, batch_bytes_max: int) -> Line:
        """Start a line for everyday; raises `ConfigurationError`."""
        ...

    def careful_line(self, told: Told, /) -> Line:
        """Start a line that sends record by record, each at most once; raises `ConfigurationError`."""
        ...


class Lines:
    """The line in service, the careful one while it is needed, and those that still end.

    For one event loop; `tick` is to be called ten times a second.
    """

    def __init__(self, kafka: MakesLines, told: Told, /, *, clock: Callable[[], float], stuck_s: float) -> None:
        """A line that says nothing for `stuck_s` although records are out is replaced."""
        self._kafka, self._told, self._clock, self._stuck_s = kafka, told, clock, stuck_s
        self.current: Line | None = None
        self.restarts: Counter[str] = Counter()
        self._heard_at = self._careful_at = self._born_at = float("-inf")
        self._batch_bytes_max = 0
        self._careful: Line | None = None
        self._draining: dict[Line, float] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    def start(self, *, batch_bytes_max: int) -> None:
        """Put a line into service; raises `ConfigurationError`."""
        self._batch_bytes_max = batch_bytes_max
        self._born_at = self._heard_at = self._clock()
        self.current = self._kafka.line(self._told, batch_bytes_max=batch_bytes_max)

    def heard(self, line: Line) -> None:
        """The line has reported something."""
        if line is self.current:
            self._heard_at = self._clock()
        if line.dead():
            self.retire(line, line.dead())

    def limit_batches(self, bytes_max: int) -> None:
        """Send no batch larger than this from now on."""
        if self.current is not None and bytes_max != self._batch_bytes_max:
            self._batch_bytes_max = bytes_max
            self.retire(self.current, "another limit of the topic", at_once=False)

    def careful(self) -> Line:
        """Return the line for what was turned down in company; raises `ConfigurationError`."""
        self._careful_at = self._clock()
        if self._careful is None or self._careful.dead():
            self._careful = self._kafka.careful_line(self._told)
        return self._careful

    def retire(self, line: Line, cause: str, *, at_once: bool = True) -> None:
        """Replace the line if it is the one in service: what it has out is withdrawn, or may still be delivered."""
        if line is not self.current:
            return
        log.warning("a Kafka producer is replaced: %s", cause)
        self.restarts[cause] += 1
        self.current = None
        if at_once:
            self._end(line)
        else:
            self._draining[line] = self._clock() + self._stuck_s
        if not at_once or self._clock() - self._born_at >= RESTART_PAUSE_S:
            self._replace()  # Else `tick` does, so that what is fatal again and again costs little.

    def tick(self) -> None:
        """Look after everything that time alone brings."""
        now = self._clock()
        self._look_after_current(now)
        for line in [each for each, until in self._draining.items() if not each.out or now >= until]:
            del self._draining[line]
            self._end(line)
        if self._careful is not None and not self._careful.out and now - self._careful_at > CAREFUL_IDLE_S:
            self._end(self._careful)
            self._careful = None

    async def close(self) -> None:
        """End all lines, within a second; no other one begins."""
        self._closed = True
        for line in filter(None, [self.current, self._careful, *self._draining]):
            self._end(line)
        self.current = self._careful = None
        self._draining.clear()
        if self._ending:
            _, late = await asyncio.wait(self._ending, timeout=END_TIMEOUT_S)
            for task in late:
                log.warning("a Kafka producer does not end; its thread is left behind")
                task.cancel()

    def _look_after_current(self, now: float) -> None:
        line = self.current
        if line is None:
            if now - self._born_at >= RESTART_PAUSE_S:
                self._replace()
        elif line.dead():
            self.retire(line, line.dead())
        elif not line.out:
            self._heard_at = now
        elif now - self._heard_at > self._stuck_s:
            self.retire(line, "no progress")

    def _replace(self) -> None:
        if self._closed:
            return
        try:
            self.start(batch_bytes_max=self._batch_bytes_max)
        except ConfigurationError:
            log.exception("no Kafka producer could be started")

    def _end(self, line: Line) -> None:
        line.end()
        task = asyncio.create_task(line.ended())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
