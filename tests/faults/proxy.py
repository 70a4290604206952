"""TCP proxies that pass everything on until they are told to do harm, in a thread of their own.

What can't be done from here: a connection request that nobody answers. A silent link accepts the
connection and says nothing, which a client notices later, never sooner.
"""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self, TypeVar

CHUNK_BYTES = 64 * 1024
CHUNKS_MAX = 64
PATIENCE_S = 10.0

Address = tuple[str, int]
Queue = asyncio.Queue[tuple[float, bytes]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Harm:
    """What a link does to what passes. Requests go to the server, answers come back; times are seconds.

    `holds` keeps everything until the harm is over and then delivers it; `loses_…` throws it away, and
    such a connection is reset when the harm is over. `cuts` so many connections, each when its next
    answer has come and `cut_after` bytes of that have been passed on. `refuses` resets what connects.
    """

    request_delay_s: float = 0.0
    answer_delay_s: float = 0.0
    jitter_s: float = 0.0
    holds: bool = False
    loses_requests: bool = False
    loses_answers: bool = False
    cuts: int = 0
    cut_after: int = 0
    refuses: bool = False


@dataclass(slots=True)
class Tally:
    """What a link has done so far: the proof that a fault fired."""

    connections: int = 0
    passed_bytes: int = 0
    lost_bytes: int = 0
    delayed: int = 0
    held: int = 0
    cut: int = 0
    refused: int = 0


class Link:
    """One port, and the server that it leads to; made by `Network.link`, and used from any thread."""

    def __init__(self, network: "Network", target: Address) -> None:
        self.port = 0
        self.tally = Tally()
        self._network, self._target = network, target
        self._harm, self._cuts_left = Harm(), 0
        self._calm = asyncio.Event()
        self._calm.set()
        self._connections: set[_Connection] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def harm(self, **what: Any) -> None:
        """Do this harm from now on, in place of any other; see `Harm`."""
        self._network.call(lambda: self._set(Harm(**what)))

    def heal(self) -> None:
        """Pass everything on again; connections from which something is missing are reset."""
        self._network.call(lambda: self._set(Harm()))

    def lead_to(self, target: Address) -> None:
        """Lead new connections elsewhere, and reset those there are."""
        self._target = target
        self.reset()

    def forget(self) -> None:
        """Lose everything on the connections there are, without telling anybody; new ones work."""
        self._network.call(lambda: self._to_each(_Connection.forget))

    def reset(self) -> None:
        """Reset every connection."""
        self._network.call(lambda: self._to_each(_Connection.reset))

    async def listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=CHUNK_BYTES)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def _to_each(self, do: Callable[["_Connection"], None]) -> None:
        for connection in self._connections:
            do(connection)

    def _set(self, harm: Harm) -> None:
        self._harm, self._cuts_left = harm, harm.cuts
        if harm.holds:
            self._calm.clear()
        else:
            self._calm.set()
        for connection in [each for each in self._connections if each.torn]:
            connection.reset()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tally.connections += 1
        if self._harm.refuses:
            self.tally.refused += 1
            _reset(writer)
            return
        await self._through()
        try:
            upstream = await asyncio.open_connection(*self._target, limit=CHUNK_BYTES)
        except OSError:
            _reset(writer)
            return
        connection = _Connection((writer, upstream[1]))
        self._connections.add(connection)
        try:
            async with asyncio.TaskGroup() as both_ways:
                for source, sink, answers in ((reader, upstream[1], False), (upstream[0], writer, True)):
                    # Reading goes on while what was read waits for its time, so that delay is no throttle.
                    queue: Queue = asyncio.Queue(CHUNKS_MAX)
                    both_ways.create_task(self._read(source, queue, answers=answers))
                    both_ways.create_task(self._write(queue, sink, connection, answers=answers))
        except* (OSError, _Cut):
            connection.reset()
        finally:
            connection.close()
            self._connections.discard(connection)

    async def _read(self, source: asyncio.StreamReader, queue: Queue, *, answers: bool) -> None:
        data = b"to be read"
        while data:
            data = await source.read(CHUNK_BYTES)
            await queue.put((asyncio.get_running_loop().time() + self._delay_s(answers=answers), data))

    async def _write(
        self, queue: Queue, sink: asyncio.StreamWriter, connection: "_Connection", *, answers: bool
    ) -> None:
        data = b"to be written"
        while data:
            due, data = await queue.get()
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            await self._through()
            if answers and data and self._cuts_left > 0:
                await self._cut(data, sink)
            elif connection.forgotten or (self._harm.loses_answers if answers else self._harm.loses_requests):
                self.tally.lost_bytes += len(data)
                connection.torn = True
            elif data:
                self.tally.passed_bytes += len(data)
                sink.write(data)
                await sink.drain()
            else:
                sink.write_eof()

    async def _cut(self, data: bytes, sink: asyncio.StreamWriter) -> None:
        self._cuts_left -= 1
        self.tally.cut += 1
        if self._harm.cut_after:
            sink.write(data[: self._harm.cut_after])
            await sink.drain()
        raise _Cut

    async def _through(self) -> None:
        if not self._calm.is_set():
            self.tally.held += 1
            await self._calm.wait()

    def _delay_s(self, *, answers: bool) -> float:
        harm = self._harm
        delay_s = harm.answer_delay_s if answers else harm.request_delay_s
        if harm.jitter_s:
            delay_s += self._network.random.uniform(0, harm.jitter_s)
        self.tally.delayed += delay_s > 0
        return delay_s


class Network:
    """Links and the thread that serves them; a context manager."""

    def __init__(self, *, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._servers: list[asyncio.Server] = []
        self.links: list[Link] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    def link(self, target: Address) -> Link:
        """Make a port that leads to this server."""
        link = Link(self, target)
        self._servers.append(self._run(link.listen()))
        self.links.append(link)
        return link

    def heal(self) -> None:
        """Heal every link."""
        for link in self.links:
            link.heal()

    def call(self, do: Callable[[], T]) -> T:
        """Do something in the thread of the links, and return its result."""

        async def doing() -> T:
            return do()

        return self._run(doing())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        with suppress(TimeoutError):
            await asyncio.wait(tasks, timeout=1) if tasks else None


@dataclass(eq=False, slots=True)
class _Connection:
    """Both ends of a connection. `torn` when something of it was thrown away, `forgotten` when all is from now on."""

    writers: tuple[asyncio.StreamWriter, ...]
    torn: bool = False
    forgotten: bool = False

    def forget(self) -> None:
        self.forgotten = True

    def reset(self) -> None:
        for writer in self.writers:
            _reset(writer)

    def close(self) -> None:
        for writer in self.writers:
            writer.close()


class _Cut(Exception):
    """This connection ends here."""


def _reset(writer: asyncio.StreamWriter) -> None:
    """End the connection as a router or a dead kernel does: no farewell, nothing more is delivered."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
