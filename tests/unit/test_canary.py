"""A canary in simulated time, over the real HTTP app: it is silent while all is well, and names what is not."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from simulated_time import run
from system import HttpSystem

from customersignal_ingest.canary import run as canary
from customersignal_ingest.canary.http import Http, NoAnswer
from customersignal_ingest.canary.metrics import CanaryMetrics
from customersignal_ingest.canary.run import Canary, Plan, Summary
from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.event import Place, Span, StoredRecord

BEGAN = datetime(2026, 11, 23, 10, tzinfo=UTC)
Records = list[StoredRecord]


def now_s() -> float:
    return asyncio.get_running_loop().time()


def now() -> datetime:
    return BEGAN + timedelta(seconds=now_s())


@dataclass
class Shelf:
    """Reads what the service has stored: later than it was, or doctored, or not at all."""

    system: HttpSystem
    doctor: Callable[[Records], Records] = lambda records: records
    lag_s: float = 0.0
    away: Callable[[], bool] = lambda: False
    slow_s: float = 0.0
    silent: bool = False
    reads: list[float] = field(default_factory=list)
    _seen_at: dict[str, float] = field(default_factory=dict)

    async def read(
        self, *, follow: bool = False, since: datetime | None = None, start: Place | None = None
    ) -> AsyncIterator[StoredRecord]:
        assert since is not None
        self.reads.append(now_s())
        await asyncio.sleep(self.slow_s)
        if self.silent:
            await asyncio.Event().wait()
        for record in self.doctor(self._visible()):
            if record.timestamp_ms >= since.timestamp() * 1000:
                yield record

    async def spans(self, *, since: datetime | None = None) -> Sequence[Span]:
        return []

    def _visible(self) -> Records:
        if self.away():
            raise Unavailable("taken away on purpose")
        return [each for each in self.system.stored if self.stored_at(each) + self.lag_s <= now_s()]

    def stored_at(self, record: StoredRecord) -> float:
        """Return when it was stored, as its client would know: each event says when it left."""
        sent_at = datetime.fromisoformat(json.loads(record.value)["timestamp"])
        return (sent_at - BEGAN).total_seconds()


class Lines:
    """What was logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def info(self, event: str, /, **fields: Any) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, /, **fields: Any) -> None:
        self.lines.append(("warning", event, fields))

    def error(self, event: str, /, **fields: Any) -> None:
        self.lines.append(("error", event, fields))

    def of(self, event: str) -> list[dict[str, Any]]:
        return [fields for _, each, fields in self.lines if each == event]


