"""The stores in memory are real adapters: they pass the contracts."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from customersignal_ingest.adapters.outbound.memory import (
    MemoryKeys,
    MemoryPublisher,
    open_key_repository,
    open_publisher,
)
from customersignal_ingest.domain.errors import ConfigurationError
from customersignal_ingest.domain.event import StoredRecord
from customersignal_ingest.domain.key import ApiKey, Tenant
from customersignal_ingest.domain.outcome import Stored
from customersignal_ingest.registry import AdapterSettings
from customersignal_ingest.testing.contracts import EventPublisherContract, PublisherHarness, a_record

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


class MemoryHarness:
    """The list is the other path."""

    def __init__(self) -> None:
        self.publisher = self.life = MemoryPublisher()
        self.unopened = MemoryPublisher()

    async def stored(self) -> Sequence[StoredRecord]:
        return self.publisher.stored


class TestMemoryPublisher(EventPublisherContract):
    @pytest.fixture
    async def harness(self) -> PublisherHarness:
        return MemoryHarness()


async def test_offsets_have_no_gaps_in_a_partition() -> None:
    publisher = MemoryPublisher(partitions=2)

    await publisher.publish([a_record(n) for n in range(40)])

    for partition in (0, 1):
        offsets = [record.offset for record in publisher.stored if record.partition == partition]
        assert offsets == list(range(len(offsets)))


async def test_it_stores_again_after_it_was_opened_again() -> None:
    publisher = MemoryPublisher()
    await publisher.close()
    await publisher.open()

    (outcome,) = await publisher.publish([a_record(1)])

    assert isinstance(outcome, Stored)


async def test_two_publishers_share_nothing() -> None:
    one, other = (open_publisher("memory:", settings=AdapterSettings()) for _ in range(2))

    await one.publish([a_record(1)])

    assert other.stored == []


@pytest.mark.parametrize("url", ["memory:x", "memory://", "memory:?partitions=2", "memory"])
@pytest.mark.parametrize("factory", [open_publisher, open_key_repository])
def test_a_url_with_more_than_its_scheme_is_refused(factory: type, url: str) -> None:
    with pytest.raises(ConfigurationError):
        factory(url, settings=AdapterSettings())


@pytest.fixture
async def keys() -> MemoryKeys:
    keys = open_key_repository("memory:", settings=AdapterSettings())
    await keys.create_tenant("acme")
    await keys.add_key(a_key("k1"), b"digest of k1")
    return keys


def a_key(key_id: str, created_at: datetime | None = NOON) -> ApiKey:
    return ApiKey(key_id=key_id, tenant=Tenant(tenant_id="acme", key_id=key_id), created_at=created_at)


async def test_a_key_is_found_by_its_digest(keys: MemoryKeys) -> None:
    assert await keys.find(b"digest of k1") == a_key("k1")


async def test_an_unknown_digest_finds_none(keys: MemoryKeys) -> None:
    assert await keys.find(b"digest of another") is None


async def test_a_tenant_is_made_once(keys: MemoryKeys) -> None:
    assert [await keys.create_tenant("acme"), await keys.create_tenant("bolt")] == [False, True]


async def test_tenants_are_sorted(keys: MemoryKeys) -> None:
    await keys.create_tenant("aaa")

    assert await keys.tenants() == ["aaa", "acme"]


async def test_keys_are_listed_oldest_first(keys: MemoryKeys) -> None:
    await keys.add_key(a_key("k0", NOON - timedelta(hours=1)), b"digest of k0")

    assert [key.key_id for key in await keys.keys("acme")] == ["k0", "k1"]


async def test_keys_of_another_tenant_are_left_out(keys: MemoryKeys) -> None:
    await keys.create_tenant("bolt")

    assert await keys.keys("bolt") == []


async def test_a_key_needs_its_tenant() -> None:
    with pytest.raises(LookupError):
        await MemoryKeys().add_key(a_key("k1"), b"digest")


async def test_a_revoked_key_is_found_as_revoked(keys: MemoryKeys) -> None:
    await keys.revoke("k1", NOON)

    found = await keys.find(b"digest of k1")

    assert found is not None
    assert found.revoked_at == NOON


async def test_an_earlier_revocation_stands(keys: MemoryKeys) -> None:
    await keys.revoke("k1", NOON)

    assert (await keys.revoke("k1", NOON + timedelta(hours=1))).revoked_at == NOON


async def test_an_earlier_expiry_stands(keys: MemoryKeys) -> None:
    await keys.expire("k1", NOON)

    assert (await keys.expire("k1", NOON + timedelta(hours=1))).expires_at == NOON


@pytest.mark.parametrize("change", ["revoke", "expire"])
async def test_a_key_that_is_not_there_can_not_be_changed(keys: MemoryKeys, change: str) -> None:
    with pytest.raises(LookupError):
        await getattr(keys, change)("k9", NOON)


async def test_keys_of_an_unknown_tenant_are_an_error(keys: MemoryKeys) -> None:
    with pytest.raises(LookupError):
        await keys.keys("nobody")
