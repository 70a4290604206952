"""The librdkafka publisher keeps the same contract, and does the same as the other when something is wrong.

The tests of the other are taken over as they are: only the URL has another scheme.
"""

# ruff: noqa: F811  Tests name the fixtures that are taken over.

import copy
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from functools import partial

import pytest

from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.outcome import NotStored, Stored
from customersignal_ingest.domain.partition import partition_for
from customersignal_ingest.testing.contracts import EventPublisherContract, PublisherHarness
from tests.integration.servers.kafka import Kafka
from tests.integration.test_kafka_contract import harness_of
from tests.integration.test_kafka_faults import (  # noqa: F401  pytest finds them here.
    NOBODY,
    a_record,
    one,
    opened,
    test_a_batch_over_a_lowered_limit_is_stored_in_parts,
    test_a_frozen_kafka_is_not_ready_and_answers_in_time,
    test_a_missing_topic_is_named_and_not_made,
    test_a_partition_without_leader_is_served_a_second_after_it_has_one,
    test_a_poisoned_partition_is_back_within_a_second_in_twenty_runs,
    test_a_record_from_the_future_is_refused_and_its_company_stored,
    test_a_record_over_a_limit_that_was_lowered_is_refused_and_its_company_stored,
    test_a_topic_that_is_deleted_and_made_again_is_served_again,
    test_a_topic_too_small_for_our_events_is_not_ready_but_safe,
    test_acknowledgements_come_back_after_a_leader_is_gone,
    test_after_a_refused_record_the_next_tenant_is_served_within_a_second,
    test_an_unsafe_topic_gets_nothing_and_is_named,
    test_close_is_bounded_and_leaves_nothing_behind_while_kafka_is_frozen,
    test_every_compression_can_be_read_by_another_client,
    test_kafka_frozen_at_start_is_served_once_it_answers,
    test_no_acknowledged_record_is_lost_in_twenty_runs,
    test_what_is_stored_can_be_read_to_its_end,
    topic,
)

pytestmark = pytest.mark.anyio

SCHEME = "kafka+librdkafka"


@pytest.fixture(scope="session")
def kafka(kafka: Kafka) -> Kafka:
    """The same servers, under the other scheme."""
    other = copy.copy(kafka)
    other.url = partial(_url, kafka)  # type: ignore[method-assign]  # the one difference
    return other


def _url(kafka: Kafka, topic: str, **parameters: object) -> str:
    return kafka.url(topic, **parameters).replace("kafka:", f"{SCHEME}:", 1)


class TestLibrdkafkaPublisher(EventPublisherContract):
    @pytest.fixture
    @staticmethod
    def topic(kafka: Kafka) -> Iterator[str]:
        name = f"events-{uuid.uuid4().hex[:12]}"
        kafka.create_topic(name, partitions=3)
        yield name
        kafka.delete_topic(name)

    @pytest.fixture
    async def harness(self, kafka: Kafka, topic: str) -> AsyncIterator[PublisherHarness]:
        async with harness_of(kafka, topic) as harness:
            yield harness


async def test_kafka_away_at_start_is_no_error_and_costs_no_waiting() -> None:
    began = time.monotonic()
    async with opened(f"{SCHEME}://{NOBODY}/events_raw") as publisher:
        outcome = await one(publisher, a_record("a"))
        with pytest.raises(Unavailable, match="no Kafka broker answered"):
            await publisher.ping()

    assert isinstance(outcome, NotStored)
    assert time.monotonic() - began < 4


async def test_a_thousand_keys_go_where_the_other_publisher_sends_them(kafka: Kafka) -> None:
    topic = f"partitions-{uuid.uuid4().hex[:12]}"
    kafka.create_topic(topic, partitions=7)
    records = [a_record(f"user-{n}", tenant_id="é" * (n % 5)) for n in range(1000)]
    async with opened(kafka.url(topic)) as publisher:
        outcomes = await publisher.publish(records)

    partitions = [outcome.partition for outcome in outcomes if isinstance(outcome, Stored)]
    assert partitions == [partition_for(record.key, 7) for record in records]


def test_without_the_extra_the_url_names_it() -> None:
    # In a process of its own, which finds no confluent_kafka.
    code = f"""
import sys
sys.modules["confluent_kafka"] = None
from customersignal_ingest.domain.errors import ConfigurationError
from customersignal_ingest.registry import AdapterSettings, open_url
try:
    open_url("publishers", "{SCHEME}://{NOBODY}/events_raw", settings=AdapterSettings())
except ConfigurationError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert "customersignal-ingest[librdkafka]" in done.stdout
