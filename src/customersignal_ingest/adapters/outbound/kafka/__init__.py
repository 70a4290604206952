"""Events in Apache Kafka, with aiokafka.

URL: `kafka://host:9092,host2:9092/topic`, and as parameters `replication_min` (3) and `insync_min`
(2), what the topic must have at least; `compression` (`none`, `gzip`, `lz4`, `zstd`); `linger_ms`
(0), how long a batch waits for company; `request_timeout_ms` (4000). TLS and SASL are settings:
`kafka_security_protocol`, `kafka_sasl_mechanism` (`PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`),
`kafka_sasl_username`, `kafka_sasl_password`, `kafka_ssl_cafile`, `kafka_ssl_certfile`,
`kafka_ssl_keyfile`, `kafka_ssl_keyfile_password`. Certificates are always verified.
`Stored` means: every in-sync replica has the record, and there are at least `insync_min` of them.
Kafka confirms from memory, so a loss of power on all of these machines at once is not covered.
Ordering: records of one key, in one call or in calls that wait for each other. A record answered
`Unknown` may be stored later, behind its successors.
Limits: 50 000 records and 64 MiB wait at the most, then `NotStored`; a record fits into the topic's
`max.message.bytes`, else `Refused`. An unsafe or missing topic gets nothing.
Ping tries: the last check of the topic (at start, then every minute), whether confirmations come,
and, where none came within the last second, a sign of life of any broker.
"""

import asyncio
import random
import time

from customersignal_ingest.adapters.outbound.kafka.client import AiokafkaProducer, new_batch, reach
from customersignal_ingest.adapters.outbound.kafka.options import Options, read_options
from customersignal_ingest.adapters.outbound.kafka.producer import Builder, Producer
from customersignal_ingest.adapters.outbound.kafka.publisher import KafkaPublisher
from customersignal_ingest.adapters.outbound.kafka.reader import KafkaReader
from customersignal_ingest.adapters.outbound.kafka.topic import Topic, check_topic, create_topic, look_at
from customersignal_ingest.registry import AdapterSettings

__all__ = ["KafkaPublisher", "KafkaReader", "check_topic", "create_topic", "open_publisher", "open_reader"]


def open_publisher(url: str, /, *, settings: AdapterSettings) -> KafkaPublisher:
    """Make the publisher; `ConfigurationError` for a URL or setting that is not understood."""
    options = read_options(url, settings)
    return KafkaPublisher(options, _Aiokafka(options), clock=time.monotonic, sleep=asyncio.sleep, jitter=random.random)


def open_reader(url: str, /, *, settings: AdapterSettings) -> KafkaReader:
    """Make the reader of what the publisher with this URL stores; raises `ConfigurationError` alike."""
    return KafkaReader(read_options(url, settings))


class _Aiokafka:
    """aiokafka, as the publisher needs it."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def producer(self) -> Producer:
        return AiokafkaProducer(self._options)

    def new_batch(self, bytes_max: int, /) -> Builder:
        return new_batch(self._options, bytes_max)

    async def topic(self) -> Topic:
        return await look_at(self._options)

    async def reach(self) -> object:
        return await reach(self._options)
