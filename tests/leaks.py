"""A pytest plugin that searches everything which the tests make the service say for planted secrets.

Whatever a test leaves on standard output, standard error and in the log is searched when it is over,
and so is everything that a helper asked to have watched: lines of a log that is kept in memory, a
process's output, metrics. What it finds makes the test fail. Run the tests with `-s`, and there is no
output to search.
"""

import json
import traceback
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any

import pytest

from customersignal_ingest.testing.planted import leaked

_watched: list[tuple[str, Callable[[], str]]] = []
_secrets: set[str] = set()
_running = False


def watch(what: str, text: Callable[[], str], /) -> None:
    """Have this text searched when the test that runs now is over."""
    if _running:
        _watched.append((what, text))


def also_secret(*secrets: str) -> None:
    """Have these searched for as well, in this and all later tests."""
    _secrets.update(secrets)


def lines_as_text(lines: Iterable[Mapping[str, Any]]) -> str:
    """Return the lines of a log as they would be written, tracebacks and all."""
    return "\n".join(json.dumps({name: _written(value) for name, value in line.items()}) for line in lines)


def _written(value: object) -> str:
    return "".join(traceback.format_exception(value)) if isinstance(value, BaseException) else repr(value)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """When the last phase of a test is over, search."""
    report: pytest.TestReport = yield
    if report.when == "teardown":
        found = [*_in(report.sections), *_in([(what, text()) for what, text in _watched])]
        _watched.clear()
        if found:
            report.outcome = "failed"
            report.longrepr = f"Planted secrets leaked, {len(found)} lines, such as:\n" + "\n".join(found[:20])
    return report


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Watch from now on."""
    global _running
    _running = True


def _in(texts: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{what}: {line[:500]}" for what, text in texts for line in leaked(text, *_secrets)]
