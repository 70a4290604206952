"""One server: from its first signal handler to its last answer."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from customersignal_ingest.bootstrap import Container, opened
from customersignal_ingest.logs import Writer
from customersignal_ingest.ports import Transport
from customersignal_ingest.serve.memory import give_back_when_quiet, look_for_garbage_seldom
from customersignal_ingest.serve.stop import Stop, Watchdog
from customersignal_ingest.serve.workers import Worker
from customersignal_ingest.settings import Settings

# What the transports wait for beyond the publisher's own deadline, and what closing the stores may take after that.
ANSWERS_MARGIN_S = 1.7
CLOSE_MARGIN_S = 3.5

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What is known once requests are taken."""

    settings: Settings
    seconds: float


def run(
    settings: Settings,
    /,
    *,
    log_writer: Writer,
    on_started: Callable[[Started], None] = lambda _: None,
    worker: Worker | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code.

    Raises `ConfigurationError` when it can't start. Once asked to stop it ends within
    `drain_delay_s` + `publish_timeout_s` + 5 seconds, whatever hangs.
    """
    return asyncio.run(_Server(settings, log_writer, on_started, worker).life())


class _Server:
    def __init__(
        self, settings: Settings, log_writer: Writer, on_started: Callable[[Started], None], worker: Worker | None
    ) -> None:
        self._settings = settings
        self._log_writer, self._on_started, self._worker = log_writer, on_started, worker
        self._log = structlog.get_logger("customersignal_ingest")
        self._began = time.monotonic()
        self._answers_timeout_s = settings.publish_timeout_s + ANSWERS_MARGIN_S
        self._watchdog = Watchdog(
            timeout_s=settings.drain_delay_s + self._answers_timeout_s + CLOSE_MARGIN_S, last_words=log_writer.close
        )

    async def life(self) -> int:
        asyncio.get_running_loop().set_exception_handler(_report)
        stop = Stop(on_asked=self._watchdog.start)
        try:
            await self._live(stop)
        except asyncio.CancelledError:
            if not stop.asked.is_set():
                raise
            self._watchdog.exit_code = 0  # Asked to stop while starting: nothing was accepted.
        finally:
            stop.over()
        return self._watchdog.exit_code

    async def _live(self, stop: Stop) -> None:
        container = Container(self._settings)
        if self._worker is not None:
            self._worker.watch_parent(stop.ask)
            container.metrics.override(self._worker.metrics(self._settings))
            container.transports.add_kwargs(shared=True)
        self._log_writer.on_drop = container.metrics().log_lines_dropped.inc
        transports = container.transports()
        for transport in transports:
            transport.check()
        async with opened(container):
            self._warn()
            stop.starting = False  # From here on somebody may wait for an answer, before we know it.
            for transport in transports:
                await transport.open()
            self._tell(container)
            giving_back = asyncio.create_task(give_back_when_quiet(lambda: container.admission().events > 0))
            await _until_asked(stop, transports)
            giving_back.cancel()
            await self._drain(container, transports, stop)
        self._log.info("stopped")

    def _warn(self) -> None:
        for name, (asked, in_force) in self._settings.lowered.items():
            why = "other limits, or a tenant's share of what may be in flight, let no more through"
            self._log.warning("a limit is lowered", limit=name, setting=asked, in_force=in_force, reason=why)
        if self._settings.publisher_scheme == "memory":
            self._log.warning("events are kept in memory and end with this process")

    def _tell(self, container: Container) -> None:
        look_for_garbage_seldom()
        started = Started(settings=self._settings, seconds=time.monotonic() - self._began)
        self._log.info("serving", listen=self._settings.listen, publisher=self._settings.publisher_scheme)
        self._on_started(started)

    async def _drain(self, container: Container, transports: Sequence[Transport], stop: Stop) -> None:
        container.health().drain()
        self._log.info("draining", drain_delay_s=self._settings.drain_delay_s)
        await stop.pause(self._settings.drain_delay_s)
        closing = [asyncio.create_task(transport.close()) for transport in transports]
        await asyncio.wait(closing, timeout=self._answers_timeout_s)
        if all(task.done() and task.exception() is None and task.result() for task in closing):
            self._watchdog.exit_code = 0
        else:
            self._log.error("requests were cut", **{"events.in_flight": container.admission().events})


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say in a line why no client can connect; asyncio, which tries again, would show where it noticed."""
    error = context.get("exception")
    if isinstance(error, OSError) and "socket" in context:
        # By `logging`, of which the log says the same once a minute only: asyncio tries again every second.
        log.error("clients have to wait until they can connect: %s", error.strerror)
    else:
        loop.default_exception_handler(context)


async def _until_asked(stop: Stop, transports: Sequence[Transport]) -> None:
    """Wait for a signal; raises when a transport ends by itself."""
    asked = asyncio.create_task(stop.asked.wait())
    ended = [asyncio.create_task(transport.ended()) for transport in transports]
    try:
        await asyncio.wait({asked, *ended}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (asked, *ended):
            task.cancel()
    if not stop.asked.is_set():
        raise RuntimeError("a transport ended by itself")
