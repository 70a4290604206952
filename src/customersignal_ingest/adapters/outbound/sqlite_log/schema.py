"""What is in the file: its tables, and a record as a row of them."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from customersignal_ingest.domain.event import Record, StoredRecord
from customersignal_ingest.domain.outcome import Stored
from customersignal_ingest.domain.partition import partition_for

TOPIC = "events_raw"
APPLICATION_ID = 0x43534947  # "CSIG": how the file says that it is one of ours.
VERSION = 1

Row: TypeAlias = tuple[int, int, int, bytes, str, bytes]

# `sequence` is the order of arrival over all partitions, by which a reader goes on where it was.
# The value comes last: a look at the other columns does not read its pages.
CREATE = (
    "CREATE TABLE topic (name TEXT PRIMARY KEY, partitions INTEGER NOT NULL, probes INTEGER NOT NULL DEFAULT 0)",
    """CREATE TABLE log (
        sequence INTEGER PRIMARY KEY,
        partition INTEGER NOT NULL,
        "offset" INTEGER NOT NULL,
        timestamp_ms INTEGER NOT NULL,
        "key" BLOB NOT NULL,
        headers TEXT NOT NULL,
        value BLOB NOT NULL,
        UNIQUE (partition, "offset")
    )""",
    f"""CREATE VIEW {TOPIC} AS SELECT
        '{TOPIC}/' || partition || '/' || "offset" AS receipt,
        strftime('%Y-%m-%dT%H:%M:%fZ', timestamp_ms / 1000.0, 'unixepoch') AS received_at,
        CAST("key" AS TEXT) AS "key",
        CAST(value AS TEXT) AS value,
        headers
    FROM log ORDER BY sequence""",  # noqa: S608 - made of a constant of ours
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)
INSERT = 'INSERT INTO log (partition, "offset", timestamp_ms, "key", headers, value) VALUES (?, ?, ?, ?, ?, ?)'
INSERT_TOPIC = "INSERT INTO topic (name, partitions) VALUES (?, ?)"
SELECT_PARTITIONS = "SELECT partitions FROM topic WHERE name = ?"
SELECT_NEXT_OFFSETS = 'SELECT partition, max("offset") + 1 FROM log GROUP BY partition'
SELECT_ONE = 'SELECT 1 FROM log WHERE partition = ? AND "offset" = ?'
PROBE = "UPDATE topic SET probes = probes + 1"
SELECT_LAST = "SELECT coalesce(max(sequence), 0) FROM log"
SELECT_END = 'SELECT coalesce(max("offset") + 1, 0) FROM log WHERE partition = ?'
SELECT_LONG_BEFORE = "SELECT sequence FROM log WHERE timestamp_ms < ? ORDER BY sequence DESC LIMIT 1"
SELECT_STARTS = """SELECT partition,
    coalesce(max(CASE WHEN timestamp_ms < :since_ms THEN "offset" + 1 END), min("offset"))
    FROM log WHERE sequence > :after GROUP BY partition"""
SELECT_PAGE = """SELECT sequence, partition, "offset", timestamp_ms, "key", headers, value FROM log
    WHERE sequence > :after AND sequence <= :end AND timestamp_ms >= :since_ms
    AND (:partition IS NULL OR (partition = :partition AND "offset" >= :offset)) ORDER BY sequence"""

_to_json = msgspec.json.Encoder().encode
_from_json = msgspec.json.Decoder(list[tuple[str, str]]).decode


def rows_of(records: Sequence[Record], next_offsets: list[int], /) -> tuple[list[Row], list[Stored]]:
    """Give each record its place, and count `next_offsets` (one a partition) up accordingly."""
    rows, places = [], []
    for record in records:
        partition = partition_for(record.key, len(next_offsets))
        offset = next_offsets[partition]
        next_offsets[partition] = offset + 1
        headers = _to_json([(name, value.decode("latin-1")) for name, value in record.headers]).decode()
        rows.append((partition, offset, record.timestamp_ms, record.key, headers, record.value))
        places.append(Stored(TOPIC, partition, offset))
    return rows, places


def record_of(row: Sequence[Any], /) -> StoredRecord:
    """Return the record of a row of `SELECT_PAGE`."""
    _, partition, offset, timestamp_ms, key, headers, value = row
    return StoredRecord(
        topic=TOPIC,
        partition=partition,
        offset=offset,
        key=key,
        value=value,
        # Headers are bytes, JSON is text: latin-1 keeps every byte, and what is ASCII stays readable.
        headers=tuple((name, text.encode("latin-1")) for name, text in _from_json(headers)),
        timestamp_ms=timestamp_ms,
    )
