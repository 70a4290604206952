"""The Kafka that everything is measured on: one broker, the same for all, as a server would run it."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]  # public, and in its docs

from benchmarks.machine import Cores, Tree, on
from tests.integration.servers.kafka import VERSION, Cluster, _fetched_jars, new_folder, started, until

TOPIC = "events_raw"


class Broker(Cluster):
    """A cluster whose topics are made anew again and again, and whose nodes get the whole compiler and more memory."""

    def fresh_topic(self, *, partitions: int) -> None:
        """Make the topic anew, empty."""
        if self.has_topic(TOPIC):
            self.delete_topic(TOPIC)
            until(lambda: not self.has_topic(TOPIC), "the topic is gone")
        self.create_topic(TOPIC, partitions=partitions)

    def stored(self) -> int:
        """Return how many records the topic has: the end offsets of a topic that began empty."""
        partitions = self._topics()[TOPIC].partitions
        end = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # as its module has no types
        wanted = {TopicPartition(TOPIC, number): end for number in partitions}
        for _ in range(5):  # On a machine that is busy, a broker may not answer in time.
            with suppress(KafkaException):
                return sum(answer.result(30).offset for answer in self._admin.list_offsets(wanted).values())
        raise TimeoutError("Kafka does not say where the topic ends")

    def cpu_s(self) -> float:
        """Return the CPU time of all nodes so far."""
        return sum(Tree(process.pid).cpu_s() for process in self._processes.values())

    @property
    def version(self) -> str:
        """Name everything that a measurement depends on."""
        java = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True).stderr
        found = re.search(r'version "([^"]+)"', java)
        nodes = "one broker" if self.nodes == 1 else f"{self.nodes} brokers"
        return f"Apache Kafka {VERSION}, {nodes}, {self.replicas} replicas, Java {found[1] if found else '?'}"

    def _settings(self, node: int) -> dict[str, object]:
        # What an ended turn has stored goes away at once: a whole run writes some ten gigabytes.
        return super()._settings(node) | {"log.segment.delete.delay.ms": 1000}

    def _java(self, main: str, *arguments: str) -> list[str]:
        options = ["-Xms1g", "-Xmx1g", "-XX:+UseSerialGC", "-Dlog4j2.level=WARN"]
        return ["java", *options, "-cp", f"{self._jars}/*", main, *arguments]


@contextmanager
def broker(cores: Cores, *, nodes: int = 1) -> Iterator[Broker]:
    """Start the broker on these cores, and end it with the block."""
    with on(cores):
        cluster = Broker(nodes, _fetched_jars(), new_folder())
        with started(cluster):
            yield cluster
