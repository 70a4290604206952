"""API keys in a SQL database: PostgreSQL for production, a SQLite file for one machine.

URLs: `postgresql://user:password@host:5432/database` (`postgres://` too), with
- `sslmode`: as in libpq, `disable` to `verify-full`; without it TLS is used where the server offers it;
- `sslrootcert`: a file with the authorities to trust for `verify-ca` and `verify-full`;
- `host`: another host, or the directory of a Unix socket;
- `pool_size`: connections at the most, 5; one more listens for changes.

`sqlite:///relative.db` or `sqlite:////absolute.db`, which takes no parameters.

What a change means: it is committed when the method returns, on SQLite with `synchronous=FULL`.
Ordering: changes to one key happen in the order of their commits.
Limits: a look-up ends within one second, in `Unavailable` if need be, also with the database frozen;
as many look-ups as there are connections run at a time. Ping logs in and compares the schema.
"""

from customersignal_ingest.adapters.outbound.sql.backend import backend_at
from customersignal_ingest.adapters.outbound.sql.keys import SqlKeys
from customersignal_ingest.registry import AdapterSettings

__all__ = ["SqlKeys", "open_key_repository"]


def open_key_repository(url: str, /, *, settings: AdapterSettings) -> SqlKeys:
    """Return the key store at this URL; nothing is connected yet."""
    return SqlKeys(backend_at(url, instance=settings.instance))
