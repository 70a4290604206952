"""What makes a topic unsafe, or too small; and what is asked of Kafka ends, whatever the broker does."""

import asyncio
from collections.abc import Sequence

import pytest

from customersignal_ingest.adapters.outbound.kafka.options import Options
from customersignal_ingest.adapters.outbound.kafka.topic import (
    ENVELOPE_BYTES,
    HANG_UP_TIMEOUT_S,
    Topic,
    hang_up,
    judged,
)
from tests.unit.simulated_time import run

EVENT_BYTES_MAX = 900_000
SAFE = {
    "min.insync.replicas": "2",
    "unclean.leader.election.enable": "false",
    "cleanup.policy": "delete",
    "max.message.bytes": "1048588",
}
OPTIONS = Options(
    servers=("nowhere:1",), topic="events", client_id="test", publish_timeout_s=10, event_bytes_max=EVENT_BYTES_MAX
)


async def never() -> None:
    await asyncio.Event().wait()


async def fails() -> None:
    raise OSError("gone")


def test_a_goodbye_that_nobody_takes_is_given_up_and_leaves_nothing_behind() -> None:
    async def seconds() -> tuple[float, int]:
        began = asyncio.get_running_loop().time()
        await hang_up(never())
        took_s = asyncio.get_running_loop().time() - began
        await asyncio.sleep(0)
        return took_s, len(asyncio.all_tasks())

    assert run(seconds()) == (HANG_UP_TIMEOUT_S, 1)


def test_what_goes_wrong_with_a_goodbye_is_told() -> None:
    with pytest.raises(OSError, match="gone"):
        run(hang_up(fails()))


def found(*, replicas: Sequence[int] = (3, 3), options: Options = OPTIONS, **changed: str) -> Topic:
    config = SAFE | {name.replace("_", "."): value for name, value in changed.items()}
    return judged(config, replicas, options)


def test_a_safe_topic_has_no_dangers_and_no_limits() -> None:
    assert found() == Topic(message_bytes_max=1_048_588)


@pytest.mark.parametrize(
    ("changed", "danger"),
    [
        ({"min_insync_replicas": "1"}, "min.insync.replicas is 1, needs 2"),
        ({"unclean_leader_election_enable": "true"}, "unclean.leader.election.enable is true"),
        ({"cleanup_policy": "compact"}, "cleanup.policy is compact"),
        ({"cleanup_policy": "compact,delete"}, "cleanup.policy is compact,delete"),
    ],
)
def test_what_could_lose_an_acknowledged_event_is_named(changed: dict[str, str], danger: str) -> None:
    assert found(**changed).dangers == (f"events: {danger}: an acknowledged event could be lost",)


@pytest.mark.parametrize(("replicas", "least"), [((3, 2, 3), 2), ((1,), 1), ((), 0)])
def test_the_worst_replicated_partition_counts(replicas: Sequence[int], least: int) -> None:
    [danger] = found(replicas=replicas).dangers

    assert f"replication factor is {least}, needs 3" in danger


def test_every_danger_is_named() -> None:
    assert len(found(replicas=[1], min_insync_replicas="1", cleanup_policy="compact").dangers) == 3


def test_a_cluster_of_one_broker_may_be_told_to_be_enough() -> None:
    alone = Options(**{**{n: getattr(OPTIONS, n) for n in Options.__slots__}, "replication_min": 1, "insync_min": 1})

    assert found(replicas=[1], options=alone, min_insync_replicas="1").dangers == ()


def test_a_topic_too_small_for_our_events_is_limited_and_not_unsafe() -> None:
    needed = EVENT_BYTES_MAX + ENVELOPE_BYTES

    assert found(max_message_bytes=str(needed)).limits == ()
    assert found(max_message_bytes=str(needed - 1)).dangers == ()
    assert str(needed) in found(max_message_bytes=str(needed - 1)).limits[0]
