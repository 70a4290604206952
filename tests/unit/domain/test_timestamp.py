"""Which texts are moments: ours and another parser's opinion held together."""

from datetime import datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from customersignal_ingest.domain.rules import is_timestamp
from customersignal_ingest.testing.strategies import timestamps

GOOD_TIMESTAMPS = [
    *["2026-11-23T10:00:00Z", "2026-11-23t10:00:00z", "2026-11-23 10:00:00Z", "2026-11-23T10:00Z"],
    *["2026-11-23T10:00:00.123456789Z", "2026-11-23T10:00:00,5Z", "2026-11-23T10:00:00+05:30", "2026-11-23T10:00-0800"],
    *["2026-11-23T10:00:00+14", "2026-11-23T10:00:00-00:00", "1970-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"],
    *["2026-01-31T23:59:59Z", "2026-04-30T00:00:00.5+23:59", "2999-12-31T00:00:00Z", "3000-01-01T00:00:00Z"],
    *["2024-02-29T00:00:00Z", "2016-12-31T23:59:60Z", "1970-01-01T00:00:00+14:00", "9999-12-31T23:59:59-23:59"],
]
BAD_TIMESTAMPS = [
    *["", "now", "1795428000", "2026-11-23", "10:00:00Z", "2026-11-23T10:00:00", "2026-11-23T10Z", "20261123T100000Z"],
    *["2026-02-30T00:00:00Z", "2026-04-31T00:00:00Z", "2026-01-32T00:00:00Z", "2026-01-00T00:00:00Z"],
    *["2026-13-01T00:00:00Z", "2026-11-31T00:00:00Z", "2026-02-29T10:00:00Z", "2026-00-10T00:00:00Z"],
    *["2026-11-23T24:00:00Z", "2026-11-23T10:60:00Z", "2026-11-23T10:00:61Z", "2026-11-23T10:00:00+24:00"],
    *["2026-11-23T10:00:00+10:60", "2026-11-23T10:00:00+1", "2026-11-23T10:00:00+05:30:15", "2026-11-23T10:00:00 Z"],
    *["1969-12-31T23:59:59Z", "0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "-2026-11-23T10:00:00Z"],
    *[
        "2026-11-23T10:00:00.Z",
        "2026-11-23T10:00.5Z",
        "2026-W48-1T10:00:00Z",
        "2026-327T10:00:00Z",
        "2026-11-23_10:00:00Z",
    ],
    *[" 2026-11-23T10:00:00Z", "2026-11-23T10:00:00Z\n", "٢٠٢٦-11-23T10:00:00Z", "2026-11-23T10:00:00ZZ"],
    *["2026-11-23T10:00:00." + "1" * 31 + "Z", "2026-11-23T10:00:00\N{MINUS SIGN}08:00"],
]


@pytest.mark.parametrize("text", GOOD_TIMESTAMPS)
def test_a_moment_with_an_offset_is_a_timestamp(text: str) -> None:
    assert is_timestamp(text)


@pytest.mark.parametrize("text", BAD_TIMESTAMPS)
def test_anything_else_is_no_timestamp(text: str) -> None:
    assert not is_timestamp(text)


@given(timestamps())
def test_a_timestamp_that_we_let_in_can_be_read_by_others(text: str) -> None:
    assert is_timestamp(text)
    assert datetime.fromisoformat(text.upper().replace(" ", "T")).utcoffset() is not None


@given(st.text("0123456789-:+.,TtZz ", max_size=30) | st.text(max_size=12))
@example("2026-11-23T10:00:00Z")
def test_a_timestamp_that_others_can_not_read_is_refused(text: str) -> None:
    assert not is_timestamp(text) or read_elsewhere(text)


@given(timestamps(), st.data())
def test_one_wrong_character_never_makes_an_unreadable_timestamp(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text) - 1))
    text = text[:at] + data.draw(st.sampled_from("0123456789-:+.,TZ ")) + text[at + 1 :]
    assert not is_timestamp(text) or read_elsewhere(text)


def read_elsewhere(text: str) -> datetime | None:
    """Read the moment with another parser than ours, leap seconds aside."""
    try:
        return datetime.fromisoformat(text.upper().replace(" ", "T").replace(":60", ":59", 1))
    except ValueError:
        return None
