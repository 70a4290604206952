"""The supervisor: one producer in service, replaced within a second when it can't be trusted any more.

A generation is one producer from its start to its end. aiokafka numbers its batches and never gives
a number back, so after one failed batch the broker refuses all that follow in that partition: only
a new producer helps. A retired generation gets nothing new; what it has out may still be
answered, each batch until its own deadline.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable

from customersignal_ingest.adapters.outbound.kafka.batch import Batch
from customersignal_ingest.adapters.outbound.kafka.producer import Producer
from customersignal_ingest.domain.errors import Unavailable

SEQUENCE_MAX = 2**30  # aiokafka's numbers turn negative at 2^31, and the broker refuses them for ever.
AGE_MAX_S = 6 * 3600.0
START_TIMEOUT_S = 16.0
LATE_ANSWERS_S = 0.8
DRAINING_MAX, ENDING_MAX = 4, 3
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.1, 5.0

log = logging.getLogger(__name__)


class Generation:
    """One producer, and the batches that it has out. `doubtful` of them were answered `Unknown` already."""

    __slots__ = ("acknowledged", "age_max_s", "born_at", "doubtful", "out", "producer", "retired_at")

    def __init__(self, producer: Producer, *, born_at: float, age_max_s: float) -> None:
        self.producer = producer
        self.born_at = born_at
        self.age_max_s = age_max_s
        self.out: set[Batch] = set()
        self.doubtful = 0
        self.acknowledged = False
        self.retired_at = float("inf")

    def takes(self, batch: Batch) -> bool:
        """Tell whether the batch's numbers stay in bounds."""
        return self.producer.sequence(batch.partition) + batch.records < SEQUENCE_MAX

    def has_ended(self, now: float) -> bool:
        """Tell whether nothing more is to be expected: late answers are waited for a little, to be counted."""
        return not self.out and (not self.doubtful or now - self.retired_at >= LATE_ANSWERS_S)


class Generations:
    """Keeps a producer in service. For one event loop; `tick` is to be called ten times a second.

    `served` is told when a new one is in service, `away` when there is none and none is expected
    at once, `lost` of each batch that a dead producer had out.
    """

    def __init__(
        self,
        make: Callable[[], Producer],
        *,
        served: Callable[[], None],
        away: Callable[[str], None],
        lost: Callable[[Batch, str], None],
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        jitter: Callable[[], float],
    ) -> None:
        """`jitter` returns anything from 0 to 1; `clock` is monotonic seconds."""
        self._make, self._served, self._away, self._lost = make, served, away, lost
        self._clock, self._sleep, self._jitter = clock, sleep, jitter
        self.current: Generation | None = None
        self.reason = "not connected yet"
        self.restarts: Counter[str] = Counter()
        self._retired: list[Generation] = []
        self._failures = self._fruitless = 0
        self._connecting: asyncio.Task[None] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._start_by = 0.0
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False
        self.tried = asyncio.Event()

    def connect(self) -> None:
        """Begin to put a producer into service; goes on until there is one."""
        if not self._closed and (self._connecting is None or self._connecting.done()):
            self._connecting = asyncio.create_task(self._connect())

    def retire(self, generation: Generation, cause: str, *, strike: bool = True) -> None:
        """Replace this generation, if it is the one in service; with a pause if several never did any good.

        A retirement without a `strike` says nothing against the cluster.
        """
        if generation is not self.current:
            return
        log.warning("a Kafka producer is replaced: %s", cause)
        self.restarts[cause] += 1
        self.current, generation.retired_at = None, self._clock()
        self._retired.append(generation)
        if len(self._retired) > DRAINING_MAX:
            self._end(self._retired[0], "too many producers were replaced at once")
        if generation.acknowledged:
            self._fruitless = 0
        elif strike:
            self._fruitless += 1
        if self._fruitless > 1:
            self._be_away(cause)
        self.connect()

    def holder(self, batch: Batch, /) -> Generation | None:
        """Return the generation that has this batch out."""
        every = [*self._retired, *filter(None, [self.current])]
        return next((each for each in every if batch in each.out), None)

    def tick(self) -> None:
        """Look after everything that time alone brings."""
        now = self._clock()
        if self._starting is not None and now >= self._start_by:
            self._starting.cancel()
        current = self.current
        if current is not None and current.producer.is_dead():
            self.retire(current, "the sender died")
            self._end(current, "the producer died")
        elif current is not None and now - current.born_at >= current.age_max_s:
            self.retire(current, "age", strike=False)
        for generation in [each for each in self._retired if each.has_ended(now)]:
            self._end(generation, "")

    async def close(self) -> None:
        """End all generations, within about a second; what they have out is lost."""
        self._closed = True  # Whatever is retired from here on has no successor.
        for task in filter(None, [self._connecting, self._starting]):
            task.cancel()
        if self._connecting is not None:
            await asyncio.wait({self._connecting})
        current, self.current, self.reason = self.current, None, "closed"
        for generation in [*self._retired, *filter(None, [current])]:
            self._end(generation, "closed before an acknowledgement came")
        if self._ending:
            await asyncio.wait(self._ending)

    async def _connect(self) -> None:
        while self.current is None:
            await self._sleep(self._pause_s())
            # Each takes a second at the most. Batches that are turned down, half by half, replace one after the other.
            while len(self._ending) >= ENDING_MAX:
                await asyncio.wait(self._ending, return_when=asyncio.FIRST_COMPLETED)
            producer = self._make()
            reason = await self._reason_against_starting(producer)
            if not reason:
                self._put_into_service(producer)
            else:
                self._abandon(producer)
                self._failures += 1
                self._be_away(reason)
            self.tried.set()

    def _put_into_service(self, producer: Producer) -> None:
        age_max_s = AGE_MAX_S * (0.9 + 0.1 * self._jitter())  # Not all processes at the same moment.
        self.current = Generation(producer, born_at=self._clock(), age_max_s=age_max_s)
        self.reason, self._failures = "", 0
        self._served()

    async def _reason_against_starting(self, producer: Producer) -> str:
        self._start_by = self._clock() + START_TIMEOUT_S
        task = self._starting = asyncio.create_task(producer.start())
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})
            self._abandon(producer)
            raise
        finally:
            self._starting = None
        if task.cancelled():
            return f"no producer started within {START_TIMEOUT_S:.0f} s"
        error = task.exception()
        if error is not None and not isinstance(error, Unavailable):
            log.error("a Kafka producer failed to start", exc_info=error)
            return f"no producer started: {type(error).__name__}"
        return "" if error is None else str(error)

    def _be_away(self, reason: str) -> None:
        if reason != self.reason:
            log.warning("Kafka is away: %s", reason)
        self.reason = reason
        self._away(reason)

    def _pause_s(self) -> float:
        in_vain = max(self._failures, self._fruitless - 1)
        if in_vain <= 0:
            return 0.0
        doubled = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2.0 ** min(in_vain - 1, 10))
        return doubled * (0.5 + 0.5 * self._jitter())

    def _end(self, generation: Generation, cause: str) -> None:
        if generation in self._retired:
            self._retired.remove(generation)
        for batch in sorted(generation.out, key=lambda batch: batch.partition):
            self._lost(batch, cause)
        generation.out.clear()
        self._abandon(generation.producer)

    def _abandon(self, producer: Producer) -> None:
        task = asyncio.create_task(producer.abandon())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
