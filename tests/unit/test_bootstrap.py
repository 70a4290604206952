"""The object graph, its life, and what it does with parts that misbehave."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

import customersignal_ingest
from customersignal_ingest.adapters.outbound.memory import MemoryKeys, MemoryPublisher
from customersignal_ingest.bootstrap import Container, opened
from customersignal_ingest.domain.errors import ConfigurationError, Unauthenticated, Unavailable
from customersignal_ingest.domain.event import Record
from customersignal_ingest.domain.key import ApiKey, Digest, Tenant, digest
from customersignal_ingest.domain.outcome import Outcome, Stored, Unknown
from customersignal_ingest.settings import Settings

pytestmark = pytest.mark.anyio

TENANT = Tenant(tenant_id="acme")
PAYLOAD = b'{"event_type":"a","timestamp":"2026-11-23T10:00:00Z","properties":{}}'
IN_MEMORY = Settings(publisher_url="memory:", keys_url="memory:")


class Lived:
    """A publisher that notes its life in a diary."""

    def __init__(self, diary: list[str], *, fails_to_open: bool = False, fails_to_close: bool = False) -> None:
        self._diary, self._fails_to_open, self._fails_to_close = diary, fails_to_open, fails_to_close

    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        raise RuntimeError("a bug of a stranger")

    async def open(self) -> None:
        self._diary.append("open")
        if self._fails_to_open:
            raise ConfigurationError("wrong")

    async def close(self) -> None:
        self._diary.append("close")
        if self._fails_to_close:
            raise RuntimeError("a bug of a stranger")

    async def ping(self) -> None:
        self._diary.append("ping")


async def test_the_use_case_can_be_embedded_in_three_lines() -> None:
    async with opened(Container(IN_MEMORY)) as container:
        receipt = await container.ingest()(TENANT, [PAYLOAD])

    assert isinstance(receipt.results[0].outcome, Stored)


async def test_each_container_has_parts_of_its_own() -> None:
    assert Container(IN_MEMORY).publisher() is not Container(IN_MEMORY).publisher()


async def test_a_publisher_can_be_swapped() -> None:
    mine = MemoryPublisher()
    container = Container(IN_MEMORY)
    container.publisher.override(mine)

    async with opened(container):
        await container.ingest()(TENANT, [PAYLOAD])

    assert len(mine.stored) == 1


async def test_a_key_opens_what_it_was_made_for() -> None:
    async with opened(Container(IN_MEMORY)) as container:
        keys = container.keys()
        await keys.create_tenant("acme")  # type: ignore[attr-defined]  # those in memory can be changed
        key = ApiKey(key_id="k1", tenant=TENANT)
        await keys.add_key(key, digest("secret", IN_MEMORY.peppers[0]))  # type: ignore[attr-defined]  # as above

        assert await container.authenticate()("secret") == TENANT
        with pytest.raises(Unauthenticated):
            await container.authenticate()("another")


async def test_a_known_key_is_good_while_its_database_is_away() -> None:
    class Keys(MemoryKeys):
        away = False

        async def find(self, digest: Digest, /) -> ApiKey | None:
            if self.away:
                raise Unavailable("away")
            return await super().find(digest)

    keys, container = Keys(), Container(IN_MEMORY)
    container.keys.override(keys)
    await keys.create_tenant("acme")
    await keys.add_key(ApiKey(key_id="k1", tenant=TENANT), digest("secret", IN_MEMORY.peppers[0]))

    async with opened(container):
        await container.authenticate()("secret")
        keys.away = True

        assert await container.authenticate()("secret") == TENANT


async def test_a_change_that_the_key_store_announces_is_seen_at_once() -> None:
    listeners: list[Callable[[Digest | None], None]] = []

    class Keys(MemoryKeys):
        def watch(self, on_change: Callable[[Digest | None], None], /) -> None:
            listeners.append(on_change)

    keys, container, secret = Keys(), Container(IN_MEMORY), digest("secret", IN_MEMORY.peppers[0])
    container.keys.override(keys)
    await keys.create_tenant("acme")
    await keys.add_key(ApiKey(key_id="k1", tenant=TENANT), secret)

    async with opened(container):
        await container.authenticate()("secret")
        await keys.revoke("k1", datetime.now(UTC))
        for tell in listeners:
            tell(secret)

        with pytest.raises(Unauthenticated):
            await container.authenticate()("secret")


async def test_what_was_opened_is_closed() -> None:
    diary: list[str] = []
    container = Container(IN_MEMORY)
    container.publisher.override(Lived(diary))

    async with opened(container):
        await container.health().look()

    assert (diary[0], diary[-1]) == ("open", "close")


async def test_what_is_misconfigured_is_closed_too() -> None:
    diary: list[str] = []
    container = Container(IN_MEMORY)
    container.publisher.override(Lived(diary, fails_to_open=True))

    with pytest.raises(ConfigurationError):
        async with opened(container):
            pass

    assert diary == ["open", "close"]


async def test_a_part_that_does_not_close_keeps_nothing_open() -> None:
    before = asyncio.all_tasks()
    container = Container(IN_MEMORY)
    container.publisher.override(Lived([], fails_to_close=True))

    async with opened(container):
        assert asyncio.all_tasks() > before

    assert asyncio.all_tasks() == before


async def test_a_publisher_that_raises_answers_unknown() -> None:
    container = Container(IN_MEMORY)
    container.publisher.override(Lived([]))

    async with opened(container):
        receipt = await container.ingest()(TENANT, [PAYLOAD])

    assert isinstance(receipt.results[0].outcome, Unknown)


class Answers:
    """A publisher that answers this, whatever it is given."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def publish(self, records: Sequence[Record], /) -> Any:
        return self._answer


