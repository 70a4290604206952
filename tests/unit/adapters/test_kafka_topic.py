"""What is asked of Kafka beside publishing ends, whatever the broker does."""

import asyncio

import pytest

from customersignal_ingest.adapters.outbound.kafka.topic import HANG_UP_TIMEOUT_S, hang_up
from tests.unit.simulated_time import run


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
