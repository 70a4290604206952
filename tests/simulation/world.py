"""Clients, operators, a cluster, a key database and a process of the service, in simulated time.

Everything that can happen is a method. `scenario` draws from them by a seed, `test_model` by
Hypothesis; `finish` heals everything, lets it drain, and returns what broke the rules.
"""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from customersignal_ingest.domain.key import Tenant
from customersignal_ingest.domain.partition import partition_for
from customersignal_ingest.testing.planted import MARK
from tests.simulation import oracle
from tests.simulation.clocks import Clocks
from tests.simulation.cluster import PARTITIONS, Cluster
from tests.simulation.connection import Connection, Reply
from tests.simulation.database import TIMEOUT_S, KeyDatabase
from tests.simulation.journal import Heard, Journal
from tests.simulation.oracle import Bounds, Request
from tests.simulation.process import (
    BODY_TIMEOUT_S,
    BYTES_MAX,
    EVENTS_MAX,
    KEYS_STALE_S,
    KEYS_TTL_S,
    PUBLISH_TIMEOUT_S,
    Process,
    runs_in,
)
from tests.unit.law import Draft, Law, said_in
from tests.unit.simulated_time import SimulatedLoop, everyone_waits

ACME, GLOBEX = Tenant(tenant_id="acme"), Tenant(tenant_id="globex")
ACME_WEB = Tenant(tenant_id="acme", project_id="web")

HEALED_WITHIN_S = 24.0
"""A start that hangs is given up after 16 seconds, the pause before the next is 5 at the most."""
ANSWER_WITHIN_S = PUBLISH_TIMEOUT_S + 2 * TIMEOUT_S + 0.2
LATE_S = PUBLISH_TIMEOUT_S + 0.5
DRAINING_PRODUCERS_MAX = 7
OUTCOMES = ("stored", "rejected", "refused", "not_stored", "unknown")
BOUNDS = Bounds(fresh_s=KEYS_TTL_S + 0.1, stale_s=KEYS_STALE_S + 0.1, unknown_s=5.1, told_s=0.1)
KEYS_REST_S = 2.5
"""What an outage of the key database may cost after its end: a look-up that fails, and the pause after it."""
USERS = {partition_for(b"acme:user%d" % n, PARTITIONS): f"user{n}" for n in range(100)}
"""A user for each partition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A request to send. `pauses_s` are before each part of its body; it leaves after `leaves_s`."""

    secret: str | None
    drafts: Sequence[Draft]
    batch: bool = False
    pauses_s: Sequence[float] = (0.0,)
    leaves_s: float | None = None
    length_known: bool = True
    listed: bool = True


