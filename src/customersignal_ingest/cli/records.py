"""Stored events read back, and events sent from a file or a pipe."""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from customersignal_ingest.cli.shared import (
    Moment,
    Receipt,
    api_key_of,
    given,
    json_option,
    key_file_option,
    plain,
    print_json,
    reader_of,
)
from customersignal_ingest.domain.errors import IngestError, Unauthenticated
from customersignal_ingest.domain.event import Place, StoredRecord
from customersignal_ingest.domain.outcome import NotStored, Refused, Rejected, Stored

if TYPE_CHECKING:
    from customersignal_ingest.adapters.inbound.stdin import Answer, Totals
    from customersignal_ingest.settings import Settings


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on with what is stored from now on.")
@click.option("--tenant", help="Only the events of this tenant.")
@click.option("--since", type=Moment(), help="Only what arrived since 2026-11-23T10:00:00Z, in the last 10m, or now.")
@click.option("--from", "start", type=Receipt(), help="Only that receipt and what follows in its partition.")
@json_option
def tail(follow: bool, tenant: str | None, since: datetime | None, start: "Place | None", as_json: bool) -> None:
    """Print stored events, oldest first."""
    reader = reader_of(given(), instance="tail")

    async def show() -> None:
        async for record in reader.read(follow=follow, since=since, start=start):
            if tenant is None or dict(record.headers).get("tenant_id") == tenant.encode():
                click.echo(_as_json(record) if as_json else _as_line(record))

    asyncio.run(show())


def _as_json(record: StoredRecord) -> str:
    """Return one object on a line. The value is the record's own JSON: no number changes on the way."""
    moment = datetime.fromtimestamp(record.timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
    facts = {
        "receipt": record.receipt,
        "key": record.key.decode(errors="replace"),
        "timestamp": moment,
        "headers": {name: value.decode(errors="replace") for name, value in record.headers},
    }
    value = record.value.decode(errors="replace")
    try:
        json.loads(value)
    except ValueError:  # Somebody else's record: shown as text, so that the line is JSON whatever is in it.
        value = json.dumps(value)
    value = value.replace("\r", " ").replace("\n", " ")  # Between values: JSON has none within a string.
    return f'{json.dumps(facts, ensure_ascii=False, separators=(",", ":"))[:-1]},"value":{value}}}'


def _as_line(record: StoredRecord) -> str:
    try:
        value = json.loads(record.value)
        properties = json.dumps(value["properties"], ensure_ascii=False, separators=(",", ":"))
        fields = [value["tenant_id"], value["event_type"], value.get("user_id", "-"), properties]
    except (ValueError, KeyError, TypeError):
        fields = ["?", "?", "?", repr(record.value[:200])]
    # A client's line break or escape sequence must not reach the terminal as such.
    return "  ".join(plain(field) for field in (record.receipt, *fields))


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@key_file_option
@json_option
def send(file: str, key_file: Path | None, as_json: bool) -> None:
    """Store the events of an NDJSON file (or - for standard input), one a line, as HTTP would."""
    settings, api_key = given(), api_key_of(key_file)
    with click.open_file(file, "rb") as stream, _progress(file) as advance:
        totals = asyncio.run(_send(settings, api_key, stream, _json_answer if as_json else _line_answer, advance))
    click.echo(f"{totals.stored} stored, {totals.rejected} rejected, {totals.failed} not confirmed", err=True)
    if totals.rejected or totals.failed:
        sys.exit(1)


async def _send(
    settings: "Settings",
    api_key: str,
    stream: IO[bytes],
    write: "Callable[[Answer], None]",
    advance: Callable[[int], None],
) -> "Totals":
    from customersignal_ingest.adapters.inbound.stdin import send_lines
    from customersignal_ingest.bootstrap import Container, opened

    async with opened(Container(settings)) as container:
        try:
            tenant = await container.authenticate()(api_key)
        except Unauthenticated as error:
            raise IngestError(f"the API key opens nothing: {error.problem}") from error
        ingest, bytes_max = container.ingest(), settings.in_force.event_bytes_max
        return await send_lines(
            stream, tenant=tenant, ingest=ingest, line_bytes_max=bytes_max, write=write, read=advance
        )


def _json_answer(answer: "Answer") -> None:
    result = answer.result
    facts: dict[str, Any] = {"line": answer.number, "status": _status(result.outcome)}
    if result.event_id is not None:
        facts["event_id"] = result.event_id
    if isinstance(result.outcome, Stored):
        facts["receipt"] = result.outcome.receipt
    else:
        facts["error"] = _error(result.outcome)
    print_json(facts)


def _line_answer(answer: "Answer") -> None:
    outcome = answer.result.outcome
    if isinstance(outcome, Stored):
        click.echo(f"{outcome.receipt}  {answer.result.event_id}")
    else:
        error = _error(outcome)
        click.echo(f"line {answer.number}  {_status(outcome)}  {error['code']}: {error['message']}")


def _status(outcome: object) -> str:
    if isinstance(outcome, Stored):
        return "accepted"
    if isinstance(outcome, Rejected | Refused):
        return "rejected"
    return "not_stored" if isinstance(outcome, NotStored) else "unknown"


def _error(outcome: Any) -> dict[str, str]:
    if isinstance(outcome, Rejected):
        where = {} if outcome.field is None else {"field": outcome.field}
        return {"code": outcome.reason, "message": outcome.message, **where}
    if isinstance(outcome, Refused):
        return {"code": "REFUSED_BY_STORE", "message": outcome.reason}
    if isinstance(outcome, NotStored):
        return {"code": "NOT_STORED", "message": outcome.reason}
    return {"code": "OUTCOME_UNKNOWN", "message": outcome.cause}


@contextmanager
def _progress(file: str) -> Iterator[Callable[[int], None]]:
    """Show how far the file is, on a terminal; the receipts go elsewhere."""
    if file == "-" or not sys.stderr.isatty() or os.environ.get("CI"):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("sending", total=Path(file).stat().st_size)
        yield lambda size_bytes: progress.update(task, advance=size_bytes)