class World:
    """A service, its store, and a canary; `lives` is its life, and what it has seen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log, self.metrics = Lines(), CanaryMetrics()
        self.asked = asyncio.Event()
        self.system = HttpSystem()
        self.system.now = now  # type: ignore[method-assign]  # its own clock stands nearly still
        self.shelf = Shelf(self.system)
        client = httpx.AsyncClient(
            transport=self.system.client._transport, base_url="http://ingest.test", headers={"X-CS-API-Key": "acme"}
        )
        self.post: Callable[[bytes], Any] = Http(client)
        self.ended_at = 0.0

    def lives(self, *beside: Callable[[], Any], **plan: Any) -> Summary:
        """Have a canary with this plan live in simulated time, and these beside it."""

        async def life() -> Summary:
            tasks = [asyncio.create_task(each()) for each in beside]
            bird = Canary(
                plan=Plan(**{"tenant_id": "acme", "folder": self.folder, "for_s": 120} | plan),
                post=lambda payload: self.post(payload),
                reader=self.shelf,
                metrics=self.metrics,
                log=self.log,
                asked=self.asked,
                now=now,
            )
            summary = await bird.run()
            self.ended_at = now_s()
            for task in tasks:
                task.cancel()
            return summary

        summary = run(life())
        assert isinstance(summary, Summary)
        return summary

    def count(self, name: str, **labels: str) -> float:
        value = self.metrics.registry.get_sample_value(f"cs_ingest_canary_{name}", labels)
        assert value is not None, name
        return value

    @property
    def journals(self) -> list[Path]:
        return sorted(self.folder.iterdir())

    @property
    def sent_at(self) -> list[float]:
        return [self.shelf.stored_at(record) for record in self.system.stored]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_while_all_is_well_everything_is_verified_and_nothing_is_left(world: World) -> None:
    summary = world.lives()

    assert summary == Summary(events=120, accepted=120, verified=120)
    assert summary.good
    assert world.journals == []
    assert [level for level, event, _ in world.log.lines] == ["info", "info"]


def test_what_it_counts_is_what_happened(world: World) -> None:
    world.lives()

    assert world.count("events_total", answer="accepted") == 120
    assert world.count("verified_events_total") == 120
    assert world.count("rounds_total", result="clean") == 2
    assert world.count("rounds_pending") == 0
    assert world.count("answer_duration_seconds_count") == 120
    assert world.count("last_verified_timestamp_seconds") == BEGAN.timestamp() + 119 + 30


def test_its_events_are_marked_and_of_many_users(world: World) -> None:
    world.lives()

    values = [json.loads(record.value) for record in world.system.stored]
    assert {value["event_type"] for value in values} == {"cs_ingest.canary"}
    assert {value["user_id"] for value in values} == {f"canary-{n}" for n in range(canary.USERS)}
    assert len({value["idempotency_key"] for value in values}) == 120


def test_it_sends_at_its_rate(world: World) -> None:
    world.lives(rate=0.5)

    assert world.sent_at == [2.0 * n for n in range(60)]


def test_a_rate_below_one_a_round_makes_rounds_of_one_event(world: World) -> None:
    world.lives(rate=0.01, for_s=500)

    assert world.shelf.reads == [30, 130, 230, 330, 430]


def test_what_it_missed_is_not_made_up_for(world: World) -> None:
    async def stand_still() -> None:
        await asyncio.sleep(10.5)
        asyncio.get_running_loop().now_s += 60  # type: ignore[attr-defined]  # the simulated loop's own clock

    world.lives(stand_still)

    assert max(Counter(int(at) for at in world.sent_at).values()) == 1


def lose(records: Records) -> Records:
    return [record for record in records if b'"n":7,' not in record.value]


def store_twice(records: Records) -> Records:
    return [*records, *(replace(each, offset=each.offset + 1000) for each in records if b'"n":7,' in each.value)]


def alter(records: Records) -> Records:
    return [replace(each, value=each.value.replace(b'"n":7,', b'"n":7.0,')) for each in records]


def give_away(records: Records) -> Records:
    return [
        replace(each, value=each.value.replace(b'"acme"', b'"else"')) if b'"n":7,' in each.value else each
        for each in records
    ]


def exchange(records: Records) -> Records:
    """Let the seventh and the event of the same user after it change places."""
    one, other = ([each for each in records if b'"n":%d,' % n in each.value] for n in (7, 7 + canary.USERS))
    if not one or not other:
        return records
    rest = [each for each in records if each not in (*one, *other)]
    return [*rest, replace(one[0], offset=other[0].offset), replace(other[0], offset=one[0].offset)]


DOCTORED = {
    lose: "missing",
    store_twice: "stored_twice",
    alter: "altered",
    give_away: "wrong_tenant",
    exchange: "wrong_receipt",
}


@pytest.mark.parametrize(("doctored", "kind"), DOCTORED.items(), ids=lambda each: getattr(each, "__name__", each))
def test_what_is_wrong_is_named_in_log_and_metrics_and_its_journal_is_kept(
    doctored: Callable[[Records], Records], kind: str, world: World
) -> None:
    world.shelf.doctor = doctored

    summary = world.lives()

    assert summary.findings
    assert not summary.good
    assert world.count("findings_total", kind=kind) >= 1
    line = world.log.of("finding")[0]
    assert (line["kind"], line["journal"]) == (kind, str(world.journals[0]))
    assert len(world.journals) == 1
    assert [fields["result"] for fields in world.log.of("round")] == ["wrong", "clean"]


def test_an_event_in_the_store_that_was_answered_as_not_stored_is_named(world: World) -> None:
    def post_and_lie(post: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        async def lying(payload: bytes) -> tuple[int, bytes]:
            await post(payload)
            return 503, b'{"error":{"code":"NOT_STORED"}}'

        return lying

    world.post = post_and_lie(world.post)

    assert world.lives().findings == 120
    assert world.count("findings_total", kind="refused_but_stored") == 120


def test_what_can_be_read_a_moment_later_is_not_missing(world: World) -> None:
    world.shelf.lag_s = 29

    assert world.lives().good


def test_what_can_not_be_read_for_long_is_missing(world: World) -> None:
    world.shelf.lag_s = 120

    world.lives(for_s=60)

    assert world.count("findings_total", kind="missing") == 60


def test_a_service_that_is_away_costs_answers_and_is_no_finding(world: World) -> None:
    post = world.post

    async def away_for_a_minute(payload: bytes) -> tuple[int, bytes]:
        if 30 <= now_s() < 90:
            raise NoAnswer("ConnectError: nobody listens")
        return await post(payload)  # type: ignore[no-any-return]

    world.post = away_for_a_minute
    summary = world.lives()

    assert summary.good
    assert world.count("events_total", answer="no_answer") == 60
    assert world.count("events_total", answer="accepted") == 60
    assert world.log.of("round")[0]["reason"] == "ConnectError: nobody listens"


@pytest.mark.parametrize(
    ("fault", "answer"), [("ack_lost", "unknown"), ("lost", "not_stored"), ("refused", "refused"), ("hangs", "unknown")]
)
def test_an_answer_that_promises_nothing_is_counted_and_is_no_finding(fault: str, answer: str, world: World) -> None:
    world.system.faults.plan("ok", fault, "ok")

    assert world.lives().good
    assert world.count("events_total", answer=answer) == 1


def test_where_nothing_was_accepted_nothing_was_verified(world: World) -> None:
    async def refused(payload: bytes) -> tuple[int, bytes]:
        return 401, b'{"error":{"code":"API_KEY_INVALID"}}'

    world.post = refused

    assert not world.lives().good
    assert {fields["reason"] for fields in world.log.of("round")} == {"401 API_KEY_INVALID"}


def test_a_store_that_is_away_is_read_later_and_then_everything_is_verified_at_once(world: World) -> None:
    world.shelf.away = lambda: now_s() < 600

    summary = world.lives(for_s=900)

    assert summary == Summary(events=900, accepted=900, verified=900)
    assert world.count("failed_reads_total") > 10
    assert world.log.of("the store can't be read")[0] == {"reason": "taken away on purpose"}


def test_a_store_that_does_not_come_back_leaves_the_events_unverified_and_ends(world: World) -> None:
    world.shelf.away = lambda: True

    summary = world.lives()

    assert (summary.findings, summary.rounds_unverified, summary.good) == (0, 2, False)
    assert world.count("rounds_total", result="unverified") == 2
    assert len(world.journals) == 2
    assert world.ended_at <= 120 + canary.REQUEST_TIMEOUT_S + 30 + canary.END_TIMEOUT_S + canary.READ_AGAIN_S


def test_a_store_that_says_nothing_is_not_waited_for(world: World) -> None:
    world.shelf.silent = True

    summary = world.lives(for_s=60)

    assert summary.rounds_unverified == 1
    assert world.log.of("the store can't be read")[0] == {"reason": "not read within 60 s"}


def test_rounds_that_wait_for_the_store_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary, "PENDING_MAX", 3)
    world.shelf.away = lambda: now_s() < 585

    summary = world.lives(for_s=900)

    assert summary.findings == 0
    assert summary.rounds_unverified == 6
    assert summary.verified == 900 - 6 * 60


def test_a_round_that_is_looked_at_is_not_given_up_for_want_of_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look takes longer than the rounds that come meanwhile."""
    monkeypatch.setattr(canary, "PENDING_MAX", 1)
    world.shelf.slow_s = 50

    summary = world.lives(for_s=300, round_s=10)

    assert summary.findings == 0
    assert summary.rounds_unverified > 10
    assert summary.verified == 300 - 10 * summary.rounds_unverified


