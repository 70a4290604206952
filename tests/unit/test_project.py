"""Docs, decisions and lock files say what the code says."""

import asyncio
import json
import os
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution, distributions
from pathlib import Path
from typing import Any, get_args

import click
import msgspec
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from customersignal_ingest.adapters.inbound.http import access
from customersignal_ingest.adapters.inbound.http.answers import CODES
from customersignal_ingest.adapters.outbound.kafka import options
from customersignal_ingest.canary.metrics import Answer, CanaryMetrics, RoundResult
from customersignal_ingest.cli import COMMANDS, commands
from customersignal_ingest.domain.errors import ConfigurationError, KeyProblem
from customersignal_ingest.domain.key import new_key
from customersignal_ingest.domain.outcome import Reason, Stored
from customersignal_ingest.metrics import Metrics
from customersignal_ingest.proof.checker import Checker
from customersignal_ingest.proof.journal import Answered, Sent, read
from customersignal_ingest.proof.report import Kind
from customersignal_ingest.registry import AdapterSettings
from customersignal_ingest.settings import LIMITS, Settings, variable
from customersignal_ingest.testing.contracts import a_record

ROOT = Path(__file__).parents[2]
DEVELOPERS = (ROOT / "docs/for-application-developers.md").read_text()
OPERATORS = (ROOT / "docs/for-operators.md").read_text()
VERIFYING = (ROOT / "docs/verifying.md").read_text()
ARCHITECTS = (ROOT / "docs/for-architects.md").read_text()
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("adr/*.md")])
EXTRAS = PROJECT["project"]["optional-dependencies"]

pytestmark = pytest.mark.anyio


