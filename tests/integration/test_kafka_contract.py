"""The Kafka publisher keeps the publisher's contract on a real cluster, read back by another client."""

import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import pytest

from customersignal_ingest.adapters.outbound.kafka import KafkaPublisher
from customersignal_ingest.domain.event import StoredRecord
from customersignal_ingest.registry import AdapterSettings, open_url
from customersignal_ingest.testing.contracts import EventPublisherContract, PublisherHarness
from tests.integration.servers.kafka import Kafka

SETTINGS = AdapterSettings(publish_timeout_s=10.0, instance="test")


class KafkaHarness:
    def __init__(self, kafka: Kafka, topic: str, publisher: KafkaPublisher, unopened: KafkaPublisher) -> None:
        self._kafka, self._topic = kafka, topic
        self.publisher = self.life = publisher
        self.unopened = unopened

    async def stored(self) -> Sequence[StoredRecord]:
        return self._kafka.read(self._topic)


@asynccontextmanager
async def harness_of(kafka: Kafka, topic: str, **parameters: object) -> AsyncIterator[KafkaHarness]:
    url = kafka.url(topic, **parameters)
    publisher: KafkaPublisher = open_url("publishers", url, settings=SETTINGS)
    await publisher.open()
    try:
        yield KafkaHarness(kafka, topic, publisher, open_url("publishers", url, settings=SETTINGS))
    finally:
        await publisher.close()


@pytest.fixture
def topic(kafka: Kafka) -> Iterator[str]:
    name = f"events-{uuid.uuid4().hex[:12]}"
    kafka.create_topic(name, partitions=3)
    yield name
    kafka.delete_topic(name)


class TestKafkaPublisher(EventPublisherContract):
    @pytest.fixture
    async def harness(self, kafka: Kafka, topic: str) -> AsyncIterator[PublisherHarness]:
        async with harness_of(kafka, topic) as harness:
            yield harness
