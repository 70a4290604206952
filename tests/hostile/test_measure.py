"""The measurements of `make hostile`, shortly: what holds whatever the machine is busy with."""

from pathlib import Path

import pytest

from tests.hostile.flood import NO_CONNECTION
from tests.hostile.measure import Beside, Memory, Overloaded, beside_a_crowd, measured_stage, overloaded, p99

pytestmark = pytest.mark.xdist_group("openapi")
MEMORY = Memory(before=100, peak=200, after=120)


def test_beside_a_crowd_every_event_is_stored_and_nothing_is_left_behind(tmp_path: Path) -> None:
    with measured_stage(tmp_path) as stage:
        beside = beside_a_crowd(stage, rounds=1, seconds=2, tell=print, crowd=140, coming_s=1)

    # Where the machine stands still for a moment, our client runs out of connections.
    assert beside.statuses.keys() - {NO_CONNECTION} == {"202"}
    assert beside.files_left <= 0
    assert beside.memory.broken == []


def test_in_overload_each_event_is_stored_or_refused_and_none_is_lost(tmp_path: Path) -> None:
    with measured_stage(tmp_path) as stage:
        found = overloaded(stage, rounds=1, seconds=1.5, tell=print, events=200)

    assert found.statuses.keys() - {NO_CONNECTION} <= {"202", "503"}
    assert found.statuses["202"] > 0
    assert found.unaccounted == 0
    assert found.memory.broken == []


def a_beside(**changed: object) -> Beside:
    good = {"quiet_p99_s": 0.01, "hostile_p99_s": 0.02, "rounds": [], "statuses": {"202": 9}, "crowd": 5}
    return Beside(**{**good, "crowd_least": 5, "files_left": 0, "memory": MEMORY, **changed})  # type: ignore[arg-type]


def an_overloaded(**changed: object) -> Overloaded:
    good = {"capacity": 100.0, "goodput": 80.0, "refused_p99_s": 0.05, "late_p99_s": 0.0, "unaccounted": 0}
    return Overloaded(**{**good, "statuses": {"202": 9, "503": 9}, "memory": MEMORY, **changed})  # type: ignore[arg-type]


def test_within_the_bounds_nothing_is_broken() -> None:
    assert a_beside().broken == []
    assert an_overloaded().broken == []


@pytest.mark.parametrize(
    "found",
    [
        a_beside(hostile_p99_s=0.021),
        a_beside(statuses={"202": 9, "503": 1}),
        a_beside(crowd_least=4),
        a_beside(files_left=1),
        a_beside(memory=Memory(before=100, peak=500, after=120)),
        a_beside(memory=Memory(before=100, peak=200, after=200)),
        an_overloaded(goodput=79.0),
        an_overloaded(refused_p99_s=0.051),
        an_overloaded(statuses={"202": 9, "503": 9, "closed": 1}),
        an_overloaded(unaccounted=-1),
    ],
)
def test_beyond_a_bound_something_is_broken(found: Beside | Overloaded) -> None:
    assert len(found.broken) == 1


def test_p99_is_what_one_of_a_hundred_exceeds() -> None:
    assert p99([float(number) for number in range(100)]) == 99.0
    assert p99([*[1.0] * 199, 5.0]) == 1.0
