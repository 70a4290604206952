"""What is known of the brokers from asking them, beside what publishing tells."""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from customersignal_ingest.adapters.outbound.kafka.topic import Topic
from customersignal_ingest.adapters.outbound.kafka.watch import TopicWatch
from customersignal_ingest.domain.errors import Unavailable

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
    """`away` says why no broker is expected to take anything now; `watch` is what looks at the topic."""

    def __init__(self, kafka: Looks, /, *, clock: Callable[[], float], seen: Callable[[Topic], None]) -> None:
        """`seen` is told of the topic after every look."""
        self._kafka, self._clock = kafka, clock
        self.watch = TopicWatch(kafka.topic, clock=clock, seen=seen)
        self.away = "not connected yet"
        self._ask_at = float("-inf")
        self._doubt = False
        self._asking: asyncio.Task[None] | None = None

    def reason_against(self) -> str:
        """Say why nothing can be stored as far as can be seen, or nothing."""
        return self.watch.reason_against(self.away)

    def confirmed(self) -> None:
        """A broker has confirmed something: it is there."""
        self.away = ""

    def tick(self, *, doubt: bool) -> None:
        """Look and ask when it is time; `doubt` tells that the brokers give cause to ask for a sign of life."""
        self._doubt = self._doubt or doubt
        if (self._doubt or self.away) and self._clock() >= self._ask_at:
            self._ask_at, self._doubt = float("inf"), False
            self._asking = asyncio.create_task(self._ask())
        self.watch.tick()

    async def first(self, timeout_s: float) -> None:
        """Wait until both were tried, for so long at the most."""
        asking = () if self._asking is None else (asyncio.wait({self._asking}, timeout=timeout_s),)
        await asyncio.gather(self.watch.first(timeout_s), *asking)

    async def close(self) -> None:
        """Look and ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})
        await self.watch.close()

    async def _ask(self) -> None:
        reason = ""
        try:
            await self._kafka.reach()
        except Unavailable as error:
            reason = str(error) or "unavailable"
        except Exception as error:
            log.exception("no broker could be asked")
            reason = type(error).__name__
        if reason and reason != self.away:
            log.warning("Kafka is away: %s", reason)
        if self.away and not reason and self.watch.failure:
            self.watch.look_soon()
        self.away = reason
        self._ask_at = self._clock() + ASK_S
