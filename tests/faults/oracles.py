"""What must hold whatever was broken: each oracle yields its complaints, and none is the proof.

The journal and what is stored are judged by `cs-ingest verify`; here is the rest: answers, times, health,
counters, resources, logs.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.faults.fault import Fault
from tests.faults.stage import PEPPER, Request, Samples, Stage
from tests.integration.servers.postgres import PASSWORD

CALM_MS = 2_000
"""So long after the recovery every answer is 202 again."""

DARK_MS = 5_000
"""So long without any 202 while clients wait for one, and the service must not say that it is ready: three
seconds until a missing confirmation counts, one until health is looked at again, one for a busy machine."""

BRIGHT_MS = 4_000
"""So long nothing but 202, promptly, and the service must say that it is ready."""

SOON_MS = 1_000
"""Unless clients are refused so soon after it: the service knows first."""

PROMPT_MS = 1_000
FDS_MORE, THREADS_MORE, RSS_MORE_BYTES = 30, 8, 100 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """When it was broken, mended, and when each waiting client had a 202 again; Unix milliseconds."""

    broken_ms: int
    mended_ms: int
    recovered_ms: int
    ended_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What health said at one moment."""

    at_ms: int
    live: int | None
    ready: int | None
    reasons: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a process holds."""

    fds: int
    threads: int
    rss_bytes: int


def gap_s(requests: Iterable[Request]) -> float:
    """Return the longest that any waiting client was without a 202, once it had its first."""
    moments: dict[str, list[int]] = {}
    for request in requests:
        if request.kind == "waiting" and request.status == 202 and request.answered_ms is not None:
            moments.setdefault(request.client, []).append(request.answered_ms)
    gaps = [after - before for each in moments.values() for before, after in pairwise(each)]
    return max(gaps, default=0) / 1000


def about_answers(fault: Fault, requests: Iterable[Request], moments: Moments) -> Iterator[str]:
    """Only what the fault hit is answered otherwise than 202, and only as declared; what is wrong, never 202."""
    right = fault.answers | {202} | ({207} if fault.answers & {503, 504} else set())
    wrong: Counter[str] = Counter()
    for request in requests:
        answered_ms = request.answered_ms or moments.ended_ms
        hit = answered_ms >= moments.broken_ms and request.sent_ms <= moments.recovered_ms + CALM_MS
        if request.kind == "wrong":
            wrong["202 for an event without timestamp"] += request.status == 202
        elif request.status not in (right if hit else {202}):
            wrong[f"{request.status} {'during' if hit else 'before or after'} the fault"] += 1
    yield from (f"{times} times {what}" for what, times in wrong.items() if times)


def about_times(fault: Fault, requests: Iterable[Request], moments: Moments) -> Iterator[str]:
    gap, recovery = gap_s(requests), (moments.recovered_ms - moments.mended_ms) / 1000
    if fault.gap_s is not None and gap > fault.gap_s:
        yield f"a client was without a 202 for {gap:.1f} s, at most {fault.gap_s:g} s are right"
    if not fault.ends and recovery > fault.recovery_s:
        yield f"recovered {recovery:.1f} s after the mending, at most {fault.recovery_s:g} s are right"


def about_health(fault: Fault, looks: Sequence[Look], requests: Sequence[Request]) -> Iterator[str]:
    """The process is live throughout; ready is said if, and only if, clients are served."""
    away = fault.ends or fault.restarts or not fault.ready
    dead = sum(look.live != 200 and not (away and look.live is None) for look in looks)
    if dead:
        yield f"not live at {dead} of {len(looks)} looks"
    looks = [look for look in looks if look.ready is not None]
    silent = sum(look.ready == 503 and not look.reasons for look in looks)
    if silent and not fault.ends:
        yield f"not ready without a reason at {silent} looks"
    if not fault.ready:
        return
    seen = _Seen([each for each in requests if each.kind in ("waiting", "open")])
    for look in looks:
        if look.ready == 200 and seen.dark(look.at_ms - DARK_MS, look.at_ms):
            yield f"ready at {look.at_ms}, though nothing was accepted for {DARK_MS / 1000:g} s"
        if look.ready != 200 and not fault.ends and seen.bright(look.at_ms - BRIGHT_MS, look.at_ms + SOON_MS):
            yield f"not ready at {look.at_ms}, though all is accepted for {BRIGHT_MS / 1000:g} s: {look.reasons}"


class _Seen:
    """What clients saw between two moments."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self._requests = requests

    def dark(self, since_ms: int, until_ms: int) -> bool:
        """Somebody waited all the time, or was refused again and again, and nobody was accepted."""
        answered = [r for r in self._requests if r.answered_ms and since_ms <= r.answered_ms <= until_ms]
        waiting = [r for r in self._requests if r.sent_ms < since_ms and (r.answered_ms or until_ms) >= until_ms]
        tried_all_along = any(r.sent_ms <= since_ms for r in self._requests) and bool(answered or waiting)
        return tried_all_along and not any(r.status == 202 for r in answered)

    def bright(self, since_ms: int, until_ms: int) -> bool:
        """Everybody was accepted, at once."""
        there = [r for r in self._requests if r.sent_ms <= until_ms and (r.answered_ms or until_ms) >= since_ms]
        due = [r for r in there if r.answered_ms or r.sent_ms < until_ms - PROMPT_MS]
        prompt = all(r.status == 202 and (r.answered_ms or until_ms) - r.sent_ms < PROMPT_MS for r in due)
        return len(due) > 20 and prompt and min(r.sent_ms for r in due) < since_ms + PROMPT_MS


