"""Looks at the topic again and again, because what was safe at the start may be changed later."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from customersignal_ingest.adapters.outbound.kafka.topic import MESSAGE_BYTES_MAX, Topic
from customersignal_ingest.domain.errors import Unavailable

LOOK_S = 60.0
LOOK_AGAIN_S = 2.0

log = logging.getLogger(__name__)


class TopicWatch:
    """What the topic looked like last: every minute, and every two seconds while that is not good.

    `failure` says why it could not be looked at, or nothing. For one event loop; `tick` is to be
    called ten times a second.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[Topic]],
        /,
        *,
        clock: Callable[[], float],
        seen: Callable[[Topic], None] = lambda _topic: None,
    ) -> None:
        """`look` raises `Unavailable`; `seen` is told of the topic after every look."""
        self._look_once, self._clock, self._seen = look, clock, seen
        self.topic: Topic | None = None
        self.failure = ""
        self._look_at = float("-inf")
        self._looking: asyncio.Task[None] | None = None

    @property
    def message_bytes_max(self) -> int:
        """The largest batch that the topic takes, as far as is known."""
        return MESSAGE_BYTES_MAX if self.topic is None else self.topic.message_bytes_max

    @property
    def limits(self) -> str:
        """What refuses large events only, or nothing."""
        return "" if self.topic is None else "; ".join(self.topic.limits)

    def reason_against(self, away: str, /) -> str:
        """Say why nothing can be stored there now, or nothing; `away` is why no broker takes anything."""
        if self.topic is None:
            return away or self.failure or "the topic's settings are not known yet"
        return "; ".join(self.topic.dangers) or away

    def look_soon(self) -> None:
        """Look at the next tick."""
        self._look_at = min(self._look_at, self._clock())

    def tick(self) -> None:
        """Look if it is time."""
        if self._clock() >= self._look_at and (self._looking is None or self._looking.done()):
            self._look_at = float("inf")
            self._looking = asyncio.create_task(self._look())

    async def first(self, timeout_s: float) -> None:
        """Wait until the look that is going on is over, for so long at the most."""
        if self._looking is not None:
            await asyncio.wait({self._looking}, timeout=timeout_s)

    async def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})

    async def _look(self) -> None:
        failure, safe = "", False
        try:
            self.topic = await self._look_once()
            safe = not self.topic.dangers
            self._seen(self.topic)
        except Unavailable as error:
            failure = str(error) or "unavailable"
        except Exception as error:
            log.exception("the topic's settings can't be understood")
            failure = type(error).__name__
        if failure and failure != self.failure:
            log.warning("the topic's settings can't be read: %s", failure)
        self.failure = failure
        # Whoever wanted another look meanwhile gets it.
        self._look_at = min(self._look_at, self._clock() + (LOOK_S if safe else LOOK_AGAIN_S))
