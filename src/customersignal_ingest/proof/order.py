"""The order of one user's events: one that was sent after another was accepted is stored after it."""

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from typing import NamedTuple


class Told(NamedTuple):
    """An accepted event. `sent_at` and `answered_at` are positions in the journals, not times."""

    n: int
    sent_at: int
    answered_at: int
    receipt: str


def out_of_order(events: Iterable[Told], /) -> Iterator[tuple[int, str]]:
    """Yield the number of each event that is stored too early, and the receipt that its client knew already.

    The events are one user's, in the order in which they were sent. Only places in one partition can
    be compared: when partitions are added, keys move.
    """
    answered: list[tuple[int, str, int]] = []
    known: dict[str, int] = {}
    request: tuple[int, dict[str, int]] = (0, {})
    for event in events:
        partition, _, digits = event.receipt.rpartition("/")
        if not digits.isdecimal():
            continue
        while answered and answered[0][0] < event.sent_at:
            _, each, offset = heappop(answered)
            known[each] = max(known.get(each, -1), offset)
        if request[0] != event.sent_at:
            request = (event.sent_at, {})
        offset, in_batch = int(digits), request[1]
        before = max(known.get(partition, -1), in_batch.get(partition, -1))
        if offset < before:
            yield event.n, f"{partition}/{before}"
        in_batch[partition] = max(offset, in_batch.get(partition, -1))
        heappush(answered, (event.answered_at, partition, offset))