@pytest.mark.parametrize("answer", [None, 3, [], [Stored("t", 0, 0)] * 2, [None], "x", {"a": 1}])
async def test_a_publisher_that_answers_anything_else_answers_unknown_and_is_counted_so(answer: Any) -> None:
    container = Container(IN_MEMORY)
    container.publisher.override(Answers(answer))

    async with opened(container):
        receipt = await container.ingest()(TENANT, [PAYLOAD])

    assert isinstance(receipt.results[0].outcome, Unknown)
    text = container.metrics().text().decode()
    assert 'cs_ingest_events_total{outcome="unknown"} 1.0' in text
    assert "cs_ingest_last_stored_timestamp_seconds 0.0" in text


async def test_the_moment_of_the_last_stored_event_is_noted() -> None:
    async with opened(Container(IN_MEMORY)) as container:
        await container.ingest()(TENANT, [PAYLOAD])

    assert "cs_ingest_last_stored_timestamp_seconds 0.0" not in container.metrics().text().decode()


@pytest.mark.parametrize("missing", ["publisher_url", "keys_url"])
async def test_without_a_store_nothing_is_opened(missing: str) -> None:
    settings = IN_MEMORY.model_copy(update={missing: None})

    with pytest.raises(ConfigurationError, match=f"CS_INGEST_{missing.upper()} must be set"):
        async with opened(Container(settings)):
            pass


@pytest.mark.parametrize("address", ["[::1:8080", "127.0.0.1:99999", "127.0.0.1:http", "127.0.0.1"])
async def test_a_transport_at_an_address_that_can_not_be_read_stops_the_start(address: str) -> None:
    settings = IN_MEMORY.model_copy(update={"transports": (f"http://{address}",)})

    with pytest.raises(ConfigurationError, match="expected an address and a port"):
        Container(settings).transports()


async def test_a_lowered_limit_is_published_and_in_force() -> None:
    settings = IN_MEMORY.model_copy(update={"in_flight_events_max": 10})

    async with opened(Container(settings)) as container:
        assert container.settings().limits["batch_events_max"] == 5


@pytest.mark.parametrize("name", customersignal_ingest.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(customersignal_ingest, name) is not None
