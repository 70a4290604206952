"""Nothing of the corpus gets in, makes the service fall over, or makes it tell."""

from collections.abc import Iterator

import pytest

from tests.hostile.corpus import GROUPS, read_group
from tests.hostile.play import Played, play
from tests.hostile.stage import Stage, staged
from tests.hostile.words import KEYS
from tests.integration.servers.service import until

MEMORY_MIB_MAX = 96
"""What a service may hold more after all of it: buffers of its libraries, no more than one large body leaves."""

pytestmark = pytest.mark.xdist_group("hostile")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("hostile")) as running:
        play(running, "keys")  # By now it has all the connections to its key database that it will have.
        assert running.is_serving()
        yield running


@pytest.fixture(scope="module")
def at_first(stage: Stage) -> tuple[int, float]:
    return stage.files(), stage.memory_mib()


@pytest.mark.parametrize("group", GROUPS)
def test_each_row_gets_what_the_contract_says(stage: Stage, at_first: tuple[int, float], group: str) -> None:
    played: Played = play(stage, group)

    assert not played.complaints, "\n".join(["", *played.complaints])
    assert stage.is_serving()


def test_no_log_line_and_no_metric_has_a_secret(stage: Stage) -> None:
    assert stage.leaks() == []


def test_no_request_ended_with_an_error_of_ours(stage: Stage) -> None:
    assert [status for status in stage.logged() if status >= 500] == []


def test_nothing_is_left_open(stage: Stage, at_first: tuple[int, float]) -> None:
    files, memory_mib = at_first

    until(lambda: stage.files() <= files)
    assert stage.memory_mib() < memory_mib + MEMORY_MIB_MAX


def test_there_are_hundreds_of_rows() -> None:
    words = dict.fromkeys((*KEYS, "secret", "private"), b"x")
    rows = [row for group in GROUPS for row in read_group(group, words)]

    assert sum(not row.is_good for row in rows) > 700
    assert sum(row.is_good for row in rows) > 90
