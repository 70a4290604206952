"""A mutant: the service with one plausible bug, and the tests that have to notice."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

PACKAGE = Path("src/customersignal_ingest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One row. `old` stands exactly once in `file` (a path within the package), and `new` takes its place.

    Each of `tests`, by its pytest id, has to fail with a complaint of its own. An id without the
    part in brackets stands for all cases of a test, of which one has to fail.
    """

    name: str
    bug: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def apply(self, root: Path) -> None:
        """Put the bug into the package under `root`."""
        path = root / PACKAGE / self.file
        path.write_text(self.mutated(path.read_text()))

    def mutated(self, source: str) -> str:
        """Return the source with the bug; `ValueError` when it no longer fits."""
        if source.count(self.old) != 1:
            raise ValueError(f"{self.name}: the old text is {source.count(self.old)} times in {self.file}, not once")
        return source.replace(self.old, self.new)

    @property
    def caught_by(self) -> str:
        """The tests by their kind, as `unit: test_one, test_other; simulation: test_third`."""
        kinds = groupby(sorted(self.tests, key=_order), key=kind_of)
        return "; ".join(f"{kind}: {', '.join(dict.fromkeys(map(short, tests)))}" for kind, tests in kinds)


KINDS = ("unit", "contract", "simulation")


def kind_of(test: str) -> str:
    """Return what kind of test an id names: contracts are the only tests in classes."""
    if test.startswith("tests/simulation/"):
        return "simulation"
    return "contract" if "::Test" in test else "unit"


def short(test: str) -> str:
    """Return the name of a test without its file, class and case."""
    return test.rpartition("::")[2].partition("[")[0]


def documented(mutants: tuple[Mutant, ...]) -> Iterator[str]:
    """Yield the lines of the table in `docs/reliability.md`."""
    yield "| mutant | the bug | what catches it |"
    yield "| --- | --- | --- |"
    for mutant in mutants:
        yield f"| {mutant.name} | {mutant.bug} | {mutant.caught_by} |"


def _order(test: str) -> int:
    return KINDS.index(kind_of(test))
