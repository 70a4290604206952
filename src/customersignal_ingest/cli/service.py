"""The service itself, and questions about it."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from customersignal_ingest.cli.shared import given, json_option, print_json, print_rows
from customersignal_ingest.domain.errors import ConfigurationError, IngestError, Unavailable

if TYPE_CHECKING:
    from customersignal_ingest.bootstrap import Container
    from customersignal_ingest.serve import Started, Worker
    from customersignal_ingest.settings import Settings

CHECK_TIMEOUT_S = 5.0
PROBE_TIMEOUT_S = 2.0
_PING_INTERVAL_S = 0.2
_BODY_MAX = 100_000


@click.command()
@click.option("--worker", nargs=2, type=(int, click.Path(path_type=Path)), hidden=True)
def serve(worker: tuple[int, Path] | None) -> None:
    """Run the service, by settings, until SIGTERM."""
    leave_at_once()
    from customersignal_ingest.environment import read_settings
    from customersignal_ingest.serve import MISCONFIGURED, Worker

    try:
        settings = read_settings().settings
        one_of_several = None if worker is None else Worker(number=worker[0], folder=worker[1])
        code = run_service(settings, worker=one_of_several)
    except ConfigurationError as error:
        if worker is None:
            raise
        click.echo(f"cs-ingest: {error}", err=True)
        code = MISCONFIGURED
    sys.exit(code)


def leave_at_once() -> None:
    """Have SIGTERM and SIGINT end the process with 0 from now on: before slow imports, with nothing to finish yet."""

    def leave(_number: int, _frame: object) -> NoReturn:
        # An exception would do too, if no import ever swallowed one; then the signal would be lost.
        os._exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)


def run_service(
    settings: "Settings", /, *, on_started: "Callable[[Started], None]" = lambda _: None, worker: "Worker | None" = None
) -> int:
    """Serve with these settings, logs included, and return the exit code."""
    from customersignal_ingest import logs
    from customersignal_ingest.serve import run, run_workers

    form = settings.log_format or ("console" if sys.stdout.isatty() else "json")
    writer = logs.configure(level=settings.log_level, form=form)
    try:
        if settings.workers > 1 and worker is None:
            return run_workers(settings)
        return run(settings, log_writer=writer, on_started=on_started, worker=worker)
    finally:
        writer.close()


@click.command()
@json_option
def config(as_json: bool) -> None:
    """Show every setting in force and where it came from."""
    from customersignal_ingest.environment import read_settings
    from customersignal_ingest.settings import variable

    effective = read_settings()
    rows = [
        {"name": variable(name), "value": effective.shown(name), "origin": origin}
        for name, origin in effective.origins.items()
    ]
    print_rows(rows, as_json=as_json)


@click.command()
@json_option
def probe(as_json: bool) -> None:
    """Ask the local service whether it is ready: exit code 0 or 1."""
    from customersignal_ingest.environment import read_settings

    status, body = _ask_ready(read_settings().settings.address)
    if as_json:
        print_json({"ready": status == 200, **body})
    if status != 200:
        raise Unavailable(f"not ready: {_reasons(body) or f'status {status}'}")
    if not as_json:
        click.echo("ready")


def _ask_ready(address: tuple[str, int]) -> tuple[int, dict[str, Any]]:
    from http.client import HTTPConnection, HTTPException

    # As in adapters.inbound.http.port, which costs a second to import.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address[0], address[0])  # noqa: S104  We connect, not bind.
    connection = HTTPConnection(host, address[1], timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/health/ready")
        answer = connection.getresponse()
        body = json.loads(answer.read(_BODY_MAX))
    except (OSError, HTTPException, ValueError) as error:
        raise Unavailable(f"no answer from {host}:{address[1]}: {str(error) or type(error).__name__}") from error
    finally:
        connection.close()
    return answer.status, body if isinstance(body, dict) else {}


def _reasons(body: dict[str, Any]) -> str:
    components = body.get("components") or {}
    bad = [f"{name}: {state.get('reason')}" for name, state in components.items() if state.get("reason")]
    return "; ".join(["draining"] * bool(body.get("draining")) + bad)


@click.command()
@json_option
def check(as_json: bool) -> None:
    """Open every component and ask it, store nothing: exit code 0 or 1 with the reasons."""
    from customersignal_ingest.bootstrap import Container

    settings = given()
    rows = [{"component": "settings", "state": "ok", "reason": None}]
    rows += asyncio.run(_looked_at(Container(settings)))
    if as_json:
        print_rows(rows, as_json=True)
    else:
        for row in rows:
            click.echo(f"{row['state']:<5} {row['component']:<10} {row['reason'] or ''}".rstrip())
    if any(row["state"] != "ok" for row in rows):
        sys.exit(1)


async def _looked_at(container: "Container") -> "list[dict[str, str | None]]":
    parts: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("key_pepper", container.authenticate),
        ("keys", container.keys),
        ("publisher", container.publisher),
    )
    return [_row(name, await _reason_against(make)) for name, make in parts]


def _row(component: str, reason: str | None) -> dict[str, str | None]:
    return {"component": component, "state": "fail" if reason else "ok", "reason": reason}


async def _reason_against(make: Callable[[], Any]) -> str | None:
    """Return why this component does not work, `None` if it does."""
    try:
        component = make()
    except IngestError as error:
        return str(error)
    try:
        if hasattr(component, "open"):
            await component.open()
        return await _ping(component) if hasattr(component, "ping") else None
    except IngestError as error:
        return str(error)
    finally:
        if hasattr(component, "close"):
            await component.close()


async def _ping(component: Any) -> str | None:
    """Ask until it works: a component may connect in the background."""
    reason = "no answer"
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            while True:
                try:
                    await component.ping()
                except Unavailable as error:
                    reason = str(error)
                else:
                    return None
                await asyncio.sleep(_PING_INTERVAL_S)
    except TimeoutError:
        return reason
