"""What is lost is found: the checker must see the loss and the duplicate that these schedules make on purpose."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.cluster import LinkedCluster
from tests.faults.play import set_stage
from tests.faults.proxy import Network
from tests.faults.stage import Keys, Stage
from tests.faults.verdict import verify

pytestmark = [pytest.mark.short, pytest.mark.timeout(300)]

EVENTS = 5


@pytest.fixture
def unsafe(cluster: LinkedCluster, keys: Keys, network: Network, tmp_path: Path) -> Iterator[Stage]:
    """A service on a topic with two replicas that acknowledges for one of them; it was told that this is meant."""
    unsafe_topic = {"partitions": 1, "replicas": 2, "min_insync_replicas": 1}
    meant = {"replication_min": 2, "insync_min": 1}
    with set_stage(
        "control", cluster=cluster, keys=keys, folder=tmp_path, topic=unsafe_topic, parameters=meant
    ) as stage:
        stage.start_service()
        stage.service.ready()
        yield stage
    network.heal()
    cluster.heal()


def test_acknowledged_events_that_an_unclean_election_loses_are_missed(unsafe: Stage) -> None:
    """The last one in sync acknowledges alone and dies; the one that was behind becomes leader."""
    cluster = unsafe.cluster
    assert unsafe.post(unsafe.keys.secret)[0] == 202
    # Only now: it is looked at when the service starts and a minute later, and there is no leave for this.
    cluster.alter_topic(unsafe.topic, unclean_leader_election_enable="true")
    leader = cluster.leader_of(unsafe.topic, 0)
    assert leader is not None
    [follower] = cluster.in_sync(unsafe.topic, 0) - {leader}

    cluster.kill(follower)
    unsafe.until(lambda: cluster.in_sync(unsafe.topic, 0) == {leader})
    assert [unsafe.post(unsafe.keys.secret)[0] for _ in range(EVENTS)] == [202] * EVENTS
    cluster.kill(leader)
    cluster.restart(follower)
    unsafe.until(lambda: cluster.leader_of(unsafe.topic, 0) == follower, within_s=60)
    cluster.heal()

    verdict = verify(unsafe.journals, cluster, unsafe.topic)
    assert verdict.lost == EVENTS
    assert verdict.complaints


def test_an_event_that_a_client_sent_twice_without_a_key_is_seen_as_a_duplicate(unsafe: Stage) -> None:
    """The client's library sends again by itself after its time-out, and the client knows of one attempt."""
    payload = json.dumps({"event_type": "twice", "timestamp": "2026-11-23T10:00:00Z", "properties": {}}).encode()
    unsafe.sent_aside(payload)
    for _ in range(2):
        assert unsafe.service.post(unsafe.keys.secret, payload).status_code == 202

    verdict = verify(unsafe.journals, unsafe.cluster, unsafe.topic)
    assert (verdict.lost, verdict.twice) == (0, 1)
    assert verdict.complaints
