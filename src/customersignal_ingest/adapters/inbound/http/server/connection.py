"""One client's connection: requests taken in order, an end to every wait, and a parting that loses no answer."""

import asyncio
import math
from collections import deque
from dataclasses import dataclass
from typing import Protocol, cast

from customersignal_ingest.adapters.inbound.http.asgi import Scope
from customersignal_ingest.adapters.inbound.http.problem import ClientGone, Code, Problem
from customersignal_ingest.adapters.inbound.http.server.reader import Reader, refused, unreadable
from customersignal_ingest.adapters.inbound.http.server.request import Request

PIPELINED_MAX = 32
"""How many requests may wait for the answer of the one before; the last of them ends the connection."""
UNREAD_BYTES_MAX = 64 * 1024
"""How much of a body may wait for the app, besides what came in one piece."""


@dataclass(frozen=True, slots=True, eq=False)
class Wait:
    """Something that is owed, and how long it may take in all: what drips in gains no time."""

    seconds: float


ANSWER = Wait(math.inf)
"""Owed by the app, which has deadlines of its own, for the body and for the store."""
HEAD = Wait(10.0)
REST_OF_BODY = Wait(10.0)
"""Of a request that has its answer."""
READING = Wait(30.0)
"""Of an answer, by the client."""
GOODBYE, LAST_GOODBYE = Wait(5.0), Wait(1.0)
"""The client's closing, once it has its last answer; the second while the server ends."""


class Ground(Protocol):
    """What a connection stands on."""

    buffer: memoryview
    ending: bool
    next_request: Wait
    of_every_answer: bytes

    def came(self, connection: "Connection", /) -> bool:
        """Tell whether there is room for it."""
        ...

    def left(self, connection: "Connection", /) -> None:
        """Forget it."""
        ...

    def note(self, connection: "Connection", owed: Wait, /) -> None:
        """Remember what is owed there."""
        ...

    def run(self, request: Request, /) -> None:
        """Have the app answer."""
        ...

    def flush_soon(self, connection: "Connection", /) -> None:
        """Have it flushed at the end of this round of the loop."""
        ...


