"""A client who sends marked events to a running service and verifies every answer."""

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from customersignal_ingest.cli.shared import (
    Address,
    Duration,
    api_key_of,
    given,
    json_option,
    key_file_option,
    reader_of,
)
from customersignal_ingest.domain.errors import ConfigurationError, IngestError
from customersignal_ingest.proof.journal import JournalError

if TYPE_CHECKING:
    from customersignal_ingest.canary.metrics import CanaryMetrics
    from customersignal_ingest.canary.run import Plan, Summary
    from customersignal_ingest.ports import RecordReader

RATE_MIN, RATE_MAX = 0.001, 20.0
"""Events a second. More would be a load, and no canary."""

TEXTFILE_INTERVAL_S = 5.0

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def _url(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if (
        not good
        or not value.isprintable()
        or " " in value
        or parts.username
        or parts.password
        or parts.query
        or parts.fragment
    ):
        raise click.BadParameter("expected one as in https://ingest.example, without user, password and query")
    return value


def _rate(_: click.Context, __: click.Parameter, value: float) -> float:
    if not RATE_MIN <= value <= RATE_MAX:  # Nor is it no number at all, which click lets through.
        raise click.BadParameter(f"expected {RATE_MIN:g} to {RATE_MAX:g} events a second")
    return value


@click.command()
@click.option("--url", required=True, callback=_url, help="Where the service is, as in https://ingest.example.")
@click.option("--tenant", required=True, help="Whose the API key is; a tenant of its own is best.")
@click.option("--project", help="The project of the API key, if it has one.")
@key_file_option
@click.option("--rate", type=float, callback=_rate, default=1.0, show_default=True, help="So many events a second.")
@click.option("--for", "lasts", type=Duration(), help="How long, as in 10m; without it until SIGTERM or Ctrl-C.")
@click.option("--round", "every", type=Duration(), default="1m", show_default=True, help="How often to verify.")
@click.option("--settle", type=Duration(), default="30s", show_default=True, help="How long after the last answer.")
@click.option(
    "--journals",
    type=click.Path(file_okay=False, path_type=Path),
    default="canary",
    show_default=True,
    help="Folder for journals; those in which something was wrong stay there.",
)
@click.option("--metrics", type=Address(), help="Serve Prometheus metrics at ADDRESS:PORT.")
@click.option("--textfile", type=click.Path(dir_okay=False, path_type=Path), help="Write them to this file, too.")
@json_option
def canary(
    url: str,
    tenant: str,
    project: str | None,
    key_file: Path | None,
    rate: float,
    lasts: timedelta | None,
    every: timedelta,
    settle: timedelta,
    journals: Path,
    metrics: tuple[str, int] | None,
    textfile: Path | None,
    as_json: bool,
) -> None:
    """Send marked events to a service and verify them, again and again: exit code 0 if all answers were true.

    Reads back from the store, so it has the service's setting CS_INGEST_PUBLISHER_URL. A service or store
    that is away is counted, and is no finding.
    """
    from customersignal_ingest.canary.metrics import CanaryMetrics
    from customersignal_ingest.canary.run import Plan

    settings, api_key = given(), _sendable(api_key_of(key_file))
    plan = Plan(
        tenant_id=tenant,
        folder=journals,
        project_id=project,
        rate=rate,
        for_s=None if lasts is None else lasts.total_seconds(),
        round_s=every.total_seconds(),
        settle_s=settle.total_seconds(),
    )
    reader, counts = reader_of(settings, instance="canary"), CanaryMetrics()
    with _log(settings.log_level, as_json=as_json) as log, _served(counts, metrics):
        _look_at_folder(journals, log)
        summary = asyncio.run(_lived(plan, url, api_key, reader, counts, log, textfile))
        log.info(
            "ended",
            events=summary.events,
            accepted=summary.accepted,
            verified=summary.verified,
            findings=summary.findings,
            **{"rounds.unverified": summary.rounds_unverified},
        )
    if not summary.accepted:
        raise ConfigurationError("nothing was accepted, so nothing was verified")
    if not summary.good:
        sys.exit(1)


def _sendable(api_key: str) -> str:
    """Return the key; one that no header can carry would be named in every error of the client library."""
    if not (api_key and api_key.isascii() and api_key.isprintable()) or " " in api_key:
        raise ConfigurationError("the API key is empty, or has characters that no key has")
    return api_key


async def _lived(
    plan: "Plan",
    url: str,
    api_key: str,
    reader: "RecordReader",
    counts: "CanaryMetrics",
    log: Any,
    textfile: Path | None,
) -> "Summary":
    from customersignal_ingest.canary.http import opened
    from customersignal_ingest.canary.run import IN_FLIGHT_MAX, REQUEST_TIMEOUT_S, Canary

    async with opened(url, api_key, connections_max=IN_FLIGHT_MAX, timeout_s=REQUEST_TIMEOUT_S) as post:
        asked = asyncio.Event()
        bird = Canary(plan=plan, post=post, reader=reader, metrics=counts, log=log, asked=asked)
        life = asyncio.create_task(bird.run())
        _listen(life, asked)
        log.info("started", url=url, tenant_id=plan.tenant_id, rate=plan.rate, journals=str(plan.folder))
        while not life.done():
            await asyncio.wait({life}, timeout=TEXTFILE_INTERVAL_S)
            _write(textfile, counts, log)
    return _result(life)


def _listen(life: "asyncio.Task[Summary]", asked: asyncio.Event) -> None:
    """Have the first signal ask it to stop, and the second end it."""

    def hear() -> None:
        if asked.is_set():
            life.cancel()
        asked.set()

    for number in _SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, hear)


def _result(life: "asyncio.Task[Summary]") -> "Summary":
    if life.cancelled():
        raise IngestError("ended before everything was verified")
    try:
        return life.result()
    except ExceptionGroup as group:
        first = group.exceptions[0]
        if isinstance(first, OSError | JournalError):
            raise ConfigurationError(f"a journal can't be written: {first}") from group
        raise first from group


def _write(textfile: Path | None, counts: "CanaryMetrics", log: Any) -> None:
    from prometheus_client import write_to_textfile

    if textfile is not None:
        try:
            write_to_textfile(str(textfile), counts.registry)
        except OSError as error:
            log.warning("metrics can't be written", reason=str(error))


@contextmanager
def _log(level: Any, *, as_json: bool) -> Iterator[Any]:
    import structlog

    from customersignal_ingest import logs

    writer = logs.configure(level=level, form="console" if sys.stdout.isatty() and not as_json else "json")
    try:
        yield structlog.get_logger("customersignal_ingest")
    finally:
        writer.close()


@contextmanager
def _served(counts: "CanaryMetrics", address: tuple[str, int] | None) -> Iterator[None]:
    """Serve the metrics while the block runs."""
    from prometheus_client import start_http_server

    if address is None:
        yield
        return
    try:
        server, thread = start_http_server(address[1], address[0], counts.registry)
    except OSError as error:
        raise ConfigurationError(f"metrics can't be served at {address[0]}:{address[1]}: {error.strerror}") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _look_at_folder(journals: Path, log: Any) -> None:
    """Make it, and say what an earlier canary has left there."""
    try:
        journals.mkdir(parents=True, exist_ok=True)
        left = sum(1 for _ in journals.glob("*.jsonl"))
    except OSError as error:
        raise ConfigurationError(f"{journals} can't be used: {error.strerror}") from error
    if left:
        hint = f"wrong, or never verified: cs-ingest verify {journals}/*.jsonl"
        log.warning("journals are left from earlier", number=left, reason=hint)