def test_journals_that_are_kept_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary, "KEPT_MAX", 3)
    world.shelf.doctor = lambda records: []

    world.lives(for_s=600)

    assert len(world.journals) == 3


def test_journals_that_nobody_could_verify_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary, "PENDING_MAX", 3)
    monkeypatch.setattr(canary, "KEPT_MAX", 6)
    world.shelf.away = lambda: True

    summary = world.lives(for_s=600)

    assert summary.rounds_unverified == 10
    assert len(world.journals) == 6


def test_requests_that_wait_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary, "IN_FLIGHT_MAX", 10)

    async def hanging(payload: bytes) -> tuple[int, bytes]:
        return await asyncio.Event().wait() and (0, b"")

    world.post = hanging
    world.lives(for_s=60)

    assert world.count("events_total", answer="no_answer") == 20
    assert world.count("events_total", answer="not_sent") == 40
    assert world.log.of("round")[0]["reason"] == "no answer within 30 s"


def test_asked_to_stop_it_judges_what_it_has_and_ends_at_once(world: World) -> None:
    async def ask() -> None:
        await asyncio.sleep(90.5)
        world.asked.set()

    summary = world.lives(ask, for_s=None)

    assert summary == Summary(events=91, accepted=91, verified=91)
    assert world.ended_at < 91


def test_asked_to_stop_it_waits_for_answers_and_not_for_ever(world: World) -> None:
    async def hanging(payload: bytes) -> tuple[int, bytes]:
        return await asyncio.Event().wait() and (0, b"")

    async def ask() -> None:
        await asyncio.sleep(5.5)
        world.asked.set()

    world.post = hanging
    world.lives(ask, for_s=None)

    assert world.ended_at == pytest.approx(5 + canary.REQUEST_TIMEOUT_S)


def test_a_journal_that_can_not_be_written_ends_it(world: World) -> None:
    world.folder /= "nowhere"

    with pytest.raises(ExceptionGroup) as raised:
        world.lives()

    assert raised.group_contains(FileNotFoundError)
