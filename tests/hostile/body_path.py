"""The way of a body from its content encoding to the record, without a socket or a clock: what is fuzzed."""

import gzip
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial

import zstandard

from customersignal_ingest.adapters.inbound.http.encodings import DECODERS
from customersignal_ingest.adapters.inbound.http.problem import Problem
from customersignal_ingest.domain.event import IngestEvent
from customersignal_ingest.domain.flaws import Flaw
from customersignal_ingest.domain.key import Tenant
from customersignal_ingest.domain.outcome import Rejected
from customersignal_ingest.domain.rules import Limits, parse_event
from customersignal_ingest.domain.strict_json import read_slices
from tests.hostile.corpus import GROUPS, read_group
from tests.hostile.oracles import about_event, about_slices
from tests.hostile.words import KEYS

SINGLE, BATCH = 0, 1
PLAIN, GZIP, ZSTD, TO_GZIP, TO_ZSTD = range(5)
"""The body is as it stands, said to be compressed, or compressed here, so that what is within is reached."""
INPUT_BYTES_MAX = 4096

_DECODED_BYTES_MAX = 1_000_000
_EVENTS_MAX = 16
_LIMITS = Limits(event_bytes_max=INPUT_BYTES_MAX // 2, depth_max=8)
_PACK: dict[int, Callable[[bytes], bytes]] = {
    TO_GZIP: partial(gzip.compress, compresslevel=1),
    TO_ZSTD: partial(zstandard.compress, level=1),
}

Parse = Callable[[bytes], IngestEvent | Rejected]


class Finding(Exception):
    """What the service makes of these bytes is wrong."""


def parse(payload: bytes, /) -> IngestEvent | Rejected:
    """Parse an event as the service does, of a tenant and at a moment that never change."""
    return parse_event(
        payload,
        tenant=Tenant(tenant_id="acme", key_id="k"),
        received_at=datetime(2026, 11, 23, 10, tzinfo=UTC),
        new_id=lambda _: "id",
        limits=_LIMITS,
    )


class BodyPath:
    """Takes bodies, each behind a byte that says which way it goes, and counts what becomes of them."""

    def __init__(self, parse: Parse = parse) -> None:
        self._parse = parse
        self.tally: Counter[str] = Counter()

    def take(self, data: bytes, /) -> None:
        """Raise `Finding` for what is wrong with what becomes of these bytes, and whatever the path lets through."""
        self.tally["bodies"] += 1
        route, way = (data[0] & 1, (data[0] >> 1) % 5) if data else (SINGLE, PLAIN)
        body = self._decoded(data[1:], way)
        if body is None:
            self.tally["not decoded"] += 1
        elif found := [*(self._of_batch(body) if route == BATCH else self._of_event(body))]:
            raise Finding("; ".join(found))

    def _decoded(self, data: bytes, way: int) -> bytes | None:
        if way == PLAIN:
            return data
        packed = _PACK[way](data) if way in _PACK else data
        body = _decode("gzip" if way in (GZIP, TO_GZIP) else "zstd", packed)
        if way in _PACK and body != data:
            raise Finding("what was compressed well was decoded to something else")
        return body

    def _of_batch(self, body: bytes) -> Iterator[str]:
        try:
            slices = read_slices(body, "events", most=_EVENTS_MAX)
        except Flaw:
            self.tally["no batch"] += 1
            return
        yield from about_slices(body, slices, most=_EVENTS_MAX)
        for payload in slices[: _EVENTS_MAX + 1]:
            yield from self._of_event(payload)

    def _of_event(self, payload: bytes) -> Iterator[str]:
        outcome = self._parse(payload)
        self.tally["accepted" if isinstance(outcome, IngestEvent) else outcome.reason] += 1
        yield from about_event(payload, outcome, limits=_LIMITS)


def seeds() -> Iterator[bytes]:
    """Yield the bodies of the corpus, each with the byte that says which way it goes."""
    words = dict.fromkeys((*KEYS, "secret", "private"), b"k")
    for number, row in enumerate(row for group in GROUPS for row in read_group(group, words)):
        head, _, body = row.request.partition(b"\r\n\r\n")
        route = BATCH if b"/v1/events/batch" in head else SINGLE
        way = GZIP if b"Encoding: gzip" in head else ZSTD if b"Encoding: zstd" in head else PLAIN
        if len(body) < INPUT_BYTES_MAX:
            ways = (PLAIN, PLAIN, TO_GZIP, TO_ZSTD) if way == PLAIN else (way,)
            yield bytes([ways[number % len(ways)] << 1 | route]) + body


def _decode(encoding: str, packed: bytes) -> bytes | None:
    pieces, size_bytes = [], 0
    try:
        for piece in DECODERS[encoding](packed):
            size_bytes += len(piece)
            if size_bytes > _DECODED_BYTES_MAX:
                return None
            pieces.append(piece)
    except Problem:
        return None
    return b"".join(pieces)
