"""What every key store must do, as tests. Subclass the contract, provide `harness`, and run pytest.

    class TestMine(KeyRepositoryContract):
        @pytest.fixture
        async def harness(self) -> AsyncIterator[KeyHarness]:
            yield MyHarness(MyKeys())

Needs pytest and anyio. The store behind the harness is a healthy one: what happens when it is not
is each adapter's own to test.
"""

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Protocol

import pytest

from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.key import ApiKey, Environment, Tenant, digest
from customersignal_ingest.ports import KeyStore, Resource
from customersignal_ingest.testing.planted import MARK

_PEPPER = b"pepper"
_NOON = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
_HOUR = timedelta(hours=1)


class KeyHarness(Protocol):
    """A key store that is open and empty, and a way to what it keeps that does not lead through it."""

    @property
    def keys(self) -> KeyStore:
        """The store under test."""
        ...

    @property
    def life(self) -> Resource | None:
        """The same store as something to close and ping; `None` if it has no life."""
        ...

    async def everything_kept(self) -> str:
        """Return all that is kept, as text; bytes as they are and in hexadecimal."""
        ...


def secret_of(n: int, /) -> str:
    """Return the text of the nth example of a key."""
    return f"cs_live_k{n:09}_{MARK}-{n}"


def digest_of(n: int, /) -> bytes:
    """Return its digest."""
    return digest(secret_of(n), _PEPPER)


def a_key(
    n: int,
    /,
    *,
    tenant_id: str = "acme",
    project_id: str | None = None,
    environment: Environment = "live",
    name: str | None = None,
    created_at: datetime = _NOON,
    expires_at: datetime | None = None,
    revoked_at: datetime | None = None,
    pepper_id: str | None = None,
) -> ApiKey:
    """Return the nth example of a key."""
    key_id = f"k{n:09}"
    return ApiKey(
        key_id=key_id,
        tenant=Tenant(tenant_id=tenant_id, project_id=project_id, environment=environment, key_id=key_id),
        name=name,
        created_at=created_at,
        expires_at=expires_at,
        revoked_at=revoked_at,
        pepper_id=pepper_id,
    )


