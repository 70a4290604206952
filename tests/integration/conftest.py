"""The real servers, once a session; a test makes topics and databases of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.servers import kafka as kafka_server
from tests.integration.servers import postgres as postgres_server

ROOT = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together, in one process of a parallel run, what shares a server: tests break servers on purpose."""
    for item in items:
        if ROOT in item.path.parents:
            shared = "kafka" if "kafka" in getattr(item, "fixturenames", ()) else item.path.stem
            item.add_marker(pytest.mark.xdist_group(shared))


@pytest.fixture(scope="session")
def kafka() -> Iterator[kafka_server.Kafka]:
    """A Kafka to test with; skips where there is none."""
    try:
        with kafka_server.running() as found:
            yield found
    except kafka_server.Missing as error:
        pytest.skip(str(error))


@pytest.fixture
def cluster(kafka: kafka_server.Kafka) -> Iterator[kafka_server.Cluster]:
    """Three nodes that the test may kill and freeze; they are whole again after it."""
    if not isinstance(kafka, kafka_server.Cluster):
        pytest.skip("nodes can be killed and frozen only where Java 17 and Maven serve Kafka")
    yield kafka
    kafka.heal()


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgres_server.Postgres]:
    """A PostgreSQL to test with; skips where there is none."""
    try:
        with postgres_server.running() as found:
            yield found
    except postgres_server.Missing as error:
        pytest.skip(str(error))


@pytest.fixture
def postgres_to_break(postgres: postgres_server.Postgres) -> Iterator[postgres_server.Server]:
    """A PostgreSQL that the test may kill and freeze; it answers again after it."""
    if not isinstance(postgres, postgres_server.Server):
        pytest.skip("a PostgreSQL that was given can't be killed and frozen")
    yield postgres
    postgres.heal()
