"""Which database a URL names."""

from urllib.parse import urlsplit

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from customersignal_ingest.adapters.outbound.sql.postgres import Postgres
from customersignal_ingest.adapters.outbound.sql.sqlite import Sqlite
from customersignal_ingest.domain.errors import ConfigurationError
from customersignal_ingest.registry import url_parameters

Backend = Postgres | Sqlite


def backend_at(url: str, /, *, instance: str) -> Backend:
    """Return what is at this URL; `instance` names this process to the server.

    Raises `ConfigurationError`, without the URL's password, for what can't be understood.
    """
    parsed = _parse(url)
    if parsed.drivername == "sqlite":
        url_parameters(url, {})
        return Sqlite.at(parsed)
    parameters = url_parameters(url, Postgres.PARAMETERS)
    return Postgres.at(parsed, parameters, instance=instance)


def _parse(url: str) -> URL:
    try:
        parts, parsed = urlsplit(url), make_url(url)
    except (ArgumentError, ValueError):
        raise _unreadable() from None  # The cause may quote a part of the URL, the password for instance.
    # After a bare / ? or # in a password its rest stands where a name or a parameter stands, and would be quoted.
    if parsed.drivername != "sqlite" and "@" in parts.path + parts.query + parts.fragment:
        raise _unreadable()
    return parsed


def _unreadable() -> ConfigurationError:
    return ConfigurationError("the URL can't be read: is a special character in it not %-escaped?")
