"""A pytest plugin that writes down which tests failed with a complaint: `test id <tab> what it was`, line by line.

What looks like a mistake in the mutant, a name that is not there for instance, is no complaint: it would fail any test.
Nor is a test that takes too long, which may be the machine's fault.
"""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings

MISTAKES = (AttributeError, ImportError, NameError, SyntaxError, TypeError)


def pytest_configure() -> None:
    """Have Hypothesis try what it tries in CI, and no shorter examples of what it has found."""
    settings.register_profile("mutants", settings.get_profile("ci"), phases=[Phase.explicit, Phase.generate])
    settings.load_profile("mutants")


def pytest_exception_interact(call: "pytest.CallInfo[Any]", report: Any) -> None:
    """Write the complaint down."""
    if report.when == "call" and call.excinfo is not None and _is_complaint(call.excinfo.value):
        what = " ".join(call.excinfo.exconly().split())
        with Path(os.environ["COMPLAINTS"]).open("a") as file:
            file.write(f"{report.nodeid}\t{what}\n")


def _is_complaint(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_complaint, error.exceptions))
    return not isinstance(error, MISTAKES) and not str(error).startswith("Timeout (>")  # As pytest-timeout says it.
