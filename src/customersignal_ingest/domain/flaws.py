"""Where the flaw is in JSON that is not acceptable, by the standard library's parser (adr/0008).

The rough look takes little more than that parser: it decides, and points to a field of the event.
The close look points to the exact place, at many times the cost for each value, so it is for
payloads that do not have too many.
"""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from math import isinf
from typing import Any, NoReturn

from customersignal_ingest.domain.outcome import Reason, Rejected

CLOSE_VALUES_MAX = 20_000
"""A payload with more commas than this is looked at roughly alone."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_POINTER_MAX = 200
_NO_NUMBER = "is NaN or an infinity, which JSON does not have"
# Of other flaws the rough look knows the place.
_WITH_A_PLACE = frozenset({Reason.MALFORMED_JSON, Reason.FIELD_VALUE, Reason.TOO_DEEP})


class Flaw(Exception):
    """The JSON is not acceptable; says why, and where."""

    def __init__(self, reason: Reason, message: str, field: str | None = None) -> None:
        """Carry the rejection that follows from the flaw."""
        super().__init__(reason)
        self.rejected = Rejected(reason, message, field)


def find_flaw(payload: bytes, /, *, depth_max: int, closely: bool = True) -> Flaw | None:
    """Return the flaw of what should be an event, `None` when there is none.

    With `closely` the pointer is to the exact place, and to the first one of its kind, unless the
    payload has too many values for that.
    """
    flaw = _rough_flaw(payload, depth_max)
    if flaw is None or not closely or not _is_small(payload) or flaw.rejected.reason not in _WITH_A_PLACE:
        return flaw
    return _first_flaw(payload, flaw.rejected.reason, depth_max) or flaw


def no_batch(body: bytes, name: str, /, *, reason: Reason) -> Flaw:
    """Return why a body is not `{name: [...]}`; `reason` is what is known of it already."""
    if _is_small(body):
        try:
            _refuse_shape(_read(body, _AS_WRITTEN), name)
        except Flaw as flaw:
            return flaw
    what = {
        Reason.MALFORMED_JSON: "not JSON in UTF-8",
        Reason.TOO_DEEP: "nested too deep to be read",
    }
    return Flaw(reason, what.get(reason, f'the body is an object {{"{name}": [...]}} and nothing else'))


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
        case dict() | tuple() | _Object():
            return "an object"
        case _:
            return "an array"


def text_problem(text: str, /) -> str | None:
    """Say what no text of ours may hold: a NUL character, or half of a surrogate pair."""
    if "\0" in text:
        return "a NUL character"
    return "half of a surrogate pair" if _SURROGATE.search(text) else None


def pointer_to(*path: str) -> str:
    """Return the JSON Pointer (RFC 6901) of a path, cut at 200 characters: it is for people."""
    whole = "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in path)
    whole = _SURROGATE.sub("\ufffd", whole).replace("\0", "\ufffd")
    return whole if len(whole) <= _POINTER_MAX else whole[: _POINTER_MAX - 1] + "…"


def _is_small(payload: bytes) -> bool:
    return payload.count(b",") <= CLOSE_VALUES_MAX


def _read(payload: bytes, decoder: json.JSONDecoder) -> Any:
    try:
        return decoder.decode(payload.decode())
    except UnicodeDecodeError as error:
        raise Flaw(Reason.MALFORMED_JSON, f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        at = len(error.doc[: error.pos].encode())
        raise Flaw(Reason.MALFORMED_JSON, f"not JSON from byte {at} on") from None
    except RecursionError:
        raise Flaw(Reason.TOO_DEEP, "nested too deep to be read") from None


# The rough look: everything that is done for each value is done by C.


def _refuse(_: str) -> NoReturn:
    raise Flaw(Reason.MALFORMED_JSON, f"the event has a number that {_NO_NUMBER}")


# An object is a tuple of its names and values, repeated ones too. Numbers are as large as a double holds.
_OUTLINE = json.JSONDecoder(object_pairs_hook=tuple, parse_int=float, parse_constant=_refuse)


def _rough_flaw(payload: bytes, depth_max: int) -> Flaw | None:
    try:
        tree = _read(payload, _OUTLINE)
    except Flaw as flaw:
        return flaw
    if not isinstance(tree, tuple):
        return Flaw(Reason.FIELD_TYPE, f"an event is a JSON object, not {kind_of(tree)}", "")
    if problem := text_problem("".join([name for name, _ in tree])):
        return _flaw(Reason.FIELD_VALUE, f"has a name with {problem}", ())
    return _repeated(tree) or next(filter(None, (_rough_flaw_in(name, value, depth_max) for name, value in tree)), None)


def _repeated(members: Sequence[tuple[str, Any]]) -> Flaw | None:
    seen: set[str] = set()
    for name, _ in members:
        if name in seen:
            return _flaw(Reason.FIELD_REPEATED, "is there twice", (name,))
        seen.add(name)
    return None


def _rough_flaw_in(name: str, value: Any, depth_max: int) -> Flaw | None:
    """Look through a field's value, all that is on one level at a time."""
    level = [value]
    for depth in range(depth_max + 1):
        kinds = set(map(type, level))
        if problem := _problem_among(level, kinds):
            return _flaw(Reason.FIELD_VALUE, f"holds {problem}", (name,))
        arrays, objects = _of(list, level, kinds), _of(tuple, level, kinds)
        if depth == depth_max and (arrays or objects):
            return _flaw(Reason.TOO_DEEP, f"is nested more than {depth_max} levels deep", (name,))
        members = list(chain.from_iterable(objects))
        if problem := text_problem("".join([name for name, _ in members])):
            return _flaw(Reason.FIELD_VALUE, f"holds a name with {problem}", (name,))
        level = [*chain.from_iterable(arrays), *[value for _, value in members]]
    return None


