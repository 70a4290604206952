"""What the core asks of the world. An adapter is a class with these methods; it inherits nothing."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Protocol

from customersignal_ingest.domain.event import Place, Record, Span, StoredRecord
from customersignal_ingest.domain.key import ApiKey, Digest
from customersignal_ingest.domain.outcome import Outcome


class EventPublisher(Protocol):
    """Stores records, durably, and says of each what became of it."""

    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        """Return one outcome a record, by position, within a deadline of the publisher's own.

        - `Stored` only once the store has confirmed that record; in doubt `Unknown`.
        - A failed delivery is an outcome, never an exception.
        - Calls may overlap. Records with one key, in one call or in calls that wait for each
          other, are stored in that order.
        - Cancelling withdraws nothing: records already handed over may still be stored.
        """
        ...


class KeyRepository(Protocol):
    """Knows API keys by their digests."""

    async def find(self, digest: Digest, /) -> ApiKey | None:
        """Return what is known of the key, revoked and expired ones included; `None` if unknown for certain.

        Calls may overlap. Raises `Unavailable` when it can't tell, within a deadline of its own.
        """
        ...


class KeyStore(KeyRepository, Protocol):
    """A key repository that operators can change: what `cs-ingest tenants` and `keys` need.

    Every method raises `Unavailable` when the store can't be reached, and `LookupError` for a
    tenant or key id that is not there. Changes are durable when a method returns.
    """

    async def create_tenant(self, tenant_id: str, /) -> bool:
        """Make the tenant; return `False` if it was there already."""
        ...

    async def tenants(self) -> Sequence[str]:
        """Return all tenant ids, sorted."""
        ...

    async def add_key(self, key: ApiKey, digest: Digest, /) -> None:
        """Keep a new key of an existing tenant, by its digest alone; `ValueError` if id or digest are there already."""
        ...

    async def keys(self, tenant_id: str | None = None, /) -> Sequence[ApiKey]:
        """Return the keys of one tenant, or all, oldest first."""
        ...

    async def revoke(self, key_id: str, at: datetime, /) -> ApiKey:
        """Refuse the key from this moment on (an earlier revocation stands), and return it."""
        ...

    async def expire(self, key_id: str, at: datetime, /) -> ApiKey:
        """Let the key expire at this moment (an earlier expiry stands), and return it."""
        ...


class RecordReader(Protocol):
    """Reads stored records back, without disturbing whoever writes: what `cs-ingest tail` and `verify` need."""

    def read(
        self, *, follow: bool = False, since: datetime | None = None, start: Place | None = None
    ) -> AsyncIterator[StoredRecord]:
        """Yield records, oldest first within a partition; end at the present end, or go on with `follow`.

        `since` leaves out what arrived earlier; `start` all partitions but one, and what stands
        before that place in it. Raises `Unavailable` when the store can't be read.
        """
        ...

    async def spans(self, *, since: datetime | None = None) -> Sequence[Span]:
        """Return for each partition what `read` with this `since` leaves nothing out of, now.

        What stands before it was deleted, or arrived earlier; a lost record within it is lost. Raises
        `Unavailable` when the store can't be read.
        """
        ...


class Transport(Protocol):
    """Brings payloads in and tells what became of each. Made with an `Entrance`; see there what it owes.

    It turns `Unauthenticated` into a "no" and `Unavailable` into a "not now", never the one into the
    other, and tells nobody "accepted" but for a `Stored` outcome.
    """

    def check(self) -> None:
        """Look whether it could open, before any store does; raises `ConfigurationError`, in one line, if not."""
        ...

    async def open(self) -> None:
        """Let payloads in from now on; raises `ConfigurationError`, in one line, when that can't be."""
        ...

    async def ended(self) -> None:
        """Return when nothing comes in any more, because of `close` or by itself."""
        ...

    async def close(self) -> bool:
        """Let nothing more in, and return once what is in flight has its answer; `False` if some was cut."""
        ...


class Resource(Protocol):
    """Something with a life: what adapters may also have, and only `bootstrap` looks for."""

    async def open(self) -> None:
        """Get ready. A server that is away is no error here; what is misconfigured is `ConfigurationError`."""
        ...

    async def close(self) -> None:
        """Let go of everything, within a bound. May be called without `open`, and twice."""
        ...

    async def ping(self) -> None:
        """Return if it works right now; else raise `Unavailable` with the reason, within a second or two."""
        ...
