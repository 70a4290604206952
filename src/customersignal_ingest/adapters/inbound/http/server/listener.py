"""All connections of one port: how many there may be, who has to go, and how they end together."""

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate

from customersignal_ingest.adapters.inbound.http.asgi import ASGIApp
from customersignal_ingest.adapters.inbound.http.exchange import AFTERWARDS, AT_ONCE
from customersignal_ingest.adapters.inbound.http.server.connection import ANSWER, READING, Connection, Wait
from customersignal_ingest.adapters.inbound.http.server.request import Request

TURNED_AWAY_MAX = 256
"""How many connections more there may be of clients that are told that there are too many."""
UNREAD_BYTES_MAX = 64 * 1024 * 1024
"""How much of answers may wait here for clients that do not read them, besides what the kernel has of each."""
BUFFER_BYTES = 64 * 1024
"""How much is read at a time. asyncio's own way allocates four times that for each read, which costs 10 µs."""
SENT_BYTES_MAX = 128 * 1024
"""How much of the answers on one connection the kernel keeps until the client reads them; Linux doubles it."""
SWEEP_S, OVERDUE_AT_ONCE = 0.1, 25
"""How often deadlines are looked at, and for how many clients at a time, since all others wait meanwhile."""

_ACCEPTED_AT_ONCE = 32


class Listener:
    """Takes connections, `connections_max` at a time, which may be idle for `keep_alive_s`, and has `app` answer."""

    def __init__(self, app: ASGIApp, *, connections_max: int, keep_alive_s: float) -> None:
        """Nobody is connected yet."""
        self.buffer = memoryview(bytearray(BUFFER_BYTES))
        self.ending = False
        self.next_request = Wait(keep_alive_s)
        self.of_every_answer = b""
        self._app, self._connections_max = app, connections_max
        self._loop = asyncio.get_running_loop()
        self._connections: set[Connection] = set()
        # Whoever has waited for longest comes first.
        self._idle: dict[Connection, None] = {}
        self._unread: dict[Connection, int] = {}
        self._unread_bytes = 0
        self._work: dict[Request, asyncio.Task[None]] = {}
        self._unflushed: list[Connection] = []
        self._afterwards: list[Callable[[], None]] = []
        self._round_ends = False
        self._quiet = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def open(self, port: socket.socket) -> None:
        """Listen there."""
        self._sweep()
        # Bounds what an answer that nobody reads takes in the kernel; each connection has it from here.
        port.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENT_BYTES_MAX)
        # asyncio accepts as many in one go as it lets wait, and meanwhile does nothing else.
        self._server = await self._loop.create_server(self.connect, sock=port, backlog=_ACCEPTED_AT_ONCE)
        port.listen(self._connections_max)

    async def close(self, timeout_s: float) -> bool:
        """Take no more, finish what has begun, and tell whether all of it was finished in time."""
        self.ending = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.end()
        self._end_when_quiet()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._quiet.wait()
        finished = not self._work
        for connection in list(self._connections):
            connection.cut()
        if self._timer is not None:
            self._timer.cancel()
        return finished

    # What connections call.

    def connect(self) -> Connection:
        """Return the protocol for one client more."""
        return Connection(self)

    def came(self, connection: Connection, /) -> bool:
        """Tell whether there is room for it, having parted with whoever was idle for longest."""
        self._connections.add(connection)
        excess = len(self._connections) - self._connections_max
        if excess <= 0:
            return True
        longest = next(iter(self._idle), None)
        if longest is not None:
            longest.cut()
        elif excess > TURNED_AWAY_MAX:
            connection.cut()
        return longest is not None or excess > TURNED_AWAY_MAX

    def left(self, connection: Connection, /) -> None:
        """Forget it."""
        self._connections.discard(connection)
        self._idle.pop(connection, None)
        self._unread_bytes -= self._unread.pop(connection, 0)
        self._end_when_quiet()

    def note(self, connection: Connection, owed: Wait, /) -> None:
        """Remember who is idle, and who does not read; the latter may leave only so much unread, all together."""
        if connection not in self._connections:
            return
        if owed is ANSWER:
            self._idle.pop(connection, None)
        else:
            self._idle.setdefault(connection)
        if self._unread:
            self._unread_bytes -= self._unread.pop(connection, 0)
        if owed is READING:
            self._unread[connection] = connection.unread_bytes
            self._unread_bytes += connection.unread_bytes
            if self._unread_bytes > UNREAD_BYTES_MAX:
                next(iter(self._unread)).cut()

    def run(self, request: Request, /) -> None:
        """Have the app answer."""
        self._work[request] = self._loop.create_task(self._answer(request))

    def flush_soon(self, connection: Connection, /) -> None:
        """Have it flushed once all that is ready now has been done: to wake a client for each answer costs more."""
        self._unflushed.append(connection)
        self._end_round()

    def afterwards(self, work: Callable[[], None], /) -> None:
        """Have this done after that, with all that is like it: together it takes half the time."""
        self._afterwards.append(work)
        self._end_round()

    def _end_round(self) -> None:
        if not self._round_ends:
            self._round_ends = True
            self._loop.call_soon(self._at_the_end_of_the_round)

    def _at_the_end_of_the_round(self) -> None:
        self._round_ends = False
        unflushed, self._unflushed = self._unflushed, []
        afterwards, self._afterwards = self._afterwards, []
        for connection in unflushed:
            connection.flush()
        for work in afterwards:
            work()

    async def _answer(self, request: Request) -> None:
        request.scope.update({AT_ONCE: request, AFTERWARDS: self.afterwards})
        try:
            await self._app(request.scope, request.receive, request.send)
        finally:
            request.over()
            del self._work[request]
            self._end_when_quiet()

    def _end_when_quiet(self) -> None:
        if self.ending and not self._work and not self._connections:
            self._quiet.set()

    def _sweep(self) -> None:
        """See whose time is up, and what time it is."""
        now = self._loop.time()
        overdue = [each for each in self._connections if each.deadline <= now]
        for connection in overdue[:OVERDUE_AT_ONCE]:
            connection.out_of_time()
        self.of_every_answer = f"date: {formatdate(time.time(), usegmt=True)}\r\n".encode()
        self._timer = self._loop.call_later(SWEEP_S, self._sweep)
