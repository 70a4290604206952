"""API keys: made, recognised, and never kept."""

import hmac
import os
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customersignal_ingest.domain.key import Environment, NewKey, digest, has_our_shape, new_key, pepper_id

ENVIRONMENTS: st.SearchStrategy[Environment] = st.sampled_from(["live", "test"])
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"


def seeded(seed: int) -> Callable[[int], bytes]:
    return random.Random(seed).randbytes


KEYS = st.builds(lambda environment, seed: new_key(environment, seeded(seed)).secret, ENVIRONMENTS, st.integers())


@given(KEYS)
def test_a_key_that_we_make_has_our_shape(secret: str) -> None:
    assert has_our_shape(secret)


@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
def test_the_smallest_and_the_greatest_key_have_our_shape(fill: bytes) -> None:
    assert has_our_shape(new_key("live", lambda count: fill * count).secret)


def test_a_key_of_known_bytes() -> None:
    key = new_key("live", lambda count: bytes(range(count)))
    assert (key.key_id, key.secret) == (
        "k0004iwreH",
        "cs_live_k0004iwreH_003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf_2Ljjnu",
    )


def test_a_key_says_its_environment_and_its_id() -> None:
    key = new_key("test", os.urandom)
    assert key.secret.startswith(f"cs_test_{key.key_id}_")


@given(KEYS, st.data())
def test_the_checksum_finds_any_changed_character(secret: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(secret) - 1))
    wrong = data.draw(st.sampled_from(ALPHABET.replace(secret[at], "")) | st.characters(exclude_characters=secret[at]))
    assert not has_our_shape(secret[:at] + wrong + secret[at + 1 :])


@given(KEYS, st.data())
def test_the_checksum_finds_two_neighbours_that_changed_places(secret: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(secret) - 2))
    swapped = secret[:at] + secret[at + 1] + secret[at] + secret[at + 2 :]
    assert swapped == secret or not has_our_shape(swapped)


@given(st.text(st.characters(), max_size=80))
def test_any_text_can_be_asked_for_its_shape(text: str) -> None:
    assert not has_our_shape(text)


def test_a_digest_of_known_bytes() -> None:
    assert digest("cs_live_x", b"pepper").hex() == "d50927567c61d4cb50c0805a47221f313a64f023fe80400addb829a7cef11097"


@given(st.text(max_size=200), st.binary(min_size=1, max_size=200))
def test_a_digest_is_the_hmac_of_the_standard_library(api_key: str, pepper: bytes) -> None:
    assert digest(api_key, pepper) == hmac.digest(pepper, api_key.encode(), "sha256")


@given(KEYS, st.binary(min_size=1, max_size=40), st.binary(min_size=1, max_size=40))
def test_another_pepper_gives_another_digest(secret: str, pepper: bytes, other: bytes) -> None:
    # HMAC fills a short pepper up with zeros.
    assert (digest(secret, pepper) == digest(secret, other)) == (pepper.rstrip(b"\0") == other.rstrip(b"\0"))


def test_a_pepper_has_a_name_that_does_not_tell_it() -> None:
    assert pepper_id(b"pepper") == pepper_id(b"pepper") != pepper_id(b"another")
    assert len(pepper_id(b"pepper")) == 8


@given(st.text(max_size=40), st.text(max_size=40))
def test_another_key_gives_another_digest(one: str, other: str) -> None:
    assert (digest(one, b"pepper") == digest(other, b"pepper")) == (one == other)


def test_a_key_shows_its_secret_to_nobody_who_only_prints_it() -> None:
    key = NewKey(key_id="k1", secret="cs_live_k1_s3cret_x")
    assert "s3cret" not in repr(key) + str(key)
