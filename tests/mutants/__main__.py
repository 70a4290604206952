"""Put each bug into a copy of the service, and see that the tests notice: `python -m tests.mutants [NAME ...]`."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from tests.mutants.mutant import KINDS, Mutant, kind_of
from tests.mutants.rows import MUTANTS

ROOT = Path(__file__).parents[2]
COPIED = ("src", "tests", "pyproject.toml")
AT_ONCE = 2
TEST_TIMEOUT_S = 60.0
RUN_TIMEOUT_S = 1200.0
ALL_PASSED, SOME_FAILED = 0, 1
PLUGINS = ("anyio", "timeout", "hypothesispytest", "tests.mutants.complaints", "no:cacheprovider")
"""What the tests need; the other plugins take most of the second in which pytest starts."""
SHOWN_MAX = 100
WIDTH = 200
"""How wide the table is where it is not a terminal's."""

out = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of pytest over a copy: `complaints` are by test id, in the order in which they came."""

    exit_code: int
    complaints: dict[str, str]
    said: str
    seconds: float

    def catches(self, mutant: Mutant) -> bool:
        """Tell whether tests failed, and each that is named for the mutant has a complaint."""
        return self.exit_code == SOME_FAILED and not self.missed(mutant)

    def missed(self, mutant: Mutant) -> list[str]:
        """Return the tests that are named for the mutant and have no complaint."""
        return [test for test in mutant.tests if not self.complaints.keys() & {test, *self._cases(test)}]

    def _cases(self, test: str) -> list[str]:
        return [each for each in self.complaints if each.startswith(f"{test}[")]


def main(names: Sequence[str]) -> int:
    """Return the exit code: 0 when every mutant is caught by each test that is named for it."""
    unknown = set(names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        out.print(f"no such mutant: {', '.join(sorted(unknown))}", markup=False)
        return 2
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        right = Path(folder) / "right"
        _copy(ROOT, right)
        sound = run(right, sorted({test for mutant in chosen for test in mutant.tests}))
        if sound.exit_code != ALL_PASSED:
            out.print(sound.said, "\nwithout any mutant the tests have to pass", markup=False)
            return 1
        out.print(f"without any mutant all tests pass, in {sound.seconds:.0f} s", markup=False)
        return _sum_up(_hunted(chosen, right))


def _hunted(mutants: Sequence[Mutant], right: Path) -> list[tuple[Mutant, Run]]:
    """Run all mutants, and tell of survivors at once."""
    results = []
    with Progress(console=out, transient=True, disable=not out.is_terminal) as progress:
        for mutant, result in progress.track(_results(mutants, right), total=len(mutants), description="mutants"):
            results.append((mutant, result))
            if not result.catches(mutant):
                missed = ", ".join(result.missed(mutant))
                out.print(f"{result.said}\n{mutant.name} survived {missed}: {mutant.bug}", markup=False)
    return results


def _sum_up(results: Sequence[tuple[Mutant, Run]]) -> int:
    """Show the table, and say which survived."""
    survivors = [mutant.name for mutant, result in results if not result.catches(mutant)]
    caught = [mutant for mutant, result in results if result.catches(mutant)]
    out.print(_table(results))
    out.print(f"{len(caught)} of {len(results)} mutants caught: {_kinds(caught)}", markup=False)
    if survivors:
        out.print(f"survived: {', '.join(survivors)}", style="red", markup=False)
    return 1 if survivors else 0


def _table(results: Sequence[tuple[Mutant, Run]]) -> Table:
    table = Table(box=box.MARKDOWN, expand=True)
    table.add_column("mutant", no_wrap=True)
    for name, ratio in (("the bug", 4), ("what caught it", 7), ("the first complaint", 4)):
        table.add_column(name, ratio=ratio, overflow="fold")
    table.add_column("s", justify="right", min_width=4)
    for mutant, result in results:
        caught = mutant.caught_by if result.catches(mutant) else "[red]NOTHING"
        first = next(iter(result.complaints.values()), "").removeprefix("AssertionError: ")[:SHOWN_MAX]
        table.add_row(mutant.name, mutant.bug, caught, escape(first), f"{result.seconds:.1f}")
    return table


def _kinds(caught: Sequence[Mutant]) -> str:
    """Count the mutants by the kinds of tests that catch them: many are caught by several."""
    by = {kind: sum(kind in map(kind_of, mutant.tests) for mutant in caught) for kind in KINDS}
    return ", ".join(f"{number} by {kind} tests" for kind, number in by.items() if number)


def _results(mutants: Sequence[Mutant], right: Path) -> Iterator[tuple[Mutant, Run]]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from zip(mutants, pool.map(lambda mutant: _run_mutant(mutant, right), mutants), strict=True)


def _run_mutant(mutant: Mutant, right: Path) -> Run:
    copy = right.with_name(mutant.name)
    _copy(right, copy)
    mutant.apply(copy)
    result = run(copy, mutant.tests)
    shutil.rmtree(copy)
    return result


def run(root: Path, tests: Sequence[str]) -> Run:
    """Run these tests with the package under `root`, in processes that the tests start, too."""
    began, complaints = time.monotonic(), root / "complaints"
    environment = {"PYTHONPATH": str(root / "src"), "COMPLAINTS": str(complaints), "CI": "true"}
    plugins = [option for plugin in PLUGINS for option in ("-p", plugin)]
    try:
        pytest = subprocess.run(
            [sys.executable, "-m", "pytest", *plugins, "--tb=short", f"--timeout={TEST_TIMEOUT_S}", *tests],
            cwd=root,
            env=os.environ | environment | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
            check=False,
        )
        exit_code, said = pytest.returncode, pytest.stdout + pytest.stderr
    except subprocess.TimeoutExpired:
        exit_code, said = -1, f"no end within {RUN_TIMEOUT_S:.0f} s"
    lines = complaints.read_text().splitlines() if complaints.exists() else []
    return Run(
        exit_code=exit_code,
        complaints={test: what for test, _, what in (line.partition("\t") for line in lines)},
        said=said[-3000:],
        seconds=time.monotonic() - began,
    )


def _copy(root: Path, to: Path) -> None:
    to.mkdir()
    for name in COPIED:
        if (root / name).is_dir():
            # The copy of a copy has the bytecode of what is unchanged.
            ignored = shutil.ignore_patterns("__pycache__") if root == ROOT else None
            shutil.copytree(root / name, to / name, ignore=ignored)
        else:
            shutil.copy2(root / name, to / name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
