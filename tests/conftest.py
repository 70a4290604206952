"""What every test shares."""

import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

from tests import leaks
from tests.leaks import pytest_runtest_setup

__all__ = ["pytest_runtest_setup"]

# `pytest --hypothesis-profile=nightly` chooses another one.
_COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("dev", _COMMON, max_examples=40)
settings.register_profile("ci", _COMMON, max_examples=80, derandomize=True, print_blob=True)
settings.register_profile("nightly", _COMMON, max_examples=10_000, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """All of our code runs on asyncio."""
    return "asyncio"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Search what was said for secrets; and where `CI=true`, let what would be skipped fail, for the same reason."""
    report = yield from leaks.pytest_runtest_makereport(item, call)
    if isinstance(report.longrepr, tuple) and os.environ.get("CI") == "true":  # File, line and reason of a skip.
        report.outcome = "failed"
        report.longrepr = f"{report.longrepr[2]} (with CI=true nothing is skipped)"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests that measure have seen, whether it was good enough or not."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, seen in report.user_properties:
            if name == "seen":
                terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {seen}")
