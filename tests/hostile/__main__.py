"""Print the figures of hostile input and hostile clients: `make hostile`.

`corpus` plays every bad request; `document` explores what the API's document calls good and bad;
`crowd` measures a normal client beside two thousand slow ones; `overload` offers ten times what the
server can take. Let nothing else run on the machine meanwhile. Ends with 1 when a bound is broken.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.hostile.corpus import GROUPS
from tests.hostile.measure import CROWD, OVERLOAD, beside_a_crowd, measured_stage, overloaded
from tests.hostile.openapi import explore
from tests.hostile.play import play
from tests.hostile.stage import staged

out = Console(highlight=False, soft_wrap=True)

Measured = Callable[[argparse.Namespace, Path], list[str]]


def main() -> int:
    """Return the exit code: 0 when every bound holds."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("what", nargs="*", choices=[*PARTS, []], help="what to do; everything without it")
    parser.add_argument("--rounds", type=int, default=5, help="how often quiet and hostile phases take turns")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long a phase is")
    parser.add_argument("--examples", type=int, default=200, help="requests to each operation of the document")
    asked = parser.parse_args()
    broken = [each for name in asked.what or PARTS for each in _run(name, asked)]
    out.print("every bound holds" if not broken else "broken: " + "; ".join(broken))
    return 1 if broken else 0


def _run(name: str, asked: argparse.Namespace) -> list[str]:
    out.print(f"== {name}")
    with tempfile.TemporaryDirectory() as folder:
        return PARTS[name](asked, Path(folder))


def _corpus(_: argparse.Namespace, folder: Path) -> list[str]:
    broken = list[str]()
    with staged(folder) as stage:
        play(stage, "keys")
        files, memory = stage.files(), stage.memory_mib()
        total = 0
        for group in GROUPS:
            played = play(stage, group)
            good = sum(row.is_good for row in played.rows)
            total += len(played.rows)
            out.print(f"{group}: {len(played.rows) - good} bad requests, {good} good ones, {len(played.wrong)} wrong")
            broken += played.complaints + ([] if stage.is_serving() else [f"{group}: not serving any more"])
        broken += stage.leaks()
        out.print(
            f"{total} requests, {stage.files() - files} files left open, "
            f"memory {memory:.0f} MiB before, {stage.memory_mib():.0f} MiB after; answered: {_counts(stage.logged())}"
        )
    return broken


def _document(asked: argparse.Namespace, folder: Path) -> list[str]:
    with staged(folder) as stage:
        explored = explore(stage, "--max-examples", str(asked.examples), patience_s=3600)
        out.print(f"{explored.requests} cases; answered: {_counts(stage.logged())}")
        return stage.leaks() + ([] if explored.agrees else [explored.report])


def _crowd(asked: argparse.Namespace, folder: Path) -> list[str]:
    with measured_stage(folder) as stage:
        found = beside_a_crowd(stage, rounds=asked.rounds, seconds=asked.seconds, tell=out.print)
    slower = found.hostile_p99_s / found.quiet_p99_s
    out.print(
        f"p99 of a normal client: {found.quiet_p99_s * 1000:.1f} ms in quiet, {found.hostile_p99_s * 1000:.1f} ms "
        f"beside {CROWD} slow connections, {slower:.2f} times as much; "
        f"at least {found.crowd_least} were there; {found.memory}"
    )
    return found.broken


def _overload(asked: argparse.Namespace, folder: Path) -> list[str]:
    with measured_stage(folder) as stage:
        found = overloaded(stage, rounds=asked.rounds, seconds=asked.seconds, tell=out.print)
    out.print(
        f"{found.goodput / found.capacity:.0%} of {found.capacity:.0f} events a second kept with {OVERLOAD} times as "
        f"many offered; the rest refused within {found.refused_p99_s * 1000:.1f} ms at p99 (of which the client itself "
        f"{found.late_p99_s * 1000:.1f} ms); answered: {_counts(found.statuses)}; {found.memory}"
    )
    return found.broken


def _counts(statuses: Mapping[Any, int]) -> str:
    return ", ".join(f"{count} times {status}" for status, count in sorted(statuses.items()))


PARTS: dict[str, Measured] = {"corpus": _corpus, "document": _document, "crowd": _crowd, "overload": _overload}

if __name__ == "__main__":
    raise SystemExit(main())
