"""The command line, run within the test."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from customersignal_ingest.cli import commands

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in an empty folder; settings by keyword."""
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str, stdin: bytes = b"", **variables: str) -> Result:
        return CliRunner().invoke(commands, arguments, input=stdin, env=variables)

    return invoke
