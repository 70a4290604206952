"""The two routes that take events."""

from dataclasses import dataclass
from functools import partial

from customersignal_ingest.adapters.inbound.http import answers, asked
from customersignal_ingest.adapters.inbound.http.asgi import Receive, Scope
from customersignal_ingest.adapters.inbound.http.body import BodyReader, Bound
from customersignal_ingest.adapters.inbound.http.exchange import Exchange, exchange_of
from customersignal_ingest.adapters.inbound.http.problem import Code, Problem
from customersignal_ingest.adapters.inbound.http.reply import Reply
from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.flaws import Flaw
from customersignal_ingest.domain.key import Tenant
from customersignal_ingest.domain.outcome import Reason, Receipt, Rejected
from customersignal_ingest.domain.rules import Payload
from customersignal_ingest.domain.strict_json import read_slices
from customersignal_ingest.ingest import Authenticate, Ingest
from customersignal_ingest.policies import Admission
from customersignal_ingest.timeouts import Timeout

SINGLE = "/v1/events"
BATCH = "/v1/events/batch"
BYTES_AN_EVENT = 256
"""A small event's."""
GUESSED_PART = 8
"""No guess takes more than so small a part of what a tenant may hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """What bounds a request. Sizes in bytes, time in seconds."""

    body_bytes_max: int = 10_000_000
    encoded_bytes_max: int = 5_000_000
    body_read_timeout_s: float = 10.0
    batch_events_max: int = 2_000
    event_bytes_max: int = 900_000


class EventRoutes:
    """Takes events in: key first, then the body, then the use case, then its answer.

    The routes are plain ASGI, which costs half of what a handler with a request object does.
    """

    def __init__(self, *, ingest: Ingest, authenticate: Authenticate, admission: Admission, limits: HttpLimits) -> None:
        """Take what the routes work with."""
        self._ingest = ingest
        self._authenticate = authenticate
        self._admission = admission
        self._limits = limits
        self._one_body, self._batch_body = _readers(limits)

    async def single(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        """Answer `POST /v1/events`: the body is the payload."""
        exchange = exchange_of(scope)
        tenant = await self._tenant(exchange)
        encoding = _encoding(exchange)
        with self._admission.lease(tenant.tenant_id) as lease:
            payload = await self._one_body.read(receive, exchange, lease, encoding, events=1)
            key, trace = exchange.headers.get("idempotency-key"), asked.traceparent_of(exchange.headers)
            receipt = await self._ingest(tenant, [payload], idempotency_key=key, traceparent=trace)
            exchange.receipt = receipt
            _refuse_wrong_route(receipt, payload)
            # Within the lease: while a client does not read its answer, the memory is still taken.
            await reply.whole(answers.single(receipt, event_bytes_max=self._limits.event_bytes_max))

    async def batch(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        """Answer `POST /v1/events/batch`: each element of `events` is a payload."""
        exchange = exchange_of(scope)
        tenant = await self._tenant(exchange)
        encoding = _encoding(exchange)
        _refuse_idempotency_header(exchange)
        with self._admission.lease(tenant.tenant_id) as lease:
            body = await self._batch_body.read(receive, exchange, lease, encoding, events=self._expected(exchange))
            payloads = _split(body, self._limits.batch_events_max)
            lease.hold(events=len(payloads))
            receipt = await self._ingest(tenant, payloads, traceparent=asked.traceparent_of(exchange.headers))
            exchange.receipt = receipt
            listed = asked.wants_representation(exchange.headers)
            bytes_max = self._limits.event_bytes_max
            await reply.whole(answers.batch(receipt, listed=listed, event_bytes_max=bytes_max))

    def _expected(self, exchange: Exchange) -> int:
        """Guess how many events a batch has, so that one without a chance is refused before its body is read and split.

        A guess too high must not refuse whom a process has room for that is hardly used, so it has a bound.
        """
        guess = int(exchange.headers.get("content-length", "0")) // BYTES_AN_EVENT
        return max(1, min(guess, self._limits.batch_events_max, self._admission.tenant_events_max // GUESSED_PART))

    async def _tenant(self, exchange: Exchange) -> Tenant:
        try:
            exchange.tenant = await self._authenticate(asked.api_key_of(exchange.headers))
        except Unavailable as error:
            raise Problem(Code.KEYS_UNAVAILABLE) from error
        return exchange.tenant


def _readers(limits: HttpLimits) -> tuple[BodyReader, BodyReader]:
    """The reader of a body that is one event, and that of a body that is a batch."""
    of_code = partial(Bound, code=Code.PAYLOAD_TOO_LARGE)
    encoded = of_code(what="the compressed body", limit="encoded_bytes_max", value=limits.encoded_bytes_max)
    batch = of_code(what="the body", limit="body_bytes_max", value=limits.body_bytes_max)
    one = Bound(code=Code.EVENT_TOO_LARGE, what="the event", limit="event_bytes_max", value=limits.event_bytes_max)
    reader = partial(BodyReader, encoded=encoded, timeout=Timeout(limits.body_read_timeout_s))
    return reader(decoded=min(one, batch, key=lambda bound: bound.value)), reader(decoded=batch)


def _encoding(exchange: Exchange) -> str | None:
    asked.require_json(exchange.headers)
    return asked.encoding_of(exchange.headers)


def _refuse_idempotency_header(exchange: Exchange) -> None:
    if "idempotency-key" in exchange.headers:
        raise Problem(
            Code.INVALID_REQUEST,
            f"the header Idempotency-Key is for {SINGLE}; in a batch each event has its own idempotency_key",
        )


def _refuse_wrong_route(receipt: Receipt, payload: Payload) -> None:
    """Raise `Problem` for a body that is no event by its shape, naming the other route where it goes there."""
    rejected = receipt.results[0].outcome
    if not isinstance(rejected, Rejected):
        return
    if rejected.field == "" and rejected.reason is Reason.FIELD_TYPE:
        other = f"; an array of events goes to {BATCH}" if payload.lstrip()[:1] == b"[" else ""
        raise Problem(Code.INVALID_REQUEST, rejected.message + other, details={"field": ""})
    if rejected.reason is Reason.FIELD_REQUIRED and _is_batch(payload):
        raise Problem(Code.INVALID_REQUEST, f"the body is a batch of events, which goes to {BATCH}")


def _is_batch(payload: Payload) -> bool:
    try:
        return bool(read_slices(payload, "events", most=1))
    except Flaw:
        return False


def _split(body: bytes, events_max: int) -> list[Payload]:
    try:
        payloads = read_slices(body, "events", most=events_max)
    except Flaw as flaw:
        raise _no_batch(flaw.rejected) from None
    if not payloads:
        raise Problem(Code.INVALID_REQUEST, '"events" is empty; a batch has at least one event')
    if len(payloads) > events_max:
        raise Problem(
            Code.PAYLOAD_TOO_LARGE,
            f"the batch has more events than batch_events_max={events_max}",
            details={"limit": "batch_events_max", "value": events_max},
        )
    return payloads


def _no_batch(rejected: Rejected) -> Problem:
    code = Code(rejected.reason)
    other = f"; a single event goes to {SINGLE}" if code is Code.INVALID_REQUEST else ""
    details = {} if rejected.field is None else {"field": rejected.field}
    return Problem(code, rejected.message + other, details=details)
