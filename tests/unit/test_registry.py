"""Adapters are found by URL scheme, and what is not understood is named."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customersignal_ingest.adapters.outbound.memory import MemoryKeys, MemoryPublisher
from customersignal_ingest.domain.errors import ConfigurationError
from customersignal_ingest.registry import AdapterSettings, Group, nearest, open_url, schemes, url_parameters

SETTINGS = AdapterSettings()
KNOWN = {"linger_ms": int, "acks": str, "insync_min": int}


def refusal(url: str, group: Group = "publishers") -> str:
    with pytest.raises(ConfigurationError) as refused:
        open_url(group, url, settings=SETTINGS)
    return str(refused.value)


def parameter_refusal(url: str) -> str:
    with pytest.raises(ConfigurationError) as refused:
        url_parameters(url, KNOWN)
    return str(refused.value)


def test_a_publisher_is_found_by_its_scheme() -> None:
    assert isinstance(open_url("publishers", "memory:", settings=SETTINGS), MemoryPublisher)


def test_a_scheme_may_mean_something_else_in_another_group() -> None:
    assert isinstance(open_url("key_repositories", "memory:", settings=SETTINGS), MemoryKeys)


def test_each_url_opens_an_adapter_of_its_own() -> None:
    first, second = (open_url("publishers", "memory:", settings=SETTINGS) for _ in range(2))
    assert first is not second


def test_the_schemes_of_a_group_are_sorted() -> None:
    assert list(schemes("publishers")) == sorted(schemes("publishers"))


@pytest.mark.parametrize("scheme", ["memory", "sqlite"])
def test_our_own_publishers_are_found_like_a_strangers(scheme: str) -> None:
    assert scheme in schemes("publishers")


def test_a_wrong_scheme_names_the_nearest() -> None:
    assert "did you mean 'memory'?" in refusal("memroy:")


def test_a_wrong_scheme_names_the_known_ones() -> None:
    assert ", ".join(schemes("publishers")) in refusal("x:")


@pytest.mark.parametrize("url", ["", "memory", "/path", "://", "memory//", ":memory:"])
def test_what_has_no_scheme_is_refused(url: str) -> None:
    assert "no adapter" in refusal(url)


def test_what_may_be_a_password_is_not_repeated_whole() -> None:
    assert "correct-horse-battery-staple" not in refusal("correct-horse-battery-staple@host/db")


def test_a_refusal_is_one_line() -> None:
    assert "\n" not in refusal("a\nb:")


def test_parameters_are_read_each_in_its_way() -> None:
    assert url_parameters("kafka://h/t?linger_ms=5&acks=all", KNOWN) == {"linger_ms": 5, "acks": "all"}


def test_without_a_query_there_are_no_parameters() -> None:
    assert url_parameters("kafka://h/t", KNOWN) == {}


def test_an_unknown_parameter_names_the_nearest() -> None:
    assert "did you mean 'linger_ms'?" in parameter_refusal("kafka://h/t?lingerms=5")


def test_an_unknown_parameter_without_a_neighbour_names_the_known_ones() -> None:
    assert "known are acks, insync_min, linger_ms" in parameter_refusal("kafka://h/t?zzz=5")


def test_a_parameter_must_not_be_there_twice() -> None:
    assert "twice" in parameter_refusal("kafka://h/t?acks=all&acks=1")


@pytest.mark.parametrize("value", ["five", "", "5x", "1.5"])
def test_a_value_that_can_not_be_read_is_refused(value: str) -> None:
    assert "linger_ms" in parameter_refusal(f"kafka://h/t?linger_ms={value}")


def test_of_a_value_that_can_not_be_read_it_is_said_what_was_expected() -> None:
    assert refusal("kafka://h/t?linger_ms=-1").endswith("'linger_ms': expected a whole number from 0 to 1000")
    assert refusal("kafka://h/t?compression=lzo").endswith("expected one of none, gzip, lz4, zstd")
    assert refusal("sqlite:///e.db?journal=wall").endswith("'journal': expected one of wal, truncate")
    assert refusal("postgresql://h/d?pool_size=0", "key_repositories").endswith("a whole number from 1 to 100")


def test_a_value_that_can_not_be_read_is_not_repeated() -> None:
    assert "s3cret" not in parameter_refusal("kafka://h/t?linger_ms=s3cret")


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(ConfigurationError):
        assert url_parameters("kafka://h/t?" + text, KNOWN).keys() <= KNOWN.keys()


@given(st.text(max_size=20), st.lists(st.text(max_size=10), max_size=5).map(tuple))
def test_the_nearest_is_always_a_known_one(wrong: str, known: tuple[str, ...]) -> None:
    said = nearest(wrong, known)
    assert not said.startswith("did you mean") or any(repr(name) in said for name in known)


def test_secrets_are_not_shown() -> None:
    assert "s3cret" not in repr(AdapterSettings(secrets={"kafka_password": "s3cret"}))
