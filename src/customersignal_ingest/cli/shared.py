"""What several commands need: settings as given, options, ways to print."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import click

from customersignal_ingest.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from customersignal_ingest.domain.event import Place
    from customersignal_ingest.ports import RecordReader
    from customersignal_ingest.settings import Settings

DATA = Path("data")
DEMO_KEY = DATA / "demo.key"
PEPPER = DATA / "pepper"
API_KEY = "CS_API_KEY"
"""The variable with the API key to send with: a client's, not a setting of the service."""

_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DAYS_MAX = 36_500

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")

key_file_option = click.option(
    "--key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"File with the API key to send with; else the variable {API_KEY}, else {DEMO_KEY}.",
)


class Duration(click.ParamType[timedelta]):
    """A span of time such as 90d, 12h or 30m."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read it."""
        if isinstance(value, timedelta):
            return value
        number, unit = value[:-1], value[-1:]
        if not (number.isascii() and number.isdigit() and len(number) < 10) or unit not in _UNITS_S:
            self.fail(f"{value!r} is no duration: expected a number and s, m, h, d or w, as in 90d", param, ctx)
        seconds = int(number) * _UNITS_S[unit]
        if not 0 < seconds <= _DAYS_MAX * _UNITS_S["d"]:
            self.fail(f"{value!r} is out of range: expected more than nothing and at most {_DAYS_MAX}d", param, ctx)
        return timedelta(seconds=seconds)


class Moment(click.ParamType[datetime]):
    """A moment with a zone, `now`, or a duration that counts back from now."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read it."""
        if isinstance(value, datetime):
            return value
        if value == "now":
            return datetime.now(UTC)
        if value[-1:] in _UNITS_S:
            return datetime.now(UTC) - Duration().convert(value, param, ctx)
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            self.fail(f"{value!r} is no moment: expected one as in 2026-11-23T10:00:00Z, or 10m, or now", param, ctx)
        return moment


class Address(click.ParamType[tuple[str, int]]):
    """An address and a port."""

    name = "address:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Read it."""
        parts = urlsplit(f"//{value}")
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or not port or parts.netloc != value:
            self.fail(f"{value!r} is no address and port: expected one as in 127.0.0.1:9464", param, ctx)
        return host, port


class Receipt(click.ParamType[Any]):
    """A receipt, as answers have it."""

    name = "receipt"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "Place":
        """Read it."""
        from customersignal_ingest.domain.event import Place

        topic, partition, offset = ([*str(value).rsplit("/", 2), "", ""])[:3]
        if not (topic and partition.isdecimal() and offset.isdecimal()):
            self.fail(f"{value!r} is no receipt: expected topic/partition/offset, as in events_raw/3/1289", param, ctx)
        return Place(int(partition), int(offset))


def given() -> "Settings":
    """Return the settings of the environment; where it names no store, those that `cs-ingest dev` made here."""
    from customersignal_ingest.environment import read_settings

    settings = read_settings().settings
    if settings.publisher_url is None and settings.keys_url is None and (DATA / "events.db").exists():
        return with_dev_stores(settings)
    return settings


def with_dev_stores(settings: "Settings", /) -> "Settings":
    """Return the settings with the stores of `cs-ingest dev`."""
    from customersignal_ingest.settings import Settings

    stores = {
        "publisher_url": f"sqlite:///{DATA / 'events.db'}",
        "keys_url": f"sqlite:///{DATA / 'keys.db'}",
        "key_pepper": PEPPER.read_text().strip(),
        "workers": 1,
        "drain_delay_s": 0,
    }
    return Settings(**(settings.model_dump(exclude_unset=True) | stores))


def reader_of(settings: "Settings", /, *, instance: str) -> "RecordReader":
    """Return the reader of what the service with these settings stores; nothing is connected yet."""
    from customersignal_ingest.registry import open_url

    url = settings.required("publisher_url")
    if settings.publisher_scheme == "memory":
        raise ConfigurationError("events in memory can't be read from another process")
    return cast("RecordReader", open_url("readers", url, settings=settings.for_adapters(instance=instance)))


def api_key_of(key_file: Path | None, /) -> str:
    """Return the API key to send with: the file's, else the variable's, else that of `cs-ingest dev`."""
    if key_file is None and (key := os.environ.get(API_KEY)):
        return key
    if key_file is None and not DEMO_KEY.exists():
        raise ConfigurationError(f"an API key is needed: --key-file, or the variable {API_KEY}")
    return (key_file or DEMO_KEY).read_text().strip()


def plain(text: str, /) -> str:
    """Return the text with whatever is not printable as an escape: it may be a client's."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def print_json(value: Mapping[str, Any], /) -> None:
    """Print one object on a line of its own."""
    click.echo(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def print_rows(rows: Sequence[Mapping[str, str | None]], /, *, as_json: bool) -> None:
    """Print each row as an object, or all of them in aligned columns."""
    if as_json:
        for row in rows:
            print_json(row)
        return
    widths = {name: max([len(name), *(len(row[name] or "-") for row in rows)]) for row in rows[:1] for name in row}
    if sys.stdout.isatty() and rows:
        click.echo("  ".join(name.ljust(width) for name, width in widths.items()).rstrip())
    for row in rows:
        click.echo("  ".join((row[name] or "-").ljust(width) for name, width in widths.items()).rstrip())
