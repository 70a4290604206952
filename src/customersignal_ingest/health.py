"""Whether an event sent now could be stored: asked of every component, again and again."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from customersignal_ingest.domain.errors import Unavailable

INTERVAL_S = 1.0
PING_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """Something that readiness depends on.

    `ping` returns, or raises `Unavailable` with the reason. A component that fails is still good
    enough until `grace_s` after it last worked: known keys work while their database is away.
    """

    name: str
    ping: Callable[[], Awaitable[None]]
    grace_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What was last seen of a component; `reason` is for people, and empty while it works."""

    ok: bool
    good_enough: bool
    reason: str


class Health:
    """Watches components from a task of its own, so that asking for health costs and waits nothing."""

    def __init__(
        self,
        components: Sequence[Component],
        /,
        *,
        clock: Callable[[], float],
        observe: Callable[[str, bool], None] = lambda _name, _ok: None,
    ) -> None:
        """`clock` is monotonic seconds; `observe` is told of every component after every look."""
        self._components = components
        self._clock, self._observe = clock, observe
        self._worked_at = {component.name: float("-inf") for component in components}
        self._states = {c.name: State(ok=False, good_enough=False, reason="not looked at yet") for c in components}
        self.draining = False

    @property
    def states(self) -> Mapping[str, State]:
        """The state of each component, by name."""
        return self._states

    @property
    def ready(self) -> bool:
        """Whether an event sent now could be stored, and this process is here to stay."""
        return not self.draining and all(state.good_enough for state in self._states.values())

    def drain(self) -> None:
        """Say from now on that this process is not ready: it is about to end."""
        self.draining = True

    async def watch(self) -> None:
        """Look at every component each second, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL_S)

    async def look(self) -> None:
        """Look at every component once, all at the same time, for two seconds at the most."""
        await asyncio.gather(*map(self._look_at, self._components))

    async def _look_at(self, component: Component) -> None:
        reason = await self._reason_against(component)
        if not reason:
            self._worked_at[component.name] = self._clock()
        good_enough = not reason or self._clock() - self._worked_at[component.name] < component.grace_s
        self._states[component.name] = State(ok=not reason, good_enough=good_enough, reason=reason)
        self._observe(component.name, not reason)

    @staticmethod
    async def _reason_against(component: Component) -> str:
        try:
            async with asyncio.timeout(PING_TIMEOUT_S):
                await component.ping()
        except TimeoutError:
            return f"no answer within {PING_TIMEOUT_S:g} s"
        except Unavailable as error:
            return str(error)
        except Exception as error:  # noqa: BLE001  A stranger's bug is a reason too, and must not end the watch.
            return f"ping raised {type(error).__name__}"
        return ""
