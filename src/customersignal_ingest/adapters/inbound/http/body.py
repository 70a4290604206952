"""A request's body, read within a deadline and within limits on what is sent and on what it decodes to."""

from dataclasses import dataclass

from customersignal_ingest.adapters.inbound.http.asgi import Receive
from customersignal_ingest.adapters.inbound.http.encodings import DECODERS
from customersignal_ingest.adapters.inbound.http.exchange import Exchange
from customersignal_ingest.adapters.inbound.http.problem import ClientGone, Code, Problem
from customersignal_ingest.policies import Lease
from customersignal_ingest.timeouts import Timeout


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A limit by its public name, in bytes, and the code of what is beyond it."""

    code: Code
    what: str
    limit: str
    value: int

    def exceeded(self) -> Problem:
        """Return the problem that names the limit and its value."""
        message = f"{self.what} is larger than {self.limit}={self.value}"
        return Problem(self.code, message, details={"limit": self.limit, "value": self.value}, close=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyReader:
    """Reads bodies: `decoded` bounds what comes out, `encoded` what a compressed body has as sent.

    The whole body must be there within `timeout` of the first look, so that a slow sender can't
    hold what it leased: that sets the lowest rate, too.
    """

    decoded: Bound
    encoded: Bound
    timeout: Timeout

    async def read(
        self, receive: Receive, exchange: Exchange, lease: Lease, encoding: str | None, /, *, events: int
    ) -> bytes:
        """Return the body, decoded; lease so many events, and the bytes as they come.

        Raises `Problem` for a body that is too large, too slow or broken, `Saturated`, and
        `ClientGone` when the client left.
        """
        bound = self.decoded if encoding is None else self.encoded
        length = exchange.headers.get("content-length")
        announced = 0 if length is None else int(length)
        if announced > bound.value:
            raise bound.exceeded()
        lease.take(events=events, size_bytes=announced)
        body = None if exchange.at_once is None or length is None else exchange.at_once.body()
        if body is None:
            body = await self._receive(receive, exchange, lease, bound, announced)
        else:
            exchange.size_bytes = len(body)
        if length is not None and len(body) != announced:
            raise Problem(Code.INVALID_REQUEST, "the body is not as long as content-length says", close=True)
        return body if encoding is None else self._decode(body, encoding, lease)

    async def _receive(self, receive: Receive, exchange: Exchange, lease: Lease, bound: Bound, announced: int) -> bytes:
        try:
            with self.timeout():
                return await _receive_all(receive, exchange, lease, bound, announced)
        except TimeoutError:
            raise Problem(
                Code.REQUEST_TIMEOUT,
                f"the body was not there within body_read_timeout_s={self.timeout.seconds:g}",
                close=True,
            ) from None

    def _decode(self, sent: bytes, encoding: str, lease: Lease) -> bytes:
        pieces, size_bytes = [], 0
        for piece in DECODERS[encoding](sent):
            size_bytes += len(piece)
            if size_bytes > self.decoded.value:
                raise self.decoded.exceeded()
            lease.take(size_bytes=len(piece))
            pieces.append(piece)
        return b"".join(pieces)


async def _receive_all(receive: Receive, exchange: Exchange, lease: Lease, bound: Bound, leased: int) -> bytes:
    pieces: list[bytes] = []
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece, more = message.get("body", b""), message.get("more_body", False)
        exchange.size_bytes += len(piece)
        if exchange.size_bytes > bound.value:
            raise bound.exceeded()
        if exchange.size_bytes > leased:
            lease.take(size_bytes=exchange.size_bytes - leased)
            leased = exchange.size_bytes
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
