"""A topic that was just made is given the time that brokers need to hear of it."""

import pytest

from customersignal_ingest.cli.topic import settled
from customersignal_ingest.domain.errors import Unavailable

pytestmark = pytest.mark.anyio


class Brokers:
    """Brokers of whom the first few that are asked have not heard of the topic."""

    def __init__(self, *, ignorant: int, silent: int = 0) -> None:
        self.ignorant, self.silent, self.asked = ignorant, silent, 0

    async def look(self) -> list[str]:
        self.asked += 1
        if self.asked <= self.silent:
            raise Unavailable("the topic can't be described")
        return ["the topic is missing"] if self.asked <= self.ignorant else []


async def test_a_new_topic_that_some_brokers_do_not_know_yet_is_no_problem() -> None:
    assert await settled(Brokers(ignorant=2).look, patience_s=60, pause_s=0) == []


async def test_a_new_topic_of_which_some_brokers_can_not_tell_yet_is_no_problem() -> None:
    assert await settled(Brokers(ignorant=3, silent=2).look, patience_s=60, pause_s=0) == []


async def test_a_topic_of_which_nobody_can_tell_is_not_said_to_be_safe() -> None:
    with pytest.raises(Unavailable):
        await settled(Brokers(ignorant=0, silent=1_000_000).look, patience_s=0.01, pause_s=0)


async def test_what_stays_a_problem_is_told() -> None:
    assert await settled(Brokers(ignorant=1_000_000).look, patience_s=0.01, pause_s=0) == ["the topic is missing"]


async def test_a_topic_that_was_there_is_looked_at_once() -> None:
    brokers = Brokers(ignorant=1)

    assert await settled(brokers.look, patience_s=0) == ["the topic is missing"]
    assert brokers.asked == 1
