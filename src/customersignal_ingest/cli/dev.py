"""The service for a first look: embedded stores in `./data`, a demo tenant, loopback only."""

import asyncio
import os
import secrets
import shutil
import sys
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from customersignal_ingest.cli.service import leave_at_once, run_service
from customersignal_ingest.cli.shared import DATA, DEMO_KEY, PEPPER, with_dev_stores
from customersignal_ingest.domain.errors import ConfigurationError, Unauthenticated

if TYPE_CHECKING:
    from customersignal_ingest.adapters.outbound.sql import SqlKeys
    from customersignal_ingest.bootstrap import Container
    from customersignal_ingest.environment import Effective
    from customersignal_ingest.serve import Started
    from customersignal_ingest.settings import Settings

TENANT = "acme"

_EVENT = '{"event_type":"signed_up","timestamp":"2026-11-23T10:00:00Z","user_id":"u1","properties":{"plan":"pro"}}'
_STORES = ("publisher_url", "keys_url", "key_pepper", "workers")


@click.command()
def dev() -> None:
    """Run the service on embedded stores in ./data, with a demo tenant and key."""
    leave_at_once()
    from customersignal_ingest.adapters.inbound.http.port import refuse_taken, resolved
    from customersignal_ingest.environment import read_settings

    effective = read_settings()
    _refuse_others(effective)
    address = resolved(effective.settings.address)
    if not ip_address(address[0]).is_loopback:
        raise ConfigurationError(f"dev is for this machine alone, so CS_INGEST_LISTEN can't be {address[0]}: use serve")
    refuse_taken(address)
    settings = _made(effective.settings)
    sys.exit(run_service(settings, on_started=_welcome))


def _refuse_others(effective: "Effective") -> None:
    from customersignal_ingest.settings import variable

    for name in _STORES:
        if effective.origins[name] != "default":
            raise ConfigurationError(f"dev has stores of its own, so {variable(name)} has no place here: use serve")


def _made(settings: "Settings") -> "Settings":
    """Make what is missing in the folder, keep what is there, and return the settings for it."""
    from customersignal_ingest.bootstrap import Container

    DATA.mkdir(exist_ok=True)
    if not PEPPER.exists():
        _write_secret(PEPPER, secrets.token_hex(32))
    settings = with_dev_stores(settings)
    asyncio.run(_make_keys(Container(settings)))
    return settings


async def _make_keys(container: "Container") -> None:
    from customersignal_ingest.cli.keys import make_key

    store = cast("SqlKeys", container.keys())
    try:
        if not (DATA / "keys.db").exists() or not (await store.schema_state()).good:
            await store.migrate()
        await store.create_tenant(TENANT)
        if not await _is_good(container):
            made = await make_key(
                store, container.settings().peppers[0], tenant_id=TENANT, environment="test", name="demo"
            )
            _write_secret(DEMO_KEY, made.secret)
    finally:
        await store.close()


async def _is_good(container: "Container") -> bool:
    if not DEMO_KEY.exists():
        return False
    try:
        await container.authenticate()(DEMO_KEY.read_text().strip())
    except Unauthenticated:
        return False
    return True


def _write_secret(path: Path, text: str) -> None:
    """Write a file that only this user can read, whole or not at all."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _welcome(started: "Started") -> None:
    listen = started.settings.listen
    click.echo(f"""\
  events   sqlite  ./{DATA}/events.db    durable: every 202 is on this disk first
  keys     sqlite  ./{DATA}/keys.db      demo tenant "{TENANT}"
  key      {DEMO_KEY.read_text()[:14]}…  in ./{DEMO_KEY}
  open     http://{listen}/schema  (the API)   http://{listen}/health/ready
  read     {_program()} tail  (what is stored)
  try      {curl(listen)}
ready in {timedelta(seconds=started.seconds).total_seconds():.1f} s · Ctrl-C stops it, nothing is lost""")


def _program() -> str:
    """Return how this program is called from here: by its name where that is found, else where `make run` put it."""
    return "cs-ingest" if shutil.which("cs-ingest") else os.path.relpath(Path(sys.executable).with_name("cs-ingest"))


def curl(listen: str, /) -> str:
    """Return the command line that sends a first event; any curl since 2018 knows all of it."""
    return (
        f'curl -i http://{listen}/v1/events -H "X-CS-API-Key: $(cat {DEMO_KEY})"'
        f" -H 'Content-Type: application/json' -d '{_EVENT}'"
    )
