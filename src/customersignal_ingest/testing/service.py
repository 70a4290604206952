"""The real service over memory, without a socket: rules, answers, keys and limits as in production.

async def test_checkout_survives_a_lost_acknowledgement(cs_ingest):
    cs_ingest.faults("ack_lost", "ok")
    await checkout(cart, events=cs_ingest.client)
    assert len({event.event_id for event in cs_ingest.stored}) == 1  # sent twice, one event
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import httpx

from customersignal_ingest.adapters.outbound.memory import MemoryKeys, MemoryPublisher
from customersignal_ingest.bootstrap import Container
from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.event import StoredRecord
from customersignal_ingest.domain.key import ApiKey, Digest, Tenant, digest, new_key
from customersignal_ingest.settings import Settings
from customersignal_ingest.testing.faults import FaultyPublisher

TENANT_ID = "acme"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """An event as a consumer of the topic sees it; `record` has its bytes, key and headers."""

    event_id: str
    tenant_id: str
    event_type: str
    timestamp: str
    received_at: str
    properties: Mapping[str, Any]
    environment: str
    project_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    idempotency_key: str | None = None
    extra: Mapping[str, Any] | None = None
    record: StoredRecord


class Service:
    """The real app over the memory store. For the one event loop of a test; each has its own store and key.

    `client` is an `httpx.AsyncClient` that sends the API key of a test tenant; `api_key` is that
    key, for a client of your own. `container` has every part, for what is not foreseen here.
    """

    def __init__(self, **settings: Any) -> None:
        """Make a service; `settings` are those of `Settings`, such as `batch_events_max=10`."""
        self.tenant = Tenant(tenant_id=TENANT_ID, environment="test", key_id="test")
        self.api_key = new_key("test", os.urandom).secret
        self.container = Container(Settings(**{"publisher_url": "memory:", "keys_url": "memory:"} | settings))
        self._memory = MemoryPublisher()
        self._faulty = FaultyPublisher(self._memory)
        self._keys = _Keys()
        self.container.publisher.override(self._faulty)
        self.container.keys.override(self._keys)
        self.client = httpx.AsyncClient(
            transport=_InProcess(self), base_url="http://ingest.test", headers={"X-CS-API-Key": self.api_key}
        )

    @property
    def stored(self) -> Sequence[StoredEvent]:
        """Every event that is stored, in the order of storing; one that was sent twice may be there twice."""
        return [StoredEvent(record=record, **json.loads(record.value)) for record in self._memory.stored]

    def faults(self, *plan: str) -> None:
        """Say what becomes of the next publishes, one entry each, in the words of `testing.faults.FAULTS`."""
        self._faulty.plan(*plan)

    def lose_keys(self) -> None:
        """Take the key database away: keys that were not used yet can't be checked any more."""
        self._keys.away = True

    async def release(self) -> None:
        """Store and answer what a fault of this plan holds back."""
        await self._faulty.release()

    async def prepare(self) -> None:
        """Let the key in and look at health; `client` does it before its first request."""
        if await self._keys.create_tenant(TENANT_ID):
            key = ApiKey(key_id="test", tenant=self.tenant)
            await self._keys.add_key(key, digest(self.api_key, self.container.settings().peppers[0]))
            await self.container.health().look()


class _Keys(MemoryKeys):
    away = False

    async def find(self, digest: Digest, /) -> ApiKey | None:
        if self.away:
            raise Unavailable("taken away on purpose")
        return await super().find(digest)


class _InProcess(httpx.ASGITransport):
    """Brings requests to the app without a socket."""

    def __init__(self, service: Service) -> None:
        super().__init__(app=cast("Any", service.container.app()))
        self._service = service

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Have one request answered."""
        await self._service.prepare()
        return await super().handle_async_request(request)
