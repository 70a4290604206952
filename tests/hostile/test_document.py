"""The running service does what its document says: takes what is called good, refuses what is called bad."""

from collections.abc import Iterator
from typing import Any

import pytest

from customersignal_ingest.adapters.inbound.http import openapi
from tests.hostile.openapi import explore
from tests.hostile.stage import Stage, staged

pytestmark = pytest.mark.xdist_group("openapi")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("openapi")) as running:
        yield running


def test_the_service_and_its_document_agree(stage: Stage) -> None:
    explored = explore(stage, "--max-examples", "25")

    assert explored.agrees, explored.report
    assert explored.requests > 200
    assert stage.is_serving()


def test_nothing_of_it_leaks_or_ends_with_an_error_of_ours(stage: Stage) -> None:
    assert stage.leaks() == []
    assert [status for status in stage.logged() if status >= 500] == []


def a_document(**rules: Any) -> dict[str, Any]:
    document = openapi.document()
    event = document["components"]["schemas"]["Event"]
    event["properties"]["event_type"] |= rules
    return document


@pytest.mark.parametrize("rules", [{"maxLength": 300}, {"maxLength": 100}], ids=["too_wide", "too_narrow"])
def test_a_document_that_says_something_else_is_found_out(stage: Stage, rules: dict[str, Any]) -> None:
    lying = a_document(**rules)

    explored = explore(
        stage, "--phases", "coverage", "--include-operation-id", "sendEvent", "--max-examples", "5", document=lying
    )

    assert not explored.agrees
    assert explored.requests > 20
