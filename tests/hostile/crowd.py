"""Clients who hold connections and want nothing good: slow, idle, or never reading. A process of its own.

`python -m tests.hostile.crowd PORT CONNECTIONS SECONDS` with a key on its standard input holds that
many connections until it is killed: each is of one kind, and comes again as often as it is sent away.
They come one after the other within so many seconds, so that they are sent away at all times. Once
all have come it says, once a second, how many are there.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

PAUSE_S = 1.0
"""How long a slow client waits between two bytes."""
AGAIN_S = 0.1
"""How long one who was sent away waits before he comes again."""

Kind = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[None]]


async def idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: bytes) -> None:
    """Connect, and say nothing."""
    await reader.read()


async def kept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: bytes) -> None:
    """Ask once, and keep the connection."""
    writer.write(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
    await reader.read()


async def half_a_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: bytes) -> None:
    """Begin a request, and stop."""
    writer.write(_head(key)[:-20])
    await reader.read()


async def dripping_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: bytes) -> None:
    """Send a head that does not end."""
    writer.write(_head(key))
    await _drip(reader, writer, b"X-Slow: a\r\n")


async def half_a_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: bytes) -> None:
    """Announce a body, and send half of it."""
    writer.write(_head(key) + b"Content-Length: 200\r\n\r\n" + b" " * 100)
    await reader.read()


async def dripping_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: bytes) -> None:
    """Send a body byte by byte, in chunks."""
    writer.write(_head(key) + b"Transfer-Encoding: chunked\r\n\r\n")
    await _drip(reader, writer, b"1\r\n \r\n")


async def never_reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: bytes) -> None:
    """Ask for much, again and again, and read none of it."""
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # a StreamWriter's transport is a socket's
    writer.write(b"GET /schema/openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 20)
    while not writer.is_closing():
        await asyncio.sleep(PAUSE_S)
        # One blank line more: only who writes learns that nobody is there any more.
        writer.write(b"\r\n")
        await writer.drain()


KINDS: tuple[Kind, ...] = (idle, kept, half_a_head, dripping_head, half_a_body, dripping_body, never_reading)


class Crowd:
    """So many connections, of all kinds in turn."""

    def __init__(self, port: int, key: bytes, size: int, coming_s: float) -> None:
        self._port, self._key = port, key
        self._size, self._coming_s = size, coming_s
        self.connected = 0

    async def stay(self) -> None:
        """Come, and never go."""
        async with asyncio.TaskGroup() as clients:
            for number in range(self._size):
                clients.create_task(self._one(KINDS[number % len(KINDS)], self._coming_s * number / self._size))
            clients.create_task(self._tell())

    async def _one(self, kind: Kind, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                self.connected += 1
                try:
                    await kind(reader, writer, self._key)
                finally:
                    self.connected -= 1
                    writer.transport.abort()
            await asyncio.sleep(AGAIN_S)

    async def _tell(self) -> None:
        await asyncio.sleep(self._coming_s)
        while True:
            sys.stdout.write(f"{self.connected}\n")
            sys.stdout.flush()
            await asyncio.sleep(1.0)


def _head(key: bytes) -> bytes:
    return b"POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nX-CS-API-Key: %s\r\n" % key


async def _drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, piece: bytes) -> None:
    while not reader.at_eof() and not writer.is_closing():
        for at in range(len(piece)):
            writer.write(piece[at : at + 1])
            await writer.drain()
            with suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1 << 16), PAUSE_S)


if __name__ == "__main__":
    port, size, coming_s = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    asyncio.run(Crowd(port, sys.stdin.readline().strip().encode(), size, coming_s).stay())