def about_counters(samples: Samples, requests: Sequence[Request]) -> Iterator[str]:
    """The service has counted each answer that a client has, and none more but for those that got lost on the way."""
    lost = sum(not each.status for each in requests)
    for status, count in sorted(Counter(each.status for each in requests if each.status).items()):
        ours = sum(
            samples.total(
                "http_server_request_duration_seconds_count",
                http_route=route,
                http_response_status_code=str(status),
            )
            for route in ("/v1/events", "/v1/events/batch")
        )
        if not count <= ours <= count + lost:
            yield f"{ours:g} requests counted as {status}, clients have {count} and {lost} without an answer"
    stored = samples.total("cs_ingest_events_total", outcome="stored")
    accepted = sum(each.outcomes[202] for each in requests)
    unheard = sum(each.events for each in requests if not each.status)
    if not accepted <= stored <= accepted + unheard:
        yield f"{stored:g} events counted as stored, clients have {accepted} accepted and {unheard} without an answer"
    if in_flight := samples.total("cs_ingest_in_flight_events"):
        yield f"{in_flight:g} events still count as in flight"


def about_resources(before: Resources, after: Resources) -> Iterator[str]:
    if after.fds > before.fds + FDS_MORE:
        yield f"{after.fds} open files, {before.fds} before"
    if after.threads > before.threads + THREADS_MORE:
        yield f"{after.threads} threads, {before.threads} before"
    if after.rss_bytes > before.rss_bytes + RSS_MORE_BYTES:
        yield f"{after.rss_bytes >> 20} MiB of memory, {before.rss_bytes >> 20} before"


def about_logs(fault: Fault, stage: Stage) -> Iterator[str]:
    """No key, no password, no payload, no user; and no stack trace, but for a fault that makes anything fail: 500."""
    text = stage.logs()
    never = {
        "a key": stage.keys.secret,
        "the pepper": PEPPER,
        "the password of the database": PASSWORD,
        "a payload": stage.note,
        "a user": "-waiting-0",
    }
    yield from (f"{what} is in the logs" for what, secret in never.items() if secret in text)
    if "Traceback" in text and 500 not in fault.answers:
        yield "a stack trace is in the logs: " + text[text.index("Traceback") :][:1500]
