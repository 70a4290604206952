"""A client that sends exactly these bytes, reads every answer there is, and believes nothing."""

import asyncio
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field

from tests.hostile.corpus import Row

PATIENCE_S = 20.0
"""How long a client waits for an answer, or for the end of a connection that must end."""
GOODBYE_S = 8.0
"""How long the server may take to end a connection on which the client has sent its last byte."""

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9]) [ -~]*")
_HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([\t -~]*)")


class Unreadable(Exception):
    """What the server sent is not HTTP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer, its headers in order, names in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the one header of this name."""
        found = [value for each, value in self.headers if each == name]
        return found[0] if len(found) == 1 else None


@dataclass(slots=True, kw_only=True)
class Seen:
    """What a client saw on its connection, to its end."""

    answers: list[Answer] = field(default_factory=list)
    raw: bytes = b""
    flaw: str | None = None
    ended: bool = False
    seconds: float = 0.0


async def send(row: Row, address: tuple[str, int], /) -> Seen:
    """Send one row on a connection of its own, and return what came of it."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection(*address)
    # Whoever answers early must be heard, however much is still to be sent.
    sending = asyncio.create_task(_write(row, writer))
    seen = Seen()
    try:
        if row.then == "leave":
            await sending
        else:
            await _read(row, reader, writer, seen)
    finally:
        sending.cancel()
        writer.transport.abort()
    seen.seconds = time.monotonic() - began
    return seen


async def _write(row: Row, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        for piece in _pieces(row):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(row.drip_s or 0)
        if row.then == "half-close":
            writer.write_eof()


def _pieces(row: Row) -> list[bytes]:
    """Return the request as it is sent: whole, or its end byte by byte."""
    if row.drip_s is None:
        return [row.request]
    head = row.request[:-200]
    return [head, *(row.request[at : at + 1] for at in range(len(head), len(row.request)))]


async def _read(row: Row, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen) -> None:
    is_head = row.method == "HEAD"
    more = True
    while more and not (seen.answers or seen.flaw):
        more = await _read_some(reader, seen, PATIENCE_S)
        _parse(seen, is_head=is_head, at_end=not more)
    with suppress(OSError):
        if more and row.then == "wait":
            writer.write_eof()
    while more:
        more = await _read_some(reader, seen, GOODBYE_S)
    _parse(seen, is_head=is_head, at_end=True)


async def _read_some(reader: asyncio.StreamReader, seen: Seen, patience_s: float) -> bool:
    try:
        piece = await asyncio.wait_for(reader.read(1 << 20), patience_s)
    except TimeoutError:
        return False
    except OSError:
        piece = b""
    seen.raw += piece
    seen.ended = not piece
    return bool(piece)


def _parse(seen: Seen, *, is_head: bool, at_end: bool) -> None:
    """Read all answers anew; what is not whole yet is a flaw only at the end."""
    seen.answers, rest = [], seen.raw
    try:
        while rest:
            answer, rest = _answer(rest, is_head=is_head, at_end=at_end)
            if answer.status >= 200:
                seen.answers.append(answer)
    except EOFError:
        seen.flaw = "an answer is cut short" if at_end else None
    except Unreadable as error:
        seen.flaw = str(error)


def _answer(raw: bytes, *, is_head: bool, at_end: bool) -> tuple[Answer, bytes]:
    head, blank, rest = raw.partition(b"\r\n\r\n")
    if not blank:
        raise EOFError
    first, *lines = head.split(b"\r\n")
    status = _STATUS_LINE.fullmatch(first)
    headers = [_HEADER_LINE.fullmatch(line) for line in lines]
    if status is None or not all(headers):
        raise Unreadable("what came is no HTTP answer")
    named = tuple((found[1].decode().lower(), found[2].decode().strip()) for found in headers if found)
    code = int(status[1])
    bodiless = is_head or code < 200 or code in (204, 304)
    body, rest = (b"", rest) if bodiless else _body(dict(named), rest, at_end=at_end)
    return Answer(status=code, headers=named, body=body), rest


def _body(headers: dict[str, str], rest: bytes, *, at_end: bool) -> tuple[bytes, bytes]:
    if headers.get("transfer-encoding") == "chunked":
        return _unchunked(rest)
    if "content-length" not in headers:
        if not at_end:
            raise EOFError
        return rest, b""
    length = int(headers["content-length"])
    if len(rest) < length:
        raise EOFError
    return rest[:length], rest[length:]


def _unchunked(rest: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, line, rest = rest.partition(b"\r\n")
        if not line or len(rest) < int(size, 16) + 2:
            raise EOFError
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        if int(size, 16) == 0:
            return body, rest
