"""The rules of who may import what: they hold, and each of them can fail."""

import ast
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "customersignal_ingest"
SOURCE = ROOT / "src" / PACKAGE
LINT = "import sys; from importlinter.cli import lint_imports_command as run; run(sys.argv[1:])"

INWARDS = "Everything points inwards"
DOMAIN = "The domain points inwards too"
CORE = "The core knows no framework"
JSON = "The core reads and writes JSON in two files"
ADAPTERS = "No adapter imports another"
URLS = "Stores are chosen by URL"
STORES = "No transport knows a store"
TRANSPORTS = "No store knows a transport"
CONTAINER = "The container is in one file"
PYDANTIC = "Pydantic describes bodies and reads settings"
PROOF = "The proof knows nothing of what it judges"
CANARY = "The canary knows the service from outside"

BREAKS = [
    (INWARDS, "domain/outcome.py", "import customersignal_ingest.ports"),
    (INWARDS, "ports.py", "import customersignal_ingest.ingest"),
    (INWARDS, "ingest.py", "import customersignal_ingest.registry"),
    (INWARDS, "policies.py", "import customersignal_ingest.adapters"),
    (INWARDS, "policies.py", "import customersignal_ingest.health"),
    (INWARDS, "nobody_placed_me.py", ""),
    (DOMAIN, "domain/event.py", "import customersignal_ingest.domain.rules"),
    (CORE, "domain/key.py", "import os"),
    (CORE, "ports.py", "import litestar"),
    (CORE, "ingest.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import asyncio"),
    (JSON, "domain/key.py", "import msgspec"),
    (ADAPTERS, "adapters/outbound/second.py", "import customersignal_ingest.adapters.outbound.first"),
    (URLS, "bootstrap.py", "import customersignal_ingest.adapters.outbound.memory"),
    (STORES, "adapters/inbound/first.py", "import sqlalchemy"),
    (TRANSPORTS, "adapters/outbound/first.py", "import litestar"),
    (CONTAINER, "policies.py", "import dependency_injector"),
    (PYDANTIC, "adapters/inbound/first.py", "import pydantic"),
    (PROOF, "proof/journal.py", "from customersignal_ingest.domain.event import encode"),
    (PROOF, "proof/journal.py", "import customersignal_ingest.policies"),
    (CANARY, "canary/run.py", "import customersignal_ingest.domain.rules"),
    (CANARY, "verify.py", "import customersignal_ingest.registry"),
]

# What the core may use of the world: pure, or types alone. No clock, no network, no files, no threads.
HTTP_CLIENTS = ("aiohttp", "ftplib", "http.client", "httpcore", "httpx", "requests", "urllib.request", "urllib3")
PURE = {
    "collections",
    "dataclasses",
    "datetime",
    "enum",
    "functools",
    "hashlib",
    "hmac",
    "itertools",
    "json",
    "math",
    "re",
    "struct",
    "typing",
    "zlib",
}

CORE_FILES = [SOURCE / "ports.py", SOURCE / "ingest.py", *sorted((SOURCE / "domain").rglob("*.py"))]
JSON_FILES = [SOURCE / "domain/event.py", SOURCE / "domain/strict_json.py"]


def lint(root: Path) -> dict[str, bool]:
    """Return for each contract whether it was kept, as import-linter itself says."""
    done = subprocess.run(
        [sys.executable, "-c", LINT, "--no-logo", "--no-cache"],
        cwd=root,
        env={"PYTHONPATH": str(root / "src"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = {name: verdict == "KEPT" for name, verdict in re.findall(r"^(.+?) (KEPT|BROKEN)\b", done.stdout, re.M)}
    assert found, done.stdout + done.stderr
    assert (done.returncode == 0) == all(found.values()), done.stdout
    return found


def contracts() -> set[str]:
    config = ConfigParser()
    config.read(ROOT / ".importlinter")
    return {config[section]["name"] for section in config.sections() if ":contract:" in section}


def test_every_import_contract_is_kept() -> None:
    assert lint(ROOT) == dict.fromkeys(contracts(), True)


@pytest.mark.parametrize(("contract", "file", "line"), BREAKS)
def test_an_import_contract_breaks_where_it_should(contract: str, file: str, line: str, tmp_path: Path) -> None:
    copy = tmp_path / "src" / PACKAGE
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", tmp_path)
    (copy / "adapters/outbound/first.py").touch()
    with (copy / file).open("a") as text:
        text.write(f"\n{line}\n")

    kept = lint(tmp_path)

    assert {name for name in kept if not kept[name]} == {contract}


def test_every_import_contract_is_broken_by_a_test() -> None:
    assert {contract for contract, _, _ in BREAKS} == contracts()


def roots(file: Path) -> set[str]:
    """Return the top-level names of everything that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." if node.level else (node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize("file", CORE_FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_the_core_imports_what_is_pure_and_nothing_else(file: Path) -> None:
    allowed = PURE | {PACKAGE} | ({"msgspec"} if file in JSON_FILES else set())

    assert roots(file) <= allowed


def test_every_file_imports_by_full_name() -> None:
    assert [file for file in SOURCE.rglob("*.py") if "." in roots(file)] == []


def clients_in(file: Path) -> set[str]:
    """Return what can fetch a URL of all that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith(HTTP_CLIENTS)}


def test_what_serves_has_no_way_to_fetch_anything() -> None:
    """So no event can make it call anybody. The probe calls its own process, the canary whom its operator names."""
    by_themselves = {"canary/http.py", "cli/service.py", "testing/service.py"}

    found = {str(file.relative_to(SOURCE)) for file in SOURCE.rglob("*.py") if clients_in(file)}

    assert found == by_themselves


def test_the_docs_show_the_layers_as_they_are() -> None:
    config = ConfigParser()
    config.read(ROOT / ".importlinter")
    layers = [re.findall(r"\w+", line) for line in config["importlinter:contract:layers"]["layers"].split("\n") if line]
    page = (ROOT / "docs/for-architects.md").read_text()

    shown = re.search(r"## Who may import what\n+```\n(.+?)```", page, re.S)

    assert shown is not None
    assert [re.findall(r"\w+", layer) for layer in shown[1].split(">")] == layers
