"""A client on the other end of a connection that is no socket: bytes in, bytes out, in simulated time."""

import asyncio
import json
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from customersignal_ingest.adapters.inbound.http.server.listener import Listener
from tests.unit.simulated_time import everyone_waits


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer, as the client reads it."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["error"]["code"])


class _Transport(asyncio.Transport):
    """What asyncio would give the server. `reads` is whether the client reads what it is sent."""

    def __init__(self, client: "Client") -> None:
        super().__init__()
        self._client = client
        self.sent = bytearray()
        self.writes = self.unread_bytes = 0
        self.reads = self.reading = True
        self.closing = self.ended = False

    def write(self, data: Any) -> None:
        if not self.closing:
            self.writes += 1
            self.sent += data
            if not self.reads:
                self.unread_bytes += len(data)
                self._client.protocol.pause_writing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == 0  # A server that allows more would not know of a client that does not read.

    def get_write_buffer_size(self) -> int:
        return self.unread_bytes

    def write_eof(self) -> None:
        self.ended = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True
        asyncio.get_running_loop().call_soon(self._client.deliver)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self._client.protocol.connection_lost, None)


class Client:
    """Connects at once. `gone_at_s` is when the server ended the connection."""

    def __init__(self, listener: Listener) -> None:
        self.protocol = listener.connect()
        self._transport = _Transport(self)
        self._waiting: deque[bytes] = deque()
        self._time = asyncio.get_running_loop().time
        self.protocol.connection_made(self._transport)

    async def send(self, *pieces: bytes) -> None:
        """Send these, one after the other, and wait until nothing more comes of it."""
        for piece in pieces:
            self._waiting.append(piece)
            self.deliver()
            await everyone_waits()

    async def half_close(self) -> None:
        """Send no more, and say so."""
        if not self.protocol.eof_received():
            self._transport.close()
        await everyone_waits()

    async def leave(self) -> None:
        """Go away."""
        self._transport.closing = True
        self.protocol.connection_lost(None)
        await everyone_waits()

    def stop_reading(self) -> None:
        self._transport.reads = False

    async def read_again(self) -> None:
        self._transport.reads = True
        self._transport.unread_bytes = 0
        self.protocol.resume_writing()
        await everyone_waits()

    def deliver(self) -> None:
        """Bring what was sent to the server, as far as it reads."""
        while self._waiting and self._transport.reading and not self._transport.closing:
            data = self._waiting.popleft()
            buffer = self.protocol.get_buffer(-1)
            if len(data) > len(buffer):
                self._waiting.appendleft(data[len(buffer) :])
                data = data[: len(buffer)]
            buffer[: len(data)] = data
            self.protocol.buffer_updated(len(data))

    @property
    def sent(self) -> bytes:
        """All that the server sent."""
        return bytes(self._transport.sent)

    @property
    def writes(self) -> int:
        """In how many pieces it was sent."""
        return self._transport.writes

    @property
    def unread_bytes(self) -> int:
        """What the server has not taken of what was sent."""
        return sum(map(len, self._waiting))

    @property
    def answers(self) -> list[Answer]:
        return list(_answers(self.sent))

    @property
    def statuses(self) -> list[int]:
        """The status of each answer, those without a body among them."""
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", self.sent)]

    @property
    def is_told_the_end(self) -> bool:
        """Tell whether the server says no more, which it says by ending its half of the connection."""
        return self._transport.ended or self._transport.closing

    @property
    def is_parted(self) -> bool:
        return self._transport.closing

    async def parted_after_s(self, within_s: float = 1000.0) -> float:
        """Return how long it takes until the server has ended the connection."""
        began = self._time()
        while not self.is_parted:
            assert self._time() - began < within_s
            await asyncio.sleep(0.05)
        return self._time() - began


def _answers(sent: bytes) -> Any:
    while sent:
        head, _, sent = sent.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name: value for name, _, value in (line.partition(": ") for line in lines)}
        assert len(headers) == len(lines), "a header is there twice"
        status = int(first.split()[1])
        size = int(headers.get("content-length", 0))
        body, sent = sent[:size], sent[size:]
        yield Answer(status=status, headers=headers, body=body)
