"""Ports made of ports: what chooses, bounds or remembers, and talks to no backend itself."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from customersignal_ingest.domain.errors import Saturated, Unavailable
from customersignal_ingest.domain.event import Record
from customersignal_ingest.domain.key import ApiKey, Digest
from customersignal_ingest.domain.outcome import Outcome, Unknown
from customersignal_ingest.ports import EventPublisher, KeyRepository
from customersignal_ingest.timeouts import Timeout

Lookup = Literal["hit", "miss", "stale", "unknown", "unavailable"]

_NOTHING = (0, 0)
MOMENT_S = 0.05
"""How long who asks for a key waits for a repository that could not tell the last time."""


class Deadline:
    """A publisher that answers in time and never raises, whatever the one behind it does.

    Our own publishers keep their deadlines themselves; this one is for strangers' and for bugs.
    What was handed over when time ran out, or when the publisher raised, is `Unknown`.
    """

    def __init__(
        self, publisher: EventPublisher, /, *, timeout_s: float, report: Callable[[BaseException], None]
    ) -> None:
        """Wrap `publisher`; `report` is told of what it raised, which is a bug in it."""
        self._publisher = publisher
        self._timeout = Timeout(timeout_s)
        self._report = report

    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        """Publish, within `timeout_s`."""
        try:
            with self._timeout():
                return await self._publisher.publish(records)
        except TimeoutError:
            return [Unknown("no answer within the deadline")] * len(records)
        except asyncio.CancelledError as error:
            if _is_cancelled():
                raise
            # Nobody cancelled the caller: a future within the publisher was.
            self._report(error)
            return [Unknown("the publisher failed")] * len(records)
        except Exception as error:  # noqa: BLE001  A stranger's bug must not become a false answer.
            self._report(error)
            return [Unknown("the publisher failed")] * len(records)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Admission:
    """Bounds what is in flight in this process, in events and in bytes, and each tenant's part of it.

    A transport takes a lease before it reads a body, and gives it back with the answer; so memory
    is bounded by what was admitted, and one flooding tenant leaves room for the others. For one
    event loop; nothing here waits.
    """

    def __init__(self, *, events_max: int, bytes_max: int, tenant_share: float) -> None:
        """`tenant_share` is the part, above 0 and up to 1, that one tenant may hold of each bound."""
        self.events_max, self.bytes_max = events_max, bytes_max
        self.tenant_events_max = max(1, int(events_max * tenant_share))
        self.tenant_bytes_max = max(1, int(bytes_max * tenant_share))
        self.events = 0
        self.bytes = 0
        self._held: dict[str, tuple[int, int]] = {}

    def lease(self, tenant_id: str, /) -> "Lease":
        """Return a lease that holds nothing yet; use it as a context manager."""
        return Lease(self, tenant_id)

    def take(self, tenant_id: str, events: int, size_bytes: int, /) -> None:
        """Add to what this tenant holds, or raise `Saturated` and add nothing."""
        all_events, all_bytes = self.events + events, self.bytes + size_bytes
        if all_events > self.events_max:
            raise Saturated("in_flight_events_max is reached")
        if all_bytes > self.bytes_max:
            raise Saturated("in_flight_bytes_max is reached")
        held_events, held_bytes = self._held.get(tenant_id, _NOTHING)
        held = held_events, held_bytes = held_events + events, held_bytes + size_bytes
        if held_events > self.tenant_events_max or held_bytes > self.tenant_bytes_max:
            raise Saturated("the tenant's share of what may be in flight is reached")
        self.events, self.bytes, self._held[tenant_id] = all_events, all_bytes, held

    def give_back(self, tenant_id: str, events: int, size_bytes: int, /) -> None:
        """Take away from what this tenant holds."""
        self.events -= events
        self.bytes -= size_bytes
        held_events, held_bytes = self._held.pop(tenant_id, _NOTHING)
        held = held_events - events, held_bytes - size_bytes
        if held != _NOTHING:
            self._held[tenant_id] = held


class Lease:
    """What one request holds of the bounds; all of it is given back when the block ends."""

    __slots__ = ("_admission", "_events", "_size_bytes", "_tenant_id")

    def __init__(self, admission: Admission, tenant_id: str) -> None:
        """Made by `Admission.lease`."""
        self._admission = admission
        self._tenant_id = tenant_id
        self._events = 0
        self._size_bytes = 0

    def take(self, *, events: int = 0, size_bytes: int = 0) -> None:
        """Hold this much more, or raise `Saturated` and hold what was held before."""
        self._admission.take(self._tenant_id, events, size_bytes)
        self._events += events
        self._size_bytes += size_bytes

    def hold(self, *, events: int) -> None:
        """Hold so many events in all, more or fewer than before, or raise `Saturated` and hold what was held before."""
        self._admission.take(self._tenant_id, events - self._events, 0)
        self._events = events

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._admission.give_back(self._tenant_id, self._events, self._size_bytes)
        self._events = self._size_bytes = 0


@dataclass(slots=True)
class _Known:
    """What the repository last said of a digest, and when: `key` is `None` for one it did not know."""

    key: ApiKey | None
    said_at: float
    doubted: bool = False
    failed_at: float = float("-inf")


class CachedKeys:
    """A key repository that remembers, so that known keys work while their database is away.

    A key is looked up again `ttl_s` after it was last confirmed; that is the longest a revoked key
    goes on working unless `forget` is called. While the repository can't tell, a key stays good
    until `stale_s` after its last confirmation, and only the first to ask waits for more than a
    moment. Keys that it does not know are remembered for `unknown_ttl_s`. Look-ups of one digest
    are shared, and those of digests never seen before are capped; known ones are looked up whatever
    the others cost, so that a flood of unknown keys holds up nobody's key and puts off no revocation.
    """

    def __init__(
        self,
        repository: KeyRepository,
        /,
        *,
        ttl_s: float,
        stale_s: float,
        clock: Callable[[], float],
        observe: Callable[[Lookup], None] = lambda _: None,
        unknown_ttl_s: float = 5.0,
        retry_s: float = 1.0,
        lookups_max: int = 1_000,
        entries_max: int = 10_000,
    ) -> None:
        """`clock` is monotonic seconds; `retry_s` is the pause of a key after a look-up that could not tell."""
        self._repository = repository
        self._ttl_s, self._stale_s = ttl_s, max(ttl_s, stale_s)
        self._unknown_ttl_s, self._retry_s = unknown_ttl_s, retry_s
        self._clock, self._observe = clock, observe
        self._lookups_max, self._entries_max = lookups_max, entries_max
        self._known: OrderedDict[Digest, _Known] = OrderedDict()
        self._unknown: OrderedDict[Digest, _Known] = OrderedDict()
        self._lookups: dict[Digest, asyncio.Task[ApiKey | None]] = {}
        self._changes = 0

    async def find(self, digest: Digest, /) -> ApiKey | None:
        """Return what is known of the key; raises `Unavailable` when nothing is, and can't be told."""
        entry = self._known.get(digest)
        if entry is None:
            return await self._find_unseen(digest)
        age_s = self._clock() - entry.said_at
        if age_s < self._ttl_s and not entry.doubted:
            self._observe("hit")
            return entry.key
        return await self._confirm(digest, entry)

    def forget(self, digest: Digest | None, /) -> None:
        """Look this digest up again before trusting it; `None`: every digest. A change was announced."""
        self._changes += 1
        for entry in self._known.values() if digest is None else filter(None, [self._known.get(digest)]):
            entry.doubted = True
        if digest is None:
            self._unknown.clear()
        else:
            self._unknown.pop(digest, None)

    async def _find_unseen(self, digest: Digest) -> ApiKey | None:
        entry = self._unknown.get(digest)
        if entry is not None and not entry.doubted and self._clock() - entry.said_at < self._unknown_ttl_s:
            self._observe("unknown")
            return None
        if digest not in self._lookups and len(self._lookups) >= self._lookups_max:
            self._observe("unavailable")
            raise Unavailable("too many look-ups of keys at once")
        try:
            key = await self._look_up(digest)
        except Unavailable:
            self._observe("unavailable")
            raise
        self._observe("unknown" if key is None else "miss")
        return key

    async def _confirm(self, digest: Digest, entry: _Known) -> ApiKey | None:
        """Ask again; while the repository can't tell, the key is as good as it last was."""
        if self._clock() - entry.failed_at >= self._retry_s:
            try:
                key = await self._confirmed(digest, entry)
            except (Unavailable, TimeoutError):
                pass
            else:
                self._observe("miss")
                return key
        if self._is_good(entry):
            self._observe("stale")
            return entry.key
        self._observe("unavailable")
        raise Unavailable("the key was not confirmed for too long")

    async def _confirmed(self, digest: Digest, entry: _Known) -> ApiKey | None:
        """Look it up; raises `TimeoutError` when that takes long and the key is good without."""
        if entry.failed_at > entry.said_at and self._is_good(entry):
            try:
                async with asyncio.timeout(MOMENT_S):
                    return await self._look_up(digest)
            except TimeoutError:
                if self._is_good(entry):  # It may just have become too old.
                    raise
        return await self._look_up(digest)

    def _is_good(self, entry: _Known) -> bool:
        return self._clock() - entry.said_at < self._stale_s

    async def _look_up(self, digest: Digest) -> ApiKey | None:
        task = self._lookups.get(digest)
        if task is None:
            # Its own task: a client that leaves must not take the answer from the others who wait.
            task = self._lookups[digest] = asyncio.create_task(self._ask(digest))
            task.add_done_callback(_heard)
        return await asyncio.shield(task)

    async def _ask(self, digest: Digest) -> ApiKey | None:
        asked_at, changes = self._clock(), self._changes
        try:
            key = await self._repository.find(digest)
        except Unavailable:
            if (entry := self._known.get(digest)) is not None:
                entry.failed_at = self._clock()
            raise
        finally:
            del self._lookups[digest]
        # What was read while a change was announced may be the state before the change.
        self._remember(digest, _Known(key, asked_at, doubted=changes != self._changes))
        return key

    def _remember(self, digest: Digest, entry: _Known) -> None:
        here, there = (self._unknown, self._known) if entry.key is None else (self._known, self._unknown)
        there.pop(digest, None)
        here[digest] = entry
        here.move_to_end(digest)
        if len(here) > self._entries_max:
            here.popitem(last=False)


def _heard(lookup: asyncio.Task[ApiKey | None]) -> None:
    # With every waiting client gone, nobody else would take note of the error.
    if not lookup.cancelled():
        lookup.exception()
