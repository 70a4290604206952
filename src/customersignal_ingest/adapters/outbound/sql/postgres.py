"""PostgreSQL, by asyncpg: what is its own about connecting."""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self
from weakref import WeakSet

import asyncpg
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from customersignal_ingest.domain.errors import ConfigurationError
from customersignal_ingest.registry import one_of, whole_number

_POOL_RECYCLE_S = 300
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


@dataclass(frozen=True, slots=True, kw_only=True)
class Postgres:
    """The key database on a server. `timeout_s` bounds logging in, and each statement."""

    login: Mapping[str, Any] = field(repr=False)
    timeout_s: float = 1.0
    pool_size: int = 5
    # Closing waits for the server, without end when it is frozen: so we keep what is to be cut.
    connections: WeakSet[asyncpg.Connection] = field(init=False, default_factory=WeakSet, repr=False)

    name: ClassVar[str] = "PostgreSQL"
    errors: ClassVar[tuple[type[Exception], ...]] = (
        SQLAlchemyError,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        OSError,
    )
    read_options: ClassVar[Mapping[str, Any]] = {"isolation_level": "AUTOCOMMIT"}  # One round trip, not three.
    PARAMETERS: ClassVar[Mapping[str, Callable[[str], Any]]] = {
        "host": str,
        "pool_size": whole_number(1, 100),
        "sslmode": one_of(*_SSL_MODES),
        "sslrootcert": str,
    }

    @classmethod
    def at(cls, url: URL, parameters: Mapping[str, Any], /, *, instance: str) -> Self:
        """Read the URL; what it leaves out is taken from where libpq takes it (`PGHOST`, `~/.pgpass`, …)."""
        login = {
            "host": parameters.get("host", url.host),
            "port": url.port,
            "user": url.username,
            "password": url.password,
            "database": url.database or None,
            "ssl": _tls(parameters.get("sslmode"), parameters.get("sslrootcert")),
            "server_settings": {"application_name": f"cs-ingest {instance}"},
        }
        return cls(login=login, pool_size=parameters.get("pool_size", 5))

    def for_migration(self) -> Self:
        """Return the same database with time for long statements, and to wait for other migrations."""
        return replace(self, timeout_s=60.0)

    async def connect(self) -> asyncpg.Connection:
        """Log in, within `timeout_s`."""
        connection = await asyncpg.connect(**self.login, timeout=self.timeout_s, command_timeout=self.timeout_s)
        self.connections.add(connection)
        return connection

    def engine(self) -> AsyncEngine:
        """Return an engine; nothing is connected yet."""
        return create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self.connect,
            pool_size=self.pool_size,
            max_overflow=0,
            pool_timeout=self.timeout_s,
            pool_recycle=_POOL_RECYCLE_S,
            hide_parameters=True,
        )

    def reason(self, error: BaseException, /) -> str:
        """Say, for people and without the password, why this error came."""
        if isinstance(error, TimeoutError):
            return f"no answer within {self.timeout_s:g} s"
        return (str(error) or type(error).__name__).replace(self.login["password"] or "\0", "***")

    def terminate_all(self) -> None:
        """Cut every connection, without a word to the server, which may be frozen."""
        for connection in tuple(self.connections):
            connection.terminate()


def _tls(mode: str | None, authorities: str | None) -> ssl.SSLContext | str | None:
    """Return what asyncpg takes; it would look for a file in the home directory to verify with."""
    if mode not in ("verify-ca", "verify-full"):
        if authorities is not None:
            raise ConfigurationError("URL parameter 'sslrootcert' needs sslmode=verify-full (or verify-ca)")
        return mode
    try:
        context = ssl.create_default_context(cafile=authorities)
    except OSError as error:
        raise ConfigurationError(f"'sslrootcert' names a file that can't be used: {authorities}") from error
    context.check_hostname = mode == "verify-full"
    return context