def locked(file: str) -> dict[str, set[str]]:
    """Return the locked versions of each name: more than one where platforms differ."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)(?:\[[^]]+\])?==([^ \\]+)", (ROOT / file).read_text(), re.M):
        found.setdefault(canonicalize_name(name), set()).add(version)
    return found


def wanted() -> Iterator[tuple[str, str]]:
    """Yield each requirement of pyproject.toml with each lock file that must hold it."""
    for requirement in PROJECT["build-system"]["requires"]:
        yield "requirements-build.txt", requirement
    for requirement in PROJECT["project"]["dependencies"]:
        yield "requirements.txt", requirement
        yield "requirements-dev.txt", requirement
    for requirement in (line for extra in EXTRAS.values() for line in extra):
        if not requirement.startswith(PROJECT["project"]["name"]):
            yield "requirements-dev.txt", requirement


@pytest.mark.parametrize(("file", "requirement"), list(wanted()))
def test_every_dependency_is_locked_at_a_version_that_pyproject_allows(file: str, requirement: str) -> None:
    asked = Requirement(requirement)

    versions = locked(file).get(canonicalize_name(asked.name), set())

    assert versions
    assert all(asked.specifier.contains(version, prereleases=True) for version in versions)


@pytest.mark.parametrize("file", ["requirements-build.txt", "requirements.txt", "requirements-dev.txt"])
def test_every_locked_version_has_hashes(file: str) -> None:
    entries = re.split(r"^(?=\S)", (ROOT / file).read_text(), flags=re.M)

    assert [entry for entry in entries if entry and "--hash=sha256:" not in entry] == []


def test_what_runs_is_locked_at_the_version_that_is_tested() -> None:
    tested = locked("requirements-dev.txt")

    assert {name: versions for name, versions in locked("requirements.txt").items() if tested[name] != versions} == {}


def extras_asked_for() -> set[str]:
    """Return each `name[extra]` that a locked distribution asks for, as far as it is installed here."""
    asked = set()
    for name in locked("requirements-dev.txt").keys() & {canonicalize_name(d.name) for d in distributions()}:
        for requirement in map(Requirement, distribution(name).requires or ()):
            if requirement.extras and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
                asked |= {f"{canonicalize_name(requirement.name)}[{extra}]" for extra in requirement.extras}
    return asked


def test_what_is_asked_for_with_an_extra_is_locked_with_it() -> None:
    """Else pip takes the newest version of it instead of the locked one, and then misses its hash."""
    found = re.findall(r"^([\w.-]+)\[([^]]+)\]==", (ROOT / "requirements-dev.txt").read_text(), re.M)
    pinned = {f"{canonicalize_name(name)}[{extra}]" for name, extras in found for extra in extras.split(", ")}

    assert "coverage[toml]" in extras_asked_for()
    assert extras_asked_for() - pinned == set()


def test_every_dependency_has_its_reason_in_the_decisions() -> None:
    reasons = (ROOT / "adr/0009-dependencies.md").read_text()

    names = {Requirement(requirement).name for _, requirement in wanted()}

    assert {name for name in names if not re.search(rf"^\| .*\b{name}\b.* \|", reasons, re.M)} == set()


def test_every_decision_is_in_the_index() -> None:
    index = (ROOT / "adr/README.md").read_text()

    assert [page.name for page in ROOT.glob("adr/0*.md") if f"({page.name})" not in index] == []


@pytest.mark.parametrize("page", sorted(ROOT.glob("adr/0*.md")), ids=lambda page: page.stem)
def test_a_decision_has_its_five_parts(page: Path) -> None:
    text = page.read_text()

    headings = re.findall(r"^## (.+)$", text, re.M)

    assert text.startswith(f"# {'NNNN' if page.stem.startswith('0000') else page.stem[:4]}: ")
    assert re.search(r"^Status: \S", text, re.M)
    assert headings == ["Context", "Decision", "Consequences", "Rejected"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_shows_every_part_of_the_package_and_nothing_else() -> None:
    tree = (ROOT / "README.md").read_text().partition("src/customersignal_ingest/\n")[2].partition("\ntests/")[0]
    package = ROOT / "src/customersignal_ingest"
    there = {path.name for path in package.iterdir() if path.name[0] != "_"} - {"py.typed", "version.py"}

    shown = [name.rstrip("/") for names in re.findall(r"^  (\S.*?)  +", tree, re.M) for name in names.split(", ")]

    assert {path.partition("/")[0] for path in shown} == there
    assert [path for path in shown if not (package / path).exists()] == []


def test_every_code_is_explained_with_its_status() -> None:
    explained = re.findall(r"^\| `([A-Z]+(?:_[A-Z]+)+)` \| (\d+) \|", DEVELOPERS, re.M)

    assert sorted(explained) == sorted((code.value, str(meaning.status)) for code, meaning in CODES.items())


def test_every_reason_and_key_problem_is_a_code() -> None:
    assert {*Reason, *KeyProblem} <= set(CODES)


def test_every_setting_is_explained() -> None:
    explained = re.findall(r"^\| `(CS_INGEST_\w+)` \|", OPERATORS, re.M)

    assert sorted(explained) == sorted(map(variable, Settings.model_fields))


def test_every_default_is_the_one_in_the_docs() -> None:
    explained = dict(re.findall(r"^\| `(CS_INGEST_\w+)` \| ([^|]+) \|", OPERATORS, re.M))
    numbers = {
        name: field.default for name, field in Settings.model_fields.items() if type(field.default) in {int, float}
    }

    assert len(numbers) > 10
    assert {name: float(explained[variable(name)]) for name in numbers} == numbers


def test_every_limit_is_explained_to_those_who_send() -> None:
    explained = re.findall(r"^\| `(\w+_(?:max|s))` \| [\d ]+ \|", DEVELOPERS, re.M)

    assert {*LIMITS} - {"in_flight_bytes_max", "in_flight_events_max", "tenant_share"} == {*explained}


def test_every_parameter_of_a_kafka_url_is_explained() -> None:
    assert [name for name in options._PARAMETERS if f"| `{name}` |" not in OPERATORS] == []


def test_every_field_of_a_requests_log_line_is_explained() -> None:
    fields = set(re.findall(r'"((?:[a-z_]+\.)+[a-z_]+|\w+_id)"', Path(access.__file__).read_text()))

    assert len(fields) > 10
    assert [field for field in fields if f"| `{field}` |" not in OPERATORS] == []


def test_every_metric_is_explained() -> None:
    registries = (Metrics(version="1", publisher="memory").registry, CanaryMetrics().registry)
    families = [family for registry in registries for family in registry.collect()]

    names = {family.name + ("_total" if family.type == "counter" else "") for family in families}

    assert names == set(re.findall(r"^\| `((?:cs_ingest|http_server)_\w+)` \|", OPERATORS, re.M))


@pytest.mark.parametrize("answers", [Answer, RoundResult])
def test_every_result_of_a_canary_is_explained(answers: Any) -> None:
    assert ", ".join(f"`{name}`" for name in get_args(answers)) in OPERATORS


def test_every_command_is_explained() -> None:
    explained = re.findall(r"^\| `cs-ingest (\w+)` \|", OPERATORS, re.M)

    assert explained == list(COMMANDS)


def section(name: str) -> str:
    """Return the part of the page about verifying with this heading."""
    [text] = re.findall(rf"^## {name}$(.+?)(?=^## |\Z)", VERIFYING, re.M | re.S)
    return str(text)


@pytest.mark.parametrize("name", ["verify", "canary"])
def test_every_option_is_explained(name: str) -> None:
    command = commands.get_command(click.Context(commands), name)
    assert command is not None
    options = [option for option in command.params if isinstance(option, click.Option)]

    explained = re.findall(r"^\| `(--[\w-]+)` \|", section(f"cs-ingest {name}"), re.M)

    assert explained == [option.opts[0] for option in options]


def test_every_kind_of_finding_is_explained() -> None:
    assert re.findall(r"^\| `([a-z_]+)` \|", section("cs-ingest verify"), re.M) == list(Kind)


def test_every_field_of_a_journal_is_explained() -> None:
    explained = re.findall(r"^\| `(\w+)` \| (both|sent|answered) \|", section("A journal"), re.M)

    fields = {"sent": {"kind", *Sent.__struct_fields__}, "answered": {"kind", *Answered.__struct_fields__}}
    both = fields["sent"] & fields["answered"]
    assert set(explained) == {
        *((name, "both") for name in both),
        *((name, kind) for kind, names in fields.items() for name in names - both),
    }


def test_the_journal_in_the_docs_is_one_that_verify_can_read(tmp_path: Path) -> None:
    [text] = re.findall(r"reads this -->\n```jsonl\n(.+?)```", VERIFYING, re.S)
    (tmp_path / "journal").write_text(text)

    with Checker() as checker:
        checker.add_journal("docs", read(tmp_path / "journal"))
        report = checker.report()

    assert (report.requests, report.events) == (4, 5)
    assert (report.accepted, report.refused, report.unanswered, report.torn_lines) == (2, 2, 1, 0)
    assert report.wrong == {Kind.MISSING: 2}  # As it should be, of a store in which nothing is.


def test_the_journal_in_the_docs_is_what_our_own_writer_writes(tmp_path: Path) -> None:
    [text] = re.findall(r"reads this -->\n```jsonl\n(.+?)```", VERIFYING, re.S)
    (tmp_path / "journal").write_text(text)

    written = [json.loads(msgspec.json.encode(entry)) for _, entry in read(tmp_path / "journal")]

    assert written == [json.loads(line) for line in text.splitlines()]


def test_every_make_target_is_explained() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M)
    contributing = (ROOT / "CONTRIBUTING.md").read_text()

    assert [target for target in targets if target != "help" and f"| `make {target}` |" not in contributing] == []


def test_every_risk_of_owasp_names_tests_that_there_are() -> None:
    page = (ROOT / "docs/security.md").read_text()
    rows = re.findall(r"^\| (API\d+) \|.*\| ([^|]*) \|$", page, re.M)
    files = [*ROOT.glob("tests/**/*.py"), *ROOT.glob("src/**/testing/*.py")]

    there = {name for file in files for name in re.findall(r"def (test_\w+)\(", file.read_text())}

    named = {risk: set(re.findall(r"`(test_\w+)`", tests)) for risk, tests in rows}
    assert [*named] == [f"API{number}" for number in range(1, 11)]
    assert {risk: tests - there for risk, tests in named.items() if not tests or tests - there} == {}


def test_a_pattern_for_secret_scanners_finds_the_keys_that_we_make() -> None:
    [pattern] = re.findall(r"^(cs_\(live.+)$", (ROOT / "docs/security.md").read_text(), re.M)

    keys = [new_key(environment, os.urandom).secret for environment in ("live", "test") for _ in range(50)]

    assert [key for key in keys if re.fullmatch(pattern, key) is None] == []


def example_in(text: str) -> dict[str, Any]:
    """Run the one example of a page that is meant to be run, and return its names."""
    names: dict[str, Any] = {}
    [code] = re.findall(r"runs this -->\n```python\n(.+?)```", text, re.S)
    exec(code, names)
    return names


async def test_embedding_works_as_the_docs_show_it() -> None:
    page = (ROOT / "docs/for-python-developers.md").read_text()

    receipt = await example_in(page)["store"](b'{"event_type":"a","timestamp":"2026-11-23T10:00:00Z","properties":{}}')

    assert receipt.count(Stored) == 1


def open_the_publisher_in_the_docs(url: str) -> Any:
    return example_in(ARCHITECTS)["open_publisher"](url, settings=AdapterSettings())


async def test_the_publisher_in_the_docs_stores_what_it_says(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    publisher = open_the_publisher_in_the_docs(f"lines://{file}")
    records = [a_record(n) for n in range(3)]

    calls = [publisher.publish(records[:1]), publisher.publish(records[1:])]
    outcomes = [outcome for call in await asyncio.gather(*calls) for outcome in call]
    await publisher.close()

    lines = [file.read_bytes()[outcome.offset :].partition(b"\n")[0] for outcome in outcomes]
    assert all(isinstance(outcome, Stored) for outcome in outcomes)
    assert [record.event_id in line.decode() for record, line in zip(records, lines, strict=True)] == [True] * 3


def test_the_publisher_in_the_docs_refuses_a_parameter_it_does_not_know() -> None:
    with pytest.raises(ConfigurationError):
        open_the_publisher_in_the_docs("lines:///events.jsonl?sync=no")


@pytest.mark.parametrize("file", ["Makefile", ".ci/run", *(file.name for file in ROOT.glob("requirements*.txt"))])
def test_what_is_installed_comes_from_wherever_the_machine_says(file: str) -> None:
    assert "://" not in (ROOT / file).read_text()
