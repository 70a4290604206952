"""Where an event's time goes: `make bench-stages`.

What each stage takes, in microseconds of CPU an event, and as a ratio to a fixed piece of work that is
none of ours: `json.loads` of one document. Reference and stages take turns, and the least of all rounds
counts: whatever else the machine does can only add. A time says little on another machine, the ratio
much: `--check` fails when a stage's ratio has grown to more than one and a half of what is kept in
`docs/performance/stages.json`, and `--save` keeps new ones. `calls` is how many functions are called an event, Python's
and C's: nothing that the machine does changes that number.
"""

import argparse
import asyncio
import gc
import json
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from types import FrameType

from benchmarks import page
from benchmarks.figures import Row, markdown, text
from benchmarks.stages import payloads, stages

KEPT = page.FOLDER / "stages.json"
GROWTH_MAX = 1.5

_DOCUMENT = payloads(1)[0]
_SLICE_S = 0.02


def reference() -> object:
    """Do the fixed piece of work: about an event's worth of parsing."""
    return json.loads(_DOCUMENT)


def costs_us(works: Mapping[str, tuple[Callable[[], object], int]], *, rounds: int) -> dict[str, float]:
    """Return the least CPU time of each work, in microseconds, divided by its number."""
    repeats = {name: _repeats(run) for name, (run, _) in works.items()}
    least = dict.fromkeys(works, float("inf"))
    gc.collect()
    gc.freeze()
    for _ in range(rounds):
        for name, (run, number) in works.items():
            spent_s = _spent_s(run, repeats[name])
            least[name] = min(least[name], spent_s / repeats[name] / number * 1e6)
    return least


def _repeats(run: Callable[[], object]) -> int:
    """Return how often it fits into a slice of time."""
    repeats = 1
    while _spent_s(run, repeats) < _SLICE_S / 2:
        repeats *= 2
    return repeats


def _spent_s(run: Callable[[], object], repeats: int) -> float:
    began = time.process_time()
    for _ in range(repeats):
        run()
    return time.process_time() - began


def ratios(costs: Mapping[str, float]) -> dict[str, float]:
    """Return each cost as a multiple of the reference's, which comes first and is left out."""
    (_, one), *others = costs.items()
    return {name: cost / one for name, cost in others}


def grown(found: Mapping[str, float], kept: Mapping[str, float]) -> dict[str, float]:
    """Return by how much each ratio grew that grew too much, and infinity for one that is not kept or not found."""
    growth = {name: found[name] / kept[name] for name in found.keys() & kept.keys()}
    growth |= dict.fromkeys(found.keys() ^ kept.keys(), float("inf"))
    return {name: times for name, times in growth.items() if times > GROWTH_MAX}


def calls(run: Callable[[], object]) -> int:
    """Return how many functions are called in a run, Python's and C's."""
    count = 0

    def note(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count - 2  # The run itself, and the end of the counting.


def _kept() -> dict[str, float]:
    return dict(json.loads(KEPT.read_text())["ratios"]) if KEPT.exists() else {}


def measure(loop: asyncio.AbstractEventLoop, *, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return what the reference and each stage cost, in microseconds of CPU, and how many calls: both an event."""
    works: dict[str, tuple[Callable[[], object], int]] = {"reference": (reference, 1)}
    works |= {stage.name: (stage.run, stage.events) for stage in stages(loop)}
    costs = costs_us(works, rounds=rounds)
    return costs, {name: calls(run) / number for name, (run, number) in works.items()}


def save(rows: Iterable[Row], found: Mapping[str, float], *, reference_us: float) -> None:
    """Keep these ratios, and put them on the page."""
    python = f"Python {platform.python_version()}"
    table = markdown(("", "CPU µs/event", "calls/event", "ratio"), [row[:4] for row in rows])
    rounded = {name: float(f"{each:.3g}") for name, each in found.items()}
    content = f"{table}\n{page.today()}, {python}; `json.loads` of one event took {reference_us:.2f} µs."
    page.write("stages", content, {"python": python, "ratios": rounded})


def main() -> None:
    """Measure, print, and check or keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--check", action="store_true", help="fail when a stage has become slower than it was")
    parser.add_argument("--save", action="store_true", help="keep these ratios")
    arguments = parser.parse_args()
    loop = asyncio.new_event_loop()
    costs, called = measure(loop, rounds=arguments.rounds)
    loop.close()
    found, kept = ratios(costs), _kept()
    rows = [(name, costs[name], called[name], each, kept.get(name, float("nan"))) for name, each in found.items()]
    print(f"CPU an event, Python {platform.python_version()}; reference: json.loads in {costs['reference']:.2f} µs")
    print(text(("", "µs", "calls", "ratio", "kept"), rows), end="")
    if arguments.save:
        save(rows, found, reference_us=costs["reference"])
    elif arguments.check and (worse := grown(found, kept)):
        names = ", ".join(f"{name} ({times:.2f} times)" for name, times in worse.items())
        sys.exit(f"slower than what is kept, or not kept: {names}")


if __name__ == "__main__":
    main()
