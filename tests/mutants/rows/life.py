"""Readiness, the way to the end, and what is counted."""

from tests.mutants.mutant import Mutant
from tests.mutants.tests import CHECKER, HEALTH, HTTP, UNIT, WORLDS

LIFE = (
    Mutant(
        name="drain-that-drops",
        bug="The publisher is closed before the requests in flight have their answers.",
        file="serve/server.py",
        old="        await asyncio.wait(closing, timeout=self._answers_timeout_s)\n",
        new="        await asyncio.wait(closing, timeout=0)\n",
        tests=(
            f"{UNIT}/test_serve.py::test_the_answers_are_waited_for_a_moment_longer_than_the_deadline_of_publishing",
            f"{WORLDS}[0]",
        ),
    ),
    Mutant(
        name="ready-whatever-happens",
        bug="Readiness does not depend on the components.",
        file="health.py",
        old="return not self.draining and all(state.good_enough for state in self._states.values())",
        new="return not self.draining",
        tests=(f"{HTTP}/test_edge.py::test_ready_is_503_and_names_the_component_until_it_works",),
    ),
    Mutant(
        name="ready-while-draining",
        bug="A process that was told to stop says that it is ready, so that more is sent to it.",
        file="health.py",
        old="return not self.draining and all(state.good_enough for state in self._states.values())",
        new="return all(state.good_enough for state in self._states.values())",
        tests=(f"{HTTP}/test_edge.py::test_a_draining_process_is_not_ready_and_still_stores_and_closes_connections",),
    ),
    Mutant(
        name="ready-before-a-look",
        bug="A process is ready before it has looked at its components.",
        file="health.py",
        old='State(ok=False, good_enough=False, reason="not looked at yet")',
        new='State(ok=False, good_enough=True, reason="not looked at yet")',
        tests=(f"{HEALTH}::test_before_the_first_look_nothing_is_ready",),
    ),
    Mutant(
        name="grace-without-end",
        bug="A component that has some grace is good enough for ever, though it never worked.",
        file="health.py",
        old="self._clock() - self._worked_at[component.name] < component.grace_s",
        new="component.grace_s > 0",
        tests=(
            f"{HEALTH}::test_a_component_is_good_enough_for_its_grace_and_no_longer",
            f"{HEALTH}::test_grace_is_for_what_has_worked",
        ),
    ),
    Mutant(
        name="silence-is-health",
        bug="A component that does not answer in time counts as well.",
        file="health.py",
        old='            return f"no answer within {PING_TIMEOUT_S:g} s"\n',
        new='            return ""\n',
        tests=(f"{HEALTH}::test_a_component_that_does_not_answer_fails_after_two_seconds",),
    ),
    Mutant(
        name="watch-ends",
        bug="A component whose ping raises something strange ends the watch, and readiness stays as it was.",
        file="health.py",
        old="        except Exception as error:",
        new="        except KeyError as error:",
        tests=(f"{HEALTH}::test_whatever_a_ping_raises_the_watch_goes_on",),
    ),
    Mutant(
        name="drain-untold",
        bug="A process that was told to stop does not say so while it waits, and gets new requests to the last.",
        file="serve/server.py",
        old="        container.health().drain()\n",
        new="",
        tests=(f"{UNIT}/test_serve.py::test_it_says_that_it_is_not_ready_before_it_lets_nothing_more_in",),
    ),
    Mutant(
        name="cut-is-success",
        bug="A process that has cut requests at its end exits with 0.",
        file="serve/server.py",
        old="        if all(task.done() and task.exception() is None and task.result() for task in closing):\n",
        new="        if all(task.done() for task in closing):\n",
        tests=(f"{UNIT}/test_serve.py::test_a_process_that_has_cut_requests_ends_with_1",),
    ),
    Mutant(
        name="counts-requests-for-events",
        bug="A batch counts as one event, whatever its size.",
        file="metrics.py",
        old="            self._events[kind].inc(number)\n",
        new="            self._events[kind].inc()\n",
        tests=(f"{WORLDS}[0]",),
    ),
)

PROOF = (
    Mutant(
        name="checker-misses-a-loss",
        bug="The checker takes it that an accepted event with a receipt is there.",
        file="proof/checker.py",
        old="        if attempt.read_back or place is not None:\n",
        new="        if attempt.read_back or place is not None or attempt.receipt is not None:\n",
        tests=(f"{CHECKER}::test_whatever_is_done_to_them_is_named[lose_a_record-missing]",),
    ),
    Mutant(
        name="checker-misses-a-second-copy",
        bug="The checker overlooks an event that is stored once too often.",
        file="proof/checker.py",
        old="        for place in spare:\n",
        new="        for place in tuple(spare)[1:]:\n",
        tests=(f"{CHECKER}::test_whatever_is_done_to_them_is_named[store_a_record_again-stored_twice]",),
    ),
)
