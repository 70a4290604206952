"""The same world with Hypothesis at the wheel: it looks for the shortest way to break a rule."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import event, settings, target
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from customersignal_ingest.testing.planted import MARK
from tests.simulation.cluster import ENDS, FATES, PARTITIONS, STARTS
from tests.simulation.database import MODES, Mode
from tests.simulation.oracle import Request
from tests.simulation.scenario import BROKEN, SEQUENCE_NEARLY_FULL
from tests.simulation.world import ACME, ACME_WEB, GLOBEX, Message, World
from tests.unit.law import Draft
from tests.unit.simulated_time import everyone_waits, runner

TENANTS = st.sampled_from([ACME, ACME_WEB, GLOBEX])
GOOD_DRAFTS = st.builds(
    Draft,
    user_id=st.sampled_from([None, "ann", "bob"]),
    idempotency_key=st.sampled_from([None, f"order-1-{MARK}", f"order-2-{MARK}"]),
    properties=st.sampled_from(['{"n":1.0}', "{}", '{"indigestible":true}']),
)
DRAFTS = st.lists(
    GOOD_DRAFTS | GOOD_DRAFTS | st.sampled_from(BROKEN).map(lambda b: Draft(broken=b)), min_size=1, max_size=4
)
PAUSES = st.sampled_from([(0.0,), (0.0,), (0.0, 0.5, 1.0), (5.0,)])
WHICH = st.integers(0, 7)
"""Which of the keys or requests that there are, counted from the latest."""


class Planned:
    """Gives fates in the order in which they were asked for, and the best when no more are."""

    def __init__(self) -> None:
        self._queues: dict[Sequence[str], deque[str]] = {kind: deque() for kind in (FATES, STARTS, ENDS)}

    def plan(self, kind: Sequence[str], fates: Sequence[str]) -> None:
        self._queues[kind] += fates

    def __call__(self, fates: Sequence[str]) -> str:
        queue = self._queues[fates]
        return queue.popleft() if queue else fates[0]


class ServiceInATroubledWorld(RuleBasedStateMachine):
    """Clients, operators and machines do what they please; the rules hold at every step and at the end."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.order = random.Random()
        self.runner = runner(self.order)
        self.fates = Planned()

    @initialize(
        seed=st.integers(0, 2**16), nearly_full=st.booleans(), message_bytes_max=st.sampled_from([1 << 20, 1400])
    )
    def begin(self, seed: int, nearly_full: bool, message_bytes_max: int) -> None:
        self.order.seed(seed)
        self.run(self._begin, seed)
        self.world.cluster.first_sequence = SEQUENCE_NEARLY_FULL if nearly_full else 0
        self.world.cluster.message_bytes_max = message_bytes_max

    async def _begin(self, seed: int) -> None:
        self.world = World(random.Random(seed))
        self.world.heard.__enter__()
        self.world.cluster.choose = self.fates
        for tenant in (ACME, ACME_WEB, GLOBEX):
            await self.world.database.make(tenant)
        self.world.start_process()
        await self.world.listening()

    def run(self, act: Callable[..., object], *arguments: Any) -> None:
        """Do this within the loop, then let all run that can without time passing."""

        async def turn() -> None:
            done = act(*arguments)
            if isinstance(done, Awaitable):
                await done
            await everyone_waits()

        self.runner.run(turn())

    # Clients.

    @rule(which=WHICH, drafts=DRAFTS, pauses=PAUSES, listed=st.booleans(), length_known=st.booleans())
    def client_sends(
        self, which: int, drafts: Sequence[Draft], pauses: Sequence[float], listed: bool, length_known: bool
    ) -> None:
        keys = self.world.database.keys
        self.run(
            self.world.send,
            Message(
                secret=keys[-1 - which % len(keys)].secret,
                drafts=drafts,
                batch=len(drafts) > 1 or not length_known,
                pauses_s=pauses,
                listed=listed,
                length_known=length_known,
            ),
        )

    @rule(secret=st.sampled_from([None, "cs_live_nobody_TopSecret"]))
    def stranger_sends(self, secret: str | None) -> None:
        self.run(self.world.send, Message(secret=secret, drafts=[Draft()]))

    @precondition(lambda self: self.world.requests)
    @rule(which=WHICH, other_properties=st.booleans())
    def client_sends_again(self, which: int, other_properties: bool) -> None:
        before = self.world.requests[-1 - which % len(self.world.requests)]
        drafts = [attempt.draft for attempt in before.attempts] or [Draft(idempotency_key=f"order-1-{MARK}")]
        if other_properties:
            drafts = [draft if draft.broken else replace(draft, properties='{"n":2.0}') for draft in drafts]
        self.run(self.world.send, Message(secret=before.secret, drafts=drafts, batch=before.batch or len(drafts) > 1))

    @rule(which=WHICH)
    def client_floods(self, which: int) -> None:
        keys = self.world.database.keys
        message = Message(secret=keys[-1 - which % len(keys)].secret, drafts=[Draft()] * 3, batch=True)
        self.run(lambda: [self.world.send(message) for _ in range(6)])

    @precondition(lambda self: self.world.waiting)
    @rule(which=WHICH)
    def client_leaves(self, which: int) -> None:
        self.run(self.world.leave, self._waiting(which))

    @precondition(lambda self: self.world.waiting)
    @rule(which=WHICH)
    def server_cuts(self, which: int) -> None:
        self.run(self.world.cut, self._waiting(which))

    def _waiting(self, which: int) -> Request:
        waiting = self.world.waiting
        return waiting[-1 - which % len(waiting)]

    # The cluster.

    @rule(fates=st.lists(st.sampled_from(FATES), min_size=1, max_size=4))
    def batches_will(self, fates: Sequence[str]) -> None:
        self.fates.plan(FATES, fates)

    @rule(start=st.sampled_from(STARTS), end=st.sampled_from(ENDS))
    def producers_will(self, start: str, end: str) -> None:
        self.fates.plan(STARTS, [start])
        self.fates.plan(ENDS, [end])

    @rule(away=st.booleans(), leaderless=st.sets(st.integers(0, PARTITIONS - 1)), unsafe=st.booleans())
    def cluster_changes(self, away: bool, leaderless: set[int], unsafe: bool) -> None:
        cluster = self.world.cluster
        cluster.away, cluster.leaderless = away, leaderless
        cluster.dangers = ("min.insync.replicas is 1",) if unsafe else ()

    @rule()
    def cluster_is_well(self) -> None:
        self.world.cluster.heal()
        self.world.cluster.choose = self.fates

    # Keys.

    @rule(mode=st.sampled_from(MODES))
    def key_database_becomes(self, mode: Mode) -> None:
        self.run(self.world.database.become, mode)

    @rule(tenant=TENANTS)
    def key_is_made(self, tenant: Any) -> None:
        self.run(self.world.database.make, tenant)

    @rule(which=WHICH)
    def key_is_revoked(self, which: int) -> None:
        keys = self.world.database.keys
        self.run(self.world.database.revoke, keys[-1 - which % len(keys)], self.world.clocks.date())

    @rule(which=WHICH, seconds=st.sampled_from([0.0, 1.0, 5.0]))
    def key_expires(self, which: int, seconds: float) -> None:
        keys = self.world.database.keys
        self.run(self.world.database.expire, keys[-1 - which % len(keys)], self.world.clocks.date(seconds))

    # Time and machines.

    @rule(seconds=st.sampled_from([0.01, 0.05, 0.5, 2.0, 5.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.run(asyncio.sleep, seconds)

    @rule(seconds=st.sampled_from([0.5, 1.2, 4.0, 10.0]))
    def machine_stalls(self, seconds: float) -> None:
        self.run(self.world.clocks.stall, seconds)

    @rule(seconds=st.sampled_from([-864_000.0, -7200.0, -1.0, 0.0, 1.0, 7200.0]))
    def clock_steps(self, seconds: float) -> None:
        self.run(self.world.clocks.step, seconds)

    @rule()
    def sigterm(self) -> None:
        self.run(self.world.ask_to_end)

    @precondition(lambda self: self.world.process)
    @rule()
    def crash(self) -> None:
        self.run(self.world.crash)

    @precondition(lambda self: not self.world.process)
    @rule()
    def start(self) -> None:
        self.run(self.world.start_process)

    # What holds.

    @invariant()
    def no_rule_is_broken(self) -> None:
        self.world.watch()
        assert [*self.world.journal.complaints, *self.world.law.check()] == []

    def teardown(self) -> None:
        with self.runner:
            if not hasattr(self, "world"):
                return
            complaints = self.runner.run(self.world.finish())
            self.world.heard.__exit__()
            assert complaints == []
        counts = self.world.journal.counts
        target(float(counts.get("events", {}).get("unknown", 0)), label="events answered unknown")
        for kind in ("retirements", "answers"):
            for name in counts.get(kind, ()):
                event(name)


TestService = pytest.mark.timeout(1200)(ServiceInATroubledWorld.TestCase)  # To shrink a failure takes minutes.
TestService.settings = settings(stateful_step_count=30)
