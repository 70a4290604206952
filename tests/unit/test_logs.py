"""What a line of the log looks like, and what becomes of lines that nobody reads."""

import json
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from customersignal_ingest import logs
from customersignal_ingest.domain.key import new_key


@dataclass
class Pipe:
    read_end: int
    write_end: int

    def lines(self) -> list[Any]:
        """Return what was written, with the writer closed."""
        return [json.loads(line) for line in os.read(self.read_end, 1_000_000).splitlines()]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    read_end, write_end = os.pipe()
    yield Pipe(read_end, write_end)
    os.close(read_end)
    os.close(write_end)


@pytest.fixture
def root_logger() -> Iterator[None]:
    """Leave logging as it was found: pytest listens there too."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.usefixtures("root_logger")
def test_a_line_says_when_how_bad_and_what_first(pipe: Pipe) -> None:
    writer = logs.configure(level="info", form="json", descriptor=pipe.write_end)
    before = datetime.now(UTC)

    structlog.get_logger().info("request", **{"http.route": "/v1/events"}, duration_s=0.1)
    writer.close()

    [line] = pipe.lines()
    assert list(line)[:3] == ["timestamp", "level", "message"]
    assert before <= datetime.fromisoformat(line["timestamp"]) <= datetime.now(UTC)
    assert line["timestamp"][19::7] == ".Z"
    assert (line["level"], line["message"], line["http.route"]) == ("info", "request", "/v1/events")


@pytest.mark.usefixtures("root_logger")
def test_libraries_are_heard_from_warning_on_and_under_their_name(pipe: Pipe) -> None:
    writer = logs.configure(level="info", form="json", descriptor=pipe.write_end)

    logging.getLogger("aiokafka").info("connected")
    logging.getLogger("aiokafka").warning("node %s is away", 3)
    writer.close()

    assert [(line["logger"], line["message"]) for line in pipe.lines()] == [("aiokafka", "node 3 is away")]


@pytest.mark.usefixtures("root_logger")
def test_what_is_below_the_level_is_not_logged(pipe: Pipe) -> None:
    writer = logs.configure(level="error", form="json", descriptor=pipe.write_end)

    structlog.get_logger().warning("a")
    structlog.get_logger().error("b")
    writer.close()

    assert [line["message"] for line in pipe.lines()] == ["b"]


@pytest.mark.usefixtures("root_logger")
def test_an_error_is_logged_with_its_traceback(pipe: Pipe) -> None:
    writer = logs.configure(level="info", form="json", descriptor=pipe.write_end)

    structlog.get_logger().error("unexpected error", exc_info=ValueError("x"))
    writer.close()

    assert "ValueError: x" in pipe.lines()[0]["exception"]


@pytest.mark.usefixtures("root_logger")
@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_does_not_show_what_variables_hold(pipe: Pipe, form: logs.Format) -> None:
    writer = logs.configure(level="info", form=form, descriptor=pipe.write_end)

    def fail(payload: bytes) -> None:
        raise ZeroDivisionError(len(payload))

    try:
        fail(b"what a client sent"[::-1])
    except ZeroDivisionError:
        structlog.get_logger().exception("unexpected error")
    writer.close()

    written = os.read(pipe.read_end, 1_000_000)
    assert b"ZeroDivisionError: 18" in written
    assert b"tnes tneilc" not in written


@pytest.mark.usefixtures("root_logger")
@pytest.mark.parametrize("form", ["json", "console"])
def test_a_key_of_ours_that_gets_into_a_line_loses_its_secret_there(pipe: Pipe, form: logs.Format) -> None:
    writer = logs.configure(level="info", form=form, descriptor=pipe.write_end)
    keys = [new_key("live", os.urandom), new_key("test", os.urandom)]

    structlog.get_logger().info("request", **{"user_agent.original": f"curl {keys[0].secret}"})
    structlog.get_logger().error("unexpected error", exc_info=ValueError(keys[1].secret))
    logging.getLogger("library").warning("sent %s", [key.secret for key in keys])
    writer.close()

    written = os.read(pipe.read_end, 1_000_000).decode()
    assert all(written.count(f"{key.secret[:19]}***") == 2 for key in keys)
    assert not any(key.secret[19:30] in written or key.secret[-6:] in written for key in keys)


def test_lines_that_nobody_reads_are_dropped_and_counted(pipe: Pipe) -> None:
    writer = logs.Writer(pipe.write_end, lines_max=10)
    dropped = threading.Semaphore(0)
    writer.on_drop = lambda: dropped.release()

    for _ in range(10_000):  # Far more than a pipe and the queue hold.
        writer.write(b"x" * 1_000)

    assert dropped.acquire(timeout=5)
    os.set_blocking(pipe.write_end, False)
    while True:  # Let the thread end.
        if len(os.read(pipe.read_end, 1_000_000)) < 1_000_000:
            break
    writer.close()
