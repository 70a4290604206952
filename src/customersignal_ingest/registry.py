"""Finds adapters by URL scheme, through entry points: ours in the same way as a stranger's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal
from urllib.parse import parse_qsl

from customersignal_ingest.domain.errors import ConfigurationError

Group = Literal["publishers", "key_repositories", "readers", "transports"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSettings:
    """What an adapter may need beside its URL.

    `secrets` holds further settings by name, in lower case and without the prefix: what does not
    belong into a URL. `instance` names this process to other systems.
    """

    publish_timeout_s: float = 15.0
    event_bytes_max: int = 900_000
    instance: str = "local"
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


def open_url(group: Group, url: str, /, **given: Any) -> Any:
    """Make the adapter that the URL's scheme names; nothing is connected yet.

    `given` is what its factory takes beside the URL: `settings` (`AdapterSettings`), for a transport
    `entrance` (`Entrance`).

    Raises `ConfigurationError` for a scheme that no installed package provides, for an adapter that
    lacks a package of its own, and for what the adapter itself does not accept in the URL.
    """
    found = _entry_point(group, url)
    try:
        factory = found.load()
    except ImportError as error:
        raise ConfigurationError(
            f"{found.name!r} needs the package {error.name!r}, which is not installed: install the extra that brings it"
        ) from error
    return factory(url, **given)


def schemes(group: Group, /) -> tuple[str, ...]:
    """Return the URL schemes of a group that can be used here, sorted."""
    return tuple(sorted({found.name for found in entry_points(group=_full_name(group))}))


def url_parameters(url: str, known: Mapping[str, Callable[[str], Any]], /) -> dict[str, Any]:
    """Return the query parameters of the URL, each read by its own function.

    Raises `ConfigurationError` for one that is not known, is there twice, or can't be read, which is a
    `ValueError` of its function, best an `Expected`.
    """
    found: dict[str, Any] = {}
    for name, value in parse_qsl(_query(url), keep_blank_values=True):
        if name not in known:
            raise ConfigurationError(f"unknown URL parameter {name!r}: {nearest(name, tuple(sorted(known)))}")
        if name in found:
            raise ConfigurationError(f"URL parameter {name!r} is there twice")
        try:
            found[name] = known[name](value)
        except ValueError as error:
            # Other errors may repeat the value, which may be a password in the wrong place.
            flaw = error if isinstance(error, Expected) else "its value can't be read"
            raise ConfigurationError(f"URL parameter {name!r}: {flaw}") from error
    return found


class Expected(ValueError):
    """Says what the value of a URL parameter should have been, and nothing of what it is."""

    def __init__(self, what: str) -> None:
        """`what` goes on after "expected"."""
        super().__init__(f"expected {what}")


def whole_number(least: int, most: int, /) -> Callable[[str], int]:
    """Return a reader of URL parameters that are such a number."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise Expected(f"a whole number from {least} to {most}")
        return int(text)

    return read


def one_of(*words: str) -> Callable[[str], str]:
    """Return a reader of URL parameters that are one of these words."""

    def read(text: str) -> str:
        if text not in words:
            raise Expected(f"one of {', '.join(words)}")
        return text

    return read


def _query(url: str) -> str:
    # Not by `urlsplit`, for which the servers of a Kafka URL may be none.
    return url.partition("#")[0].partition("?")[2]


def _entry_point(group: Group, url: str) -> EntryPoint:
    scheme, separator, _ = url.partition(":")
    for found in entry_points(group=_full_name(group)):
        if separator and found.name == scheme:
            return found
    # What stands before the colon may be a password by mistake: a scheme we do not know is not echoed whole.
    raise ConfigurationError(f"no adapter for URL scheme {scheme[:20]!r}: {nearest(scheme, schemes(group))}")


def nearest(wrong: str, known: tuple[str, ...], /) -> str:
    """Say which known name was most likely meant, and which there are."""
    close = get_close_matches(wrong, known, n=1, cutoff=0.6)
    return (f"did you mean {close[0]!r}? " if close else "") + f"known are {', '.join(known) or 'none'}"


def _full_name(group: Group) -> str:
    return f"customersignal_ingest.{group}"
