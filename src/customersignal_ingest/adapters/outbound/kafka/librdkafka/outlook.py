"""What is known of the brokers and of the topic from looking at them, beside what publishing tells."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Protocol

from customersignal_ingest.adapters.outbound.kafka.topic import Topic
from customersignal_ingest.domain.errors import Unavailable

LOOK_S = 60.0
LOOK_AGAIN_S = 2.0
ASK_S = 0.5

log = logging.getLogger(__name__)


class Looks(Protocol):
    """Who looks."""

    async def topic(self) -> Topic:
        """Look at the topic's settings; raises `Unavailable` within seconds."""
        ...

    async def reach(self) -> object:
        """Return if any broker answers; raises `Unavailable` within a second or two."""
        ...


class Outlook:
    """`away` says why no broker is expected to take anything now; `topic` is what was seen last."""

    def __init__(self, kafka: Looks, /, *, clock: Callable[[], float], seen: Callable[[Topic], None]) -> None:
        """`seen` is told of the topic after every look."""
        self._kafka, self._clock, self._seen = kafka, clock, seen
        self.away = "not connected yet"
        self.topic: Topic | None = None
        self._look_at = self._ask_at = float("-inf")
        self._doubt = False
        self._looking: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None

    def reason_against(self) -> str:
        """Say why nothing can be stored as far as can be seen, or nothing."""
        if self.topic is not None and self.topic.dangers:
            return "; ".join(self.topic.dangers)
        return self.away or ("the topic's settings are not known yet" if self.topic is None else "")

    def confirmed(self) -> None:
        """A broker has confirmed something: it is there."""
        self.away = ""

    def look_soon(self) -> None:
        """Look at the topic as soon as possible."""
        self._look_at = min(self._look_at, self._clock())

    def tick(self, *, doubt: bool) -> None:
        """Look and ask when it is time; `doubt` tells that the brokers give cause to ask for a sign of life."""
        now = self._clock()
        self._doubt = self._doubt or doubt
        if (self._doubt or self.away) and now >= self._ask_at:
            self._ask_at, self._doubt = float("inf"), False
            self._asking = asyncio.create_task(self._ask())
        if now >= self._look_at:
            self._look_at = float("inf")
            self._looking = asyncio.create_task(self._look())

    async def first(self, timeout_s: float) -> None:
        """Wait until both were tried, for so long at the most."""
        await asyncio.wait(self._tasks(), timeout=timeout_s)

    async def close(self) -> None:
        """Look no more."""
        tasks = self._tasks()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _tasks(self) -> "list[asyncio.Task[None]]":
        return list(filter(None, [self._asking, self._looking]))

    async def _ask(self) -> None:
        reason = await self._tried(self._kafka.reach())
        if reason and reason != self.away:
            log.warning("Kafka is away: %s", reason)
        if self.away and not reason and self.topic is None:
            self.look_soon()
        self.away = reason
        self._ask_at = self._clock() + ASK_S

    async def _look(self) -> None:
        async def look() -> None:
            self.topic = await self._kafka.topic()
            self._seen(self.topic)

        reason = await self._tried(look())
        if reason:
            log.warning("the topic's settings can't be read: %s", reason)
        safe = not reason and self.topic is not None and not self.topic.dangers
        self._look_at = self._clock() + (LOOK_S if safe else LOOK_AGAIN_S)

    async def _tried(self, work: Coroutine[object, object, object]) -> str:
        try:
            await work
        except Unavailable as error:
            return str(error) or "unavailable"
        except Exception as error:
            log.exception("looking at Kafka failed")
            return f"looking at Kafka failed: {type(error).__name__}"
        return ""
