"""What answers a request: the server's `send`, with what every answer has on top."""

from collections.abc import Callable
from functools import lru_cache

from customersignal_ingest.adapters.inbound.http.answers import Answer
from customersignal_ingest.adapters.inbound.http.asgi import Message, Send
from customersignal_ingest.adapters.inbound.http.exchange import Exchange
from customersignal_ingest.adapters.inbound.http.guard import RawHeaders


class Reply:
    """Sends the answer of one exchange, whole by `whole`, or as any ASGI app does, and knows how far it got.

    `gone` says that the client had left.
    """

    __slots__ = ("_exchange", "_of_every_answer", "_send", "gone", "started")

    def __init__(self, send: Send, exchange: Exchange, of_every_answer: Callable[[Exchange], RawHeaders]) -> None:
        """Nothing is sent yet."""
        self._send, self._exchange, self._of_every_answer = send, exchange, of_every_answer
        self.started = self.gone = False

    async def whole(self, answer: Answer, /) -> None:
        """Send this answer; raises `OSError` where the client has left."""
        headers = [_encoded(*header) for header in answer.headers.items()]
        if answer.status != 204:
            headers.append((b"content-length", b"%d" % len(answer.body)))
        at_once = self._exchange.at_once
        if at_once is None or self._exchange.method == "HEAD":
            await self({"type": "http.response.start", "status": answer.status, "headers": headers})
            await self({"type": "http.response.body", "body": answer.body})
            return
        headers += self._begin(answer.status)
        try:
            at_once.reply(answer.status, headers, answer.body)
        except OSError:
            self.gone = True
            raise

    async def __call__(self, message: Message) -> None:
        """Send a part of the answer."""
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *self._begin(message["status"])]
        elif self._exchange.method == "HEAD":
            message["body"] = b""  # Litestar leaves it to the server to drop.
        try:
            await self._send(message)
        except OSError:
            self.gone = True
            raise

    def _begin(self, status: int) -> RawHeaders:
        self.started = True
        self._exchange.status = status
        return self._of_every_answer(self._exchange)


@lru_cache(maxsize=64)  # There are a few dozen, none with anything of a client's.
def _encoded(name: str, value: str) -> tuple[bytes, bytes]:
    return name.encode(), value.encode("latin-1")
