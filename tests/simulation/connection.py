"""One HTTP exchange without a socket: a body that may come slowly, and a client that may leave."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer as the client got it, or would have."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True, kw_only=True)
class Connection:
    """What a server gives an ASGI app. `on_reply` is called at the moment of the answer.

    `pieces` are parts of the body, each with the seconds that it takes to come. Once the client has
    `left`, there is no more of its body, and writing to it fails or is for nothing.
    """

    path: str
    headers: Sequence[tuple[str, str]]
    pieces: deque[tuple[float, bytes]]
    on_reply: Callable[[Reply], None]
    complain: Callable[[str], None]
    writing_fails: bool = False
    left: asyncio.Event = field(default_factory=asyncio.Event)
    body_at: float | None = None
    reply: Reply | None = None
    _start: Any = None

    @property
    def scope(self) -> dict[str, Any]:
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in (("host", "ingest.test"), *self.headers)],
        }

    async def receive(self) -> dict[str, Any]:
        seconds, piece = self.pieces[0] if self.pieces else (None, b"")
        if seconds is None or seconds:
            await self._wait(seconds)
        if self.left.is_set() or not self.pieces:
            return {"type": "http.disconnect"}
        self.pieces.popleft()
        if not self.pieces:
            self.body_at = asyncio.get_running_loop().time()
        return {"type": "http.request", "body": piece, "more_body": bool(self.pieces)}

    async def _wait(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.left.wait()
        except TimeoutError:
            pass

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            if self._start is not None:
                self.complain("a request has two answers")
            self._start = message
        elif not message.get("more_body") and self._start is not None:
            names = {name.decode(): value.decode() for name, value in self._start["headers"]}
            self.reply = Reply(status=self._start["status"], headers=names, body=message.get("body", b""))
            if not self.left.is_set():
                self.on_reply(self.reply)
        if self.left.is_set() and self.writing_fails:
            raise ConnectionResetError("the client left")
