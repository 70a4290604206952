"""What a comparison has shown: its tables, its charts, and whether it holds what was promised."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.chart import Panel, chart
from benchmarks.figures import Row, median, ratio

SINGLE = "single events, 64 connections"
BATCH = "batches of 100, 16 connections"
SLOW = "single events, 1 000 a second"
HALF = "single events, at half of our top rate"
WORKS = (SINGLE, BATCH, SLOW, HALF)

Figures = Mapping[str, float]
Results = Mapping[str, Mapping[str, Sequence[Figures]]]
"""Of each contestant, of each work, the figures of each round. The first contestant is ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A bound of the ratio of a figure of ours to the same of a rival."""

    work: str
    rival: str
    figure: str
    bound: float
    kind: Literal["at least", "at most"]

    def holds(self, found: float) -> bool:
        """Tell whether the ratio is within the bound."""
        return found >= self.bound if self.kind == "at least" else found <= self.bound


def _target(work: str, rival: str, figure: str, kind: Literal["at least", "at most"], bound: float) -> Target:
    return Target(work=work, rival=rival, figure=figure, kind=kind, bound=bound)


TARGETS = (
    _target(SINGLE, "Express + kafkajs", "requests_s", "at least", 5),
    _target(SINGLE, "FastAPI + aiokafka", "requests_s", "at least", 4),
    _target(SINGLE, "Go + franz-go", "requests_s", "at least", 0.75),
    _target(SINGLE, "Go + franz-go", "cpu_us", "at most", 1.4),
    _target(BATCH, "Express + kafkajs", "events_s", "at least", 3),
    _target(BATCH, "FastAPI + aiokafka", "events_s", "at least", 6),
    _target(BATCH, "Go + franz-go", "events_s", "at least", 1.4),
    _target(BATCH, "Go + franz-go", "cpu_us", "at most", 0.65),
    _target(HALF, "Go + franz-go", "p99_ms", "at most", 2),
)

_SPEED = (
    "requests/s",
    "events/s",
    "p50 ms",
    "p99 ms",
    "CPU µs/event",
    "cores",
    "memory MB",
    "events/s, ours: theirs",
    "CPU, ours: theirs",
)
_LATENCY = ("p50 ms", "p99 ms", "p99.9 ms", "CPU µs/event", "memory MB", "p99, ours: theirs", "CPU, ours: theirs")
_SPEED_OF: Sequence[str] = ("requests_s", "events_s", "p50_ms", "p99_ms", "cpu_us", "server_cores", "resident_mb")
_LATENCY_OF: Sequence[str] = ("p50_ms", "p99_ms", "p999_ms", "cpu_us", "resident_mb")
_NAMES = {"requests_s": "requests/s", "events_s": "events/s", "cpu_us": "CPU µs/event", "p99_ms": "p99"}


def ours(results: Results) -> str:
    """Return the name of the contestant that the others are compared with."""
    return next(iter(results))


def table(results: Results, work: str) -> tuple[Sequence[str], list[Row]]:
    """Return head and rows of the work's table, one row a contestant, medians over the rounds."""
    head = ("", *(_SPEED if work in (SINGLE, BATCH) else _LATENCY))
    return head, [_row(results, work, name) for name in results if results[name].get(work)]


def _row(results: Results, work: str, name: str) -> Row:
    rounds, mine = results[name][work], results[ours(results)][work]
    middle = {figure: median(each[figure] for each in rounds) for figure in rounds[0]}
    figures, compared = _SPEED_OF, "events_s"
    if work not in (SINGLE, BATCH):
        figures, compared = _LATENCY_OF, "p99_ms"
    against = [ratio_of(mine, rounds, each) if rounds is not mine else float("nan") for each in (compared, "cpu_us")]
    return (name, *(middle[figure] for figure in figures), *against)


def ratio_of(mine: Sequence[Figures], theirs: Sequence[Figures], figure: str) -> float:
    """Return the median over the rounds of ours to theirs, of the rounds that both have."""
    pairs = list(zip(mine, theirs, strict=False))
    return ratio([one[figure] for one, _ in pairs], [other[figure] for _, other in pairs])


def verdicts(results: Results) -> tuple[Sequence[str], list[Row]]:
    """Return head and rows of what was to be reached, as far as it was measured."""
    mine = results[ours(results)]
    rows: list[Row] = []
    for target in TARGETS:
        theirs = results.get(target.rival, {}).get(target.work)
        if theirs and mine.get(target.work):
            found = ratio_of(mine[target.work], theirs, target.figure)
            reached = "reached" if target.holds(found) else "MISSED"
            what = f"{target.work}: {_NAMES[target.figure]}"
            rows.append((what, target.rival, f"{target.kind} {target.bound:g}", f"{found:.2f}", reached))
    return ("work", "against", "wanted", "found", ""), rows


def charts(results: Results) -> str:
    """Return what is worth seeing at a glance, as SVG: events a second, singly and in batches, and what each costs."""
    return chart(
        [
            Panel("single events, 64 connections: events/s", _of(results, SINGLE, "events_s")),
            Panel("single events: CPU µs an event", _of(results, SINGLE, "cpu_us")),
            Panel("batches of 100, 16 connections: events/s", _of(results, BATCH, "events_s")),
            Panel("batches of 100: CPU µs an event", _of(results, BATCH, "cpu_us")),
        ]
    )


def _of(results: Results, work: str, figure: str) -> dict[str, float]:
    return {name: median(each[figure] for each in works[work]) for name, works in results.items() if works.get(work)}
