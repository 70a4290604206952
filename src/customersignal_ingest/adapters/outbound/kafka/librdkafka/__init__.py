"""Events in Apache Kafka, with librdkafka (the extra `customersignal-ingest[librdkafka]`).

URL: `kafka+librdkafka://host:9092,host2:9092/topic`; parameters and security settings are those of
`kafka://`; a `linger_ms` of 0 is 5 here.
`Stored` means: every in-sync replica has the record, and there are at least `insync_min` of them.
Kafka confirms from memory, so a loss of power on all of these machines at once is not covered.
Ordering: records of one key, in one call or in calls that wait for each other. Where the broker
turns down a batch, its other records are sent again one by one, and may come behind later ones of
the same call. A record answered `Unknown` may be stored later, behind its successors. When a leader
moves, librdkafka may store a record twice, with one `event_id` (confluentinc/librdkafka#4953).
Limits: 50 000 records and 64 MiB wait at the most, then `NotStored`; a record fits into the topic's
`max.message.bytes`, else `Refused`. An unsafe or missing topic gets nothing.
Ping tries: the last check of the topic (at start, then every minute), whether confirmations come,
and, where none came within the last second, a sign of life of any broker.
"""

import asyncio
import time

from customersignal_ingest.adapters.outbound.kafka.librdkafka.publisher import LibrdkafkaPublisher
from customersignal_ingest.adapters.outbound.kafka.options import read_options
from customersignal_ingest.domain.errors import ConfigurationError
from customersignal_ingest.registry import AdapterSettings

__all__ = ["LibrdkafkaPublisher", "open_publisher"]


def open_publisher(url: str, /, *, settings: AdapterSettings) -> LibrdkafkaPublisher:
    """Make the publisher; `ConfigurationError` for a URL that is not understood, and without the extra."""
    options = read_options(url, settings)
    try:
        # Only here: whoever publishes otherwise needs no librdkafka.
        from customersignal_ingest.adapters.outbound.kafka.librdkafka.client import Librdkafka
    except ImportError as error:
        raise ConfigurationError("kafka+librdkafka:// needs the extra: customersignal-ingest[librdkafka]") from error
    return LibrdkafkaPublisher(options, Librdkafka(options), clock=time.monotonic, sleep=asyncio.sleep)
