"""One run by one seed: who sends what and when, what breaks and for how long, and in which order tasks run."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle

from customersignal_ingest.testing.planted import MARK
from tests.simulation.cluster import FATES, PARTITIONS, STARTS
from tests.simulation.database import MODES
from tests.simulation.process import Process
from tests.simulation.world import ACME, ACME_WEB, GLOBEX, Message, World
from tests.unit.law import Draft
from tests.unit.simulated_time import run

BROKEN = (b'{"event_type":""}', b"[]", b'{"event_type":"a","timestamp":"yesterday","properties":{}}', b"7")
SEQUENCE_NEARLY_FULL = 2**30 - 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run showed. `counts` are by kind and name; `trace` is empty unless it was asked for."""

    seed: int
    complaints: Sequence[str]
    digest: str
    counts: dict[str, Counter[str]]
    steps: int
    turns: int
    seconds: float
    trace: Sequence[str] = ()


def simulate(seed: int, *, process: type[Process] = Process, keep_trace: bool = False) -> Outcome:
    """Run this seed: the same one gives the same outcome, in any process and at any time."""
    return run(_Run(seed).play(process, keep_trace=keep_trace), random.Random(f"order {seed}"))


@dataclass(slots=True)
class _Fortune:
    """Chooses what becomes of a batch or a start: mostly the best, else one of those that this run is about."""

    chance: random.Random
    faults: float
    about: Sequence[str]

    def __call__(self, fates: Sequence[str]) -> str:
        possible = [fate for fate in fates[1:] if fate in self.about]
        return self.chance.choice(possible) if possible and self.chance.random() < self.faults else fates[0]


