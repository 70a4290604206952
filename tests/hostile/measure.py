"""What a crowd of slow clients and an overload do to the others, in figures.

The server has one core to itself, the clients the other, where there are two: else they would take
from each other what is measured. Quiet and hostile phases take turns in one run.
"""

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.hostile.flood import Flood, Seen
from tests.hostile.stage import Stage, staged
from tests.integration.servers.service import until

OVERLOAD = 10
BATCH_EVENTS = 500
CROWD = 2_000
"""At least so many are there at any time; some more have just been sent away."""
SLOWER_MAX = 2.0
GOODPUT_MIN = 0.8
REFUSED_WITHIN_S = 0.05
MEMORY_MIB_MAX = 320
"""What is in flight at the most, 64 MiB, several times over: as sent, decoded, in events and in records."""
BACK_MIB_MAX = 32
BACK_WITHIN_S = 12.0

_CONNECTIONS_MAX = 1_500
_RATE = 50.0
_SAMPLE_S = 0.05
# As long as the server waits for a head: so at any time some of the crowd are sent away, and never all at once.
_COMING_S = 10.0

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Mebibytes before, at the most, and some seconds after."""

    before: float
    peak: float
    after: float

    def __str__(self) -> str:
        return f"memory {self.before:.0f} MiB before, {self.peak:.0f} at the most, {self.after:.0f} after"

    @property
    def broken(self) -> list[str]:
        """The bounds that it breaks."""
        too_much = [f"took more than {MEMORY_MIB_MAX} MiB"] if self.peak - self.before > MEMORY_MIB_MAX else []
        return too_much + ([f"kept more than {BACK_MIB_MAX} MiB"] if self.after - self.before > BACK_MIB_MAX else [])


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What a normal client saw, alone and beside a crowd."""

    quiet_p99_s: float
    hostile_p99_s: float
    rounds: list[tuple[float, float]]
    statuses: dict[str, int]
    crowd: int
    crowd_least: int
    files_left: int
    memory: Memory

    @property
    def broken(self) -> list[str]:
        """The bounds that it breaks."""
        slower = self.hostile_p99_s / self.quiet_p99_s
        return [
            *([f"p99 is {slower:.1f} times its quiet value"] if slower > SLOWER_MAX else []),
            *([f"only {self.crowd_least} were there"] if self.crowd_least < self.crowd else []),
            *([f"the normal client got {self.statuses}"] if self.statuses.keys() != {"202"} else []),
            *([f"{self.files_left} files are left open"] if self.files_left > 0 else []),
            *self.memory.broken,
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overloaded:
    """What became of the good work, and how soon the rest was refused."""

    capacity: float
    goodput: float
    refused_p99_s: float
    late_p99_s: float
    statuses: dict[str, int]
    unaccounted: int
    memory: Memory

    @property
    def broken(self) -> list[str]:
        """The bounds that it breaks."""
        kept = self.goodput / self.capacity
        return [
            *([f"{kept:.0%} of the good work was kept"] if kept < GOODPUT_MIN else []),
            *([f"refused after {self.refused_p99_s * 1000:.0f} ms"] if self.refused_p99_s > REFUSED_WITHIN_S else []),
            *([f"answered {self.statuses}"] if self.statuses.keys() - {"202", "503"} else []),
            *([f"{self.unaccounted} events more or fewer are stored than accepted"] if self.unaccounted else []),
            *self.memory.broken,
        ]


@contextmanager
def measured_stage(folder: Path) -> Iterator[Stage]:
    """Serve with default limits on a core of its own, and leave the other one to the clients."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])
    try:
        with staged(folder, BODY_READ_TIMEOUT_S="10", LOG_LEVEL="warning") as stage:
            os.sched_setaffinity(0, cores[1:] or cores)
            yield stage
    finally:
        os.sched_setaffinity(0, cores)


def beside_a_crowd(
    stage: Stage, *, rounds: int, seconds: float, tell: Tell, crowd: int = CROWD, coming_s: float = _COMING_S
) -> Beside:
    """Measure a normal client in quiet and beside the crowd, in turns."""
    client = Flood(port=stage.service.port, keys=[_key(stage)], connections=8, events=1, seconds=seconds, rate=_RATE)
    flood(client)
    files, least = stage.files(), crowd
    quiet, hostile = list[Seen](), list[Seen]()
    with _watched(stage) as samples:
        for number in range(rounds):
            quiet.append(flood(client))
            with _crowd(stage, crowd + crowd // 20, coming_s) as counts:
                hostile.append(flood(client))
            least = min(*counts, least) if number else min(counts)
            until(lambda: stage.files() <= files + client.connections)
            tell(f"round {number + 1}: {_ms(quiet[-1])} quiet, {_ms(hostile[-1])} beside {counts[-1]} connections")
    return Beside(
        quiet_p99_s=p99(_seconds(quiet, "202")),
        hostile_p99_s=p99(_seconds(hostile, "202")),
        rounds=[(p99(q.seconds["202"]), p99(h.seconds["202"])) for q, h in zip(quiet, hostile, strict=True)],
        statuses=_statuses([*quiet, *hostile]),
        crowd=crowd,
        crowd_least=least,
        files_left=stage.files() - files - client.connections,
        memory=_memory(samples, stage),
    )


def overloaded(stage: Stage, *, rounds: int, seconds: float, tell: Tell, events: int = BATCH_EVENTS) -> Overloaded:
    """Measure what the server can take, and offer it ten times as much, in turns."""
    keys = [stage.words[name].decode() for name in ("key", "other")]
    busy = Flood(port=stage.service.port, keys=keys, connections=16, events=events, seconds=seconds)
    flood(busy)
    before = stage.stored_count()
    quiet, hostile, capacities, goodputs = list[Seen](), list[Seen](), list[float](), list[float]()
    with _watched(stage) as samples:
        for number in range(rounds):
            quiet.append(flood(busy))
            capacities.append(quiet[-1].count("202") * events / quiet[-1].took_s)
            rate = capacities[-1] * OVERLOAD / events
            hostile.append(
                flood(Flood(**{**asdict(busy), "connections": _CONNECTIONS_MAX, "rate": rate, "seconds": seconds}))
            )
            goodputs.append(hostile[-1].count("202") * events / hostile[-1].took_s)
            tell(
                f"round {number + 1}: {capacities[-1]:.0f} events a second, {goodputs[-1]:.0f} of "
                f"{rate * events:.0f} in overload, 503 after {_ms(hostile[-1], '503')}"
            )
    accepted = sum(seen.count("202") for seen in [*quiet, *hostile]) * events
    kept = [goodput / capacity for goodput, capacity in zip(goodputs, capacities, strict=True)]
    capacity = statistics.median(capacities)
    return Overloaded(
        capacity=capacity,
        goodput=statistics.median(kept) * capacity,
        refused_p99_s=p99(_seconds(hostile, "503")),
        late_p99_s=p99([late for seen in hostile for late in seen.late_s]),
        statuses=_statuses(hostile),
        unaccounted=stage.stored_count() - before - accepted,
        memory=_memory(samples, stage),
    )


def flood(what: Flood) -> Seen:
    """Send from a process of its own, and return what it saw."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.flood"],
        input=json.dumps(asdict(what)),
        capture_output=True,
        text=True,
        check=True,
    )
    return Seen.of(done.stdout)


