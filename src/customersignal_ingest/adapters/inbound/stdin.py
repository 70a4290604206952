"""The transport for files and pipes: a line is a payload, and each gets an answer.

What is there is sent together, in the order of the lines, at most `LINES_MAX` at a time; so a pipe
that goes on is answered line by line, and a file in large steps. Memory holds one step.
"""

import asyncio
import threading
from collections import Counter as Tally
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import IO

from customersignal_ingest.domain.key import Tenant
from customersignal_ingest.domain.outcome import Outcome, Refused, Rejected, Result, Stored
from customersignal_ingest.domain.rules import Payload
from customersignal_ingest.ingest import Ingest

LINES_MAX = 1_000
READ_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of one line. `number` counts all lines from 1, empty ones too."""

    number: int
    result: Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """How many lines were stored, rejected, and neither."""

    stored: int = 0
    rejected: int = 0
    failed: int = 0


async def send_lines(
    stream: IO[bytes],
    /,
    *,
    tenant: Tenant,
    ingest: Ingest,
    line_bytes_max: int,
    write: Callable[[Answer], None],
    read: Callable[[int], None] = lambda _: None,
) -> Totals:
    """Send every line that is not empty, and return once each has its answer.

    `write` is told each answer, in order; `read` how many more bytes are done with. A line beyond
    `line_bytes_max` is cut there, so that it is rejected as too large and never held whole.
    """
    tally: Tally[type[Outcome] | type[Rejected]] = Tally()
    async for step, size_bytes in _steps(stream, line_bytes_max):
        receipt = await ingest(tenant, [payload for _, payload in step])
        told = [Answer(number=n, result=result) for (n, _), result in zip(step, receipt.results, strict=True)]
        for answer in told:
            write(answer)
        tally.update(receipt.tally)
        read(size_bytes)
    stored, rejected = tally[Stored], tally[Rejected] + tally[Refused]
    return Totals(stored=stored, rejected=rejected, failed=tally.total() - stored - rejected)


async def _steps(stream: IO[bytes], line_bytes_max: int) -> AsyncIterator[tuple[list[tuple[int, Payload]], int]]:
    """Yield numbered lines as they come, and how many bytes were read for them."""
    lines = _Lines(line_bytes_max)
    while piece := await _read(stream):
        yield_bytes = len(piece)
        for step in _cut(list(lines.feed(piece))):
            yield step, yield_bytes
            yield_bytes = 0
    for step in _cut(list(lines.feed(b"\n"))):
        yield step, 0


async def _read(stream: IO[bytes]) -> bytes:
    """Read in a thread that ends with the process: nothing wakes one that waits for input, not even Ctrl-C."""
    piece: Future[bytes] = Future()
    piece.set_running_or_notify_cancel()

    def read() -> None:
        try:
            piece.set_result(_read_some(stream))
        except BaseException as error:  # noqa: BLE001  Whatever it is, it is for who waits.
            piece.set_exception(error)

    threading.Thread(target=read, name="input", daemon=True).start()
    return await asyncio.wrap_future(piece)


def _read_some(stream: IO[bytes]) -> bytes:
    # Past Python's buffer: its lock, held by a thread that is left waiting, would be fatal to a process that ends.
    stream = getattr(stream, "raw", stream)
    # What is there now, and not so much: a pipe may pause for hours in the middle.
    read = getattr(stream, "read1", stream.read)
    return bytes(read(READ_BYTES))


def _cut(lines: list[tuple[int, Payload]]) -> Iterator[list[tuple[int, Payload]]]:
    for start in range(0, len(lines), LINES_MAX):
        yield lines[start : start + LINES_MAX]


class _Lines:
    """Cuts pieces of a stream into lines, and holds no more of one than its limit."""

    def __init__(self, line_bytes_max: int) -> None:
        self._keep_max = line_bytes_max + 1  # One more than is allowed, so that the rule sees that it is too long.
        self._rest = b""
        self._number = 0

    def feed(self, piece: bytes) -> Iterator[tuple[int, Payload]]:
        *ended, rest = piece.split(b"\n")
        for end in ended:
            line = (self._rest + end.removesuffix(b"\r")[: self._keep_max])[: self._keep_max]
            self._rest = b""
            self._number += 1
            if line.strip():
                yield self._number, line
        self._rest = (self._rest + rest[: self._keep_max])[: self._keep_max]
