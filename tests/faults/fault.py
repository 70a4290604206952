"""How a fault is declared: what is broken and how, how it is mended, and what is right meanwhile.

A fault is a generator over a stage. It breaks something, makes sure that it is broken, yields how one
could tell, and mends it when it is resumed:

    @fault("F01", "a leader is killed", answers={503, 504}, gap_s=SESSION_S + 3, recovery_s=5)
    def leader_killed(stage: Stage) -> Breaking:
        node = stage.leader()
        stage.cluster.kill(node)
        yield f"node {node} is dead"
        stage.cluster.restart(node)
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.faults.stage import Stage

Breaking = Iterator[str]
Break = Callable[[Stage], Breaking]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault, and the bounds that hold while it lasts.

    - `answers`: what is right beside 202 from the breaking until 2 s after the recovery; 0 is no answer.
    - `lasts_s`: how long it is left alone between breaking and mending.
    - `gap_s`: the longest that any waiting client may be without a 202; `None` where only the recovery counts.
    - `recovery_s`: after the mending, until each waiting client has a 202 again.
    - `at_start`: it is broken before the service starts.
    - `ends`: the service ends by it, in order, with exit code 0.
    - `restarts`: the service is another process afterwards, so its counters are not the clients'.
    - `ready`: whether `/health/ready` is held against what the clients see; not where the process stands still.
    - `settings`, `parameters`, `topic`, `plan`: of the service, its publisher URL, the topic, the clients.
    """

    number: str
    name: str
    how: Break
    answers: frozenset[int]
    lasts_s: float
    gap_s: float | None
    recovery_s: float
    short: bool
    at_start: bool
    ends: bool
    restarts: bool
    ready: bool
    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    topic: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.number}-{self.name.replace(' ', '-')}"


FAULTS: list[Fault] = []
"""Every fault that has been declared."""


def fault(
    number: str,
    name: str,
    *,
    answers: set[int] | None = None,
    lasts_s: float = 0.0,
    gap_s: float | None = None,
    recovery_s: float = 5.0,
    short: bool = False,
    at_start: bool = False,
    ends: bool = False,
    restarts: bool = False,
    ready: bool = True,
    **others: Mapping[str, Any],
) -> Callable[[Break], Break]:
    """Declare a fault; see `Fault`."""

    def declare(how: Break) -> Break:
        FAULTS.append(
            Fault(
                number=number,
                name=name,
                how=how,
                answers=frozenset(answers or ()),
                lasts_s=lasts_s,
                gap_s=gap_s,
                recovery_s=recovery_s,
                short=short,
                at_start=at_start,
                ends=ends,
                restarts=restarts,
                ready=ready,
                **others,
            )
        )
        return how

    return declare
