"""Brokers that die, leave, freeze and come back.

Unless a fault says otherwise, the active controller is spared: with it another one is elected first,
and every bound that has the session time-out in it would be three seconds longer.
"""

from tests.faults.cluster import NODES, SESSION_S
from tests.faults.fault import Breaking, fault
from tests.faults.stage import PUBLISH_TIMEOUT_S, Stage

REQUEST_S = 4.0
FROZEN_S = 25.0


@fault("F01", "a leader is killed", answers={503, 504}, gap_s=SESSION_S + 3, short=True)
def leader_killed(stage: Stage) -> Breaking:
    node = stage.leader()
    led = stage.led_by(node)
    stage.cluster.kill(node)
    stage.until(lambda: stage.cluster.leader_of(stage.topic, led[0]) not in (None, node))
    yield f"node {node}, leader of {led}, is dead; another leads"
    stage.wait(2)
    stage.cluster.restart(node)
    stage.until(stage.cluster.is_whole, within_s=60)


@fault("F02", "a leader leaves in order", gap_s=2.0)
def leader_terminated(stage: Stage) -> Breaking:
    node = stage.leader()
    led = stage.led_by(node)
    stage.cluster.terminate(node)
    assert not stage.cluster.is_alive(node)
    yield f"node {node}, leader of {led}, has left"
    stage.cluster.restart(node)
    stage.until(stage.cluster.is_whole, within_s=60)


@fault(
    "F03", "a leader freezes", answers={503, 504}, lasts_s=FROZEN_S, gap_s=max(SESSION_S, 2 * REQUEST_S) + 3, short=True
)
def leader_frozen(stage: Stage) -> Breaking:
    node = stage.leader()
    led = stage.led_by(node)
    stage.cluster.freeze(node)
    stage.until(lambda: stage.cluster.is_frozen(node))
    yield f"node {node}, leader of {led}, stands still"
    stage.cluster.thaw(node)
    stage.until(stage.cluster.is_whole, within_s=60)


@fault("F04", "a follower freezes", answers={503, 504}, lasts_s=12, gap_s=SESSION_S + 3, topic={"partitions": 1})
def follower_frozen(stage: Stage) -> Breaking:
    leader = stage.cluster.leader_of(stage.topic, 0)
    node = next(n for n in range(1, NODES + 1) if n not in (leader, stage.cluster.controller()))
    stage.cluster.freeze(node)
    stage.until(lambda: node not in stage.cluster.in_sync(stage.topic, 0), within_s=SESSION_S + 5)
    yield f"node {node} stands still and is not in sync; node {leader} leads"
    stage.cluster.thaw(node)
    stage.until(stage.cluster.is_whole, within_s=60)


@fault("F05", "two of three brokers freeze", answers={503, 504}, lasts_s=15, recovery_s=10)
def two_frozen(stage: Stage) -> Breaking:
    """One controller of three is no quorum: after the thaw it takes an election of a controller, too."""
    nodes = stage.random.sample(range(1, NODES + 1), 2)
    stage.cluster.freeze(*nodes)
    stage.until(lambda: stage.load.answered(504), within_s=PUBLISH_TIMEOUT_S + 5)
    yield f"nodes {nodes} stand still; clients are answered 504"
    stage.cluster.thaw(*nodes)
    stage.until(lambda: None not in leaders(stage))


@fault("F06", "all brokers are killed", answers={503, 504}, lasts_s=5)
def all_killed(stage: Stage) -> Breaking:
    for node in range(1, NODES + 1):
        stage.cluster.kill(node)
    stage.until(lambda: stage.load.answered(503), within_s=PUBLISH_TIMEOUT_S + 5)
    yield "no node is alive; clients are answered 503"
    stage.cluster.heal()
    stage.until(lambda: None not in leaders(stage))


@fault("F07", "Kafka is away at the start", answers={503, 504}, lasts_s=3, recovery_s=10, short=True, at_start=True)
def away_at_start(stage: Stage) -> Breaking:
    for link in stage.cluster.links.values():
        link.harm(refuses=True)
    yield "every broker turns away whoever connects"
    refused = sum(link.tally.refused for link in stage.cluster.links.values())
    assert refused > 0
    yield f"{refused} connections refused"
    stage.until(lambda: stage.load.answered(503))
    for link in stage.cluster.links.values():
        link.heal()


@fault(
    "F08",
    "fewer in sync than the topic demands",
    answers={503, 504},
    lasts_s=15,
    recovery_s=8,
    short=True,
    topic={"partitions": 1, "replicas": 2, "min_insync_replicas": 2},
    parameters={"replication_min": 2},
)
def too_few_in_sync(stage: Stage) -> Breaking:
    """Of two replicas one dies; nothing may be accepted until it is back and in sync."""
    leader = stage.cluster.leader_of(stage.topic, 0)
    [follower] = stage.cluster.in_sync(stage.topic, 0) - {leader}
    stage.cluster.kill(follower)
    stage.until(stage.load.failed, within_s=PUBLISH_TIMEOUT_S + 5)
    stage.until(lambda: stage.cluster.in_sync(stage.topic, 0) == {leader}, within_s=30)
    yield f"node {leader} is alone in sync"
    assert stage.cluster.in_sync(stage.topic, 0) == {leader}
    stage.cluster.restart(follower)
    stage.until(lambda: len(stage.cluster.in_sync(stage.topic, 0)) == 2, within_s=60)


@fault(
    "F18",
    "no leader for longer than a request may take",
    answers={503, 504},
    lasts_s=6,
    recovery_s=5,
    short=True,
    topic={"partitions": 1, "replicas": 1},
    parameters={"replication_min": 1, "insync_min": 1, "request_timeout_ms": 1000},
)
def leaderless(stage: Stage) -> Breaking:
    """The client library gives a batch up then, and must not refuse all later ones for it."""
    leader = stage.cluster.leader_of(stage.topic, 0)
    assert leader is not None
    stage.cluster.kill(leader)
    stage.until(lambda: stage.cluster.leader_of(stage.topic, 0) is None, within_s=SESSION_S + 10)
    yield f"node {leader} is dead and nobody leads"
    stage.cluster.restart(leader)
    stage.until(lambda: stage.cluster.leader_of(stage.topic, 0) is not None, within_s=60)


@fault("F52", "every broker is restarted in turn", gap_s=SESSION_S + 3, answers={503, 504})
def rolling_restart(stage: Stage) -> Breaking:
    """In order, as an upgrade does it; the controller too."""
    for node in range(1, NODES + 1):
        stage.cluster.terminate(node)
        stage.cluster.restart(node)
        stage.until(stage.cluster.is_whole, within_s=60)
    yield "three nodes have left and come back, one after the other"


def leaders(stage: Stage) -> list[int | None]:
    return [stage.cluster.leader_of(stage.topic, n) for n in range(stage.partitions)]


@fault("F16", "the disk of a leader takes no more", answers={503, 504}, gap_s=SESSION_S + 3, recovery_s=5)
def disk_full(stage: Stage) -> Breaking:
    """By a limit on the size of its files: a write fails, and a broker whose only disk fails ends itself."""
    node = stage.leader()
    led = stage.led_by(node)
    stage.cluster.limit_files_to(node, stage.cluster.log_size_bytes(node, stage.topic) + 20_000)
    stage.until(lambda: not stage.cluster.is_alive(node))
    stage.until(lambda: stage.cluster.leader_of(stage.topic, led[0]) not in (None, node))
    yield f"node {node}, leader of {led}, could not write and has ended itself"
    stage.cluster.restart(node)
    stage.until(stage.cluster.is_whole, within_s=60)
