"""What grows with what: `make bench-growth`.

The service alone, on the same broker and with the same client as in `make bench`, while one thing grows:
events a batch, connections, users, tenants, partitions, time, workers. Each sweep prints a table and says
whether the cost stays near flat.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import machine, page
from benchmarks.client import Load
from benchmarks.compare import BATCH_LOAD, SINGLE_LOAD, facts, stage
from benchmarks.contestants import ours
from benchmarks.figures import Row, figure, markdown, slope, text
from benchmarks.turn import Measured, Stage

MEMORY_MB_MAX = 120
NEAR = 1.5
"""Costs are near flat while the largest is at most so many times the smallest."""

LOOKUPS_S = 1000
"""So many API keys a second are looked up at least, so that a warm-up knows all of them."""

IN_FLIGHT = 8_000
"""Events of one tenant; by default it may have 10 000, and what is refused beyond is no measure of anything."""

Points = Sequence[tuple[float, Measured]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much is to be measured."""

    seconds: float
    minutes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """One thing that grows, and what is to be said of it."""

    name: str
    grows: str
    points: Callable[[Stage, Settings], Iterator[tuple[float, Measured]]]
    verdict: Callable[[Points], str]


def sized(values: Sequence[int], load: Callable[[int], Load]) -> Callable[[Stage, Settings], Iterator[Any]]:
    """Return what loads one running service with one load after the other."""

    def points(stage: Stage, settings: Settings) -> Iterator[tuple[float, Measured]]:
        with stage.running(ours()) as running:
            for value in values:
                wanted = load(value)
                running.measure(wanted.for_seconds(max(settings.seconds, wanted.tenants / LOOKUPS_S)))
                yield value, running.measure(wanted.for_seconds(settings.seconds))

    return points


