"""A key goes to the partition that Kafka's own Java producer picks for it."""

import random
import subprocess
from pathlib import Path

import pytest

from customersignal_ingest.domain.partition import partition_for
from tests.integration.servers.kafka import _fetched_jars

PROGRAM = Path(__file__).with_name("PartitionsOf.java")


def some_keys() -> list[bytes]:
    """Keys as the service makes them, and keys of any bytes and of every length up to 40."""
    source = random.Random(1)
    ours = [f"tenant-{n % 7}:user-{n}-é".encode() for n in range(500)]
    return ours + [source.randbytes(n % 41) for n in range(500)]


def as_java_does(keys: list[bytes], partitions: int) -> list[int]:
    command = ["java", "-cp", f"{_fetched_jars()}/*", str(PROGRAM), str(partitions)]
    lines = "".join(f"{key.hex()}\n" for key in keys)
    run = subprocess.run(command, input=lines, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stderr
    return [int(line) for line in run.stdout.split()]


@pytest.mark.usefixtures("kafka")
@pytest.mark.parametrize("partitions", [1, 8, 96])
def test_a_thousand_keys_go_where_kafkas_own_producer_sends_them(partitions: int) -> None:
    keys = some_keys()

    assert [partition_for(key, partitions) for key in keys] == as_java_does(keys, partitions)
