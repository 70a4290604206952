"""The fast way, the slow way and the standard library agree on what JSON is."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from customersignal_ingest.domain import flaws
from customersignal_ingest.domain.flaws import CLOSE_VALUES_MAX, Flaw, find_flaw, pointer_to
from customersignal_ingest.domain.outcome import Reason, Rejected
from customersignal_ingest.domain.strict_json import join_object, read_object, read_slices
from customersignal_ingest.testing.strategies import json_like, json_objects, json_values
from tests.hostile.oracles import as_written

DEPTH_MAX = 4


def read(payload: bytes) -> tuple[dict[str, Any], dict[str, bytes]] | Rejected:
    try:
        return read_object(payload, depth_max=DEPTH_MAX)
    except Flaw as flaw:
        return flaw.rejected


def slices(body: bytes, *, most: int = 2_000) -> list[bytes] | Rejected:
    try:
        return read_slices(body, "events", most=most)
    except Flaw as flaw:
        return flaw.rejected


def strictly_readable(payload: bytes) -> bool:
    """Tell whether the standard library takes this for JSON, with its extensions off."""
    try:
        json.loads(payload.decode(), parse_constant=_refuse, parse_int=str)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(constant)


@given(json_like())
@example(b'{"a":"\\ud800"}')
@example(b'{"a":"\\u0000"}')
@example(b'{"a":' + b"9" * 309 + b"}")
@example(b'{"a":1.7976931348623158e308}')
@example(b'{"a":1.79769313486231585e308}')
@example(b'{"a":[[[[[]]]]]}')
@example(b'{"a":1,"\\u0061":1}')
@example(b'{"":1,"":1}')
@example('{"ä":1,"ä":1}'.encode())
def test_the_fast_way_accepts_what_the_slow_way_finds_no_flaw_in(payload: bytes) -> None:
    flaw = find_flaw(payload, depth_max=DEPTH_MAX)
    assert isinstance(read(payload), Rejected) == (flaw is not None)


@given(json_like())
@example(b'{"a":NaN}')
@example(b"\xef\xbb\xbf{}")
def test_what_we_accept_is_json_for_the_standard_library(payload: bytes) -> None:
    assert isinstance(read(payload), Rejected) or strictly_readable(payload)


@given(json_like())
def test_only_what_the_standard_library_can_not_read_is_malformed(payload: bytes) -> None:
    outcome = read(payload)
    malformed = isinstance(outcome, Rejected) and outcome.reason is Reason.MALFORMED_JSON
    assert not (malformed and strictly_readable(payload))


@given(json_objects())
def test_the_bytes_of_each_field_are_those_of_the_payload(text: str) -> None:
    outcome = read(text.encode())
    if not isinstance(outcome, Rejected):
        members = json.loads(text, object_pairs_hook=list, parse_float=str, parse_int=str)
        kept = json.loads(joined(outcome[1]), object_pairs_hook=list, parse_float=str, parse_int=str)
        assert kept == members


@given(json_objects())
def test_values_and_bytes_of_a_field_say_the_same(text: str) -> None:
    outcome = read(text.encode())
    if not isinstance(outcome, Rejected):
        values, sent = outcome
        assert values == {name: json.loads(bytes(value)) for name, value in sent.items()}


@given(json_objects())
def test_blanks_between_do_not_matter_for_what_is_accepted(text: str) -> None:
    spaced = " " + text.strip(" \t\r\n")[:1] + "\n\t " + text.strip(" \t\r\n")[1:] + "\r\n"
    assert isinstance(read(spaced.encode()), Rejected) == isinstance(read(text.encode()), Rejected)


@pytest.mark.parametrize("levels", [1, 3, 4])
def test_a_value_may_have_depth_max_levels(levels: int) -> None:
    assert not isinstance(read(b'{"a":%s%s}' % (b"[" * levels, b"]" * levels)), Rejected)


@pytest.mark.parametrize("levels", [5, 900, 5000])
def test_one_level_more_is_too_deep(levels: int) -> None:
    outcome = read(b'{"a":%s%s}' % (b"[" * levels, b"]" * levels))
    assert isinstance(outcome, Rejected)
    assert outcome.reason is Reason.TOO_DEEP


def test_the_first_flaw_in_the_text_is_named() -> None:
    outcome = read(b'{"a":[1,{"b":"\\u0000"}],"c":1e400}')
    assert isinstance(outcome, Rejected)
    assert outcome.field == "/a/1/b"


def test_a_syntax_error_is_named_by_its_byte() -> None:
    outcome = read('{"ää":x}'.encode())
    assert isinstance(outcome, Rejected)
    assert "byte 8" in outcome.message


def batch(elements: list[str], name: str, blank: str) -> bytes:
    return f"{blank}{{{blank}{name}{blank}:{blank}[{blank}{f'{blank},{blank}'.join(elements)}{blank}]{blank}}}".encode()


NAMES = st.sampled_from(['"events"', '"events"', '"\\u0065vents"'])
BLANKS = st.sampled_from(["", " ", "\n\t"])


@given(st.lists(json_values(3), max_size=6), NAMES, BLANKS)
@example(["[", "}"], '"events"', "")
def test_slices_are_the_elements_as_sent(elements: list[str], name: str, blank: str) -> None:
    body = batch(elements, name, blank)
    if strictly_readable(body):
        assert slices(body) == [element.strip(" \t\r\n").encode() for element in elements]


@given(st.lists(json_like(), max_size=3))
@example([b'"\\x"'])
@example([b'"\x01"'])
@example([b"01"])
@example([b'"\\ud800"', b"1e400"])
@example([b'"\\\\ud800"', b'"\\ud83d\\ude00"'])
@example([b'"\\uDFFF]"', b'{"\\ud800":"\\ud800"}', b'"\\ud800"'])
@example([b"NaN"])
@example([b'"]'])
@example([b"\xff"])
@example([b'"\xff"'])
@example([b"[" * 3000 + b"]" * 3000])
def test_a_body_is_sliced_if_and_only_if_others_can_read_it(elements: list[bytes]) -> None:
    body = b'{"events":[%s]}' % b",".join(elements)
    found = slices(body)
    tree = as_written(body)
    if isinstance(found, Rejected):
        assert tree is None or [name for name, _ in tree] != ["events"]
    else:
        assert [as_written(each) for each in found] == tree[0][1]


@given(json_like())
def test_slicing_is_total(body: bytes) -> None:
    assert isinstance(slices(body), list | Rejected)


@given(st.lists(json_like(), max_size=3))
def test_a_body_that_is_not_json_is_never_sliced(elements: list[bytes]) -> None:
    body = b'{"events":[%s]}' % b",".join(elements)
    assert isinstance(slices(body), Rejected) or strictly_readable(body)


@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        (b"", Reason.MALFORMED_JSON, None),
        (b'{"events":[{]}', Reason.MALFORMED_JSON, None),
        (b'{"events":[{"a":NaN}]}', Reason.MALFORMED_JSON, "/events/0/a"),
        (b"[]", Reason.INVALID_REQUEST, ""),
        (b"{}", Reason.INVALID_REQUEST, "/events"),
        (b'{"event_type":"x"}', Reason.INVALID_REQUEST, "/events"),
        (b'{"events":null}', Reason.INVALID_REQUEST, "/events"),
        (b'{"events":{}}', Reason.INVALID_REQUEST, "/events"),
        (b'{"events":[],"events":[]}', Reason.INVALID_REQUEST, "/events"),
        (b'{"a":1,"events":[],"b":2}', Reason.INVALID_REQUEST, "/a"),
    ],
)
def test_a_body_of_another_shape_is_refused_with_the_place(body: bytes, reason: Reason, field: str | None) -> None:
    outcome = slices(body)
    assert isinstance(outcome, Rejected)
    assert (outcome.reason, outcome.field) == (reason, field)


def test_an_empty_array_has_no_slices() -> None:
    assert slices(b'{"events" : [ ]}') == []


def test_many_values_at_great_depth_take_little_memory() -> None:
    walked = 0
    for path, _ in flaws._walk(flaws._read(b"[" * 200 + b"1," * 20_000 + b"1" + b"]" * 200, flaws._AS_WRITTEN)):
        walked += 1
        assert len(path) <= 200
    assert walked == 200 + 20_001


@pytest.mark.parametrize(
    ("path", "pointer"),
    [((), ""), (("a", "0"), "/a/0"), (("~a/b",), "/~0a~1b"), (("",), "/"), (("\ud800", "\0"), "/\ufffd/\ufffd")],
)
def test_a_path_is_written_as_a_json_pointer(path: tuple[str, ...], pointer: str) -> None:
    assert pointer_to(*path) == pointer


def joined(sent: dict[str, bytes]) -> bytes:
    return join_object(iter(sent.items()))


CROWDED = b'{"events":[' + b"0," * 200_000 + b"0]}"


def test_of_far_too_many_elements_only_some_are_sliced() -> None:
    assert read_slices(CROWDED, "events", most=100) == [b"0"] * 101


def test_where_a_million_events_are_allowed_all_elements_are_sliced() -> None:
    assert len(read_slices(CROWDED, "events", most=1_000_000)) == 200_001


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"events":[1],"more":[' + b"0," * 200_000 + b"0]}", Reason.INVALID_REQUEST),
        (b'{"more":[' + b"0," * 200_000 + b'0],"events":[1]}', Reason.INVALID_REQUEST),
        (b'{"events":[1],"events":[' + b"[0,0]," * 200_000 + b"0]}", None),
        (b'{"events":[' + b"[0,0]," * 200_000 + b'0],"events":[1]}', Reason.INVALID_REQUEST),
        (b'{"events":{' + b'"a":0,' * 200_000 + b'"a":0}}', Reason.INVALID_REQUEST),
        (b"[" + b"0," * 200_000 + b"0]", Reason.INVALID_REQUEST),
        (b'{"events":[0' + b",0" * 200_000, Reason.MALFORMED_JSON),
        (b'{"events":[' + b"0," * 200_000 + b"NaN]}", Reason.MALFORMED_JSON),
        (b'{"events":[' + b"0," * 200_000 + b'"\xff"]}', Reason.MALFORMED_JSON),
        (b'{"events":[' + b"0," * 200_000 + b"[" * 3_000 + b"]" * 3_000 + b"]}", Reason.TOO_DEEP),
        (b'{"events":[' + b"0," * 50, Reason.MALFORMED_JSON),
    ],
)
def test_a_crowded_body_is_never_taken_for_a_good_batch(body: bytes, reason: Reason | None) -> None:
    outcome = slices(body, most=100)

    assert (outcome.reason if isinstance(outcome, Rejected) else None) == reason
    assert isinstance(outcome, Rejected) or len(outcome) > 100


def test_a_crowded_body_with_few_elements_is_sliced_like_any_other() -> None:
    element = b"[" + b"0," * 200_000 + b"0]"

    for events in (b'"events"', b'"\\u0065vents"', b' "events" '):
        assert read_slices(b"{%s:[%s , 1]}" % (events, element), "events", most=100) == [element, b"1"]


@pytest.mark.parametrize(
    "body",
    [
        CROWDED,
        CROWDED.replace(b"events", b"others"),
        CROWDED.replace(b"events", b"\\u0065vents"),
        CROWDED[:-1] + b',"more":1}',
        CROWDED[:-2],
        CROWDED.replace(b'["', b"[["),
        b"{%s}" % b",".join([b'"a":0'] * 200_000),
        b'{"events":[[%s]]}' % b",".join([b"[]"] * 200_000),
    ],
    ids=["good", "another_name", "escaped_name", "more", "no_end", "not_closed", "not_in_an_array", "one_element"],
)
def test_a_crowded_body_takes_no_more_memory_than_a_few_of_its_size(body: bytes) -> None:
    slices(body, most=100)  # What is made once is made by now.
    tracemalloc.start()
    slices(body, most=100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 4 * len(body)


def test_of_far_too_many_elements_under_a_name_with_escapes_only_some_are_sliced() -> None:
    assert read_slices(CROWDED.replace(b"events", b"\\u0065vents"), "events", most=100) == [b"0"] * 101


@pytest.mark.parametrize(
    "body",
    [
        b'{"x":1,"events":[' + b"0," * 200_000 + b"0]}",
        b'{"events":[{"a":[' + b"0.1," * 100_000 + b'0]}],"x":1}',
        b'{"events":{"a":[' + b"0," * 200_000 + b"0]}}",
    ],
    ids=["another_field_before", "one_element", "no_array"],
)
def test_a_body_of_the_wrong_shape_takes_little_memory_to_refuse(body: bytes) -> None:
    tracemalloc.start()
    outcome = slices(body, most=100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert isinstance(outcome, Rejected)
    assert outcome.reason is Reason.INVALID_REQUEST
    assert peak < 4 * len(body)


@pytest.mark.parametrize(("more", "field"), [(b"", "/events/0/a"), (b",0" * (CLOSE_VALUES_MAX + 1), None)])
def test_a_number_that_json_does_not_have_is_pointed_to_unless_that_takes_long(more: bytes, field: str | None) -> None:
    outcome = slices(b'{"events":[{"a":NaN}%s]}' % more)

    assert isinstance(outcome, Rejected)
    assert (outcome.reason, outcome.field) == (Reason.MALFORMED_JSON, field)


def test_half_a_pair_is_sliced_as_it_was_sent() -> None:
    elements = [b'"\\ud800"', b'"A"', b'"\\u0041"', b'"\\\\udc00"', b'{"\\uDBFF":["\\ud83d\\ude00"]}', b'"\\ud800"']

    assert read_slices(b' { "events" : [ %s ] } ' % b" , ".join(elements), "events", most=9) == elements


@given(json_like(), st.booleans())
@example(b'{"a":1,"b":{"c":["\\u0000"]}}', True)
@example(b'{"a":1,"a":NaN}', True)
@example(b'{"a":"\\u0000","b":NaN}', False)
@example(b'{"a":[[[[[]]]]],"b":NaN}', True)
@example(b'{"a":NaN,"b":"\\', True)
def test_the_close_look_agrees_with_the_rough_one(payload: bytes, object_around: bool) -> None:
    payload = b'{"a":%s}' % payload if object_around else payload
    close, rough = (find_flaw(payload, depth_max=DEPTH_MAX, closely=closely) for closely in (True, False))

    if close is None or rough is None:
        assert close is rough
    else:
        assert close.rejected.reason is rough.rejected.reason
        assert (close.rejected.field or "").startswith(rough.rejected.field or "")


def test_a_huge_number_is_found_wherever_it_stands() -> None:
    for before in range(330):
        outcome = read(b'{"a":"%s","b":%s}' % (b"x" * before, b"9" * 309))
        assert isinstance(outcome, Rejected)
        assert outcome.field == "/b"


BIG = b"0," * CLOSE_VALUES_MAX


@pytest.mark.parametrize(
    ("inner", "reason", "field"),
    [
        (b'"\\u0000"', Reason.FIELD_VALUE, "/a"),
        (b'"\\ud800"', Reason.FIELD_VALUE, "/a"),
        (b'{"\\u0000":1}', Reason.FIELD_VALUE, "/a"),
        (b"1e400", Reason.FIELD_VALUE, "/a"),
        (b"-" + b"9" * 309, Reason.FIELD_VALUE, "/a"),
        (b"9" * 5_000, Reason.FIELD_VALUE, "/a"),
        (b"[[[[]]]]", Reason.TOO_DEEP, "/a"),
        (b"NaN", Reason.MALFORMED_JSON, None),
        (b"-Infinity", Reason.MALFORMED_JSON, None),
        (b"01", Reason.MALFORMED_JSON, None),
    ],
)
def test_of_very_many_values_the_field_is_named(inner: bytes, reason: Reason, field: str | None) -> None:
    outcome = read(b'{"b":1,"a":[%s%s]}' % (BIG, inner))

    assert isinstance(outcome, Rejected)
    assert (outcome.reason, outcome.field) == (reason, field)


@pytest.mark.parametrize("inner", [b'"\\\\u0000"', b"9" * 308, b'"' + b"9" * 400 + b'"', b"[[[]]]", b"1e-400"])
def test_very_many_good_values_are_good(inner: bytes) -> None:
    assert not isinstance(read(b'{"\\u0062":1,"a":[%s%s]}' % (BIG, inner)), Rejected)


def test_many_containers_side_by_side_are_not_deep() -> None:
    payload = b'{"properties":{"cart":[' + b",".join([b'{"n":[1]}'] * 100) + b"]}}"

    assert bytes(read_object(payload, depth_max=4)[1]["properties"]) == payload[14:-1]


def test_one_level_too_many_is_found_among_many_containers() -> None:
    payload = b'{"properties":{"cart":[' + b",".join([b'{"n":[1]}'] * 100) + b"]}}"

    with pytest.raises(Flaw) as flaw:
        read_object(payload, depth_max=3)

    assert flaw.value.rejected.reason is Reason.TOO_DEEP
