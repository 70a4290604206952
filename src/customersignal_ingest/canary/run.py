"""The canary: one half sends, the other judges what was sent a while ago."""

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from customersignal_ingest.canary.http import NoAnswer
from customersignal_ingest.canary.metrics import CanaryMetrics, RoundResult
from customersignal_ingest.canary.round import Round
from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.event import StoredRecord
from customersignal_ingest.ports import RecordReader
from customersignal_ingest.proof.report import Report
from customersignal_ingest.verify import verify

EVENT_TYPE = "cs_ingest.canary"
USERS = 16
"""So many users its events are of, one after the other: they are spread over partitions, and have an order."""

REQUEST_TIMEOUT_S = 30.0
IN_FLIGHT_MAX = 200
READ_TIMEOUT_S = 60.0
READ_AGAIN_S = 5.0
PENDING_MAX = 100
KEPT_MAX = 200
END_TIMEOUT_S = 30.0

_CLOCKS = timedelta(seconds=5)

Post = Callable[[bytes], Awaitable[tuple[int, bytes]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do: `rate` events a second for `for_s` seconds, or until asked to stop.

    The events of `round_s` seconds are judged `settle_s` seconds after the last of their answers.
    """

    tenant_id: str
    folder: Path
    project_id: str | None = None
    rate: float = 1.0
    for_s: float | None = None
    round_s: float = 60.0
    settle_s: float = 30.0


@dataclass(slots=True, kw_only=True)
class Summary:
    """What a canary has done in its life."""

    events: int = 0
    accepted: int = 0
    verified: int = 0
    findings: int = 0
    rounds_unverified: int = 0

    @property
    def good(self) -> bool:
        """Whether something was accepted, all of it was looked at, and nothing was wrong."""
        return bool(self.accepted) and not self.findings and not self.rounds_unverified


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True, kw_only=True)
class Canary:
    """One life of a canary. `post` sends an event, `reader` reads the store; `asked` asks it to stop.

    It goes on whatever happens to service and store, and ends within bounds; raises only where its own
    journals can't be written.
    """

    plan: Plan
    post: Post
    reader: RecordReader
    metrics: CanaryMetrics
    log: Any
    asked: asyncio.Event
    now: Callable[[], datetime] = _utc_now
    summary: Summary = field(default_factory=Summary, init=False)
    _name: str = field(default_factory=lambda: secrets.token_hex(8), init=False)
    _rounds: deque[Round] = field(default_factory=deque, init=False)
    _news: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _in_flight: int = field(default=0, init=False)
    _give_up_at: float = field(default=float("inf"), init=False)

    async def run(self) -> Summary:
        """Send and judge until the time is up or somebody asks; then judge what is left."""
        async with asyncio.TaskGroup() as tasks:
            judging = tasks.create_task(self._judge())
            await self._send(tasks)
            settle_s = 0.0 if self.asked.is_set() else self.plan.settle_s
            self._give_up_at = _loop_s() + REQUEST_TIMEOUT_S + settle_s + END_TIMEOUT_S
            self._news.set()
            await judging
        for left in self._rounds:
            self._give_up(left)
        return self.summary

    async def _send(self, tasks: asyncio.TaskGroup) -> None:
        began = due = _loop_s()
        interval_s = 1 / self.plan.rate
        current: Round | None = None
        for number in count():
            if self.asked.is_set() or (self.plan.for_s is not None and due - began >= self.plan.for_s):
                break
            current = current or self._new_round(number)
            self._begin_one(tasks, current, number)
            due += interval_s
            if due < _loop_s():  # What was missed, by a machine that stood still, is not made up for.
                due = _loop_s() + interval_s
            if current.seconds_until(due) >= self.plan.round_s:
                self._end(current)
                current = None
            await self._pause_until(due)
        if current is not None:
            self._end(current)

    def _new_round(self, number: int) -> Round:
        path = self.plan.folder / f"{self._name}-{number:09}.jsonl"
        return Round(path, tenant_id=self.plan.tenant_id, project_id=self.plan.project_id, now=self.now)

    def _end(self, current: Round) -> None:
        current.end()
        if len(self._rounds) >= PENDING_MAX:
            self._give_up(current)  # Not one of those that wait: they may be looked at just now.
            return
        self._rounds.append(current)
        self.metrics.rounds_pending.set(len(self._rounds))
        self._news.set()

    def _begin_one(self, tasks: asyncio.TaskGroup, current: Round, number: int) -> None:
        self.summary.events += 1
        if self._in_flight >= IN_FLIGHT_MAX:
            current.not_sent()
            self.metrics.events.labels("not_sent").inc()
            return
        payload = _payload(self._name, number, self.now())
        attempt = current.sent(payload)  # Before anything else can run: a round that ends now waits for it.
        self._in_flight += 1
        tasks.create_task(self._one(current, attempt, payload))

    async def _one(self, current: Round, attempt: str, payload: bytes) -> None:
        began = _loop_s()
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                status, body = await self.post(payload)
        except (NoAnswer, TimeoutError) as error:
            answer = current.unanswered(str(error) or f"no answer within {REQUEST_TIMEOUT_S:g} s")
        else:
            self.metrics.answer_seconds.observe(_loop_s() - began)
            answer = current.answered(attempt, status, body)
        self._in_flight -= 1
        self.summary.accepted += answer == "accepted"
        self.metrics.events.labels(answer).inc()

    async def _judge(self) -> None:
        """Judge round after round, several at once where the store could not be read."""
        while await self._is_there_one():
            await self._rounds[0].over.wait()
            await self._pause_until(self._rounds[0].settled_at(self.plan.settle_s))
            due = [each for each in self._rounds if self._is_due(each)]
            if not due:  # A timer may ring a moment early.
                continue
            try:
                report = await self._look(due)
            except Unavailable as error:
                self.metrics.failed_reads.inc()
                self.log.warning("the store can't be read", reason=str(error))
                if _loop_s() >= self._give_up_at:
                    return
                await asyncio.sleep(READ_AGAIN_S)
            else:
                self._tell(due, report)

    async def _is_there_one(self) -> bool:
        while not self._rounds and self._give_up_at == float("inf"):
            self._news.clear()
            await self._news.wait()
        return bool(self._rounds)

    def _is_due(self, each: Round) -> bool:
        return each.over.is_set() and (self.asked.is_set() or each.settled_at(self.plan.settle_s) <= _loop_s())

    async def _look(self, due: list[Round]) -> Report:
        mark, receipts = _mark(self._name), frozenset[str]().union(*(each.receipts for each in due))

        def ours(record: StoredRecord) -> bool:
            return mark in record.value or record.receipt in receipts

        since = min(each.since for each in due) - _CLOCKS
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                return await verify([each.path for each in due], self.reader, since=since, wanted=ours)
        except TimeoutError:
            raise Unavailable(f"not read within {READ_TIMEOUT_S:g} s") from None

    def _tell(self, judged: list[Round], report: Report) -> None:
        for kind, times in report.wrong.items():
            self.metrics.findings.labels(kind).inc(times)
        for finding in report.findings:
            where = {"event_id": finding.event_id, "receipt": finding.place, "journal": finding.journal}
            self.log.error("finding", kind=finding.kind, reason=finding.message, **where, line=finding.line)
        self.summary.findings += report.wrong.total()
        self.summary.verified += report.accepted_found
        self.metrics.verified.inc(report.accepted_found)
        self.metrics.last_verified.set(self.now().timestamp())
        self._tell_rounds(judged, report)

    def _tell_rounds(self, judged: list[Round], report: Report) -> None:
        result: RoundResult = "clean" if report.clean else "wrong"
        for each in judged:
            self._rounds.remove(each)
            self.metrics.rounds.labels(result).inc()
            if report.clean:
                each.path.unlink(missing_ok=True)
            self._bound_folder(each)
            tell = self.log.info if report.clean and each.trouble is None else self.log.warning
            tell(
                "round", result=result, **{f"events.{name}": n for name, n in each.answers.items()}, reason=each.trouble
            )
        self.metrics.rounds_pending.set(len(self._rounds))

    def _give_up(self, left: Round) -> None:
        self.summary.rounds_unverified += 1
        self.metrics.rounds.labels("unverified").inc()
        self.log.error("a round was not verified", journal=str(left.path))
        self._bound_folder(left)

    def _bound_folder(self, newest: Round) -> None:
        """Keep the journals of the first rounds that went wrong: they tell most."""
        if sum(1 for _ in self.plan.folder.glob("*.jsonl")) > KEPT_MAX:
            newest.path.unlink(missing_ok=True)

    async def _pause_until(self, at_s: float) -> None:
        """Return at that moment of the loop, or when somebody asks to stop."""
        if (seconds := at_s - _loop_s()) > 0 and not self.asked.is_set():
            asking = asyncio.ensure_future(self.asked.wait())
            await asyncio.wait({asking}, timeout=seconds)
            asking.cancel()


def _loop_s() -> float:
    return asyncio.get_running_loop().time()


def _mark(name: str) -> bytes:
    return f'"canary":"{name}"'.encode()


def _payload(name: str, number: int, moment: datetime) -> bytes:
    """Return an event that nobody takes for another, with numbers and letters that are easily changed on the way."""
    at = moment.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
    return (
        f'{{"event_type":"{EVENT_TYPE}","timestamp":"{at}","user_id":"canary-{number % USERS}",'
        f'"idempotency_key":"{name}-{number}","properties":{{{_mark(name).decode()},"n":{number},'
        '"exact":[1.0,1e2,12345678901234567890.10],"text":"\\u00e9 é \\u2028"}}'
    ).encode()