def p99(seconds: Sequence[float]) -> float:
    """Return what all but one of a hundred are not above."""
    return sorted(seconds)[int(len(seconds) * 0.99)] if seconds else 0.0


@contextmanager
def _crowd(stage: Stage, size: int, coming_s: float) -> Iterator[list[int]]:
    """Have so many connections there while the block runs; yields how many there were, second by second."""
    command = [sys.executable, "-m", "tests.hostile.crowd", str(stage.service.port), str(size), str(coming_s)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as crowd:
        assert crowd.stdin is not None
        assert crowd.stdout is not None
        crowd.stdin.write(_key(stage) + "\n")
        crowd.stdin.close()
        counts = [int(crowd.stdout.readline())]
        reading = threading.Thread(target=lambda: counts.extend(map(int, crowd.stdout or [])))
        reading.start()
        yield counts
        crowd.kill()
        reading.join()


@contextmanager
def _watched(stage: Stage) -> Iterator[list[float]]:
    """Sample what the server holds in memory, while the block runs."""
    samples, over = [stage.memory_mib()], threading.Event()

    def watch() -> None:
        while not over.wait(_SAMPLE_S):
            samples.append(stage.memory_mib())

    watching = threading.Thread(target=watch)
    watching.start()
    yield samples
    over.set()
    watching.join()


def _memory(samples: list[float], stage: Stage) -> Memory:
    """Wait until it has been given back, as far as it will be."""
    before, after, deadline = samples[0], stage.memory_mib(), time.monotonic() + BACK_WITHIN_S
    while after > before + 1 and time.monotonic() < deadline:
        time.sleep(_SAMPLE_S)
        after = min(after, stage.memory_mib())
    return Memory(before=before, peak=max(samples), after=after)


def _key(stage: Stage) -> str:
    return stage.words["key"].decode()


def _seconds(seen: Sequence[Seen], status: str) -> list[float]:
    return [seconds for each in seen for seconds in each.seconds.get(status, [])]


def _statuses(seen: Sequence[Seen]) -> dict[str, int]:
    names = {status for each in seen for status in each.seconds}
    return {status: sum(each.count(status) for each in seen) for status in sorted(names)}


def _ms(seen: Seen, status: str = "202") -> str:
    return f"{p99(seen.seconds.get(status, [])) * 1000:.1f} ms at p99"