@dataclass(slots=True)
class _Run:
    seed: int
    chance: random.Random = field(init=False)
    world: World = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(f"world {self.seed}")

    async def play(self, process: type[Process], *, keep_trace: bool) -> Outcome:
        chance = self.chance
        self.world = world = World(chance, process=process, keep_trace=keep_trace)
        with world.heard:
            await self._prepare()
            until = world.time + chance.uniform(3.0, 15.0)
            actors = [asyncio.create_task(self._client(until)) for _ in range(chance.randint(1, 5))]
            actors += [asyncio.create_task(self._trouble(until)) for _ in range(2)]
            await asyncio.wait(actors)
            for actor in actors:
                actor.result()
            if chance.random() < 0.2:
                world.cluster.heal()
                world.clocks.stall(chance.uniform(6.0, 8.0) * 3600)
            complaints = await world.finish()
        return Outcome(
            seed=self.seed,
            complaints=complaints,
            digest=world.journal.digest,
            counts=world.journal.counts,
            steps=world.journal.steps,
            turns=world.loop.turns,
            seconds=world.time,
            trace=world.journal.trace or (),
        )

    async def _prepare(self) -> None:
        """Choose what this run is about: a few kinds of trouble, not all of them at once."""
        world, chance = self.world, self.chance
        about = chance.sample([*FATES[1:], *STARTS[1:], "ends slowly"], chance.randint(0, 8))
        world.cluster.choose = _Fortune(chance, chance.choice([0.05, 0.2, 0.5]), about)
        world.cluster.message_bytes_max = chance.choice([1024 * 1024, 1400])
        world.cluster.first_sequence = SEQUENCE_NEARLY_FULL if chance.random() < 0.05 else 0
        for tenant in (ACME, ACME_WEB, GLOBEX):
            await world.database.make(tenant)
        world.start_process()
        if chance.random() < 0.8:
            await world.listening()

    # Clients.

    async def _client(self, until: float) -> None:
        world, chance = self.world, self.chance
        while world.time < until:
            await asyncio.sleep(chance.expovariate(0.5))
            again: Message | None = self._message()
            for _ in range(3):
                if again is None:
                    break
                request = world.send(again)
                if again.leaves_s is not None or chance.random() < 0.1:
                    # Does not wait for the answer; may send again meanwhile.
                    await asyncio.sleep(chance.uniform(0.0, chance.choice([0.3, 3.0])))
                    if chance.random() < 0.2:
                        world.cut(request)
                    again = self._again(again, again.drafts) if chance.random() < 0.5 else None
                else:
                    await world.answer_to(request)
                    rows = zip(again.drafts, request.rows, strict=False)
                    open_still = [draft for draft, row in rows if row.status in ("not_stored", "unknown")]
                    again = self._again(again, open_still or (again.drafts if request.refused else []))
                    await asyncio.sleep(chance.uniform(0.0, 2.0))

    def _message(self) -> Message:
        world, chance = self.world, self.chance
        batch = chance.random() < 0.4
        secret = chance.choice(world.database.keys).secret
        if chance.random() < 0.06:
            secret = chance.choice([None, "cs_live_nobody_TopSecret", "größe".encode().hex()])
        return Message(
            secret=secret,
            drafts=[self._draft() for _ in range(chance.randint(1, 5) if batch else 1)],
            batch=batch,
            pauses_s=self._pauses(),
            leaves_s=chance.uniform(0.0, 5.0) if chance.random() < 0.1 else None,
            length_known=chance.random() < 0.7,
            listed=chance.random() < 0.8,
        )

    def _draft(self) -> Draft:
        chance = self.chance
        if chance.random() < 0.1:
            return Draft(broken=chance.choice(BROKEN))
        return Draft(
            user_id=chance.choice([None, "ann", "bob"]),
            idempotency_key=chance.choice([None, f"order-{chance.randint(1, 30)}-{MARK}"]),
            properties=chance.choices(['{"n":1.0}', '{"indigestible":true}'], [30, 1])[0],
        )

    def _pauses(self) -> Sequence[float]:
        chance = self.chance
        if chance.random() < 0.8:
            return (0.0,)
        return [chance.choice([0.0, 0.2, 1.0, 5.0]) for _ in range(chance.randint(1, 3))]

    def _again(self, message: Message, drafts: Sequence[Draft]) -> Message | None:
        """Send those events again, as clients do whose events carry a key that tells they are the same."""
        drafts = [draft for draft in drafts if draft.broken is None]
        if not drafts:
            return None
        batch = message.batch or len(drafts) > 1
        return Message(secret=message.secret, drafts=drafts, batch=batch, listed=message.listed)

    # Trouble.

    async def _trouble(self, until: float) -> None:
        world, chance = self.world, self.chance
        troubles = [
            self._kafka_away,
            self._no_leader,
            self._unsafe_topic,
            self._keys_trouble,
            self._change_of_keys,
            self._change_of_keys,
            self._stall,
            self._step_clock,
            self._flood,
            self._cluster_in_pieces,
            self._restart,
            self._crash,
        ]
        troubles = chance.sample(troubles, chance.randint(0, 4))
        while world.time < until:
            await asyncio.sleep(chance.expovariate(0.4))
            world.watch()
            if troubles and world.time < until:
                await chance.choice(troubles)()

    async def _kafka_away(self) -> None:
        self.world.cluster.away = True
        self.world.journal.count("world", "Kafka away")
        await asyncio.sleep(self.chance.uniform(0.1, 8.0))
        self.world.cluster.away = False

    async def _no_leader(self) -> None:
        lost = set(self.chance.sample(range(PARTITIONS), self.chance.randint(1, PARTITIONS)))
        self.world.cluster.leaderless |= lost
        self.world.journal.count("world", "no leader")
        await asyncio.sleep(self.chance.uniform(0.1, 8.0))
        self.world.cluster.leaderless -= lost

    async def _unsafe_topic(self) -> None:
        self.world.cluster.dangers = ("min.insync.replicas is 1",)
        self.world.journal.count("world", "unsafe topic")
        await asyncio.sleep(self.chance.uniform(0.1, 4.0))
        self.world.cluster.dangers = ()

    async def _keys_trouble(self) -> None:
        self.world.database.become(self.chance.choice(MODES[1:]))
        await asyncio.sleep(self.chance.choice([0.1, 2.0, 8.0, 15.0]))
        self.world.database.become("up")

    async def _change_of_keys(self) -> None:
        world, chance = self.world, self.chance
        key = chance.choice(world.database.keys)
        match chance.choice(["make", "revoke", "expire"]):
            case "make":
                await world.database.make(chance.choice([ACME, ACME_WEB, GLOBEX]))
            case "revoke":
                await world.database.revoke(key, world.clocks.date())
            case "expire":
                await world.database.expire(key, world.clocks.date(chance.uniform(0.0, 6.0)))

    async def _stall(self) -> None:
        self.world.clocks.stall(self.chance.choice([0.5, 1.2, 4.0, 10.0]))

    async def _step_clock(self) -> None:
        self.world.clocks.step(self.chance.choice([-864_000.0, -7200.0, -1.0, 0.0, 1.0, 7200.0, 864_000.0]))

    async def _flood(self) -> None:
        world, chance = self.world, self.chance
        secret = chance.choice(world.database.keys).secret
        world.journal.count("world", "floods")
        for _ in range(chance.randint(1, 3)):
            drafts = [self._draft() for _ in range(3)]
            sent = [world.send(Message(secret=secret, drafts=drafts, batch=True)) for _ in range(5)]
            if chance.random() < 0.5:
                await asyncio.sleep(0.5)
                for request in sent:
                    world.cut(request)

    async def _cluster_in_pieces(self) -> None:
        """Some batches fail, others hang, so that producers are replaced faster than they are done."""
        world, chance = self.world, self.chance
        in_turn = cycle([chance.choice(["silence", "confirmed late"]), "error"])
        before, world.cluster.choose = world.cluster.choose, lambda fates: next(in_turn) if fates is FATES else fates[0]
        for _ in range(12):
            secret = chance.choice(world.database.keys).secret
            world.send(Message(secret=secret, drafts=[Draft(), Draft()], batch=True))
            await asyncio.sleep(chance.uniform(0.05, 0.3))
        world.cluster.choose = before

    async def _restart(self) -> None:
        self.world.ask_to_end()
        if self.world.ending is not None:
            await asyncio.wait({self.world.ending})
        await self._come_back()

    async def _crash(self) -> None:
        if self.world.process is not None:
            await self.world.crash()
            await self._come_back()

    async def _come_back(self) -> None:
        await asyncio.sleep(self.chance.uniform(0.0, 1.0))
        if self.world.process is None:
            self.world.start_process()
