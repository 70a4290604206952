"""Each oracle complains when it should, and only then."""

from collections import Counter
from dataclasses import replace

import pytest

from tests.faults.fault import Fault
from tests.faults.oracles import (
    Look,
    Moments,
    Resources,
    about_answers,
    about_counters,
    about_health,
    about_resources,
    about_times,
    gap_s,
)
from tests.faults.stage import Request, Samples, Stage

pytestmark = pytest.mark.short

MOMENTS = Moments(broken_ms=10_000, mended_ms=20_000, recovered_ms=21_000, ended_ms=30_000)
STORED = Counter({202: 1})


def nothing(_stage: Stage) -> "object":
    raise NotImplementedError


FAULT = Fault(
    number="F00",
    name="nothing",
    how=nothing,  # type: ignore[arg-type]
    answers=frozenset({504}),
    lasts_s=0.0,
    gap_s=5.0,
    recovery_s=2.0,
    short=False,
    at_start=False,
    ends=False,
    restarts=False,
    ready=True,
)


def a_request(sent_ms: int, *, status: int = 202, took_ms: int = 10, client: str = "c0-waiting-0") -> Request:
    answered_ms = sent_ms + took_ms if status else None
    return Request(client, sent_ms, 1, status, answered_ms, Counter({status: 1}))


def every(step_ms: int, since_ms: int, until_ms: int, *, status: int = 202) -> list[Request]:
    return [a_request(at_ms, status=status) for at_ms in range(since_ms, until_ms, step_ms)]


def a_look(at_ms: int, *, ready: int = 200, live: int | None = 200) -> Look:
    return Look(at_ms=at_ms, live=live, ready=ready, reasons="" if ready == 200 else "no broker answered")


@pytest.mark.parametrize(
    ("request_", "complains"),
    [
        (a_request(5_000, status=504), True),
        (a_request(9_995, status=504), False),  # It was hit: its answer came after the breaking.
        (a_request(12_000, status=504), False),
        (a_request(12_000, status=503), True),
        (a_request(12_000, status=0), True),
        (a_request(22_900, status=504), False),
        (a_request(23_100, status=504), True),
        (a_request(12_000, status=202, client="c0-wrong-0"), True),
        (a_request(5_000, status=422, client="c0-wrong-0"), False),
        (a_request(12_000, status=207, client="c0-batch-0"), False),
        (a_request(5_000, status=207, client="c0-batch-0"), True),
    ],
)
def test_an_answer_that_the_fault_does_not_excuse_is_complained_of(request_: Request, complains: bool) -> None:
    assert bool([*about_answers(FAULT, [request_], MOMENTS)]) == complains


def test_the_gap_is_the_longest_of_one_waiting_client() -> None:
    requests = [
        *every(100, 0, 10_000),
        *every(100, 0, 30_000, status=504),
        *every(100, 16_000, 30_000),
        a_request(12_000, client="c0-waiting-1"),
        a_request(13_000, client="c0-open-1"),
    ]

    assert gap_s(requests) == pytest.approx(6.1)
    assert [*about_times(FAULT, requests, MOMENTS)] == ["a client was without a 202 for 6.1 s, at most 5 s are right"]


def test_a_late_recovery_is_complained_of() -> None:
    late = replace(MOMENTS, recovered_ms=22_100)

    assert [*about_times(FAULT, [], late)] == ["recovered 2.1 s after the mending, at most 2 s are right"]


def test_ready_in_the_dark_is_a_lie() -> None:
    refused = [*every(100, 0, 10_000), *every(100, 10_000, 20_000, status=503)]

    assert [*about_health(FAULT, [a_look(14_000), a_look(15_500, ready=503)], refused)] == []
    assert len([*about_health(FAULT, [a_look(15_500)], refused)]) == 1


def test_ready_before_anybody_was_refused_for_long_is_no_lie() -> None:
    assert [*about_health(FAULT, [a_look(15_500)], every(100, 12_000, 20_000, status=503))] == []


def test_ready_while_all_clients_wait_in_vain_is_a_lie() -> None:
    waiting = [*every(100, 0, 10_000), a_request(10_000, status=504, took_ms=9_900)]

    assert len([*about_health(FAULT, [a_look(15_500)], waiting)]) == 1


def test_not_ready_in_bright_light_is_a_lie() -> None:
    accepted = every(100, 0, 20_000)

    assert len([*about_health(FAULT, [a_look(10_000, ready=503)], accepted)]) == 1
    assert [*about_health(replace(FAULT, ready=False), [a_look(10_000, ready=503)], accepted)] == []


def test_not_ready_just_before_clients_are_refused_is_no_lie() -> None:
    soon_refused = [*every(100, 0, 10_500), *every(100, 10_500, 20_000, status=503)]

    assert [*about_health(FAULT, [a_look(10_000, ready=503)], soon_refused)] == []


def test_a_dead_process_is_complained_of_unless_it_was_meant_to_end() -> None:
    looks = [a_look(10_000), a_look(11_000, live=None)]

    assert [*about_health(FAULT, looks, [])] == ["not live at 1 of 2 looks"]
    assert [*about_health(replace(FAULT, ends=True), looks, [])] == []


def metrics(*, answers: int, stored: int, in_flight: int = 0) -> Samples:
    return Samples(
        "# TYPE http_server_request_duration_seconds histogram\n"
        "http_server_request_duration_seconds_count"
        f'{{http_route="/v1/events",http_response_status_code="202"}} {answers}\n'
        f'# TYPE cs_ingest_events counter\ncs_ingest_events_total{{outcome="stored"}} {stored}\n'
        f"# TYPE cs_ingest_in_flight_events gauge\ncs_ingest_in_flight_events {in_flight}\n"
    )


@pytest.mark.parametrize(
    ("samples", "complains"),
    [
        (metrics(answers=2, stored=2), False),
        (metrics(answers=3, stored=3), False),  # One got no answer, and may have been counted.
        (metrics(answers=1, stored=2), True),
        (metrics(answers=4, stored=2), True),
        (metrics(answers=2, stored=1), True),
        (metrics(answers=2, stored=4), True),
        (metrics(answers=2, stored=2, in_flight=1), True),
    ],
)
def test_counters_that_differ_from_what_clients_have_are_complained_of(samples: Samples, complains: bool) -> None:
    requests = [a_request(1), a_request(2), a_request(3, status=0)]

    assert bool([*about_counters(samples, requests)]) == complains


def test_what_a_process_keeps_is_complained_of() -> None:
    before = Resources(fds=20, threads=10, rss_bytes=100 * 2**20)
    after = Resources(fds=60, threads=20, rss_bytes=300 * 2**20)

    assert [*about_resources(before, before)] == []
    assert len([*about_resources(before, after)]) == 3
