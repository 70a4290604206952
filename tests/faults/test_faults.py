"""No fault breaks the promise: whatever is broken, what was accepted is stored, and every answer is true."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from tests.faults.cluster import NODES, LinkedCluster
from tests.faults.fault import FAULTS, Fault
from tests.faults.play import Play, set_stage
from tests.faults.proxy import Network
from tests.faults.report import Results
from tests.faults.stage import Keys
from tests.faults.verdict import verify

for kind in ("brokers", "topic", "network", "database", "service", "clients"):
    import_module(f"tests.faults.{kind}")

FIRST, _, END = os.environ.get("SEEDS", "0").partition(":")
SEEDS = range(int(FIRST), int(END or int(FIRST) + 1))
"""`SEEDS=0:5` are five, `SEEDS=3` is one; a seed decides which node it hits, and when."""

EVERY_FAULT = [
    pytest.param(each, id=str(each), marks=[pytest.mark.short] if each.short else [])
    for each in sorted(FAULTS, key=lambda fault: fault.number)
]


@dataclass(slots=True)
class Played:
    """A fault that was played: what is needed to hold its journals against what is stored, once more."""

    fault: Fault
    topic: str
    journals: list[Path]


@pytest.fixture(scope="session")
def played() -> list[Played]:
    return []


@pytest.fixture
def healed(cluster: LinkedCluster, keys: Keys, network: Network) -> Iterator[None]:
    """Whatever a fault leaves behind, the next one finds everything whole."""
    yield
    network.heal()
    keys.link.lead_to(("127.0.0.1", keys.port))
    keys.server.heal()
    cluster.heal()


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("healed")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", EVERY_FAULT)
def test_no_fault_breaks_the_promise(
    fault: Fault,
    seed: int,
    cluster: LinkedCluster,
    keys: Keys,
    tmp_path: Path,
    results: Results,
    played: list[Played],
) -> None:
    with set_stage(
        fault.number,
        cluster=cluster,
        keys=keys,
        folder=tmp_path,
        seed=seed,
        settings=fault.settings,
        parameters=fault.parameters,
        topic=fault.topic,
    ) as stage:
        row = Play(fault, stage, seed).run()
    results.add(row)
    played.append(Played(fault, stage.topic, stage.journals))
    assert row.complaints == []


@pytest.mark.short
@pytest.mark.timeout(300 * len(SEEDS))
def test_everything_is_still_stored_after_every_broker_was_killed_at_once(
    cluster: LinkedCluster, played: list[Played]
) -> None:
    """Not a power cut: what the brokers had handed to the system is still there."""
    if not played:
        pytest.skip("no fault was played before it")
    for node in range(1, NODES + 1):
        cluster.kill(node)
    cluster.heal(timeout_s=120)
    verdicts = {str(each.fault): verify(each.journals, cluster, each.topic) for each in played}
    assert {fault: verdict.complaints for fault, verdict in verdicts.items() if verdict.complaints} == {}
