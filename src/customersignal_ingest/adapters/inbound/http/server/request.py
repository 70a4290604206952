"""One request and its answer: what ASGI calls `receive` and `send`."""

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import Protocol

from customersignal_ingest.adapters.inbound.http.asgi import Message, Scope

REST_BYTES_MAX = 256 * 1024
"""How much of a body that nobody wants is read, so that the connection can go on."""

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_WITHOUT_LENGTH = frozenset({204, 304})
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Line(Protocol):
    """The connection, as a request sees it."""

    def want(self, request: "Request", /, *, first: bytes) -> None:
        """Let more of the body come, having said `first` to the client."""
        ...

    def give(self, request: "Request", /) -> None:
        """Send the answer, which is whole."""
        ...

    def cut(self) -> None:
        """End it now."""
        ...


class Request:
    """A request whose body may still be coming, and its answer, which is sent as a whole.

    `close` says that the connection ends with the answer.
    """

    __slots__ = (
        *("answered", "close", "gone", "scope", "unread", "whole"),
        *("_body", "_flaw", "_headers", "_line", "_size_bytes", "_status", "_told", "_waits"),
    )

    def __init__(self, scope: Scope, line: Line, /, *, close: bool = False) -> None:
        """The head is there, and nothing of the body."""
        self.scope, self.close, self._line = scope, close, line
        self.whole = self.answered = self.gone = False
        self.unread: bytes | bytearray = b""
        self._size_bytes = self._status = 0
        self._told = False  # The app knows that the body has ended.
        self._flaw: Exception | None = None
        self._waits: asyncio.Future[None] | None = None
        self._headers: Sequence[tuple[bytes, bytes]] = ()
        self._body = b""

    # What the client sends.

    def feed(self, piece: bytes, /) -> None:
        """Take a piece of the body; one that comes after the answer is dropped."""
        self._size_bytes += len(piece)
        if self.answered:
            return
        if not self.unread:
            self.unread = piece
        else:  # A thousand tiny pieces would take many times their size.
            self.unread = bytearray(self.unread) if isinstance(self.unread, bytes) else self.unread
            self.unread += piece
        self._wake()

    def end(self) -> None:
        """The body is whole."""
        self.whole = True
        self._wake()

    def fail(self, flaw: Exception, /) -> None:
        """The body can't be read to its end, which is the last that is read here."""
        self._flaw, self.close = flaw, True
        self._wake()

    def leave(self) -> None:
        """The client is gone."""
        self.gone = True
        self._wake()

    def _wake(self) -> None:
        if self._waits is not None and not self._waits.done():
            self._waits.set_result(None)

    # What the app calls.

    async def receive(self) -> Message:
        """Return the next piece of the body; raises what is wrong with a body that can't be read to its end."""
        while not self._something():
            self._line.want(self, first=_CONTINUE if self._expects() else b"")
            self._waits = asyncio.get_running_loop().create_future()
            await self._waits
        if self._flaw is not None:
            raise self._flaw
        if self._told or (self.gone and not self.whole):
            return {"type": "http.disconnect"}
        piece, self.unread, self._told = bytes(self.unread), b"", self.whole
        return {"type": "http.request", "body": piece, "more_body": not self.whole}

    def _something(self) -> bool:
        if self._told:
            return self.gone
        return bool(self.unread) or self.whole or self.gone or self._flaw is not None

    async def send(self, message: Message) -> None:
        """Take the answer, piece by piece; raises `ConnectionResetError` when nobody is there any more."""
        if self.gone:
            raise ConnectionResetError("the client left")
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], message["headers"]
            return
        body: bytes = message.get("body", b"")
        self._body = self._body + body if self._body else body
        if not message.get("more_body", False):
            self.reply(self._status, self._headers, self._body)

    def body(self) -> bytes | None:
        """Return the body if all of it is there and nothing of it was taken before; `receive` then has nothing more."""
        if not self.whole or self._told or len(self.unread) != self._size_bytes:
            return None
        body, self.unread, self._told = bytes(self.unread), b"", True
        return body

    def reply(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes, /) -> None:
        """Take the answer in one piece, as `send` does in several."""
        if self.gone:
            raise ConnectionResetError("the client left")
        self._status, self._headers, self._body = status, headers, body
        if not self.answered:
            self.answered, self.unread = True, b""
            self._line.give(self)

    def over(self) -> None:
        """The app has ended; without an answer, so must the connection."""
        # Each has the request, the flaw by its traceback: together they would wait for the garbage collector.
        del self.scope
        self._flaw = None
        if not (self.answered or self.gone):
            self._line.cut()

    def answer(self, of_every_answer: bytes, /) -> bytes:
        """Return the answer as bytes, the headers of every answer among it."""
        lines = [b"%s: %s\r\n" % header for header in self._headers]
        head = b"".join((_STATUS_LINES[self._status], of_every_answer, *lines))
        if b"\r\nconnection: close\r\n" in head:
            self.close = True
        elif self.close or not (self.whole or self._rest_is_small()):
            self.close = True
            head += b"connection: close\r\n"
        if b"\r\ncontent-length: " not in head and self._status not in _WITHOUT_LENGTH:
            head += b"content-length: %d\r\n" % len(self._body)
        return b"%s\r\n%s" % (head, self._body)

    def _rest_is_small(self) -> bool:
        length = self._header(b"content-length")
        return length.isdigit() and int(length) - self._size_bytes <= REST_BYTES_MAX and not self._expects()

    def _expects(self) -> bool:
        """Tell whether the client waits to hear that its body is wanted."""
        return not self._size_bytes and self._header(b"expect").lower() == b"100-continue"

    def _header(self, wanted: bytes) -> bytes:
        return next((value for name, value in self.scope["headers"] if name == wanted), b"")
