"""One reading of JSON for us and for every consumer (adr/0008).

The fast way is two passes of msgspec over the bytes: one that looks at every value, one that
keeps each field's bytes. It refuses most of what must be refused, and a few cheap counts find
whatever it lets through. In doubt the slow way, the standard library's parser with numbers and
repeated names kept, looks for the exact place; where it finds no flaw, the payload is good.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from itertools import islice
from math import isinf
from typing import Any, cast

import msgspec

from customersignal_ingest.domain.outcome import Reason, Rejected

_BLANK = b" \t\r\n"
# The longest integer that a double can hold has 309 digits, so this many digits ask for a look.
_LONG = 309
_MANY_DIGITS = re.compile(rb"[0-9]{%d}" % _LONG)
_DIGIT = re.compile(rb"[0-9]")
_ELEMENT_START = re.compile(r"[^ \t\r\n,\]}]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_POINTER_MAX = 200
_PLACE_BYTES_MAX = 1_000_000

_values = msgspec.json.Decoder().decode
_bytes_by_field = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_slices_by_field = msgspec.json.Decoder(dict[str, list[msgspec.Raw]]).decode
_to_json = msgspec.json.Encoder().encode


class Flaw(Exception):
    """The JSON is not acceptable; says why, and where."""

    def __init__(self, rejected: Rejected) -> None:
        """Carry the rejection that follows from the flaw."""
        super().__init__(rejected.reason)
        self.rejected = rejected


def read_object(payload: bytes, /, *, depth_max: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return one JSON object twice: its fields' values, and the bytes of each field as sent.

    `depth_max` bounds the nesting of each field's value; the value itself is level 1.
    Raises `Flaw` for anything that is not strict JSON, and for a field that is there twice.
    """
    try:
        values, sent = _values(payload), _bytes_by_field(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise find_flaw(payload, depth_max=depth_max) or _unreadable() from None
    punctuation = 4 * len(sent) + 1 if sent else 2
    good = _adds_up(payload, sent, sent.values(), punctuation) and not _suspicious(payload)
    if not good or _is_too_deep(payload, values, depth_max):
        flaw = find_flaw(payload, depth_max=depth_max)
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
    if _is_crowded(body, most) and (first := _first_slices(body, name, most + 1)):
        return first
    try:
        body.decode()
        fields = _slices_by_field(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _slices_the_slow_way(body, name, most)
    slices = fields.get(name, [])
    if fields.keys() != {name} or not _adds_up(body, fields, slices, 7 + max(0, len(slices) - 1)):
        return _slices_the_slow_way(body, name, most)
    return [bytes(element) for element in slices]


def join_object(fields: Iterator[tuple[str, bytes]], /) -> bytes:
    """Return the JSON object of these names and values, the values' bytes untouched."""
    return b"{%s}" % b",".join(_to_json(name) + b":" + value for name, value in fields)


def find_flaw(payload: bytes, /, *, depth_max: int) -> Flaw | None:
    """Look for the first flaw the slow way, and say where it is; `None` when there is none."""
    try:
        tree = _parse(payload)
    except Flaw as flaw:
        return flaw
    if not isinstance(tree, _Object):
        return Flaw(Rejected(Reason.FIELD_TYPE, f"an event is a JSON object, not {kind_of(tree)}", ""))
    return _repeated(tree) or next(filter(None, (_flaw_at(*place, depth_max) for place in _walk(tree))), None)


def kind_of(value: object, /) -> str:
    """Name the JSON type of a value, for messages."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float() | _Number():
            return "a number"
        case str():
            return "a string"
        case dict() | _Object():
            return "an object"
        case _:
            return "an array"


def _unreadable() -> Flaw:
    return Flaw(Rejected(Reason.MALFORMED_JSON, "not JSON"))


def _suspicious(payload: bytes) -> bool:
    """Tell whether there may be a NUL or a number out of range: never a false no."""
    return (
        b"\\u0000" in payload
        # A run of 309 digits covers one of every 309 places, so most payloads need no search.
        or (_DIGIT.search(payload[_LONG - 1 :: _LONG]) is not None and _MANY_DIGITS.search(payload) is not None)
    )


def _is_too_deep(payload: bytes, values: dict[str, Any], depth_max: int) -> bool:
    if payload.count(b"{") + payload.count(b"[") <= depth_max:
        return False
    level = _containers(values.values())
    for _ in range(depth_max):
        level = [inner for value in level for inner in _containers(value.values() if type(value) is dict else value)]
    return bool(level)


def _containers(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if type(value) is dict or type(value) is list]


def _is_crowded(body: bytes, most: int) -> bool:
    """Tell whether an array in the body may have so many tiny elements that slicing it would cost too much.

    Every element then costs more memory than the client's bytes: ten megabytes of `0,` took 700.
    """
    commas = body.count(b",")
    return commas > 64 * most and len(body) < 16 * commas


def _first_slices(body: bytes, name: str, count: int) -> list[bytes]:
    """Return that many slices, one after the other, or none if there are fewer or anything is odd."""
    try:
        text = body.decode()
        start = re.match(rf'[ \t\r\n]*{{[ \t\r\n]*"{name}"[ \t\r\n]*:[ \t\r\n]*\[', text)
        slices = [] if start is None else list(islice(_elements(text, start.end()), count))
    except (ValueError, RecursionError):
        return []
    return slices if len(slices) == count else []


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


class _Number(str):
    """A number as written."""

    __slots__ = ()


class _NotANumber(str):
    """`NaN` or an infinity, which JSON does not have."""

    __slots__ = ()


class _Object(list[tuple[str, Any]]):
    """An object with every name, repeated ones too."""

    __slots__ = ()


_AS_WRITTEN = json.JSONDecoder(
    object_pairs_hook=_Object, parse_float=_Number, parse_int=_Number, parse_constant=_NotANumber
)


def _shape(constant: Callable[[str], Any]) -> json.JSONDecoder:
    """Return a parser for who wants to know where things are: numbers become their lengths, which take no memory.

    Of a large body of zeros the other one made a gigabyte, in ten seconds. `constant` is told of `NaN` and infinities.
    """
    return json.JSONDecoder(object_pairs_hook=_Object, parse_float=len, parse_int=len, parse_constant=constant)


def _repeated(tree: _Object) -> Flaw | None:
    seen: set[str] = set()
    for name, _ in tree:
        if name in seen:
            return _flaw(Reason.FIELD_REPEATED, "is there twice", (name,))
        seen.add(name)
    return None


def _walk(tree: Any) -> Iterator[tuple[Sequence[str], Any]]:
    """Yield every value with its path, in the order of the text, without recursion.

    The path is one list that changes on the way: with one tuple a value, a small payload of many
    values at great depth was measured to take gigabytes.
    """
    path: list[str] = []
    open_ones = [_members(tree)]
    yield path, tree
    while open_ones:
        for name, value in open_ones[-1]:
            path.append(name)
            yield path, value
            if isinstance(value, list):
                open_ones.append(_members(value))
                break
            path.pop()
        else:
            open_ones.pop()
            del path[-1:]


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, _Object):
        return iter(value)
    return ((str(index), member) for index, member in enumerate(value)) if isinstance(value, list) else iter(())


def _flaw_at(path: Sequence[str], value: Any, depth_max: int) -> Flaw | None:
    match value:
        case list() if len(path) > depth_max:
            return _flaw(Reason.TOO_DEEP, f"is nested more than {depth_max} levels deep", path)
        case _Object() if problem := next(filter(None, (text_problem(name) for name, _ in value)), None):
            return _flaw(Reason.FIELD_VALUE, f"has a name with {problem}", path)
        case _NotANumber():
            return _flaw(Reason.MALFORMED_JSON, "is NaN or an infinity, which JSON does not have", path)
        case _Number() if isinf(float(value)):
            return _flaw(Reason.FIELD_VALUE, "is a number out of range", path)
        case str() if not isinstance(value, _Number) and (problem := text_problem(value)):
            return _flaw(Reason.FIELD_VALUE, f"is a string with {problem}", path)
        case _:
            return None


def text_problem(text: str, /) -> str | None:
    """Say what no text of ours may hold: a NUL character, or half of a surrogate pair."""
    if "\0" in text:
        return "a NUL character"
    return "half of a surrogate pair" if _SURROGATE.search(text) else None


def _flaw(reason: Reason, what: str, path: Sequence[str]) -> Flaw:
    pointer = pointer_to(*path)
    return Flaw(Rejected(reason, f"{pointer or 'the event'} {what}", pointer))


def pointer_to(*path: str) -> str:
    """Return the JSON Pointer (RFC 6901) of a path, cut at 200 characters: it is for people."""
    whole = "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in path)
    whole = _SURROGATE.sub("\ufffd", whole).replace("\0", "\ufffd")
    return whole if len(whole) <= _POINTER_MAX else whole[: _POINTER_MAX - 1] + "…"


def _parse(payload: bytes, decoder: json.JSONDecoder = _AS_WRITTEN) -> Any:
    try:
        return decoder.decode(payload.decode())
    except UnicodeDecodeError as error:
        raise Flaw(Rejected(Reason.MALFORMED_JSON, f"not UTF-8 at byte {error.start}")) from None
    except json.JSONDecodeError as error:
        at = len(error.doc[: error.pos].encode())
        raise Flaw(Rejected(Reason.MALFORMED_JSON, f"not JSON from byte {at} on")) from None
    except RecursionError:
        raise Flaw(Rejected(Reason.TOO_DEEP, "nested too deep to be read")) from None


def _slices_the_slow_way(body: bytes, name: str, most: int) -> list[bytes]:
    strange: list[str] = []
    tree = _parse(body, _shape(strange.append))
    if strange:
        raise _strange_number(body)
    if not isinstance(tree, _Object):
        raise _wrong_shape(f'the body is an object {{"{name}": [...]}}, not {kind_of(tree)}', "")
    names = [field for field, _ in tree]
    if name not in names:
        raise _wrong_shape(f'the body has no "{name}"', pointer_to(name))
    if repeated := _repeated(tree):
        raise _wrong_shape(repeated.rejected.message, repeated.rejected.field)
    if len(names) > 1:
        other = next(field for field in names if field != name)
        raise _wrong_shape(f'the body has "{name}" and nothing else', pointer_to(other))
    if not isinstance(tree[0][1], list) or isinstance(tree[0][1], _Object):
        raise _wrong_shape(f'"{name}" is an array, not {kind_of(tree[0][1])}', pointer_to(name))
    text = body.decode()
    return list(islice(_elements(text, text.index("[") + 1), most + 1))


def _strange_number(body: bytes) -> Flaw:
    """Say where `NaN` or an infinity is, unless it would take long to find out."""
    tree = _parse(body) if len(body) <= _PLACE_BYTES_MAX else None
    path = next((path for path, value in _walk(tree) if isinstance(value, _NotANumber)), ())
    return _flaw(Reason.MALFORMED_JSON, "is NaN or an infinity, which JSON does not have", path)


def _elements(text: str, at: int) -> Iterator[bytes]:
    """Yield the elements of the array whose first may stand at this place, each as sent; it is taken to be JSON."""
    decode = _shape(_NotANumber).raw_decode
    while (found := _ELEMENT_START.search(text, at)) is not None:
        end = decode(text, found.start())[1]
        yield text[found.start() : end].encode()
        at = end


def _wrong_shape(message: str, field: str | None) -> Flaw:
    return Flaw(Rejected(Reason.INVALID_REQUEST, message, field))
