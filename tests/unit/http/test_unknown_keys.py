"""What a key that opens nothing is told: the same, by the same way, whatever is wrong with it."""

import random
from collections.abc import Callable
from functools import cache
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from customersignal_ingest.adapters.outbound.memory import MemoryKeys
from customersignal_ingest.bootstrap import Container
from customersignal_ingest.domain.key import ApiKey, Digest, Tenant, digest, has_our_shape, new_key
from customersignal_ingest.settings import Settings
from tests.unit.simulated_time import run

KNOWN = new_key("live", random.Random(1).randbytes).secret
UNKNOWN = new_key("live", random.Random(2).randbytes).secret
PEPPERS = (b"new", b"old")

CHANGES: list[Callable[[str], str]] = [
    lambda key: key[:-1] + ("x" if key[-1] != "x" else "y"),
    lambda key: "d" + key[1:],
    lambda key: key[:-7],
    lambda key: key[:20],
    lambda key: key + "0",
    str.swapcase,
    lambda key: key.replace("_", "-"),
    lambda key: key.replace("live", "test"),
    lambda _: "?",
    lambda _: "x" * 8_000,
    lambda _: "Bearer",
]
ODD_KEYS = st.one_of(
    st.integers().map(lambda seed: new_key("test", random.Random(seed).randbytes).secret),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=200),
    st.sampled_from([change(KNOWN) for change in CHANGES]),
)


class WatchedKeys(MemoryKeys):
    """Keeps what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Digest] = []

    async def find(self, digest: Digest, /) -> ApiKey | None:
        self.asked.append(digest)
        return await super().find(digest)


async def refusal_of(key: str) -> tuple[int, list[tuple[bytes, bytes]], bytes, list[Digest]]:
    """Send an event with this key to a service that has never seen it; return the answer, and what was looked up."""
    keys = WatchedKeys()
    await keys.create_tenant("acme")
    known = ApiKey(key_id="k1", tenant=Tenant(tenant_id="acme", key_id="k1"))
    await keys.add_key(known, digest(KNOWN, PEPPERS[0]))
    container = Container(Settings(publisher_url="memory:", keys_url="memory:", key_pepper="new,old"))
    container.keys.override(keys)
    transport: Any = httpx.ASGITransport(container.app())
    async with httpx.AsyncClient(transport=transport, base_url="http://ingest.test") as client:
        reply = await client.post("/v1/events", content=b"{", headers={"x-cs-api-key": key, "x-request-id": "r"})
    return reply.status_code, reply.headers.raw, reply.content, keys.asked


@cache
def expected_refusal() -> list[object]:
    *expected, _ = run(refusal_of(UNKNOWN))
    return expected


@given(ODD_KEYS)
def test_a_key_that_opens_nothing_is_refused_alike_by_the_same_way_whatever_is_wrong_with_it(key: str) -> None:
    """In status, headers and body; and with one look-up under each pepper, so in time too."""
    *answer, asked = run(refusal_of(key))

    assert answer == expected_refusal()
    assert asked == [digest(key, pepper) for pepper in PEPPERS]


def test_the_key_that_all_are_held_against_is_well_formed_and_refused() -> None:
    status, _, body, _ = run(refusal_of(UNKNOWN))

    assert has_our_shape(UNKNOWN)
    assert (status, b'"API_KEY_INVALID"' in body) == (401, True)


def test_a_known_key_is_not_refused() -> None:
    assert run(refusal_of(KNOWN))[0] == 415


@pytest.mark.parametrize("tries", [2, 10])
def test_a_key_that_is_tried_again_costs_no_second_look_up(tries: int) -> None:
    async def asked() -> list[Digest]:
        keys = WatchedKeys()
        container = Container(Settings(publisher_url="memory:", keys_url="memory:", key_pepper="new"))
        container.keys.override(keys)
        transport: Any = httpx.ASGITransport(container.app())
        async with httpx.AsyncClient(transport=transport, base_url="http://ingest.test") as client:
            for _ in range(tries):
                await client.post("/v1/events", headers={"x-cs-api-key": UNKNOWN})
        return keys.asked

    assert run(asked()) == [digest(UNKNOWN, b"new")]