class Connection(asyncio.BufferedProtocol):
    """Reads requests, has the app answer them in their order, and ends. `deadline` is when what is owed is due."""

    def __init__(self, ground: Ground) -> None:
        """Made by the listener, for each client."""
        self.deadline = math.inf
        self._ground = ground
        self._time = asyncio.get_running_loop().time
        self._reader = Reader(self._begin)
        self._requests: deque[Request] = deque()
        self._owed: Wait | None = None
        self._unsent = b""  # What was said in this round of the loop.
        self._new, self._reading = True, True
        self._busy = False  # The app works on the first of the requests.
        self._unread = False  # There is something that the client has not read.
        self._last = False  # No request is taken after the one that is there.
        self._deaf = False  # Nothing that comes is looked at any more.
        self._parting = False  # Nothing will be said any more.
        self._left = False  # The client sends no more.

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=0)  # So that we know of every byte that is not read.
        if not self._ground.came(self):
            self._refuse(Problem(Code.NOT_STORED, "There are too many connections; it is safe to try again."))
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it; a request that is whole is finished all the same."""
        self._deaf, self._unsent = True, b""
        for request in self._requests:
            request.leave()
        self._requests.clear()
        self._reader.stop()
        self._ground.left(self)
        # asyncio's transport holds itself by this, and would wait for the garbage collector with its socket.
        vars(self._transport).pop("_read_ready_cb", None)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to put what comes: all share one place, which is empty again when the next one reads."""
        return self._ground.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Read on; what comes behind the last request is dropped, so that its answer reaches the client."""
        if self._deaf:
            return
        try:
            self._reader.feed(self._ground.buffer[:nbytes])
        except Problem as problem:
            self._refuse(problem)
        self._look()

    def eof_received(self) -> bool:
        """Give the answers that are owed to a client that sends no more."""
        self._left = True
        if self._reader.request is not None:
            self._refuse(ClientGone())
        elif self._reader.in_head:
            self._refuse(unreadable("the request is cut short"))
        self._deaf = True
        if self._requests:
            self._requests[-1].close = True
        return bool(self._requests)

    def pause_writing(self) -> None:
        """Wait for a client that does not read."""
        self._unread = True
        self._look()

    def resume_writing(self) -> None:
        """The client has read everything."""
        self._unread = False
        self._go_on()

    # What its reader and its requests call.

    def _begin(self, scope: Scope, /, *, close: bool) -> Request:
        request = Request(scope, self, close=close or len(self._requests) >= PIPELINED_MAX)
        self._new = False
        if self._last:
            request.answered = True  # Nobody will; the client knows that, from the answer before.
        else:
            self._last = request.close
            self._take(request)
        return request

    def want(self, request: Request, /, *, first: bytes) -> None:
        """Let more of the body come, having said `first` to the client."""
        if first:
            self._say(first)
        self._look()

    def give(self, request: Request, /) -> None:
        """Send the answer, and go on with the next request."""
        request.close = request.close or self._ground.ending
        self._requests.popleft()
        self._busy = False
        self._say(request.answer(self._ground.of_every_answer))
        if request.close:
            self._part()
        else:
            self._go_on()

    # What the listener calls.

    @property
    def unread_bytes(self) -> int:
        """How much the client has not read, besides what the kernel has."""
        return self._transport.get_write_buffer_size()

    def out_of_time(self) -> None:
        """What was owed is overdue."""
        if self._owed is HEAD and self._reader.in_head:
            self._refuse(Problem(Code.REQUEST_TIMEOUT, "the headers did not arrive in time", close=True))
            self._look()
        else:
            self.cut()

    def end(self) -> None:
        """Finish what has begun, and nothing else."""
        if self._owed is self._ground.next_request:
            self.cut()
        elif self._owed is REST_OF_BODY:
            self._part()
        else:
            self._look()

    def flush(self) -> None:
        """Send what was said."""
        unsent, self._unsent = self._unsent, b""
        if unsent:
            self._transport.write(unsent)

    def cut(self) -> None:
        """End it now, whatever is still to be read or written."""
        self.flush()  # What the kernel takes at once is not lost.
        self._ground.left(self)
        self._transport.abort()

    # How it goes on, and how it ends.

    def _say(self, words: bytes) -> None:
        """Send this at the end of the round: who was woken by the first answer of many finds the others there, too."""
        if not self._unsent:
            self._ground.flush_soon(self)
        self._unsent += words
        if self._requests:
            self.flush()  # Only then it is known whether the client reads, and the next one may be begun.

    def _take(self, request: Request) -> None:
        self._requests.append(request)
        self._start()

    def _go_on(self) -> None:
        self._start()
        self._look()

    def _start(self) -> None:
        """Have the app answer the first request, unless it does already, or the client must read first."""
        if self._requests and not (self._busy or self._unread):
            self._busy = True
            self._ground.run(self._requests[0])

    def _look(self) -> None:
        """Set the deadline of what is owed now, and read as much as can be used."""
        owed = self._owed_now()
        if owed is not self._owed:
            self._owed = owed
            self.deadline = math.inf if owed is ANSWER else self._time() + owed.seconds
            self._ground.note(self, owed)
        if self._reading is self._has_enough() and not self._left:
            self._reading = not self._reading
            (self._transport.resume_reading if self._reading else self._transport.pause_reading)()

    def _owed_now(self) -> Wait:
        if self._unread:
            return READING
        if self._requests:
            return ANSWER
        if self._parting or (self._new and self._ground.ending):
            return LAST_GOODBYE if self._ground.ending else GOODBYE
        if self._reader.request is not None:
            return REST_OF_BODY
        return HEAD if self._reader.in_head or self._new else self._ground.next_request

    def _has_enough(self) -> bool:
        request = self._reader.request
        return len(self._requests) > 1 or (request is not None and len(request.unread) > UNREAD_BYTES_MAX)

    def _refuse(self, flaw: Exception) -> None:
        """Answer this once every request before has its answer, and take no more."""
        if self._deaf:
            return
        self._deaf, request = True, self._reader.request
        if request is None:
            request = Request(refused(flaw), self, close=True)
            request.end()
            self._take(request)
        else:
            request.fail(flaw)

    def _part(self) -> None:
        """Say no more, and read for a while: to close upon what is unread would take back the last answer."""
        self.flush()
        self._deaf = self._parting = True
        self._requests.clear()
        if self._left:
            self._transport.close()
        else:
            self._transport.write_eof()
        self._look()
