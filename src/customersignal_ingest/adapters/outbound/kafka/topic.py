"""Whether a topic keeps what it acknowledges: looked up by the admin API, and made safe from the start."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, NoError, UnknownTopicOrPartitionError, for_code

from customersignal_ingest.adapters.outbound.kafka.client import hang_up_when_cancelled, reach
from customersignal_ingest.adapters.outbound.kafka.options import Options, read_options
from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.partition import PARTITIONS_DEFAULT
from customersignal_ingest.registry import AdapterSettings

# What our record adds to the client's event: ids, moments, headers, the key, the frame of the batch.
ENVELOPE_BYTES = 4096
MESSAGE_BYTES_MAX = 1024 * 1024
HANG_UP_TIMEOUT_S = 1.0
RETENTION_MS = 7 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """What was found. `dangers` could lose what was acknowledged; `limits` only refuse large events."""

    dangers: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    message_bytes_max: int = MESSAGE_BYTES_MAX


async def check_topic(url: str, /, *, settings: AdapterSettings) -> list[str]:
    """Return what is wrong with the topic of this URL, by name; nothing if it is safe.

    Raises `Unavailable` when it can't be told, and `ConfigurationError` for a wrong URL.
    """
    found = await look_at(read_options(url, settings))
    return [*found.dangers, *found.limits]


async def create_topic(url: str, /, *, settings: AdapterSettings, partitions: int = PARTITIONS_DEFAULT) -> None:
    """Make the topic of this URL with safe settings, replicated as the URL demands at least.

    Raises `FileExistsError` when it is there, `Unavailable` when it can't be made now.
    """
    options = read_options(url, settings)
    config = {
        "min.insync.replicas": str(options.insync_min),
        "unclean.leader.election.enable": "false",
        "cleanup.policy": "delete",
        "retention.ms": str(RETENTION_MS),
        "max.message.bytes": str(max(MESSAGE_BYTES_MAX, options.event_bytes_max + ENVELOPE_BYTES)),
        "message.timestamp.type": "CreateTime",
        "compression.type": "producer",
    }
    topic = NewTopic(options.topic, partitions, options.replication_min, topic_configs=config)
    answer = await _asked(options, lambda admin: admin.create_topics([topic]))
    name, code, message = answer.topic_errors[0][:3]
    if for_code(code).__name__ == "TopicAlreadyExistsError":
        raise FileExistsError(f"the topic {name} is there already")
    if for_code(code) is not NoError:
        raise Unavailable(f"the topic {name} can't be made: {message or for_code(code).__name__}")


async def look_at(options: Options, /) -> Topic:
    """Look at the topic; raises `Unavailable` when nobody answers or we may not look."""
    resource = ConfigResource(ConfigResourceType.TOPIC, options.topic)
    answers = await _asked(options, lambda admin: admin.describe_configs([resource]))
    code, _, _, _, entries = answers[0].resources[0]
    if for_code(code) is UnknownTopicOrPartitionError:
        return Topic(dangers=(f"the topic {options.topic} is missing",))
    if for_code(code) is not NoError:
        raise Unavailable(f"the settings of {options.topic} can't be read: {for_code(code).__name__}")
    # Only now: to ask for a topic that is missing could make it.
    described = await _asked(options, lambda admin: admin.describe_topics([options.topic]))
    error = for_code(described[0]["error_code"])
    if error is not NoError:  # Who may not look is told of no replicas, which is not to be taken for the truth.
        raise Unavailable(f"{options.topic} can't be described: {error.__name__}")
    replicas = [len(partition["replicas"]) for partition in described[0]["partitions"]]
    return judged({name: value for name, value, *_ in entries}, replicas, options)


async def partitions_of(options: Options, /) -> list[int]:
    """Return the numbers of the topic's partitions; raises `Unavailable` when it is missing, too."""
    # All topics first: to ask for one that is missing could make it.
    if options.topic not in await _asked(options, lambda admin: admin.list_topics()):
        raise Unavailable(f"the topic {options.topic} is missing")
    described = await _asked(options, lambda admin: admin.describe_topics([options.topic]))
    return [partition["partition"] for partition in described[0]["partitions"]]


def judged(config: Mapping[str, str], replicas: Sequence[int], options: Options, /) -> Topic:
    """Judge a topic by its settings, and by how many replicas each of its partitions has."""
    replication = min(replicas, default=0)
    insync, cleanup = int(config["min.insync.replicas"]), config["cleanup.policy"]
    bytes_max, bytes_needed = int(config["max.message.bytes"]), options.event_bytes_max + ENVELOPE_BYTES
    lossy = "an acknowledged event could be lost"
    dangers = [
        (
            replication < options.replication_min,
            f"replication factor is {replication}, needs {options.replication_min}",
        ),
        (insync < options.insync_min, f"min.insync.replicas is {insync}, needs {options.insync_min}"),
        (config["unclean.leader.election.enable"] != "false", "unclean.leader.election.enable is true"),
        ("compact" in cleanup, f"cleanup.policy is {cleanup}"),
    ]
    small = f"max.message.bytes is {bytes_max}, events up to event_bytes_max need {bytes_needed}"
    return Topic(
        dangers=tuple(f"{options.topic}: {what}: {lossy}" for wrong, what in dangers if wrong),
        limits=(f"{options.topic}: {small}",) if bytes_max < bytes_needed else (),
        message_bytes_max=bytes_max,
    )


async def _asked(options: Options, ask: Callable[[AIOKafkaAdminClient], Any]) -> Any:
    """Ask through the first broker that answers, within the time of four requests, and hang up."""
    server = await reach(options)
    connection = options.connection()
    admin = AIOKafkaAdminClient(bootstrap_servers=server, **connection)
    hang_up_when_cancelled(admin._client, connection)  # noqa: SLF001  It has no public way to its client.
    try:
        async with asyncio.timeout(4 * options.request_timeout_ms / 1000):
            await admin.start()
            return await ask(admin)
    except (KafkaError, OSError, TimeoutError) as error:
        raise Unavailable(f"Kafka does not say how {options.topic} is set: {type(error).__name__}") from error
    finally:
        await hang_up(admin.close())


async def hang_up(goodbye: Coroutine[Any, Any, None], /) -> None:
    """Say goodbye for a second at the most: a broker that is frozen never takes it."""
    saying = asyncio.create_task(goodbye)
    try:
        await asyncio.wait({saying}, timeout=HANG_UP_TIMEOUT_S)
    finally:
        saying.cancel()
    if saying.done():
        saying.result()
