"""The mutants fit the source and the tests that there are: `make mutants` runs them."""

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.mutants.mutant import PACKAGE, Mutant, documented
from tests.mutants.rows import MUTANTS

ROOT = Path(__file__).parents[2]
CONTRACTS = PACKAGE / "testing"
every_mutant = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)


@every_mutant
def test_a_mutant_fits_the_source_in_one_place_and_compiles(mutant: Mutant) -> None:
    source = (ROOT / PACKAGE / mutant.file).read_text()

    mutated = mutant.mutated(source)

    assert mutated != source
    compile(mutated, mutant.file, "exec")


@cache
def names_in(file: Path) -> set[str]:
    """Return the functions of a file, and its classes with their methods as `class::method`."""
    names: set[str] = set()
    for node in ast.parse((ROOT / file).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {node.name, *(f"{node.name}::{each.name}" for each in node.body if hasattr(each, "name"))}
    return names


def is_there(test: str) -> bool:
    """Tell whether the test is in its file, or is a contract's that a class there inherits."""
    file, _, name = test.partition("[")[0].partition("::")
    owner, _, claim = name.partition("::")
    inherited = {each.rpartition("::")[2] for kit in (ROOT / CONTRACTS).glob("*contract*.py") for each in names_in(kit)}
    names = names_in(Path(file))
    return name in names or (owner in names and claim in inherited)


@every_mutant
def test_the_tests_that_are_to_catch_a_mutant_are_there(mutant: Mutant) -> None:
    assert mutant.tests
    assert [test for test in mutant.tests if not is_there(test)] == []


def test_no_two_mutants_are_the_same() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) == len({(m.file, m.old, m.new) for m in MUTANTS})


def test_the_docs_have_every_mutant_with_what_catches_it() -> None:
    page = (ROOT / "docs/reliability.md").read_text().splitlines()

    assert [line for line in documented(MUTANTS) if line not in page] == []
