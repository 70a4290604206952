"""The servers of a run, which all faults share, and the table at its end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import cluster as linked
from tests.faults import report, stage
from tests.faults.proxy import Network
from tests.integration.servers import kafka, postgres


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "short: is part of `make faults`")


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture(scope="session")
def cluster(network: Network) -> Iterator[linked.LinkedCluster]:
    try:
        with linked.running(network) as cluster:
            yield cluster
    except kafka.Missing as error:
        pytest.fail(str(error))


@pytest.fixture(scope="session")
def keys(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[stage.Keys]:
    """The key database. It can be killed, so one that was given from outside won't do."""
    with postgres.running() as server:
        assert isinstance(server, postgres.Server), "faults need a PostgreSQL that they can kill"
        with stage.keys(server, network, tmp_path_factory.mktemp("operator")) as keys:
            yield keys


@pytest.fixture(scope="session")
def results() -> report.Results:
    """What was seen of each fault; also in a file, a line each."""
    return report.RESULTS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if report.RESULTS.rows:
        terminalreporter.section("faults")
        terminalreporter.write_line(report.table(report.RESULTS.rows))
        terminalreporter.write_line(f"as JSON Lines: {report.RESULTS.path.relative_to(Path.cwd())}")
