"""Records and keys in this process's memory, for tests: real adapters that pass the contracts.

URL: `memory:`, without parameters, for a publisher and for a key repository. Each is its own.
`Stored` means: in the list `stored`, until the process ends. It outlives nothing.
Ordering: the order of the calls; offsets without gaps in each partition, as the embedded log has them.
Limits: none. Nothing is stored after `close`.
Ping tries nothing; it fails once the publisher is closed.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from customersignal_ingest.domain.errors import ConfigurationError, Unavailable
from customersignal_ingest.domain.event import Record, StoredRecord
from customersignal_ingest.domain.key import ApiKey, Digest
from customersignal_ingest.domain.outcome import NotStored, Outcome, Stored
from customersignal_ingest.domain.partition import PARTITIONS_DEFAULT, partition_for
from customersignal_ingest.registry import AdapterSettings, url_parameters

_TOPIC = "events_raw"
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def open_publisher(url: str, /, *, settings: AdapterSettings) -> "MemoryPublisher":
    """Make a publisher of its own for `memory:`; raises `ConfigurationError` for anything more."""
    _check(url)
    return MemoryPublisher()


def open_key_repository(url: str, /, *, settings: AdapterSettings) -> "MemoryKeys":
    """Make a key repository of its own for `memory:`; raises `ConfigurationError` for anything more."""
    _check(url)
    return MemoryKeys()


class MemoryPublisher:
    """Keeps records in a list. It is open from the start and can be opened again after a `close`."""

    def __init__(self, *, partitions: int = PARTITIONS_DEFAULT) -> None:
        self.stored: list[StoredRecord] = []
        self._next_offset = [0] * partitions
        self._closed = False

    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        """Append all records, or none once closed."""
        if self._closed:
            return [NotStored("closed")] * len(records)
        return [self._append(record) for record in records]

    async def open(self) -> None:
        """Take records, again after a `close`."""
        self._closed = False

    async def close(self) -> None:
        """Take no more records; what is stored stays."""
        self._closed = True

    async def ping(self) -> None:
        """Raise `Unavailable` when closed."""
        if self._closed:
            raise Unavailable("closed")

    def _append(self, record: Record) -> Stored:
        partition = partition_for(record.key, len(self._next_offset))
        offset = self._next_offset[partition]
        self._next_offset[partition] = offset + 1
        self.stored.append(
            StoredRecord(
                topic=_TOPIC,
                partition=partition,
                offset=offset,
                key=record.key,
                value=record.value,
                headers=record.headers,
                timestamp_ms=record.timestamp_ms,
            )
        )
        return Stored(_TOPIC, partition, offset)


class MemoryKeys:
    """Keeps tenants and keys in dictionaries. It is open from the start and can be opened again after a `close`."""

    def __init__(self) -> None:
        self._closed = False
        self._tenants: set[str] = set()
        self._keys: dict[str, ApiKey] = {}
        self._key_ids: dict[Digest, str] = {}

    async def find(self, digest: Digest, /) -> ApiKey | None:
        """Return what is known of the key, `None` if unknown; raises `Unavailable` once closed."""
        await self.ping()
        key_id = self._key_ids.get(digest)
        return None if key_id is None else self._keys[key_id]

    async def open(self) -> None:
        """Answer, again after a `close`."""
        self._closed = False

    async def close(self) -> None:
        """Answer no more; what is kept stays."""
        self._closed = True

    async def ping(self) -> None:
        """Raise `Unavailable` when closed."""
        if self._closed:
            raise Unavailable("closed")

    async def create_tenant(self, tenant_id: str, /) -> bool:
        """Make the tenant; return `False` if it was there already."""
        known = tenant_id in self._tenants
        self._tenants.add(tenant_id)
        return not known

    async def tenants(self) -> Sequence[str]:
        """Return all tenant ids, sorted."""
        return sorted(self._tenants)

    async def add_key(self, key: ApiKey, digest: Digest, /) -> None:
        """Keep a new key; raises `LookupError` when its tenant is not there, `ValueError` when the key is."""
        if key.tenant.tenant_id not in self._tenants:
            raise LookupError(f"no tenant {key.tenant.tenant_id!r}")
        if key.key_id in self._keys or digest in self._key_ids:
            raise ValueError(f"there is a key {key.key_id!r} already, or one with the same secret")
        self._keys[key.key_id] = key
        self._key_ids[digest] = key.key_id

    async def keys(self, tenant_id: str | None = None, /) -> Sequence[ApiKey]:
        """Return the keys of one tenant, or all, oldest first; raises `LookupError` for an unknown tenant."""
        if tenant_id is not None and tenant_id not in self._tenants:
            raise LookupError(f"no tenant {tenant_id!r}")
        chosen = [key for key in self._keys.values() if tenant_id in (None, key.tenant.tenant_id)]
        return sorted(chosen, key=lambda key: key.created_at or _LONG_AGO)

    async def revoke(self, key_id: str, at: datetime, /) -> ApiKey:
        """Refuse the key from this moment on; an earlier revocation stands."""
        key = self._known(key_id)
        self._keys[key_id] = replace(key, revoked_at=min(key.revoked_at or at, at))
        return self._keys[key_id]

    async def expire(self, key_id: str, at: datetime, /) -> ApiKey:
        """Let the key expire at this moment; an earlier expiry stands."""
        key = self._known(key_id)
        self._keys[key_id] = replace(key, expires_at=min(key.expires_at or at, at))
        return self._keys[key_id]

    def _known(self, key_id: str) -> ApiKey:
        if key_id not in self._keys:
            raise LookupError(f"no key {key_id!r}")
        return self._keys[key_id]


def _check(url: str) -> None:
    if url.partition("?")[0] != "memory:":
        raise ConfigurationError("the URL of the stores in memory is 'memory:' and nothing more")
    url_parameters(url, {})
