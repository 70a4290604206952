"""The real use case and policies over memory and faults: what the law is held against."""

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from law import Row, Status

from customersignal_ingest.adapters.inbound.http.app import create_app
from customersignal_ingest.adapters.inbound.http.events import HttpLimits
from customersignal_ingest.adapters.outbound.memory import MemoryPublisher
from customersignal_ingest.domain.errors import Saturated
from customersignal_ingest.domain.event import StoredRecord
from customersignal_ingest.domain.event_id import FreshIds
from customersignal_ingest.domain.key import Tenant
from customersignal_ingest.domain.outcome import NotStored, Outcome, Refused, Rejected, Result, Stored, Unknown
from customersignal_ingest.domain.rules import Limits
from customersignal_ingest.health import Health
from customersignal_ingest.ingest import ingest
from customersignal_ingest.metrics import Counted, Metrics
from customersignal_ingest.policies import Admission, Deadline
from customersignal_ingest.ports import EventPublisher
from customersignal_ingest.testing.faults import FaultyPublisher
from tests.leaks import lines_as_text, watch

TIMEOUT_S = 15.0
EVENTS_MAX = 20
BYTES_MAX = 20_000
TENANT_SHARE = 0.6


class System:
    """One process: in through `submit`, out into `log`, with `faults` between."""

    def __init__(self, around: Callable[[EventPublisher], EventPublisher] = lambda publisher: publisher) -> None:
        self.log = MemoryPublisher(partitions=2)
        self.faults = FaultyPublisher(self.log)
        self.bugs: list[BaseException] = []
        self.publisher: EventPublisher = Deadline(around(self.faults), timeout_s=TIMEOUT_S, report=self.bugs.append)
        self.admission = Admission(events_max=EVENTS_MAX, bytes_max=BYTES_MAX, tenant_share=TENANT_SHARE)
        self.new_id = FreshIds(random.Random(0).randbytes)
        self._now = datetime(2026, 11, 23, 10, tzinfo=UTC)

    @property
    def stored(self) -> Sequence[StoredRecord]:
        return self.log.stored

    def now(self) -> datetime:
        self._now += timedelta(microseconds=1)
        return self._now

    async def submit(self, tenant: Tenant, payloads: Sequence[bytes], /) -> Sequence[Row]:
        """Go in as a transport does: take a lease, then the use case."""
        with self.admission.lease(tenant.tenant_id) as lease:
            try:
                lease.take(events=len(payloads), size_bytes=sum(map(len, payloads)))
            except Saturated:
                return [Row(status="not_stored")] * len(payloads)
            receipt = await self.ingest(tenant, payloads)
            return list(map(row_of, receipt.results))

    async def ingest(self, tenant: Tenant, payloads: Sequence[bytes], **options: Any) -> Any:
        publisher, limits = self.publisher, Limits()
        return await ingest(
            tenant, payloads, publisher=publisher, now=self.now, new_id=self.new_id, limits=limits, **options
        )


class HttpSystem(System):
    """The same behind the HTTP app, without a socket. A tenant's id is its key."""

    def __init__(self) -> None:
        super().__init__()
        metrics, log = Metrics(version="1", publisher="memory"), Lines()
        app = create_app(
            ingest=Counted(self.ingest, metrics),
            authenticate=self.authenticate,
            admission=self.admission,
            limits=HttpLimits(),
            published_limits={},
            health=Health([], clock=lambda: 0.0),
            metrics=metrics,
            log=log,
        )
        watch("the log", lambda: lines_as_text(log.lines))
        watch("the metrics", lambda: metrics.text().decode())
        headers = {"content-type": "application/json", "prefer": "return=representation"}
        transport = httpx.ASGITransport(app)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://ingest.test/v1", headers=headers)

    async def authenticate(self, api_key: str | None, /) -> Tenant:
        return Tenant(tenant_id=str(api_key))

    async def submit(self, tenant: Tenant, payloads: Sequence[bytes], /) -> Sequence[Row]:
        """Send one payload to the single route, several to the batch route."""
        headers = {"x-cs-api-key": tenant.tenant_id}
        if len(payloads) == 1:
            return [row_of_single(await self.client.post("/events", content=payloads[0], headers=headers))]
        body = b'{"events":[%s]}' % b",".join(payloads)
        reply = await self.client.post("/events/batch", content=body, headers=headers)
        said = reply.json()
        if "results" not in said:
            return [row_of_single(reply)] * len(payloads)
        assert [result["index"] for result in said["results"]] == list(range(len(payloads)))
        return list(map(row_of_result, said["results"]))


class Lines:
    """A log that is kept, to be searched."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def info(self, event: str, /, **fields: Any) -> None:
        self.lines.append({"event": event, **fields})

    warning = error = info


STATUSES: dict[int, Status] = {202: "accepted", 503: "not_stored", 504: "unknown"}


def row_of_single(reply: httpx.Response) -> Row:
    """The row of a request that was answered as a whole; what is neither 2xx, 503 nor 504 is a rejection."""
    assert reply.status_code != 500, reply.text
    said = reply.json()
    code = said.get("error", {}).get("code")
    status = STATUSES.get(reply.status_code, "rejected")
    return Row(status=status, event_id=said.get("event_id"), receipt=said.get("receipt"), code=code)


def row_of_result(said: dict[str, Any]) -> Row:
    """The row of one event of a batch."""
    code = said.get("error", {}).get("code")
    return Row(status=said["status"], event_id=said.get("event_id"), receipt=said.get("receipt"), code=code)


def row_of(result: Result) -> Row:
    """The row of the table of answers for an event with this outcome."""
    outcome: Outcome | Rejected = result.outcome
    match outcome:
        case Stored():
            return Row(status="accepted", event_id=result.event_id, receipt=outcome.receipt)
        case NotStored():
            return Row(status="not_stored", event_id=result.event_id)
        case Unknown():
            return Row(status="unknown", event_id=result.event_id)
        case Refused():
            return Row(status="rejected", event_id=result.event_id, code="REFUSED_BY_STORE")
        case Rejected():
            return Row(status="rejected", code=outcome.reason)