class KeyRepositoryContract:
    """What every key store must do."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture(scope="session")
    @staticmethod
    def anyio_backend() -> str:
        """Adapters run on asyncio."""
        return "asyncio"

    @pytest.fixture
    async def harness(self) -> KeyHarness:
        """Provide an open, empty store, and close it afterwards. Override this."""
        raise NotImplementedError

    async def test_an_unknown_digest_is_none(self, harness: KeyHarness) -> None:
        """A digest that nobody added is unknown, also when the store is not empty."""
        await harness.keys.create_tenant("acme")
        await harness.keys.add_key(a_key(1), digest_of(1))

        assert await harness.keys.find(digest_of(2)) is None

    async def test_a_key_is_found_by_its_digest(self, harness: KeyHarness) -> None:
        """A key with nothing optional comes back as it was added."""
        await harness.keys.create_tenant("acme")
        await harness.keys.add_key(a_key(1), digest_of(1))

        assert await harness.keys.find(digest_of(1)) == a_key(1)

    async def test_a_key_comes_back_with_everything_said_of_it(self, harness: KeyHarness) -> None:
        """Project, environment, a name in any script, the pepper's id, and each moment, to the microsecond."""
        key = a_key(
            1,
            project_id="shop",
            environment="test",
            name="Schlüssel 鍵 🔑 '; --",
            expires_at=_NOON + _HOUR,
            revoked_at=_NOON + 2 * _HOUR,
            pepper_id="1f0c9a7e",
        )
        await harness.keys.create_tenant("acme")
        await harness.keys.add_key(key, digest_of(1))

        assert await harness.keys.find(digest_of(1)) == key

    async def test_moments_come_back_in_utc(self, harness: KeyHarness) -> None:
        """Whatever offset a moment was given with."""
        there = _NOON.astimezone(timezone(timedelta(hours=5, minutes=45)))
        await harness.keys.create_tenant("acme")
        await harness.keys.add_key(a_key(1, expires_at=there), digest_of(1))

        found = await harness.keys.find(digest_of(1))

        assert found is not None
        assert found.expires_at == _NOON

    async def test_a_tenant_is_made_once(self, harness: KeyHarness) -> None:
        """Making it again says that it was there, and changes nothing."""
        assert await harness.keys.create_tenant("acme") is True
        assert await harness.keys.create_tenant("acme") is False
        assert await harness.keys.tenants() == ["acme"]

    async def test_of_many_who_make_a_tenant_at_once_one_did(self, harness: KeyHarness) -> None:
        """Overlapping calls do not disturb each other."""
        made = await asyncio.gather(*(harness.keys.create_tenant("acme") for _ in range(10)))

        assert made.count(True) == 1

    async def test_tenants_are_sorted(self, harness: KeyHarness) -> None:
        """By code point, the same in every store."""
        for tenant_id in ("b", "a", "B", "é"):
            await harness.keys.create_tenant(tenant_id)

        assert await harness.keys.tenants() == ["B", "a", "b", "é"]

    async def test_a_key_needs_its_tenant(self, harness: KeyHarness) -> None:
        """A key of a tenant that is not there is not kept."""
        with pytest.raises(LookupError):
            await harness.keys.add_key(a_key(1), digest_of(1))

        assert await harness.keys.find(digest_of(1)) is None

    async def test_a_key_id_is_given_once(self, harness: KeyHarness) -> None:
        """A second key with that id is refused, and the first one stands."""
        await harness.keys.create_tenant("acme")
        await harness.keys.add_key(a_key(1), digest_of(1))

        with pytest.raises(ValueError):
            await harness.keys.add_key(a_key(1, name="other"), digest_of(2))

        assert await harness.keys.find(digest_of(1)) == a_key(1)
        assert await harness.keys.find(digest_of(2)) is None

    async def test_a_secret_belongs_to_one_key(self, harness: KeyHarness) -> None:
        """A second key with that digest, of another tenant even, is refused, and the first one stands."""
        await harness.keys.create_tenant("acme")
        await harness.keys.create_tenant("evil")
        await harness.keys.add_key(a_key(1), digest_of(1))

        with pytest.raises(ValueError):
            await harness.keys.add_key(a_key(2, tenant_id="evil"), digest_of(1))

        assert await harness.keys.find(digest_of(1)) == a_key(1)

    async def test_a_revoked_key_is_found_as_revoked(self, harness: KeyHarness) -> None:
        """By the very next look-up."""
        await harness.keys.create_tenant("acme")
        await harness.keys.add_key(a_key(1), digest_of(1))

        revoked = await harness.keys.revoke("k000000001", _NOON)

        assert revoked == a_key(1, revoked_at=_NOON)
        assert await harness.keys.find(digest_of(1)) == revoked

    async def test_an_earlier_revocation_stands(self, harness: KeyHarness) -> None:
        """Revoking again does not move it."""
        await harness.keys.create_tenant("acme")
        await harness.keys.add_key(a_key(1), digest_of(1))
        await harness.keys.revoke("k000000001", _NOON)

        assert (await harness.keys.revoke("k000000001", _NOON + _HOUR)).revoked_at == _NOON

    async def test_a_later_revocation_is_brought_forward(self, harness: KeyHarness) -> None:
        """What was to be refused from some later moment on can be refused now."""
        await harness.keys.create_tenant("acme")
        await harness.keys.add_key(a_key(1, revoked_at=_NOON + _HOUR), digest_of(1))

        assert (await harness.keys.revoke("k000000001", _NOON)).revoked_at == _NOON

    async def test_expiry_can_be_brought_forward_but_not_put_off(self, harness: KeyHarness) -> None:
        """A grace period never makes a key live longer."""
        await harness.keys.create_tenant("acme")
        await harness.keys.add_key(a_key(1), digest_of(1))

        assert (await harness.keys.expire("k000000001", _NOON + _HOUR)).expires_at == _NOON + _HOUR
        assert (await harness.keys.expire("k000000001", _NOON)).expires_at == _NOON
        assert (await harness.keys.expire("k000000001", _NOON + _HOUR)).expires_at == _NOON

    async def test_what_is_done_to_one_key_leaves_the_others(self, harness: KeyHarness) -> None:
        """Neighbours of the same tenant included."""
        await harness.keys.create_tenant("acme")
        for n in (1, 2):
            await harness.keys.add_key(a_key(n), digest_of(n))

        await harness.keys.revoke("k000000001", _NOON)
        await harness.keys.expire("k000000001", _NOON)

        assert await harness.keys.find(digest_of(2)) == a_key(2)

    async def test_an_unknown_key_id_is_a_lookup_error(self, harness: KeyHarness) -> None:
        """Revoking the wrong id must not look like a success."""
        with pytest.raises(LookupError):
            await harness.keys.revoke("k000000001", _NOON)
        with pytest.raises(LookupError):
            await harness.keys.expire("k000000001", _NOON)

    async def test_keys_are_listed_oldest_first(self, harness: KeyHarness) -> None:
        """By when they were made, not by when they were added."""
        await harness.keys.create_tenant("acme")
        keys = [a_key(n, created_at=_NOON - n * _HOUR) for n in range(5)]
        for n, key in enumerate(keys):
            await harness.keys.add_key(key, digest_of(n))

        assert list(await harness.keys.keys()) == keys[::-1]

    async def test_keys_of_one_tenant_are_listed_alone(self, harness: KeyHarness) -> None:
        """Another tenant's never show."""
        for n, tenant_id in enumerate(("acme", "evil")):
            await harness.keys.create_tenant(tenant_id)
            await harness.keys.add_key(a_key(n, tenant_id=tenant_id), digest_of(n))

        assert list(await harness.keys.keys("acme")) == [a_key(0)]

    async def test_listing_the_keys_of_nobody_is_a_lookup_error(self, harness: KeyHarness) -> None:
        """A misspelt tenant must not look like one without keys."""
        await harness.keys.create_tenant("acme")

        assert list(await harness.keys.keys("acme")) == []
        with pytest.raises(LookupError):
            await harness.keys.keys("acne")

    async def test_overlapping_look_ups_each_get_their_own_answer(self, harness: KeyHarness) -> None:
        """A hundred at once, for known and unknown keys."""
        await harness.keys.create_tenant("acme")
        for n in range(10):
            await harness.keys.add_key(a_key(n), digest_of(n))

        found = await asyncio.gather(*(harness.keys.find(digest_of(n % 20)) for n in range(100)))

        assert found == [a_key(n % 20) if n % 20 < 10 else None for n in range(100)]

    async def test_clients_that_leave_take_nothing_with_them(self, harness: KeyHarness) -> None:
        """After many cancelled look-ups the next ones are answered as ever."""
        await harness.keys.create_tenant("acme")
        await harness.keys.add_key(a_key(1), digest_of(1))
        for turns in range(30):
            leaving = asyncio.create_task(harness.keys.find(digest_of(1)))
            for _ in range(turns % 10):
                await asyncio.sleep(0)
            leaving.cancel()
            await asyncio.wait({leaving})

        assert await asyncio.gather(*(harness.keys.find(digest_of(1)) for _ in range(20))) == [a_key(1)] * 20

    async def test_no_secret_is_kept(self, harness: KeyHarness) -> None:
        """Neither the key's text nor the secret part of it, in any form that reads as such."""
        await harness.keys.create_tenant("acme")
        await harness.keys.add_key(a_key(1), digest_of(1))
        await harness.keys.find(digest_of(1))

        kept = await harness.everything_kept()

        assert "k000000001" in kept  # Or else the harness would see nothing, whatever was kept.
        assert MARK not in kept
        assert MARK.encode().hex() not in kept

    async def test_a_closed_store_can_tell_nothing(self, harness: KeyHarness) -> None:
        """And says so: never that a key is unknown."""
        if harness.life is None:
            pytest.skip("the store has no life")
        await harness.keys.create_tenant("acme")
        await harness.life.close()
        await harness.life.close()

        with pytest.raises(Unavailable):
            await harness.keys.find(digest_of(1))
        with pytest.raises(Unavailable):
            await harness.life.ping()