class World:
    """One run. For the running simulated loop."""

    def __init__(self, chance: random.Random, *, process: type[Process] = Process, keep_trace: bool = False) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        self.loop, self.chance, self._make_process = loop, chance, process
        self.journal = Journal(keep_trace=keep_trace)
        loop.set_exception_handler(self._unhandled)
        self.clocks = Clocks(loop, self.journal)
        self.cluster = Cluster(self.journal, chance, late_s=LATE_S)
        self.cluster.on_handed_over = self._handed_over
        self.database = KeyDatabase(self.journal, chance)
        self.law = Law(lambda: self.cluster.stored)
        self.requests: list[Request] = []
        self.processes: list[Process] = []
        self.ending: asyncio.Task[None] | None = None
        self._handlers: dict[int, tuple[asyncio.Task[None], Connection, Request]] = {}
        self._handed_over_marks: dict[str, Request] = {}
        self._request_of: dict[str, Request] = {}
        self.heard = Heard()

    @property
    def time(self) -> float:
        return self.loop.now_s

    # The process.

    @property
    def process(self) -> Process | None:
        """The process that runs, if any."""
        latest = self.processes[-1] if self.processes else None
        return None if latest is None or latest.dead else latest

    def start_process(self) -> None:
        self.journal.note("start")
        process = self._make_process(
            cluster=self.cluster,
            database=self.database,
            journal=self.journal,
            chance=self.chance,
            now=self.clocks.service_date,
        )
        self.processes.append(process)
        process.start()

    async def listening(self) -> None:
        """Return once the process takes requests."""
        while self.process is not None and not self.process.listening:
            await asyncio.sleep(0.05)

    async def crash(self) -> None:
        """Kill the process: its memory is gone, what it sent may arrive."""
        process = self.process
        assert process is not None
        self.journal.note("crash")
        self.journal.count("world", "crashes")
        await self._kill(process)

    async def _kill(self, process: Process) -> None:
        if process.dead:
            return
        process.dead, process.listening = True, False
        for _, connection, request in self._handlers.values():
            request.cut = request.cut or connection.reply is None
        self._take_down(process)
        for _ in range(3):  # Some tasks answer a cancellation with another turn.
            for task in self._tasks_of(process):
                task.cancel()
            await everyone_waits()

    async def sigterm(self) -> None:
        """Ask the process to end, and check that it does, with all answers given."""
        process = self.process
        assert process is not None
        self.journal.note("SIGTERM")
        self.journal.count("world", "SIGTERMs")
        asked_at = process.drains_since = self.time
        process.asked_to_stop.set()
        while not process.ended.is_set() and not process.dead and self.clocks.spent(asked_at) < process.exit_within_s:
            await asyncio.sleep(0.1)
        if process.dead:
            return
        if not process.ended.is_set():
            self.journal.complain(f"it did not end within {process.exit_within_s:.1f} s of SIGTERM")
        if not self.clocks.stalled(
            asked_at, self.time
        ):  # Else time may have run out for what could have been done in it.
            await self._after_the_end(process)
        await self._kill(process)

    def ask_to_end(self) -> None:
        """Send SIGTERM, and let everything else go on meanwhile."""
        if self.process is not None and not self.process.asked_to_stop.is_set():
            self.ending = self.loop.create_task(self.sigterm())

    async def _after_the_end(self, process: Process) -> None:
        cut = [r for _, connection, r in self._handlers.values() if connection.reply is None and not r.left]
        whole = [r for r in cut if r.body_at is not None and self.time - r.body_at > ANSWER_WITHIN_S]
        for request in whole:
            self.journal.complain(f"request {request.began}: was in flight at SIGTERM, and has no answer")
        if not self._handlers and (process.admission.events, process.admission.bytes) != (0, 0):
            self.journal.complain(f"{process.admission.events} events in flight, and nobody waits")
        await asyncio.sleep(3 * TIMEOUT_S)
        left = [task for task in self._tasks_of(process) if task not in process.handling]
        for task in left:
            self.journal.complain(f"a task was left over: {task.get_coro()}")
        unended = [each for each in self.cluster.producers_left if each.owner is process]
        if unended:
            self.journal.complain(f"{len(unended)} producers were left over")

    def _take_down(self, process: Process) -> None:
        """Note what its log and its numbers say."""
        self.heard.lines += map(str, process.log.lines)
        for cause, times in process.publisher.restarts.items():
            self.journal.count("retirements", cause, times)
        self.journal.count("world", "late confirmations", process.publisher.late_acks)
        for line in process.log.lines:
            if "error.reason" in line:
                self.journal.count("reasons", line["error.reason"])

    def _tasks_of(self, process: Process) -> list["asyncio.Task[Any]"]:
        return sorted((task for task in asyncio.all_tasks(self.loop) if runs_in(task) is process), key=hash)

    # Clients.

    def send(self, message: Message) -> Request:
        """Send a request to the process that runs; it is refused where none listens."""
        key = next((each for each in self.database.keys if each.secret == message.secret), None)
        request = Request(
            secret=message.secret, key=key, batch=message.batch, began=len(self.requests), sent_at=self.time
        )
        self.requests.append(request)
        process = self.process
        if process is None or not process.listening:
            request.refused, request.ended_at = True, self.time
            self.journal.count("answers", "connection refused")
            return request
        request.process = process
        request.attempts = self.law.begin(key.tenant if key else Tenant(tenant_id="nobody"), message.drafts)
        self._request_of |= {attempt.mark: request for attempt in request.attempts}
        connection = self._connect(message, request)
        task = process.handle(connection)
        self._handlers[request.began] = task, connection, request
        task.add_done_callback(partial(self._handled, process, connection, request))
        if message.leaves_s is not None:
            self.loop.call_later(message.leaves_s, self.leave, request)
        return request

    def _connect(self, message: Message, request: Request) -> Connection:
        payloads = [attempt.draft.payload(attempt.mark) for attempt in request.attempts]
        body = b'{"events":[%s]}' % b",".join(payloads) if message.batch else payloads[0]
        headers = [("content-type", "application/json"), ("x-request-id", f"r{request.began}")]
        if message.secret is not None:
            headers.append(("x-cs-api-key", message.secret))
        if message.length_known:
            headers.append(("content-length", str(len(body))))
        if message.listed:
            headers.append(("prefer", "return=representation"))
        size = -(-len(body) // len(message.pauses_s))
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        return Connection(
            path="/v1/events/batch" if message.batch else "/v1/events",
            headers=headers,
            pieces=deque(zip(message.pauses_s, pieces, strict=False)),
            on_reply=partial(self._replied, request, self.processes[-1]),
            complain=self.journal.complain,
            writing_fails=self.chance.random() < 0.5,
        )

    def _replied(self, request: Request, process: Process, reply: Reply) -> None:
        if process.dead:
            return
        request.answered_at = self.time
        for complaint in oracle.read_reply(reply, request):
            self.journal.complain(f"request {request.began}: {complaint}")
        if process.drains_since < self.time and reply.headers.get("connection") != "close":
            self.journal.complain(f"request {request.began}: the process ends, and keeps the connection")
        self.journal.note(f"answer {request.began} {reply.status} {reply.body.decode()}")
        self.journal.count("answers", f"{reply.status} {request.code or ''}".strip())
        if b"Not stored, because" in reply.body:
            self.journal.count("world", "saturated")
        for row in request.rows:
            self.journal.count("events", row.status)
        self.law.answered(request.attempts, request.rows)

    def _handled(self, process: Process, connection: Connection, request: Request, _: "asyncio.Task[None]") -> None:
        request.ended_at, request.body_at = self.time, connection.body_at
        self._handlers.pop(request.began, None)
        for attempt in request.attempts:
            self._handed_over_marks.pop(attempt.mark, None)
        if request.left:
            self.journal.count("answers", "client left")
        elif request.cut:
            self.journal.count("answers", "cut")

    def leave(self, request: Request) -> None:
        """Let the client go away."""
        if request.began in self._handlers and request.answered_at is None:
            self.journal.note(f"client {request.began} leaves")
            request.left = True
            self._handlers[request.began][1].left.set()

    def cut(self, request: Request) -> None:
        """Let the server cancel the request, as some do when they end or their client leaves."""
        if request.began in self._handlers:
            self.journal.note(f"server cuts {request.began}")
            request.cut = request.answered_at is None
            self._handlers[request.began][0].cancel()

    async def answer_to(self, request: Request) -> Request:
        """Return once the request has ended."""
        if request.began in self._handlers:
            await asyncio.wait({self._handlers[request.began][0]})
            await asyncio.sleep(0)
        return request

    @property
    def waiting(self) -> list[Request]:
        return [request for _, _, request in self._handlers.values()]

    def _handed_over(self, value: bytes) -> None:
        mark = str(said_in(value)["event_type"])
        request = self._request_of.get(mark)
        if request is None:
            self.journal.complain(f"{mark}: sent to Kafka, and by no client")
        elif request.began in self._handlers:
            self._handed_over_marks[mark] = request
        if len(self._handed_over_marks) > EVENTS_MAX and (in_flight := self._in_flight()) > EVENTS_MAX:
            self.journal.complain(f"{in_flight} events in flight")

    def _in_flight(self) -> int:
        """Return how many events were handed over for requests that are not over, which we hear a moment later."""
        return sum(not self._handlers[request.began][0].done() for request in self._handed_over_marks.values())

    # The rules.

    def watch(self) -> None:
        """Check what must hold whatever happens."""
        producers = len(self.cluster.producers_left)
        if producers > DRAINING_PRODUCERS_MAX:
            self.journal.complain(f"{producers} producers at once")
        process = self.process
        if process is not None and not (
            0 <= process.admission.events <= EVENTS_MAX and 0 <= process.admission.bytes <= BYTES_MAX
        ):
            self.journal.complain(f"in flight: {process.admission.events} events, {process.admission.bytes} bytes")

    async def finish(self) -> list[str]:
        """Heal everything, expect progress, drain, and return all complaints."""
        self.journal.note("heal")
        self.cluster.heal()
        if self.ending is not None:
            await self.ending
        self.database.become("up")
        if self.process is None:
            self.start_process()
        await self._expect_progress()
        while self._handlers:
            await asyncio.sleep(0.2)
        await asyncio.sleep(1.5)  # For the last of the retired producers to end.
        self._expect_quiet()
        last = Message(secret=self.database.keys[-1].secret, drafts=[Draft(), Draft(user_id="ann")], batch=True)
        if self.process is not None:
            self.send(last)
            await self.sigterm()
        await asyncio.sleep(2 * LATE_S)  # Whatever is late arrives.
        return [*self.journal.complaints, *self._verdict()]

    async def _expect_progress(self) -> None:
        await self.listening()
        key = await self.database.make(ACME)
        began = self.time
        while True:
            drafts = [Draft(user_id=user) for user in USERS.values()]
            probe = await self.answer_to(self.send(Message(secret=key.secret, drafts=drafts, batch=True)))
            if probe.status == 202:
                break
            if self.clocks.spent(began) > HEALED_WITHIN_S:
                self.journal.complain(f"nothing is stored {self.time - began:.0f} s after everything was healed")
                break
            await asyncio.sleep(0.5)

    def _expect_quiet(self) -> None:
        process = self.process
        if process is None:
            return
        if (process.admission.events, process.admission.bytes) != (0, 0):
            self.journal.complain(f"{process.admission.events} events in flight, and nobody waits")
        if len(self.cluster.producers_left) != 1:
            self.journal.complain(f"{len(self.cluster.producers_left)} producers while all is quiet")
        self._expect_counts(process)

    def _expect_counts(self, process: Process) -> None:
        """Each request has its line in the log, and log and metrics have what the clients were told."""
        handled = [request for request in self.requests if request.process is process]
        unseen = sum(request.left or request.cut for request in handled)
        lines = [line for line in process.log.lines if line["event"] == "request"]
        if not len(handled) - unseen <= len(lines) <= len(handled):
            self.journal.complain(f"{len(handled)} requests have {len(lines)} lines in the log")
        logged = {word: sum(line.get(f"events.{word}", 0) for line in lines) for word in OUTCOMES}
        counted = {
            sample.labels["outcome"]: sample.value
            for family in process.metrics.registry.collect()
            for sample in family.samples
            if sample.name == "cs_ingest_events_total"
        }
        if logged != counted:
            self.journal.complain(f"the log counts {logged}, the metrics {counted}")
        told = Counter(row.status for request in handled for row in request.rows)
        for outcome, status in (("stored", "accepted"), ("unknown", "unknown")):
            if logged[outcome] < told[status] or (logged[outcome] > told[status] and not unseen):
                self.journal.complain(f"{told[status]} events were answered {status}, and {logged[outcome]} counted")

    def _verdict(self) -> list[str]:
        complaints = self.law.check()
        marks = {attempt.mark: attempt for attempt in self.law.attempts}
        stored = {str(said_in(record.value)["event_type"]): record for record in self.cluster.stored}
        complaints += oracle.about_ids_in_the_log(self.law.attempts, self.cluster.stored)
        for mark, record in stored.items():
            if mark in marks:
                complaints += oracle.about_content(record, marks[mark])
        refused = {str(said_in(value)["event_type"]) for value in self.cluster.turned_down_alone}
        complaints += [
            f"{attempt.mark}: refused, and no broker turned it down alone"
            for attempt in self.law.attempts
            if attempt.row is not None and attempt.row.code == "REFUSED_BY_STORE" and attempt.mark not in refused
        ]
        for request in self.requests:
            complaints += self._about(request, any(attempt.mark in stored for attempt in request.attempts))
        secrets = [key.secret for key in self.database.keys] + ["TopSecret", MARK, "indigestible", '"n":']
        complaints += oracle.about_secrets(self.heard.lines, secrets)
        return complaints

    def _about(self, request: Request, stored: bool) -> list[str]:
        end = request.sent_at if request.ended_at is None else request.ended_at
        stalled_s = self.clocks.stalled(request.sent_at, end)
        key_s = 0.1 if self.database.worst_mode(request.sent_at - TIMEOUT_S, end) == "up" else 2 * TIMEOUT_S
        within_s = PUBLISH_TIMEOUT_S + key_s
        complaints = list(oracle.about_time(request, stalled_s * 1.1, within_s=within_s, body_within_s=BODY_TIMEOUT_S))
        stalled_s = self.clocks.stalled(request.sent_at - BOUNDS.stale_s, end)
        since = request.sent_at - stalled_s - KEYS_REST_S
        return complaints + list(
            oracle.about_the_key(
                request,
                stored,
                BOUNDS,
                self.clocks.service_dates(request.sent_at, end),
                works=self.database.worst_mode(since - BOUNDS.fresh_s, end) in ("up", "slow"),
                worked=self.database.worst_mode(since, end) in ("up", "slow"),
                stalled_s=stalled_s,
            )
        )

    def _unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.journal.complain(f"unhandled: {context.get('message')} {context.get('exception')!r}")
