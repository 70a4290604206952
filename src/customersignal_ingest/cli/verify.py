"""Journals of clients, held against what is stored."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from customersignal_ingest.cli.shared import Moment, given, json_option, plain, print_json, reader_of
from customersignal_ingest.domain.errors import ConfigurationError
from customersignal_ingest.proof.journal import JournalError
from customersignal_ingest.proof.report import Finding, Report

if TYPE_CHECKING:
    from customersignal_ingest.ports import RecordReader
    from customersignal_ingest.verify import Watch

CLOCKS_APART = timedelta(minutes=10)
"""So far the clocks of clients and service may differ where `--since` is given."""

SAY_EVERY_S = 10.0


@click.command()
@click.argument(
    "journals",
    nargs=-1,
    required=True,
    metavar="JOURNAL...",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("--since", type=Moment(), help="Judge what was sent since 2026-11-23T10:00:00Z, or in the last 10m.")
@click.option("--only-journal", is_flag=True, help="Nobody else writes there: what is in no journal is wrong, too.")
@json_option
def verify(journals: tuple[Path, ...], since: datetime | None, only_journal: bool, as_json: bool) -> None:
    """Hold journals of clients against what is stored: exit code 0 if all answers were true, else 1.

    Of a client with several files the oldest comes first. docs/verifying.md has the format.
    """
    reader = reader_of(given(), instance="verify")
    report = asyncio.run(_verified(journals, reader, since, only_journal))
    for finding in report.findings:
        if as_json:
            print_json({name: value for name, value in asdict(finding).items() if value is not None})
        else:
            click.echo(_as_line(finding))
    if as_json:
        print_json(_as_object(report))
    else:
        click.echo("\n".join(_in_words(report)))
    if not report.clean:
        sys.exit(1)


async def _verified(
    journals: tuple[Path, ...], reader: "RecordReader", since: datetime | None, only_journal: bool
) -> Report:
    from customersignal_ingest.verify import verify

    read_since = None if since is None else since - CLOCKS_APART
    # Also the first sign of a store that is away, before a long journal is read in vain.
    total = sum(span.end - span.start for span in await reader.spans(since=read_since))
    try:
        with _progress(total) as watch:
            return await verify(
                journals, reader, since=read_since, sent_since=since, only_journal=only_journal, watch=watch
            )
    except JournalError as error:
        raise ConfigurationError(str(error)) from error


def _as_line(finding: Finding) -> str:
    where = [finding.journal or "-"]
    if finding.line is not None:
        where += [f"line {finding.line}", f"event {finding.index}"]
    facts = (finding.kind, finding.place or "-", finding.event_id or "-", ", ".join(where), finding.message)
    # Ids and receipts are whatever a client wrote down: nothing of it must reach the terminal as such.
    return "  ".join(map(plain, facts))


def _as_object(report: Report) -> dict[str, object]:
    counts = {each.name: getattr(report, each.name) for each in fields(report) if each.name != "findings"}
    return {"kind": "report", "clean": report.clean, **counts}


def _in_words(report: Report) -> Iterator[str]:
    if (more := report.wrong.total() - len(report.findings)) > 0:
        yield f"and {more} more"
    yield (
        f"{report.events} events in {report.requests} requests: {report.accepted} accepted, {report.refused} refused, "
        f"{report.unknown} unknown, {report.unanswered} of these without an answer"
    )
    yield (
        f"{report.records} records: {report.accepted_found} of accepted events, {report.unknown_stored} of unknown "
        f"ones, {report.stored_again} of what was sent again, {report.not_in_journal} in no journal"
    )
    if report.not_looked_at:
        yield f"{report.not_looked_at} accepted events were sent earlier and not looked at"
    if report.torn_lines:
        yield f"{report.torn_lines} journals end within a line, whose request had not left"
    yield (
        "wrong: " + ", ".join(f"{n} {kind}" for kind, n in report.wrong.items()) if report.wrong else "nothing is wrong"
    )


@contextmanager
def _progress(records: int) -> "Iterator[Watch]":
    """Show on standard error how far it is: bars on a terminal, else a line every now and then."""
    if not sys.stderr.isatty() or os.environ.get("CI"):
        yield lines(records)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks = {
            "lines": progress.add_task("journal", total=None),
            "records": progress.add_task("store", total=records),
        }
        yield lambda what, count: progress.update(tasks[what], completed=count)


def lines(records: int, /, *, clock: Callable[[], float] = time.monotonic) -> "Watch":
    """Return what says in plain lines how far it is, at most every `SAY_EVERY_S` seconds."""
    said_at = clock()

    def say(what: str, count: int) -> None:
        nonlocal said_at
        if clock() - said_at >= SAY_EVERY_S:
            said_at = clock()
            of = f" of {records}" if what == "records" else ""
            click.echo(f"cs-ingest: {count}{of} {what} read", err=True)

    return say
