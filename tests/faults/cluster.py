"""Three Kafka nodes with a link before each, for clients and for the other nodes: the network between them all."""

import json
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import ElectionType
from confluent_kafka import TopicPartition as Partition

from tests.faults.proxy import Link, Network
from tests.integration.servers import kafka
from tests.integration.servers.kafka import Cluster

NODES = 3
SESSION_S = 6.0
"""`broker.session.timeout.ms` of these nodes: a node that is silent for so long is fenced out."""


class LinkedCluster(Cluster):
    """A cluster with three doors a node: one for the tests themselves, which nothing ever harms, one for the
    service behind `links`, and one for the other nodes, who copy what this one leads, behind `peer_links`.
    """

    def __init__(self, network: Network, jars: Path, folder: Path) -> None:
        super().__init__(NODES, jars, folder)
        ports = kafka._free_ports(2 * NODES)
        self._client_ports = dict(zip(self._ports, ports[:NODES], strict=True))
        self._peer_ports = dict(zip(self._ports, ports[NODES:], strict=True))
        self.links = self._linked(network, self._client_ports)
        self.peer_links = self._linked(network, self._peer_ports)

    def url_for_clients(self, topic: str, **parameters: object) -> str:
        """Return the publisher's URL of a topic, by way of the links."""
        through = ",".join(link.address for link in self.links.values())
        return self.url(topic, **parameters).replace(self.bootstrap, through)

    def is_alive(self, node: int) -> bool:
        return self._processes[node].poll() is None

    def is_frozen(self, node: int) -> bool:
        status = Path(f"/proc/{self._processes[node].pid}/stat").read_text()
        return status.rpartition(")")[2].split()[0] in "Tt"

    def in_sync(self, topic: str, partition: int) -> set[int]:
        """Return the nodes that have everything of the partition."""
        return set(self._topics()[topic].partitions[partition].isrs)

    def limit_files_to(self, node: int, size_bytes: int | None) -> None:
        """Let this node write no file beyond this size, as if its disk were full; `None`: as far as it likes."""
        size = resource.RLIM_INFINITY if size_bytes is None else size_bytes
        resource.prlimit(self._processes[node].pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def log_size_bytes(self, node: int, topic: str) -> int:
        """Return the size of the largest segment that this node has of the topic."""
        segments = (self._folder / f"data-{node}").glob(f"{topic}-*/*.log")
        return max(segment.stat().st_size for segment in segments)

    def elect_preferred(self, topic: str, partitions: int) -> None:
        """Hand every partition back to the node that is named first for it."""
        wanted = [Partition(topic, number) for number in range(partitions)]
        self._admin.elect_leaders(ElectionType.PREFERRED, wanted).result(30)

    def put_first(self, topic: str, partitions: int, *, step: int) -> None:
        """Name another replica first for every partition, `step` on from the node of its number; all of them stay."""
        nodes = sorted(self._ports)
        wanted = [
            {
                "topic": topic,
                "partition": number,
                "replicas": [nodes[(number + step + n) % NODES] for n in range(NODES)],
            }
            for number in range(partitions)
        ]
        file = self._folder / "reassign.json"
        file.write_text(json.dumps({"version": 1, "partitions": wanted}))
        main = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"
        options = ["--bootstrap-server", self.bootstrap, "--reassignment-json-file", str(file), "--execute"]
        subprocess.run(self._java(main, *options), check=True, capture_output=True, timeout=60)

    def _settings(self, node: int) -> dict[str, object]:
        settings = super()._settings(node)
        doors = {"CLIENTS": (self._client_ports, self.links), "PEERS": (self._peer_ports, self.peer_links)}
        listeners = "".join(f",{name}://127.0.0.1:{ports[node]}" for name, (ports, _) in doors.items())
        advertised = "".join(f",{name}://{links[node].address}" for name, (_, links) in doors.items())
        protocols = "".join(f",{name}:PLAINTEXT" for name in doors)
        return {
            **settings,
            "listeners": f"{settings['listeners']}{listeners}",
            "advertised.listeners": f"{settings['advertised.listeners']}{advertised}",
            "listener.security.protocol.map": f"{settings['listener.security.protocol.map']}{protocols}",
            "inter.broker.listener.name": "PEERS",
        }

    @staticmethod
    def _linked(network: Network, ports: dict[int, int]) -> dict[int, Link]:
        return {node: network.link(("127.0.0.1", port)) for node, port in ports.items()}


@contextmanager
def running(network: Network) -> Iterator[LinkedCluster]:
    """Provide the cluster, or raise `Missing`."""
    with kafka.started(LinkedCluster(network, kafka._fetched_jars(), kafka.new_folder())) as cluster:
        yield cluster
