"""The network between the service and the brokers, and between the brokers."""

from tests.faults.cluster import NODES, SESSION_S
from tests.faults.fault import Breaking, fault
from tests.faults.proxy import Link
from tests.faults.stage import PUBLISH_TIMEOUT_S, Stage

REQUEST_S = 4.0
REPLICA_LAG_S = 30.0
"""`replica.lag.time.max.ms`: a follower that has fetched nothing for so long is no longer in sync."""


@fault("F21", "a broker answers two seconds late", lasts_s=10, gap_s=6.0, topic={"partitions": 1})
def slow_broker(stage: Stage) -> Breaking:
    """A client waits for the batch before its own, too: twice 2 s. With more partitions on one broker it is twice
    that, because the client library has one request to a broker on its way.
    """
    leader = stage.cluster.leader_of(stage.topic, 0)
    assert leader is not None
    link = stage.cluster.links[leader]
    restarts = stage.metrics().total("cs_ingest_publisher_restarts_total")
    link.harm(answer_delay_s=2.0)
    stage.until(lambda: link.tally.delayed > 3)
    yield "its answers are delayed by 2 s"
    restarts = stage.metrics().total("cs_ingest_publisher_restarts_total") - restarts
    link.heal()
    assert restarts <= 1, f"{restarts:g} producers were replaced for mere slowness"


@fault("F22", "every link jitters", lasts_s=10, gap_s=3.0)
def jitter(stage: Stage) -> Breaking:
    """As a lossy network looks from above TCP: what was lost comes later."""
    for link in links(stage):
        link.harm(request_delay_s=0.02, answer_delay_s=0.02, jitter_s=0.3)
    stage.until(lambda: all(link.tally.delayed > 3 for link in links(stage)))
    yield "20 to 320 ms more in both directions"
    heal(stage)


@fault("F23", "a leader is out of the service's reach", answers={503, 504}, lasts_s=20, recovery_s=8)
def out_of_reach(stage: Stage) -> Breaking:
    """Its peers see it well, so it goes on leading: its partitions can't be served, the others must be."""
    node = stage.leader()
    led, link = stage.led_by(node), stage.cluster.links[node]
    link.harm(loses_requests=True, loses_answers=True)
    stage.until(stage.load.failed, within_s=PUBLISH_TIMEOUT_S + 5)
    assert stage.led_by(node) == led
    yield f"node {node} leads {led} and hears nothing from us; {link.tally.lost_bytes} bytes lost"
    link.heal()


@fault("F24", "a leader is cut off from its followers", answers={503, 504}, lasts_s=10, recovery_s=10)
def leader_isolated(stage: Stage) -> Breaking:
    """The service sees it and it sees the controller, so it goes on leading, alone; nothing may be accepted."""
    node = stage.leader()
    led, link = stage.led_by(node), stage.cluster.peer_links[node]
    link.harm(loses_requests=True, loses_answers=True)
    stage.until(lambda: stage.load.failed() and link.tally.lost_bytes, within_s=REPLICA_LAG_S + PUBLISH_TIMEOUT_S)
    yield f"the followers of node {node}, leader of {led}, hear nothing; {link.tally.lost_bytes} bytes lost"
    link.heal()
    stage.until(stage.cluster.is_whole, within_s=60)


@fault(
    "F25", "all links are clogged one by one, and freed in another order", answers={503, 504}, recovery_s=SESSION_S + 5
)
def swizzle_clog(stage: Stage) -> Breaking:
    every = [*links(stage), *stage.cluster.peer_links.values()]
    for link in stage.random.sample(every, len(every)):
        link.harm(holds=True)
        stage.wait(stage.random.uniform(0.1, 1.0))
    stage.until(lambda: sum(link.tally.held for link in every) > NODES)
    yield f"{sum(link.tally.held for link in every)} pieces held on {len(every)} links"
    for link in stage.random.sample(every, len(every)):
        link.heal()
        stage.wait(stage.random.uniform(0.1, 1.0))


@fault("F26", "connections are cut between request and answer", answers={503, 504}, gap_s=4.0, short=True)
def cut_before_answer(stage: Stage) -> Breaking:
    """The broker has the batch, and nobody can know: only the client library's sequence numbers tell it apart."""
    before = sum(link.tally.cut for link in links(stage))
    for round_number in range(12):
        for link in links(stage):
            link.harm(cuts=1, cut_after=stage.random.choice([0, 0, 5]) if round_number % 2 else 0)
        stage.wait(0.5)
    cuts = sum(link.tally.cut for link in links(stage)) - before
    assert cuts >= NODES
    yield f"{cuts} connections cut"
    heal(stage)


@fault("F27", "answers come later than the deadline", answers={503, 504}, lasts_s=4, recovery_s=8)
def later_than_deadline(stage: Stage) -> Breaking:
    """What is answered 504 may be stored, and mostly is."""
    for link in links(stage):
        link.harm(answer_delay_s=PUBLISH_TIMEOUT_S + 2)
    stage.until(stage.load.failed, within_s=PUBLISH_TIMEOUT_S + 5)
    yield "answers take 2 s more than the deadline"
    heal(stage)


@fault("F28", "half-open connections", answers={503, 504}, gap_s=2 * REQUEST_S + 3, recovery_s=2 * REQUEST_S, lasts_s=1)
def half_open(stage: Stage) -> Breaking:
    """The brokers have forgotten the connections, and nobody told the service; new ones work."""
    for link in links(stage):
        link.forget()
    stage.until(lambda: sum(link.tally.lost_bytes for link in links(stage)) > 0)
    yield f"{sum(link.tally.lost_bytes for link in links(stage))} bytes went nowhere"


@fault(
    "F29",
    "most of the brokers that are named do not exist",
    lasts_s=5,
    recovery_s=5,
    at_start=True,
)
def wrong_names(stage: Stage) -> Breaking:
    """The first three of the servers in the URL are names and ports of nobody: DNS fails, nobody listens."""
    nobody = "kafka-1.invalid:9092,kafka-2.invalid:9092,127.0.0.1:1"
    stage.settings["PUBLISHER_URL"] = stage.cluster.url_for_clients(stage.topic).replace(
        "kafka://", f"kafka://{nobody},"
    )
    yield f"named first: {nobody}"


def links(stage: Stage) -> list[Link]:
    return list(stage.cluster.links.values())


def heal(stage: Stage) -> None:
    for link in links(stage):
        link.heal()
