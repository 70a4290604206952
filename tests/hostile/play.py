"""Plays the corpus against a running service, and says what is not as the contract has it."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.hostile.corpus import Row, read_group, traceparent
from tests.hostile.judge import complaints
from tests.hostile.stage import Stage
from tests.hostile.wire import Seen, send

AT_ONCE = 24
"""How many connections are open at a time."""


@dataclass(kw_only=True)
class Played:
    """What became of one group: complaints by the names of their rows."""

    rows: Sequence[Row]
    seconds: float = 0.0
    wrong: dict[str, list[str]] = field(default_factory=dict)

    @property
    def complaints(self) -> list[str]:
        """Every complaint, with its row."""
        return [f"{name}: {complaint}" for name, found in self.wrong.items() for complaint in found]

    def complain(self, row: Row, *found: str) -> None:
        """Note what is wrong with a row."""
        if found:
            self.wrong.setdefault(f"{row.group}, {row.name}", []).extend(found)


def play(stage: Stage, group: str, /) -> Played:
    """Send all rows of a group, some at a time, and judge each by its answers and by the log."""
    rows = read_group(group, stage.words)
    before = {trace: len(values) for trace, values in stage.stored().items()}
    began = time.monotonic()
    seen = asyncio.run(_send_all(rows, stage.address))
    played = Played(rows=rows, seconds=time.monotonic() - began)
    stored = stage.stored()
    for number, (row, answered) in enumerate(zip(rows, seen, strict=True)):
        trace = traceparent(group, number)
        played.complain(row, *complaints(row, answered, never=stage.secrets))
        played.complain(row, *_about_the_log(row, stored.get(trace, [])[before.get(trace, 0) :]))
    return played


async def _send_all(rows: Sequence[Row], address: tuple[str, int]) -> list[Seen]:
    room = asyncio.Semaphore(AT_ONCE)

    async def one(row: Row) -> Seen:
        async with room:
            return await send(row, address)

    return await asyncio.gather(*map(one, rows))


def _about_the_log(row: Row, values: Sequence[bytes]) -> list[str]:
    if len(values) != row.stored:
        return [f"{len(values)} events are stored instead of {row.stored}"]
    if row.keeps is not None and row.keeps not in values[0]:
        return [f"what is stored does not have {row.keeps[:200]!r}"]
    return []
