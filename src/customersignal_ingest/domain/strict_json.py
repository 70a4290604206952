"""One reading of JSON for us and for every consumer (adr/0008).

Two passes of msgspec over the bytes: one that looks at every value, one that keeps each field's
bytes. They refuse most of what must be refused, and a few cheap counts find whatever they let
through. In doubt `flaws` looks with another parser, and where it finds no flaw, the payload is good.

`read_plain` does the same for an event as nearly all are, for less, and gives up on any other.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sized
from functools import cache
from itertools import chain
from typing import Annotated, Any, cast

import msgspec

from customersignal_ingest.domain.event import IDEMPOTENCY_KEY_MAX, TEXT_MAX, Discreet
from customersignal_ingest.domain.flaws import Flaw, find_flaw, no_batch
from customersignal_ingest.domain.outcome import Reason

_BLANK = b" \t\r\n"
# The longest integer that a double can hold has 309 digits, so this many digits ask for a look.
_LONG = 309
_MANY_DIGITS = re.compile(rb"[0-9]{%d}" % _LONG)
# Of them every 61st byte shows five in a row, which hardly anything else does.
_SAMPLED = 61
_SOME_DIGITS = re.compile(rb"[0-9]{%d}" % (_LONG // _SAMPLED))
_HALF_OF_A_PAIR = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_UP_TO_THE_ARRAY = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"[^"]*"[ \t\r\n]*:[ \t\r\n]*')
_NOTHING = msgspec.Raw(b"")
_COUNTED_MAX = 10_000

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_MAX)]
_Key = Annotated[str, msgspec.Meta(min_length=1, max_length=IDEMPOTENCY_KEY_MAX)]


class Fields(Discreet, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """The texts of an event, each within its bounds."""

    shown = ()

    event_type: _Text
    timestamp: _Text
    user_id: _Text | None = None
    session_id: _Text | None = None
    idempotency_key: _Key | None = None
    project_id: _Text | None = None
    tenant_id: _Text | None = None


class _Plain(Fields, frozen=True, kw_only=True, gc=False):
    properties: msgspec.Raw


_plain = msgspec.json.Decoder(_Plain).decode
_values = msgspec.json.Decoder().decode
_bytes_by_field = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_to_json = msgspec.json.Encoder().encode


def read_plain(payload: bytes, /, *, depth_max: int) -> tuple[Fields, bytes] | None:
    """Return the texts of an event and its properties as sent, `None` where a closer look is needed.

    Any field that we do not know, that is null or there twice brings more quotes than those that were kept.
    """
    try:
        fields = _plain(payload)
        values = _values(fields.properties)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    properties = bytes(fields.properties)
    optional = (fields.user_id, fields.session_id, fields.idempotency_key, fields.project_id, fields.tenant_id)
    quotes = 4 * (2 + len(optional) - optional.count(None)) + 2 + properties.count(b'"')
    if (
        payload.count(b'"') != quotes
        or type(values) is not dict
        or _may_have_nul(payload)
        or _may_have_huge_number(properties)
        or _is_too_deep(properties, (values,), depth_max)
    ):
        return None
    return fields, properties


def read_object(payload: bytes, /, *, depth_max: int, closely: bool = True) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return one JSON object twice: its fields' values, and the bytes of each field as sent.

    `depth_max` bounds the nesting of each field's value; the value itself is level 1.
    Raises `Flaw` for anything that is not strict JSON, and for a field that is there twice; its
    pointer is to the exact place with `closely`, which costs time.
    """
    try:
        values, sent = _values(payload), _bytes_by_field(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise find_flaw(payload, depth_max=depth_max, closely=closely) or _unreadable() from None
    punctuation = 4 * len(sent) + 1 if sent else 2
    good = _adds_up(payload, sent, sent.values(), punctuation) and not _may_have_nul(payload)
    if not good or _may_have_huge_number(payload) or _is_too_deep(payload, values.values(), depth_max):
        flaw = find_flaw(payload, depth_max=depth_max, closely=closely)
        if flaw is not None:
            raise flaw
    return values, cast("dict[str, bytes]", sent)  # A Raw has a length, joins and compares as bytes do.


def read_slices(body: bytes, name: str, /, *, most: int) -> list[bytes]:
    """Return the bytes of each element of the one array in `{name: [...]}`.

    Elements are not looked into, so that each can have a fate of its own. Of an array with more
    than `most` elements some may be left out, never so many that `most` or fewer are returned.
    Raises `Flaw`: `MALFORMED_JSON` or `TOO_DEEP` where the body can't be read at all, else
    `INVALID_REQUEST`.
    """
    try:
        body.decode()
        slices = _slices(body, name, most)
    except msgspec.ValidationError:
        raise no_batch(body, name, reason=Reason.INVALID_REQUEST) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise no_batch(body, name, reason=Reason.MALFORMED_JSON) from None
    except RecursionError:
        raise no_batch(body, name, reason=Reason.TOO_DEEP) from None
    if len(slices) <= most and not _adds_up(body, [name], slices, 7 + max(0, len(slices) - 1)):
        _refuse_repeated(body, name)
    return slices


def join_object(fields: Iterator[tuple[str, bytes]], /) -> bytes:
    """Return the JSON object of these names and values, the values' bytes untouched."""
    return b"{%s}" % b",".join(_to_json(name) + b":" + value for name, value in fields)


def _unreadable() -> Flaw:
    return Flaw(Reason.MALFORMED_JSON, "not JSON")


def _may_have_nul(text: bytes) -> bool:
    """Never a false no, like the next one. One byte is found in a fraction of the time of several."""
    return b"\\" in text and b"\\u0000" in text


def _may_have_huge_number(text: bytes) -> bool:
    return (
        len(text) >= _LONG
        and _SOME_DIGITS.search(text[::_SAMPLED]) is not None
        and _MANY_DIGITS.search(text) is not None
    )


def _is_too_deep(text: bytes, values: Iterable[Any], depth_max: int) -> bool:
    if text.count(b"{") + text.count(b"[") <= depth_max:
        return False
    level = _containers(values)
    for _ in range(depth_max):
        if not level:
            return False
        level = _containers(chain.from_iterable(value.values() if type(value) is dict else value for value in level))
    return bool(level)


def _containers(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if type(value) is dict or type(value) is list]


def _adds_up(payload: bytes, names: Iterable[str], values: Iterable[Sized], punctuation: int) -> bool:
    """Tell whether names, values and punctuation make up the whole payload, blanks aside.

    Neither msgspec nor pydantic reports a name that is there twice: the first one's bytes are
    missing from this sum. A name with escapes does not add up either, and gets the closer look.
    """
    if len(payload) == sum(map(len, names)) + sum(map(len, values)) + punctuation:
        return True
    kept = "".join(names).encode() + b"".join(cast("Iterable[bytes]", values))
    return _weight(payload) == _weight(kept) + punctuation


def _weight(text: bytes) -> int:
    return len(text.translate(None, _BLANK))


def _slices(body: bytes, name: str, most: int) -> list[bytes]:
    """Slice the array, unread; half of a surrogate pair, which msgspec does not skip, is for an event's rules."""
    decode = _few(name, most) if _is_crowded(body, most) else _all(name)
    try:
        return _bytes_of(decode(body))
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        skippable = _HALF_OF_A_PAIR.sub(rb"\\u0041", body)
        return list(_as_sent(body, skippable, _bytes_of(decode(skippable))))


def _bytes_of(found: Any) -> list[bytes]:
    (array,) = msgspec.structs.astuple(found)
    elements = array if isinstance(array, list) else filter(len, msgspec.structs.astuple(array))
    return list(map(bytes, elements))


def _as_sent(body: bytes, skippable: bytes, slices: Iterable[bytes]) -> Iterator[bytes]:
    """Cut the same places out of the body, which differs in some characters and in no place."""
    found = _UP_TO_THE_ARRAY.match(skippable)
    at = 0 if found is None else found.end() + 1
    for each in slices:
        at = skippable.index(each, at)
        yield body[at : at + len(each)]
        at += len(each)


def _is_crowded(body: bytes, most: int) -> bool:
    """Tell whether an array in the body may have so many tiny elements that slicing it would cost too much.

    Every element then costs more memory than the client's bytes: ten megabytes of `0,` took 700.
    """
    if len(body) <= 64 * most:  # Most bodies are too short for so many, and counting takes half as long as slicing.
        return False
    commas = body.count(b",")
    return commas > 64 * most and len(body) < 16 * commas


Decode = Callable[[bytes], Any]


@cache
def _all(name: str) -> Decode:
    """Return a decoder of `{name: [...]}` alone that keeps the bytes of each element."""
    return msgspec.json.Decoder(_only(name, list[msgspec.Raw])).decode


@cache
def _few(name: str, most: int) -> Decode:
    """Return a decoder that keeps one element more than `most` of the array, and skips what comes after it."""
    if most > _COUNTED_MAX:
        return _all(name)
    elements = [(f"_{number}", msgspec.Raw, _NOTHING) for number in range(most + 1)]
    return msgspec.json.Decoder(_only(name, msgspec.defstruct("Elements", elements, array_like=True))).decode


def _only(name: str, kind: Any) -> type[msgspec.Struct]:
    return msgspec.defstruct("Body", [(name, kind)], forbid_unknown_fields=True)


def _refuse_repeated(body: bytes, name: str) -> None:
    """Raise `Flaw` unless the array begins where the first value does, and ends where the body does."""
    skippable = _HALF_OF_A_PAIR.sub(rb"\\u0041", body)
    (array,) = msgspec.structs.astuple(msgspec.json.decode(skippable, type=_only(name, msgspec.Raw)))
    found = _UP_TO_THE_ARRAY.match(skippable)
    assert found is not None
    end = found.end() + len(array)
    if skippable[found.end() : end] != bytes(array) or skippable[end:].strip(_BLANK) != b"}":
        raise no_batch(body, name, reason=Reason.INVALID_REQUEST)
