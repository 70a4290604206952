"""Tenants and API keys."""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from customersignal_ingest.cli.shared import Duration, given, json_option, print_json, print_rows
from customersignal_ingest.domain.errors import ConfigurationError, IngestError
from customersignal_ingest.domain.event import rfc3339
from customersignal_ingest.domain.key import ApiKey, Environment, Tenant, digest, new_key, pepper_id
from customersignal_ingest.ports import KeyStore

if TYPE_CHECKING:
    from customersignal_ingest.settings import Settings

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TEXT_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MadeKey:
    """A key and its secret, which is shown this once."""

    key: ApiKey
    secret: str


def _tenant_id(_: click.Context, __: click.Parameter, value: str) -> str:
    if not _NAME.fullmatch(value):
        raise click.BadParameter("expected 1 to 128 letters, digits, '.', '_' or '-', the first a letter or digit")
    return value


def _short_text(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and not (1 <= len(value) <= _TEXT_MAX and value.isprintable()):
        raise click.BadParameter(f"expected 1 to {_TEXT_MAX} printable characters")
    return value


async def make_key(
    store: KeyStore,
    pepper: bytes,
    /,
    *,
    tenant_id: str,
    project_id: str | None = None,
    environment: Environment = "live",
    expires_in: timedelta | None = None,
    name: str | None = None,
) -> MadeKey:
    """Make a key of an existing tenant and keep its digest; the secret is in what is returned, and nowhere else."""
    new, now = new_key(environment, os.urandom), datetime.now(UTC)
    key = ApiKey(
        key_id=new.key_id,
        tenant=Tenant(tenant_id=tenant_id, project_id=project_id, environment=environment, key_id=new.key_id),
        name=name,
        created_at=now,
        expires_at=None if expires_in is None else now + expires_in,
        pepper_id=pepper_id(pepper),
    )
    await store.add_key(key, digest(new.secret, pepper))
    return MadeKey(key=key, secret=new.secret)


@click.command()
@json_option
def migrate(as_json: bool) -> None:
    """Bring the key database to the newest schema."""

    async def bring_to_newest(store: Any) -> str | None:
        return await store.migrate() if hasattr(store, "migrate") else None

    schema = _with_store(bring_to_newest)
    if as_json:
        print_json({"schema": schema})
    else:
        click.echo("these keys have no schema" if schema is None else f"the key database is at schema {schema}")


@click.group()
def tenants() -> None:
    """Tenants, whom keys speak for."""


@tenants.command("create")
@click.argument("tenant", callback=_tenant_id)
@json_option
def create_tenant(tenant: str, as_json: bool) -> None:
    """Make a tenant; one that is there already is left as it is."""
    created = _with_store(lambda store: _lasting(store).create_tenant(tenant))
    if as_json:
        print_json({"tenant_id": tenant, "created": created})
    else:
        click.echo(f"tenant {tenant} " + ("made" if created else "was there already"))


@tenants.command("list")
@json_option
def list_tenants(as_json: bool) -> None:
    """List all tenants."""
    found = _with_store(lambda store: _lasting(store).tenants())
    print_rows([{"tenant_id": tenant_id} for tenant_id in found], as_json=as_json)


@click.group()
def keys() -> None:
    """API keys: made, listed, revoked, replaced. Only digests are kept."""


@keys.command("create")
@click.option("--tenant", required=True, callback=_tenant_id, help="Whom the key speaks for.")
@click.option("--project", callback=_short_text, help="The one project that it may send to.")
@click.option("--environment", type=click.Choice(["live", "test"]), default="live", show_default=True)
@click.option("--expires-in", type=Duration(), help="How long it is good: 90d, 12h, 30m.")
@click.option("--name", callback=_short_text, help="What it is for.")
@json_option
def create_key(
    tenant: str,
    project: str | None,
    environment: Environment,
    expires_in: timedelta | None,
    name: str | None,
    as_json: bool,
) -> None:
    """Make an API key and print its secret, this once."""
    pepper = given().peppers[0]
    made = _with_store(
        lambda store: make_key(
            _lasting(store),
            pepper,
            tenant_id=tenant,
            project_id=project,
            environment=environment,
            expires_in=expires_in,
            name=name,
        )
    )
    _show(made, as_json=as_json)


@keys.command("list")
@click.option("--tenant", callback=lambda c, p, v: v and _tenant_id(c, p, v), help="Only the keys of this tenant.")
@json_option
def list_keys(tenant: str | None, as_json: bool) -> None:
    """List API keys, oldest first, without their secrets.

    A key's pepper is `first` or `second` of those that are set, `other` if neither, and empty where
    nobody knows.
    """
    found, settings = _with_store(lambda store: _lasting(store).keys(tenant)), given()
    places = _places_of(settings.peppers if settings.key_pepper else ())
    rows = [_facts(key) | {"pepper": key.pepper_id and places.get(key.pepper_id, "other")} for key in found]
    print_rows(rows, as_json=as_json)


@keys.command("revoke")
@click.argument("key_id")
@json_option
def revoke_key(key_id: str, as_json: bool) -> None:
    """Refuse a key from now on."""
    key = _with_store(lambda store: _lasting(store).revoke(key_id, datetime.now(UTC)))
    if as_json:
        print_json(_facts(key))
    else:
        click.echo(f"key {key_id} is revoked")


@keys.command("rotate")
@click.argument("key_id")
@click.option("--grace", type=Duration(), default="24h", show_default=True, help="How long the old key stays good.")
@click.option("--expires-in", type=Duration(), help="How long the new key is good; by default as long as the old was.")
@json_option
def rotate_key(
    key_id: str,
    grace: timedelta,
    expires_in: timedelta | None,
    as_json: bool,
) -> None:
    """Make a key that replaces another, which expires after a grace period."""
    pepper = given().peppers[0]

    async def rotate(store: Any) -> tuple[MadeKey, ApiKey]:
        old = await _usable(_lasting(store), key_id)
        made = await make_key(
            store,
            pepper,
            tenant_id=old.tenant.tenant_id,
            project_id=old.tenant.project_id,
            environment=old.tenant.environment,
            expires_in=expires_in or _lifetime(old),
            name=old.name,
        )
        # First the new one: whatever happens in between, the client has a key that works.
        return made, await store.expire(key_id, datetime.now(UTC) + grace)

    made, old = _with_store(rotate)
    _show(made, as_json=as_json)
    expires_at = "never" if old.expires_at is None else rfc3339(old.expires_at)
    click.echo(f"the old key {key_id} stays good until {expires_at}", err=True)


async def _usable(store: KeyStore, key_id: str) -> ApiKey:
    found = {key.key_id: key for key in await store.keys()}.get(key_id)
    if found is None:
        raise LookupError(f"there is no key {key_id!r}")
    if found.revoked_at is not None:
        raise LookupError(f"the key {key_id!r} is revoked: create a new one")
    return found


def _lifetime(key: ApiKey) -> timedelta | None:
    return None if key.expires_at is None or key.created_at is None else key.expires_at - key.created_at


def _with_store(work: Callable[[Any], Awaitable[T]]) -> T:
    """Do this work on the key store of the settings, and close it; what is not there is one clear line."""
    try:
        return asyncio.run(_work_on(given(), work))
    except LookupError as error:
        raise IngestError(str(error.args[0])) from error


async def _work_on(settings: "Settings", work: Callable[[Any], Awaitable[T]]) -> T:
    from customersignal_ingest.bootstrap import Container

    store = Container(settings).keys()
    try:
        return await work(store)
    finally:
        if hasattr(store, "close"):
            await store.close()


def _lasting(store: Any) -> KeyStore:
    """Return the store if what is changed in it is there afterwards."""
    from customersignal_ingest.adapters.outbound.memory import MemoryKeys

    if not hasattr(store, "add_key"):
        raise ConfigurationError("this key repository can be read only")
    if isinstance(store, MemoryKeys):
        raise ConfigurationError("keys in memory end with this command: set CS_INGEST_KEYS_URL to a database")
    return cast("KeyStore", store)


def _show(made: MadeKey, *, as_json: bool) -> None:
    """Print the secret to standard output, and everything else beside it."""
    tenant, expires_at = made.key.tenant, _text(made.key.expires_at)
    if as_json:
        print_json(
            {
                "key_id": made.key.key_id,
                "secret": made.secret,
                "tenant_id": tenant.tenant_id,
                "project_id": tenant.project_id,
                "environment": tenant.environment,
                "expires_at": expires_at,
            }
        )
        return
    click.echo(made.secret)
    click.echo(
        f"shown this once; id {made.key.key_id}, tenant {tenant.tenant_id}, expires {expires_at or 'never'}", err=True
    )


def _facts(key: ApiKey) -> dict[str, str | None]:
    return {
        "key_id": key.key_id,
        "tenant_id": key.tenant.tenant_id,
        "project_id": key.tenant.project_id,
        "environment": key.tenant.environment,
        "name": key.name,
        "created_at": _text(key.created_at),
        "expires_at": _text(key.expires_at),
        "revoked_at": _text(key.revoked_at),
        "last_used_at": _text(key.last_used_at),
    }


def _places_of(peppers: Sequence[bytes]) -> dict[str, str]:
    """Return which of the peppers that are set each one's id names."""
    return dict(zip(map(pepper_id, peppers), ("first", "second"), strict=False))


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)
