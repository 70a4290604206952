"""The world's time, the service's clock beside it, and every moment at which the machine stood still."""

from datetime import UTC, datetime, timedelta

from tests.simulation.journal import Journal
from tests.unit.simulated_time import SimulatedLoop

BEGAN = datetime(2026, 11, 23, 10, tzinfo=UTC)
STALL_COSTS_S = 0.3
"""What a stall takes beyond its length: what was late is done first, and looked at again."""


class Clocks:
    """Seconds are the simulation's, dates are what people and machines read."""

    def __init__(self, loop: SimulatedLoop, journal: Journal) -> None:
        self._loop, self._journal = loop, journal
        self._stalls: list[tuple[float, float]] = []
        self._offsets: list[tuple[float, timedelta]] = [(float("-inf"), timedelta())]

    @property
    def time(self) -> float:
        return self._loop.now_s

    def date(self, in_s: float = 0.0) -> datetime:
        """What a good clock says, such as operators have, or will say in so many seconds."""
        return BEGAN + timedelta(seconds=self.time + in_s)

    def service_date(self) -> datetime:
        """What the clock of the service's machine says."""
        return self.date() + self._offsets[-1][1]

    def step(self, seconds: float) -> None:
        """Set the clock of the service's machine so far ahead of the good one."""
        self._journal.note(f"clock {seconds:+.0f} s")
        self._journal.count("world", "clock steps")
        self._offsets.append((self.time, timedelta(seconds=seconds)))

    def stall(self, seconds: float) -> None:
        """Let the machine stand still."""
        self._journal.note(f"stall {seconds:.1f} s")
        self._journal.count("world", "stalls")
        self._stalls.append((self.time, seconds))
        self._loop.now_s += seconds

    def spent(self, since: float) -> float:
        """Return how much time there was to do something."""
        return self.time - since - sum(seconds + STALL_COSTS_S for at, seconds in self._stalls if at >= since)

    def service_dates(self, since: float, until: float) -> tuple[datetime, datetime]:
        """Return the earliest and the latest date that the service's clock may have shown in that time."""
        before = [offset for at, offset in self._offsets if at <= since][-1:]
        offsets = before + [offset for at, offset in self._offsets if since < at <= until]
        dates = [BEGAN + timedelta(seconds=at) + offset for at in (since, until) for offset in offsets]
        return min(dates), max(dates)

    def stalled(self, since: float, until: float) -> float:
        """Return for how long the machine stood still in that time, or just before.

        What began before one stall may end after the next.
        """
        total = 0.0
        for at, seconds in reversed(self._stalls):
            if at <= until and at + seconds >= since - total:
                total += seconds + STALL_COSTS_S
        return total
