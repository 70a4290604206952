"""How many bytes a record takes in Kafka, alone in a batch: what a broker compares with `max.message.bytes`."""

from customersignal_ingest.domain.event import Record

_BATCH_BYTES = 61
_ATTRIBUTES_AND_DELTAS_BYTES = 3


def alone_bytes(record: Record, /) -> int:
    """Return the size of a batch, version 2 and uncompressed, with this record only."""
    parts = [record.key, record.value, *(part for name, value in record.headers for part in (name.encode(), value))]
    body = _ATTRIBUTES_AND_DELTAS_BYTES + _varint_bytes(len(record.headers))
    body += sum(_varint_bytes(len(part)) + len(part) for part in parts)
    return _BATCH_BYTES + _varint_bytes(body) + body


def _varint_bytes(number: int) -> int:
    # Seven bits a byte, and one bit for the sign.
    return max(1, -(-(2 * number).bit_length() // 7))
