"""The topic: missing, unsafe, deleted, changed under the service's feet."""

from customersignal_ingest.domain.event import StoredRecord
from tests.faults.fault import Breaking, fault
from tests.faults.stage import Stage

LOOK_S = 60.0
"""How often the service looks whether the topic is still safe."""
LARGE = "x" * 5000


@fault(
    "F09",
    "an unsafe topic at the start",
    answers={503},
    lasts_s=2,
    recovery_s=LOOK_S + 5,
    short=True,
    at_start=True,
    topic={"min_insync_replicas": 1},
)
def unsafe_at_start(stage: Stage) -> Breaking:
    """Mended by an operator while the service runs: it looks again every two seconds while it can't serve."""
    yield "min.insync.replicas is 1"
    reason = f"{stage.topic}: min.insync.replicas is 1, needs 2"
    stage.until(lambda: reason in str(stage.service.readiness()))
    stage.until(lambda: stage.load.answered(503))
    assert stage.cluster.read(stage.topic) == []
    stage.cluster.alter_topic(stage.topic, min_insync_replicas=2)


@fault("F10", "a topic becomes unsafe", answers={503}, lasts_s=1, recovery_s=LOOK_S + 5)
def unsafe_later(stage: Stage) -> Breaking:
    stage.cluster.alter_topic(stage.topic, unclean_leader_election_enable="true")
    reason = f"{stage.topic}: unclean.leader.election.enable is true"
    stage.until(lambda: reason in str(stage.service.readiness()), within_s=LOOK_S + 5)
    stage.until(lambda: stage.load.answered(503))
    yield "readiness names unclean.leader.election.enable"
    stage.cluster.alter_topic(stage.topic, unclean_leader_election_enable="false")


@fault(
    "F12",
    "the topic is missing at the start",
    answers={503},
    lasts_s=3,
    recovery_s=10,
    at_start=True,
    topic={"missing": True},
)
def missing_at_start(stage: Stage) -> Breaking:
    yield "there is no such topic"
    stage.until(lambda: f"the topic {stage.topic} is missing" in str(stage.service.readiness()))
    stage.until(lambda: stage.load.answered(503))
    assert not stage.cluster.has_topic(stage.topic)
    stage.cluster.create_topic(stage.topic, partitions=stage.partitions)


@fault("F13", "partitions are added", lasts_s=3, gap_s=2.0)
def partitions_added(stage: Stage) -> Breaking:
    stage.cluster.add_partitions(stage.topic, stage.partitions + 3)
    stage.until(lambda: stage.cluster.leader_of(stage.topic, stage.partitions + 2) is not None)
    yield f"{stage.partitions + 3} partitions in place of {stage.partitions}"


@fault("F14", "leaders are moved again and again", gap_s=2.0)
def leaders_moved(stage: Stage) -> Breaking:
    """Each partition is handed to its next replica in turn, three times, as an operator balances a cluster."""
    moves = 0
    for round_number in range(3):
        before = [stage.cluster.leader_of(stage.topic, n) for n in range(stage.partitions)]
        stage.cluster.put_first(stage.topic, stage.partitions, step=round_number)
        stage.cluster.elect_preferred(stage.topic, stage.partitions)
        after = [stage.cluster.leader_of(stage.topic, n) for n in range(stage.partitions)]
        moves += sum(old != new for old, new in zip(before, after, strict=True))
    assert moves
    yield f"{moves} moves of a leader"


@fault(
    "F17",
    "a record over a lowered limit",
    answers={503, 504},
    gap_s=1.5,
    short=True,
    ready=False,
    topic={"partitions": 1},
)
def poison(stage: Stage) -> Breaking:
    """The broker turns a batch down for one record, and must not turn down what other clients send after it.

    Readiness is not held against them: it rightly says that the topic is too small for large events.
    """
    stage.cluster.alter_topic(stage.topic, max_message_bytes=2000)
    answers = [stage.post(stage.keys.secret, user_id="large", properties={"x": LARGE})[:2] for _ in range(5)]
    assert set(answers) <= {(413, "EVENT_TOO_LARGE"), (422, "REFUSED_BY_STORE"), (504, "OUTCOME_UNKNOWN")}, answers
    assert (422, "REFUSED_BY_STORE") in answers or (413, "EVENT_TOO_LARGE") in answers, answers
    assert not any(_is_large(record) for record in stage.cluster.read(stage.topic))
    yield f"five large records are answered {sorted({status for status, _ in answers})}"
    stage.cluster.alter_topic(stage.topic, max_message_bytes=1_048_576)


@fault("F11", "the topic is deleted and made again", answers={503, 504}, recovery_s=5)
def deleted(stage: Stage) -> Breaking:
    """What was stored is deleted with it, on purpose; so the clients before and after it are two."""
    stage.let_go()
    stage.cluster.delete_topic(stage.topic)
    stage.start_load()
    stage.until(stage.load.failed)
    assert not stage.cluster.has_topic(stage.topic)
    yield "the topic is gone, and nobody has made it"
    stage.cluster.create_topic(stage.topic, partitions=stage.partitions)


def _is_large(record: StoredRecord) -> bool:
    return LARGE.encode() in record.value
