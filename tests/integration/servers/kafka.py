"""A real Apache Kafka for tests and laptops, without Docker: KRaft nodes as child processes.

`python -m tests.integration.servers.kafka --nodes 3` prints the bootstrap servers and runs until
Ctrl-C. Needs Java 17 and, once, Maven, which fetches Kafka's jars into a cache folder.
"""

import argparse
import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
    TopicMetadata,
)

from customersignal_ingest.domain.event import StoredRecord
from tests.integration.servers import engine

VERSION = "4.1.1"
_NOBODY = (KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN)
IMAGE = f"apache/kafka:{VERSION}"
PROBE = b"probe"
"""The key of what is sent only to see whether it is taken."""
SAFE = {"min.insync.replicas": "2", "unclean.leader.election.enable": "false", "cleanup.policy": "delete"}

_POM = f"""<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>{VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.24.3</version>
    </dependency>
  </dependencies>
</project>
"""


AnyCluster = TypeVar("AnyCluster", bound="Cluster")


class Missing(Exception):
    """There is no Kafka for the tests here; the message says what to install."""


class Kafka:
    """A Kafka that tests may use: where it is, and what a test does to its topics."""

    def __init__(self, bootstrap: str, *, nodes: int) -> None:
        self.bootstrap = bootstrap
        self.nodes = nodes

    @property
    def replicas(self) -> int:
        """The replication factor that topics of this cluster can have, three at the most."""
        return min(3, self.nodes)

    def url(self, topic: str, **parameters: object) -> str:
        """Return the publisher's URL of a topic, with what a cluster of one node has to allow."""
        if self.replicas < 3:
            parameters = {"replication_min": 1, "insync_min": 1, **parameters}
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        return f"kafka://{self.bootstrap}/{topic}" + (f"?{query}" if query else "")

    def create_topic(self, name: str, *, partitions: int = 1, replicas: int | None = None, **config: str | int) -> None:
        """Make a topic with safe settings (`config` has underscores for dots); return once it has leaders."""
        wanted = {"min.insync.replicas": "1"} if self.replicas < 3 or replicas in (1, 2) else {}
        wanted = SAFE | wanted | _dotted(config)
        new = NewTopic(name, num_partitions=partitions, replication_factor=replicas or self.replicas, config=wanted)
        self._admin.create_topics([new], operation_timeout=20)[name].result(30)
        until(lambda: None not in [self.leader_of(name, n) for n in range(partitions)], "the topic has leaders")
        until(self.is_whole, "every node knows the topic")

    def delete_topic(self, name: str) -> None:
        self._admin.delete_topics([name], operation_timeout=20)[name].result(30)

    def add_partitions(self, name: str, total: int) -> None:
        self._admin.create_partitions([NewPartitions(name, total)])[name].result(30)

    def alter_topic(self, name: str, **config: str | int) -> None:
        """Set settings of a topic, and wait until they are read back; names have underscores for dots.

        The leader heeds them moments later.
        """
        wanted = _dotted(config)
        entries = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in wanted.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
        self._admin.incremental_alter_configs([resource])[resource].result(30)
        until(lambda: wanted.items() <= self._settings_of(name).items(), f"new settings of {name}")

    def has_topic(self, name: str) -> bool:
        # All topics: asking for one by its name may create it.
        return name in self._topics()

    def leader_of(self, topic: str, partition: int) -> int | None:
        """Return the node that leads the partition, or None while there is none."""
        found = self._topics().get(topic)
        leader = -1 if found is None or partition not in found.partitions else found.partitions[partition].leader
        return None if leader < 0 else leader

    def is_whole(self) -> bool:
        """Tell whether every node that may be asked knows everything; here there is but one door."""
        return True

    def read(self, topic: str) -> list[StoredRecord]:
        """Read the whole topic with another client library, partition by partition."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "none", "enable.auto.commit": False})
        try:
            numbers = sorted(consumer.list_topics(topic, timeout=20).topics[topic].partitions)
            return [record for number in numbers for record in _partition(consumer, topic, number)]
        finally:
            consumer.close()

    def write(self, record: StoredRecord) -> None:
        """Append a copy of a record to its partition, as somebody else than the service."""
        producer = Producer({"bootstrap.servers": self.bootstrap, "acks": "all"})
        producer.produce(
            record.topic,
            record.value,
            record.key,
            record.partition,
            headers=list(record.headers),
            timestamp=record.timestamp_ms,
        )
        assert producer.flush(20) == 0

    def takes(self, topic: str, size_bytes: int) -> bool:
        """Tell whether partition 0 takes a record of this size now, by sending one whose key is `probe`."""
        told: list[bool] = []
        producer = Producer({"bootstrap.servers": self.bootstrap, "acks": "all"})
        value = b"x" * size_bytes
        producer.produce(topic, value, PROBE, 0, on_delivery=lambda error, _: told.append(error is None))
        assert producer.flush(20) == 0
        return told == [True]

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """Delete the oldest records of a partition, as retention does."""
        place = TopicPartition(topic, partition, offset)
        self._admin.delete_records([place])[place].result(30)

    def _settings_of(self, topic: str) -> dict[str, str]:
        resource = ConfigResource(ResourceType.TOPIC, topic)
        return {
            key: entry.value for key, entry in self._admin.describe_configs([resource])[resource].result(30).items()
        }

    def _topics(self) -> dict[str, TopicMetadata]:
        """Ask until somebody answers: the client may hold on to a node that is dead."""
        for _ in range(5):
            try:
                return self._admin.list_topics(timeout=4).topics  # type: ignore[no-any-return]
            except KafkaException as error:
                if error.args[0].code() not in _NOBODY:
                    raise
                del self._admin
        raise TimeoutError("no node says which topics there are")

    @cached_property
    def _admin(self) -> AdminClient:
        return _admin_of(self.bootstrap)


class Cluster(Kafka):
    """Nodes on this machine that a test can kill, freeze and start again; every node is broker and controller."""

    def __init__(self, nodes: int, jars: Path, folder: Path, *, heap_mb: int = 384) -> None:
        self._jars, self._folder, self._heap_mb = jars, folder, heap_mb
        ports = _free_ports(2 * nodes)
        self._ports = dict(enumerate(ports[:nodes], start=1))
        self._controller_ports = dict(enumerate(ports[nodes:], start=1))
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        super().__init__(",".join(f"127.0.0.1:{port}" for port in self._ports.values()), nodes=nodes)

    def start(self, timeout_s: float = 90) -> None:
        """Format the disks, start all nodes, and return once they know each other."""
        cluster_id = uuid.uuid4().hex[:22]
        formats = [self._format(node, cluster_id) for node in self._ports]
        if any(process.wait(timeout_s) for process in formats):
            raise Missing(f"Kafka can't format its disks; see {self._folder}")
        for node in self._ports:
            self.restart(node)
        until(self.is_whole, "Kafka is up", timeout_s=timeout_s)

    def stop(self) -> None:
        """End every node at once; frozen ones too."""
        for node in self._ports:
            self.kill(node)
        shutil.rmtree(self._folder, ignore_errors=True)

    def kill(self, node: int) -> None:
        self._end(node, signal.SIGKILL)

    def terminate(self, node: int) -> None:
        """Ask the node to leave in order, and wait until it has."""
        self._end(node, signal.SIGTERM)

    def freeze(self, *nodes: int) -> None:
        """Stop the nodes' clocks: their ports accept connections, nobody answers."""
        for node in nodes or self._ports:
            self._processes[node].send_signal(signal.SIGSTOP)

    def thaw(self, *nodes: int) -> None:
        for node in nodes or self._ports:
            self._processes[node].send_signal(signal.SIGCONT)

    def restart(self, node: int) -> None:
        """Start a node that is not running; returns at once. Call it from the main thread.

        Linux ends the node with the thread that started it, so that nothing is left behind when
        the tests die.
        """
        log = self._folder / f"node-{node}.log"
        with log.open("ab") as out:
            command = [*_dies_with_us(), *self._java("kafka.Kafka", str(self._properties(node)))]
            self._processes[node] = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)

    def heal(self, timeout_s: float = 120) -> None:
        """Thaw and restart what a test left behind, and wait until every node answers."""
        for node, process in self._processes.items():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
            else:
                self.restart(node)
        until(self.is_whole, "Kafka is whole again", timeout_s=timeout_s)

    def controller(self) -> int:
        """Return the node that is the active controller. With it a broker's time is lost twice: it is elected first."""
        states = self._folder.glob("data-*/__cluster_metadata-0/quorum-state")
        newest = max((json.loads(state.read_text()) for state in states), key=lambda state: state["leaderEpoch"])
        return int(newest["leaderId"])

    def is_whole(self) -> bool:
        """Tell whether every node answers and sees all nodes, and every replica is in sync."""
        return all(map(self._sees_all, self._ports.values()))

    def _sees_all(self, port: int) -> bool:
        try:
            seen = _admin_of(f"127.0.0.1:{port}").list_topics(timeout=2)
        except KafkaException as error:
            if error.args[0].code() in _NOBODY:
                return False
            raise
        partitions = [partition for topic in seen.topics.values() for partition in topic.partitions.values()]
        return len(seen.brokers) == self.nodes and all(len(p.isrs) == len(p.replicas) for p in partitions)

    def _end(self, node: int, how: signal.Signals) -> None:
        process = self._processes.get(node)
        if process is None or process.poll() is not None:
            return
        process.send_signal(how)
        process.wait(30)

    def _format(self, node: int, cluster_id: str) -> subprocess.Popen[bytes]:
        properties = self._properties(node)
        properties.write_text("".join(f"{key}={value}\n" for key, value in self._settings(node).items()))
        options = ["-t", cluster_id, "-c", str(properties), *self._format_options()]
        command = self._java("kafka.tools.StorageTool", "format", *options)
        with (self._folder / f"format-{node}.log").open("wb") as out:
            return subprocess.Popen([*_dies_with_us(), *command], stdout=out, stderr=out, stdin=subprocess.DEVNULL)

    def _format_options(self) -> list[str]:
        return []

    def _properties(self, node: int) -> Path:
        return self._folder / f"node-{node}.properties"

    def _settings(self, node: int) -> dict[str, object]:
        voters = ",".join(f"{n}@127.0.0.1:{port}" for n, port in self._controller_ports.items())
        return {
            "process.roles": "broker,controller",
            "node.id": node,
            "controller.quorum.voters": voters,
            "listeners": f"PLAINTEXT://127.0.0.1:{self._ports[node]},CONTROLLER://127.0.0.1:{self._controller_ports[node]}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self._ports[node]}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": self._folder / f"data-{node}",
            "broker.session.timeout.ms": 6000,
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": self.replicas,
            "offsets.topic.num.partitions": 1,
            "transaction.state.log.replication.factor": self.replicas,
            "transaction.state.log.min.isr": min(2, self.replicas),
            "transaction.state.log.num.partitions": 1,
            "share.coordinator.state.topic.replication.factor": self.replicas,
            "group.initial.rebalance.delay.ms": 0,
            "controlled.shutdown.enable": "true",
            "num.network.threads": 2,
            "num.io.threads": 3,
            "log.cleaner.enable": "false",
        }

    def _java(self, main: str, *arguments: str) -> list[str]:
        # The first compiler alone: nodes that live for minutes start in half the time without the second.
        heap = [f"-Xmx{self._heap_mb}m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        return ["java", *heap, "-Dlog4j2.level=WARN", "-cp", f"{self._jars}/*", main, *arguments]


def until(condition: Callable[[], bool], what: str, *, timeout_s: float = 30) -> None:
    """Wait for something that only another process knows, by asking; fail after the time-out."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(0.05)


@contextmanager
def running(*, nodes: int = 3) -> Iterator[Kafka]:
    """Provide the best Kafka that there is here, or raise `Missing`.

    `CS_INGEST_TEST_KAFKA` names one that runs already; else Java and Maven serve a cluster of our
    own; else a Docker engine serves one broker.
    """
    given = os.environ.get("CS_INGEST_TEST_KAFKA")
    if given:
        kafka = Kafka(given, nodes=1)
        kafka.nodes = len(kafka._admin.list_topics(timeout=20).brokers)
        yield kafka
        return
    with ExitStack() as stack:
        if shutil.which("java") and (shutil.which("mvn") or _cache().is_dir()):
            yield stack.enter_context(started(Cluster(nodes, _fetched_jars(), new_folder())))
        else:
            yield stack.enter_context(_container())


@contextmanager
def started(cluster: AnyCluster) -> Iterator[AnyCluster]:
    """Start the cluster's nodes, and end them whatever happens."""
    atexit.register(cluster.stop)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        atexit.unregister(cluster.stop)


@contextmanager
def _container() -> Iterator[Kafka]:
    if not engine.answers():
        raise Missing("no Kafka to test with: install Java 17 and Maven, or Docker")
    from testcontainers.community.kafka import KafkaContainer

    with KafkaContainer(IMAGE).with_kraft().start(timeout=120) as container:
        yield Kafka(container.get_bootstrap_server(), nodes=1)


def _ends(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """Return the first offset and the next; asks again where the leader has just moved."""
    ends: list[tuple[int, int]] = []

    def found() -> bool:
        try:
            ends.append(consumer.get_watermark_offsets(partition, timeout=20))
        except KafkaException as error:
            if error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION:
                raise
        return bool(ends)

    until(found, f"the leader of {partition.topic}/{partition.partition} answers", timeout_s=30)
    return ends[0]


def _partition(consumer: Consumer, topic: str, number: int) -> Iterator[StoredRecord]:
    first, end = _ends(consumer, TopicPartition(topic, number))
    consumer.assign([TopicPartition(topic, number, first)])
    while first < end:
        message = consumer.poll(20)
        if message is None or message.error():
            raise TimeoutError(f"{topic}/{number} can't be read from {first} on: {message and message.error()}")
        first = message.offset() + 1
        yield stored(message)


def stored(message: Any) -> StoredRecord:
    """Return what another client's message is."""
    return StoredRecord(
        topic=message.topic(),
        partition=message.partition(),
        offset=message.offset(),
        key=message.key(),
        value=message.value(),
        headers=tuple(message.headers() or ()),
        timestamp_ms=message.timestamp()[1],
    )


def _admin_of(bootstrap: str) -> AdminClient:
    quiet = {"log_level": 0, "error_cb": lambda _error: None}
    return AdminClient({"bootstrap.servers": bootstrap, "socket.timeout.ms": 5000, **quiet})


def _cache() -> Path:
    base = os.environ.get("CS_INGEST_TEST_CACHE") or Path.home() / ".cache" / "cs-ingest"
    return Path(base) / f"kafka-{VERSION}"


def _fetched_jars() -> Path:
    """Return the folder with Kafka's jars; Maven fetches them once. It is whole or not there."""
    jars = _cache()
    if jars.is_dir():
        return jars
    jars.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=jars.parent, prefix=".kafka-") as half_made:
        (Path(half_made) / "pom.xml").write_text(_POM)
        fetched = Path(half_made) / "jars"
        command = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={fetched}"]
        done = subprocess.run(command, cwd=half_made, timeout=600, check=False, capture_output=True, text=True)
        if done.returncode:
            raise Missing(f"Maven can't fetch Kafka {VERSION}: {done.stdout[-500:]}")
        if not jars.is_dir():  # Another test run may have been faster.
            fetched.rename(jars)
    return jars


def new_folder() -> Path:
    """Return a new folder, for a cluster to keep everything in."""
    return Path(tempfile.mkdtemp(prefix="cs-ingest-kafka-"))


def _dies_with_us() -> list[str]:
    return ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _dotted(config: dict[str, str | int]) -> dict[str, str]:
    return {name.replace("_", "."): str(value) for name, value in config.items()}


def main() -> None:
    """Run a cluster until Ctrl-C."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--nodes", type=int, choices=(1, 3), default=1)
    with running(nodes=parser.parse_args().nodes) as kafka:
        print(kafka.bootstrap, flush=True)  # noqa: T201
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main()
