"""The log of the service: one JSON object a line, written by a thread of its own.

Whoever reads the log can't hold up the service: lines wait in a bounded queue, and when that is full
they are dropped and counted. What libraries log by `logging` comes out of the same door, the same at
most once a minute: a client library that can't connect says so at every attempt.

Nobody here logs an API key. Should one get into a line all the same, in a stranger's exception or in a
client's own `User-Agent`, its secret part stays behind, as far as it looks like a key that we made.
"""

import logging
import os
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import structlog

from customersignal_ingest.domain.event import rfc3339
from customersignal_ingest.version import __version__

QUEUE_LINES_MAX = 10_000
CLOSE_TIMEOUT_S = 1.0
SAID_AGAIN_S = 60.0
SAID_MAX = 1000

_GATHER_S = 0.05
_KEY = re.compile(rb"(cs_(?:live|test)_[0-9A-Za-z]{1,32})_[0-9A-Za-z_-]+")

_to_json = msgspec.json.Encoder(enc_hook=str).encode

Line = dict[str, Any]
Level = Literal["debug", "info", "warning", "error"]
Format = Literal["json", "console"]


class Writer:
    """Writes lines to a file descriptor, from a thread; `write` never waits.

    `on_drop` is called for each line that is given up, on the thread that wrote it.
    """

    def __init__(self, descriptor: int, *, lines_max: int = QUEUE_LINES_MAX) -> None:
        """The thread starts now and ends with `close` or with the process."""
        self._descriptor = descriptor
        self._lines: deque[bytes] = deque()
        self._lines_max = lines_max
        self._something = threading.Event()
        self._ending = threading.Event()
        self.on_drop: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, line: bytes, /) -> None:
        """Have this line written soon, or drop it when too many wait."""
        if len(self._lines) >= self._lines_max:
            self.on_drop()
            return
        self._lines.append(line)
        if not self._something.is_set():
            self._something.set()

    def close(self) -> None:
        """Write what waits, within a bound."""
        self._ending.set()
        self._something.set()
        self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        while not self._ending.is_set():
            self._something.wait()
            # One write for all lines of some milliseconds: each wake-up takes the interpreter away from the loop.
            self._ending.wait(_GATHER_S)
            self._something.clear()
            self._write_waiting()
        self._write_waiting()

    def _write_waiting(self) -> None:
        rest = memoryview(b"".join(self._lines.popleft() for _ in range(len(self._lines))))
        with suppress(OSError):  # Nobody is there to read it, and nobody else to tell.
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]


def configure(*, level: Level, form: Format, descriptor: int | None = None) -> Writer:
    """Send all logs of this process to the descriptor, standard output by default; close the writer at the end.

    Libraries are heard from level warning on.
    """
    descriptor = sys.stdout.fileno() if descriptor is None else descriptor
    writer = Writer(descriptor)
    render = _json if form == "json" else _Console(colours=os.isatty(descriptor) and not os.environ.get("NO_COLOR"))
    number = logging.getLevelNamesMapping()[level.upper()]
    constant = {"service.name": "cs-ingest", "service.version": __version__, "service.instance.id": str(os.getpid())}
    structlog.configure(
        processors=[],
        wrapper_class=_wrapper(number, constant if form == "json" else {}, render, writer),
        logger_factory=lambda *name: None,
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[_Bridge()], force=True)
    logging.captureWarnings(capture=True)
    return writer


class _Bridge(logging.Handler):
    """Hands what libraries log to structlog."""

    def __init__(self) -> None:
        super().__init__()
        self._said_at: dict[tuple[str, str], float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Log it again, under the name of who logged it."""
        if self._said_lately(record):
            return
        log = structlog.get_logger()
        log.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info or None)

    def _said_lately(self, record: logging.LogRecord) -> bool:
        # Numbers are left out: durations and ports of the same trouble differ.
        what = record.name, re.sub(r"\d+", "0", record.getMessage())
        if record.created - self._said_at.get(what, float("-inf")) < SAID_AGAIN_S:
            return True
        if len(self._said_at) >= SAID_MAX:
            self._said_at.clear()
        self._said_at[what] = record.created
        return False


def _wrapper(
    least: int, constant: Mapping[str, str], render: Callable[[Line], bytes], writer: Writer
) -> type[structlog.BoundLogger]:
    """Return structlog's logger with its way of a line in one step, in place of a chain: half of what a line costs.

    A line says when, how bad and what, first and by the names that everybody knows, and who says it, last.
    """

    class Logger(structlog.make_filtering_bound_logger(least)):  # type: ignore[misc]  # Made when it is called.
        # By position only: else each name of a field is compared with those of the parameters.
        def _proxy_to_logger(self, method_name: str, event: str | None = None, /, **event_kw: Any) -> None:
            line: Any = {
                "timestamp": rfc3339(datetime.now(UTC)),
                "level": "warning" if method_name == "warn" else method_name,
                "message": event or "",
                **self._context,
                **event_kw,
                **constant,
            }
            if "exc_info" in line:
                line = structlog.processors.format_exc_info(None, method_name, line)
            text = render(line)
            # To look for the beginning costs a tenth of what the pattern does.
            may_hold_a_key = b"cs_live_" in text or b"cs_test_" in text
            writer.write(_KEY.sub(rb"\1_***", text) if may_hold_a_key else text)

    return Logger


class _Console:
    def __init__(self, *, colours: bool) -> None:
        self._render = structlog.dev.ConsoleRenderer(
            colors=colours,
            event_key="message",
            pad_event_to=0,
            exception_formatter=structlog.dev.plain_traceback,  # Any other shows what variables hold.
        )

    def __call__(self, line: Line, /) -> bytes:
        line["timestamp"] = line["timestamp"][11:23]
        return f"{self._render(None, line['level'], line)}\n".encode()


def _json(line: Line, /) -> bytes:
    return _to_json(line) + b"\n"
