"""What is in flight: calls of `publish` that wait for their answer, within bounds."""

import asyncio
from collections.abc import Sequence

from customersignal_ingest.domain.event import Record
from customersignal_ingest.domain.outcome import Outcome, Unknown

RECORDS_MAX = 50_000
BYTES_MAX = 64 * 1024 * 1024
STALL_S = 1.0
STUCK_S = 3.0
DOUBT_S = 10.0

_UNSETTLED = Unknown("no confirmation within the deadline")


class Call:
    """One call of `publish`: its records, and what is known of them so far.

    Once `remaining` is 0 the outcomes are final.
    """

    __slots__ = ("answer", "born_at", "outcomes", "records", "remaining", "size_bytes")

    def __init__(
        self,
        records: Sequence[Record],
        size_bytes: int,
        *,
        born_at: float,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """For one event loop, the one that runs if none is given; `born_at` is monotonic seconds."""
        self.records = records
        self.size_bytes = size_bytes
        self.born_at = born_at
        self.answer: asyncio.Future[Sequence[Outcome]] = (loop or asyncio.get_running_loop()).create_future()
        self.outcomes: list[Outcome] = [_UNSETTLED] * len(records)
        self.remaining = len(records)


class InFlight:
    """The calls that wait for their answer, oldest first."""

    def __init__(self, *, records_max: int, bytes_max: int) -> None:
        self._records_max, self._bytes_max = records_max, bytes_max
        self._calls: dict[Call, None] = {}
        self.records = self.bytes = 0
        self._none_left: asyncio.Future[None] | None = None

    def has_room(self, count: int, size_bytes: int) -> bool:
        """Tell whether so many records of so many bytes may come in."""
        return self.records + count <= self._records_max and self.bytes + size_bytes <= self._bytes_max

    def take(self, call: Call) -> None:
        """Remember the call until it is answered."""
        self._calls[call] = None
        self.records += len(call.records)
        self.bytes += call.size_bytes

    def answer(self, call: Call) -> None:
        """Give the caller the outcomes as they are now; what has none is `Unknown`."""
        del self._calls[call]
        self.records -= len(call.records)
        self.bytes -= call.size_bytes
        call.remaining = 0
        if not call.answer.done():
            call.answer.set_result(call.outcomes)
        if not self._calls and self._none_left is not None and not self._none_left.done():
            self._none_left.set_result(None)

    def oldest(self) -> Call | None:
        """Return the call that waits longest."""
        return next(iter(self._calls), None)

    def oldest_s(self, now: float) -> float:
        """Return for how many seconds that call has waited, 0 if there is none."""
        return now - next(iter(self._calls)).born_at if self._calls else 0.0

    async def wait(self, timeout_s: float) -> None:
        """Return once all calls are answered, or after so many seconds."""
        if self._calls:
            self._none_left = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._none_left}, timeout=timeout_s)


class Confirmations:
    """When a record was last confirmed, and when one last waited in vain, in monotonic seconds."""

    def __init__(self) -> None:
        self.came_at = self.failed_at = float("-inf")

    def reason_against(self, in_flight: InFlight, now: float) -> str:
        """Say that none come, or nothing, by how long the oldest call in flight has waited.

        Once calls waited in vain, that holds until something is confirmed, or for ten seconds more if
        nobody sends: clients who pause before they try again are no sign of health.
        """
        waited_s = in_flight.oldest_s(now)
        if self.came_at < self.failed_at:
            if waited_s > 0 or now - self.failed_at < DOUBT_S:
                return "no confirmation since calls waited in vain"
        elif waited_s > STUCK_S:
            return f"no confirmation for {STUCK_S:.0f} s"
        return ""


class Stall:
    """Notices when the event loop was held up.

    Answers may lie in the sockets then: they are to be read before anything expires.
    """

    def __init__(self) -> None:
        self._ticked_at = float("inf")
        self._lasts = False

    def begins(self, now: float) -> bool:
        """Tell, at every tick, whether this is the first one after the loop was held up."""
        lasted, self._lasts = self._lasts, now - self._ticked_at > STALL_S
        self._ticked_at = now
        return self._lasts and not lasted