def in_batches_of(events: int) -> Load:
    """Return the load of batches, on no more connections than may have all of their events in flight for one tenant."""
    return replace(BATCH_LOAD, batch=events, connections=min(BATCH_LOAD.connections, IN_FLIGHT // events))


def parted(load: Load) -> Callable[[Stage, Settings], Iterator[Any]]:
    """Return what loads the service on topics with more and more partitions."""

    def points(stage: Stage, settings: Settings) -> Iterator[tuple[float, Measured]]:
        for partitions in (1, 2, 4, 8, 16, 32, 64, 96):
            with stage.running(ours(), partitions=partitions) as running:
                running.measure(load.for_seconds(settings.seconds))
                yield partitions, running.measure(load.for_seconds(settings.seconds))

    return points


def lasting(stage: Stage, settings: Settings) -> Iterator[tuple[float, Measured]]:
    """Load one service for minutes; the first of each pair is how many million events it has stored."""
    slices = 20
    stored = 0.0
    with stage.running(ours()) as running:
        for _ in range(slices):
            seconds = settings.minutes * 60 / slices
            measured = running.measure(replace(BATCH_LOAD, batch=10, seconds=seconds))
            stored += measured.events_s * seconds / 1e6
            yield round(stored, 2), measured


def staffed(load: Load) -> Callable[[Stage, Settings], Iterator[Any]]:
    """Return what loads one and two workers, on all cores: with one there would be nothing to gain."""

    def points(stage: Stage, settings: Settings) -> Iterator[tuple[float, Measured]]:
        everywhere = replace(stage, shares=machine.together())
        for workers in (1, 2):
            with everywhere.running(ours(workers=workers)) as running:
                running.measure(load.for_seconds(settings.seconds))
                yield workers, running.measure(load.for_seconds(settings.seconds))

    return points


def flat(*, least: float = 0) -> Callable[[Points], str]:
    """Return the verdict on CPU an event, from this value on."""

    def verdict(points: Points) -> str:
        costs = [measured.cpu_us for value, measured in points if value >= least]
        times = max(costs) / min(costs)
        where = f" from {least:g} on" if least else ""
        return f"{'near flat' if times <= NEAR else 'NOT FLAT'}{where}: CPU an event varies {times:.2f} times"

    return verdict


def steady(points: Points) -> str:
    """Say whether events a second hold up to the largest value."""
    rates = [measured.events_s for _, measured in points]
    share = rates[-1] / max(rates)
    return f"{'holds' if share >= 1 / NEAR else 'FALLS'}: at the end {share:.0%} of the highest rate"


def remembered(points: Points) -> str:
    """Say whether memory stays where it is."""
    later = points[len(points) // 2 :]
    growth = slope([stored for stored, _ in later], [measured.resident_mb for _, measured in later])
    most = max(measured.resident_mb for _, measured in points)
    good = most <= MEMORY_MB_MAX and growth < 1
    what = f"{most:.0f} MB at most, {MEMORY_MB_MAX} wanted; in the second half {growth:+.2f} MB a million events"
    return f"{'flat' if good else 'TOO MUCH'}: {what}"


def scaled(points: Points) -> str:
    """Say what the last gains over the first, for a machine where all share the cores."""
    gain = points[-1][1].events_s / points[0][1].events_s
    return f"{gain:.2f} times the events a second, with broker and client on the same cores"


SWEEPS = (
    Sweep(
        name="batch-size",
        grows="events a batch, up to 16 connections",
        points=sized((1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000), in_batches_of),
        verdict=flat(least=50),
    ),
    Sweep(
        name="connections",
        grows="connections, single events",
        points=sized((1, 4, 16, 64, 250, 1000), lambda n: replace(SINGLE_LOAD, connections=n)),
        verdict=steady,
    ),
    Sweep(
        name="users",
        grows="users, batches of 100",
        points=sized((10, 1000, 10_000, 100_000, 1_000_000), lambda n: replace(BATCH_LOAD, users=n)),
        verdict=flat(),
    ),
    Sweep(
        name="tenants",
        grows="tenants, single events",
        points=sized((1, 100, 1000, 10_000, 100_000), lambda n: replace(SINGLE_LOAD, tenants=n)),
        verdict=flat(),
    ),
    Sweep(name="partitions-batches", grows="partitions, batches of 100", points=parted(BATCH_LOAD), verdict=flat()),
    Sweep(name="partitions-single", grows="partitions, single events", points=parted(SINGLE_LOAD), verdict=flat()),
    Sweep(name="workers-single", grows="workers, single events", points=staffed(SINGLE_LOAD), verdict=scaled),
    Sweep(name="workers-batches", grows="workers, batches of 100", points=staffed(BATCH_LOAD), verdict=scaled),
    Sweep(name="time", grows="million events stored, batches of 10", points=lasting, verdict=remembered),
)

_HEAD = ("events/s", "p50 ms", "p99 ms", "CPU µs/event", "server cores", "memory MB")


def table(sweep: Sweep, points: Points) -> tuple[Sequence[str], list[Row]]:
    """Return head and rows of a sweep's table."""
    return (sweep.grows, *_HEAD), [
        (figure(value), m.events_s, m.p50_ms, m.p99_ms, m.cpu_us, m.server_cores, m.resident_mb) for value, m in points
    ]


def run(sweep: Sweep, stage: Stage, settings: Settings) -> Points:
    """Measure one sweep, and print what it shows."""
    print(f"{sweep.grows} …", flush=True)
    points = list(sweep.points(stage, settings))
    print(text(*table(sweep, points)) + sweep.verdict(points) + "\n", flush=True)
    return points


def _keep(sweep: Sweep, points: Points, known: Mapping[str, Any]) -> None:
    where = f"{known['date']}, {known['machine']['processor']}; {known['kafka']}"
    content = f"{markdown(*table(sweep, points))}\n{sweep.verdict(points).capitalize()}. ({where}.)"
    data = [{"value": value, **measured.to_json()} for value, measured in points]
    page.write(f"growth-{sweep.name}", content, {**known, "points": data})


def main() -> None:
    """Measure what is asked for, print, write down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = [sweep.name for sweep in SWEEPS]
    parser.add_argument("--only", action="append", choices=names, help="this sweep; may be given several times")
    parser.add_argument("--seconds", type=float, default=5, help="of each load")
    parser.add_argument("--minutes", type=float, default=10, help="of the sweep over time")
    parser.add_argument("--dry", action="store_true", help="print only, and leave the page as it is")
    arguments = parser.parse_args()
    settings = Settings(seconds=arguments.seconds, minutes=arguments.minutes)
    page.CACHE.mkdir(parents=True, exist_ok=True)
    wanted = [sweep for sweep in SWEEPS if arguments.only is None or sweep.name in arguments.only]
    tenants = 100_000 if any(sweep.name == "tenants" for sweep in wanted) else 1
    with stage(together=False, tenants=tenants) as here:
        known = facts(here, [ours()]) | {"seconds": settings.seconds}
        for sweep in wanted:
            points = run(sweep, here, settings)
            if not arguments.dry:
                _keep(sweep, points, known)


if __name__ == "__main__":
    main()
