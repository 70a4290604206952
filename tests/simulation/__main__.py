"""Run seeds: `python -m tests.simulation 0:5000` many in two processes, `123` one with its whole trace.

A second argument is the seconds after which no more seeds are begun.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import islice

from rich.console import Console
from rich.progress import Progress

from tests.simulation.reachable import unreached
from tests.simulation.scenario import Outcome, simulate

PROCESSES = 2
CHUNK = 20
ALL_REACHABLE_FROM = 3000
"""With fewer seeds than these, it is no error when something rare did not happen."""
SHOWN_MAX = 20

out = Console(highlight=False, soft_wrap=True)


def main(arguments: Sequence[str]) -> int:
    """Return the exit code: 0 when no rule was broken and everything was reached."""
    try:
        first, _, end = (arguments[0] if arguments else "0:1000").partition(":")
        seeds = range(int(first), int(end) if end else int(first) + 1)
        seconds = float(arguments[1]) if len(arguments) > 1 else float("inf")
    except ValueError:
        out.print("expected a seed, as 123, or a range of seeds, as 0:5000, and seconds")
        return 2
    return many(seeds, seconds) if end else replay(seeds[0])


def replay(seed: int) -> int:
    """Show one seed, step by step."""
    outcome = simulate(seed, keep_trace=True)
    for line in outcome.trace:
        out.print(line, end="", markup=False)
    _complain([outcome])
    out.print(f"seed {seed}: {outcome.steps} steps, {outcome.seconds:.0f} simulated seconds, digest {outcome.digest}")
    return 1 if outcome.complaints else 0


def many(seeds: range, seconds: float) -> int:
    """Run all seeds, or as many as there is time for, and say what they showed."""
    began, total, failed = time.monotonic(), Total(), 0
    with Progress(console=out, transient=True, disable=not out.is_terminal) as progress:
        shown = progress.add_task("seeds", total=len(seeds))
        for outcomes in _outcomes(seeds, began + seconds):
            broken = [outcome for outcome in outcomes if outcome.complaints]
            if failed < SHOWN_MAX:
                _complain(broken)
            failed += len(broken)
            total.add(outcomes)
            progress.advance(shown, len(outcomes))
    total.show(time.monotonic() - began)
    missing = unreached(total.counts) if total.seeds >= ALL_REACHABLE_FROM else []
    for each in missing:
        out.print(f"never reached: {each}", markup=False)
    out.print(f"{failed} of {total.seeds} seeds broke a rule")
    return 1 if failed or missing else 0


def _outcomes(seeds: range, until: float) -> Iterator[list[Outcome]]:
    chunks = (seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK))
    with ProcessPoolExecutor(PROCESSES) as pool:
        running = {pool.submit(_run, chunk) for chunk in islice(chunks, 2 * PROCESSES)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            if time.monotonic() < until:
                running |= {pool.submit(_run, chunk) for chunk in islice(chunks, len(done))}
            yield from (each.result() for each in done)


def _run(seeds: range) -> list[Outcome]:
    return [simulate(seed) for seed in seeds]


def _complain(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        for complaint in outcome.complaints[:5]:
            out.print(f"seed {outcome.seed}: {complaint}", markup=False)
        if outcome.complaints:
            out.print(f"replay it: make simulate SEEDS={outcome.seed}", markup=False)


class Total:
    """What all runs together showed."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.seeds = self.steps = self.turns = 0
        self.simulated_s = 0.0

    def add(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self.seeds += 1
            self.steps += outcome.steps
            self.turns += outcome.turns
            self.simulated_s += outcome.seconds
            for kind, counts in outcome.counts.items():
                self.counts.setdefault(kind, Counter()).update(counts)

    def show(self, took_s: float) -> None:
        for kind, counts in sorted(self.counts.items()):
            out.print(f"{kind}:", markup=False)
            for name, number in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
                out.print(f"  {number:>9}  {name}", markup=False)
        events = sum(self.counts.get("events", Counter()).values())
        out.print(
            f"{self.seeds} seeds in {took_s:.1f} s, {self.seeds / took_s:.1f} seeds/s; {events} events answered,"
            f" {self.steps} steps, {self.turns} turns of the loop, {self.simulated_s / 3600:.1f} simulated hours"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