def _of(kind: type[Any], level: list[Any], kinds: set[type[Any]]) -> list[Any]:
    return [value for value in level if type(value) is kind] if kind in kinds else []


def _problem_among(level: list[Any], kinds: set[type[Any]]) -> str | None:
    if any(map(isinf, _of(float, level, kinds))):
        return "a number out of range"
    problem = text_problem("".join(_of(str, level, kinds)))
    return problem and f"a string with {problem}"


# The close look: everything is kept as it was written, and walked value by value.


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


def _first_flaw(payload: bytes, reason: Reason, depth_max: int) -> Flaw | None:
    try:
        tree = _read(payload, _AS_WRITTEN)
    except Flaw:
        return None
    flaws = filter(None, (_flaw_at(*place, depth_max) for place in _walk(tree)))
    return next((flaw for flaw in flaws if flaw.rejected.reason is reason), None)


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
        case _Object() if problem := text_problem("".join([name for name, _ in value])):
            return _flaw(Reason.FIELD_VALUE, f"has a name with {problem}", path)
        case _NotANumber():
            return _flaw(Reason.MALFORMED_JSON, _NO_NUMBER, path)
        case _Number() if isinf(float(value)):
            return _flaw(Reason.FIELD_VALUE, "is a number out of range", path)
        case str() if not isinstance(value, _Number) and (problem := text_problem(value)):
            return _flaw(Reason.FIELD_VALUE, f"is a string with {problem}", path)
        case _:
            return None


def _refuse_shape(tree: Any, name: str) -> None:
    for path, value in _walk(tree):
        if isinstance(value, _NotANumber):
            raise _flaw(Reason.MALFORMED_JSON, _NO_NUMBER, path)
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


def _wrong_shape(message: str, field: str | None) -> Flaw:
    return Flaw(Reason.INVALID_REQUEST, message, field)


def _flaw(reason: Reason, what: str, path: Sequence[str]) -> Flaw:
    pointer = pointer_to(*path)
    return Flaw(reason, f"{pointer or 'the event'} {what}", pointer)
