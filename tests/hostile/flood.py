"""Clients of an open loop: they send at a rate, whatever the answers do. A process of its own.

`python -m tests.hostile.flood` reads what to do as JSON from its standard input, and writes what it
saw to its standard output. A request that finds no free connection opens another one. Seconds count
from when a request was due, so that a client that is late hides nothing; how late it was is told too.
"""

import asyncio
import json
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any, Self

NO_CONNECTION = "no connection left"  # All that this client may have wait for an answer.
PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Flood:
    """What to do: requests of so many events each, by the keys in turn.

    With a `rate` so many requests a second are sent on as many as `connections`; without one each
    connection sends its next request as soon as it has the answer.
    """

    port: int
    keys: list[str]
    connections: int
    events: int
    seconds: float
    rate: float = 0.0


@dataclass(slots=True, kw_only=True)
class Seen:
    """What came: for each status the seconds that its answers took, and how late requests were sent."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    late_s: list[float] = field(default_factory=list)
    took_s: float = 0.0

    @classmethod
    def of(cls, text: str) -> Self:
        """Read what a process wrote."""
        return cls(**json.loads(text))

    def note(self, status: str, seconds: float) -> None:
        """Note one answer; a status that is no number is what came instead of one."""
        self.seconds.setdefault(status, []).append(seconds)

    def count(self, status: str) -> int:
        """How many answers had this status."""
        return len(self.seconds.get(status, []))


class _Connection(asyncio.Protocol):
    """Reads one answer after the other, no more of each than its status and its length."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.answer: asyncio.Future[str] | None = None
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a protocol for sockets gets a socket's transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, end, body = self._read.partition(b"\r\n\r\n")
        if not end:
            return
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        if len(body) >= length:
            self._read = body[length:]
            if b"\nconnection: close" in head.lower():
                self.transport.close()
            self._end(head[9:12].decode())

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("closed")

    def send(self, request: bytes) -> "asyncio.Future[str]":
        """Send a request, and return what becomes of it."""
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.answer

    def _end(self, status: str) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(status)


class _Flooding:
    def __init__(self, flood: Flood) -> None:
        self._flood = flood
        self._requests = [_request(key, flood.events) for key in flood.keys]
        self._free: deque[_Connection] = deque()
        self._open = 0
        self.seen = Seen()

    async def run(self) -> Seen:
        began = time.perf_counter()
        if self._flood.rate:
            await self._at_a_rate(began)
        else:
            await asyncio.gather(*(self._without_pause(number, began) for number in range(self._flood.connections)))
        self.seen.took_s = time.perf_counter() - began
        return self.seen

    async def _without_pause(self, number: int, began: float) -> None:
        while time.perf_counter() < began + self._flood.seconds:
            await self._one(number, time.perf_counter())

    async def _at_a_rate(self, began: float) -> None:
        waiting: set[asyncio.Task[None]] = set()
        for number in range(int(self._flood.seconds * self._flood.rate)):
            due = began + number / self._flood.rate
            # Of a client that is late, the loop goes round all the same, so that answers are read.
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            self.seen.late_s.append(time.perf_counter() - due)
            task = asyncio.create_task(self._one(number, due))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
        await asyncio.gather(*waiting)

    async def _one(self, number: int, due: float) -> None:
        status = await self._status_of(self._requests[number % len(self._requests)])
        self.seen.note(status, time.perf_counter() - due)

    async def _status_of(self, request: bytes) -> str:
        try:
            connection = await self._connection()
        except OSError:
            return "refused"
        if connection is None:
            return NO_CONNECTION
        try:
            async with asyncio.timeout(PATIENCE_S):
                status = await connection.send(request)
        except TimeoutError:
            status = "no answer"
            connection.transport.abort()
        if connection.transport.is_closing():
            self._open -= 1
        else:
            self._free.append(connection)
        return status

    async def _connection(self) -> _Connection | None:
        while self._free:
            connection = self._free.pop()
            if not connection.transport.is_closing():
                return connection
            self._open -= 1
        if self._open >= self._flood.connections:
            return None
        self._open += 1
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(_Connection, "127.0.0.1", self._flood.port)
        except OSError:
            self._open -= 1
            raise
        return connection


def _request(key: str, events: int) -> bytes:
    properties = '{"product_id":"sku-48213","name":"Linen shirt, blue","price":59.90,"tags":["linen","summer"]}'
    event = (
        '{"event_type":"product_viewed","timestamp":"2026-11-23T10:00:00.123Z","user_id":"u1",'
        f'"properties":{properties}}}'
    )
    path, body = "/v1/events", event
    if events > 1:
        path, body = "/v1/events/batch", f'{{"events":[{",".join([event] * events)}]}}'
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nX-CS-API-Key: {key}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def main() -> None:
    """Do what standard input says."""
    given: dict[str, Any] = json.loads(sys.stdin.read())
    sys.stdout.write(json.dumps(asdict(asyncio.run(_Flooding(Flood(**given)).run()))))


if __name__ == "__main__":
    main()
