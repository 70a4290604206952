"""The topic: made on purpose, with safe settings, or looked at."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click

from customersignal_ingest.cli.shared import given, json_option, print_json
from customersignal_ingest.domain.errors import ConfigurationError, Unavailable

if TYPE_CHECKING:
    from customersignal_ingest.registry import AdapterSettings

NEW_TOPIC_TIMEOUT_S = 10.0


async def settled(look: Callable[[], Awaitable[list[str]]], /, *, patience_s: float, pause_s: float = 0.2) -> list[str]:
    """Return the problems that are still seen after `patience_s`; none as soon as none is seen.

    Raises `Unavailable` when nothing can be seen until then.
    """
    give_up_at = time.monotonic() + patience_s
    while True:
        in_time = time.monotonic() < give_up_at
        try:
            problems = await look()
        except Unavailable:
            if not in_time:
                raise
        else:
            if not problems or not in_time:
                return problems
        await asyncio.sleep(pause_s)


@click.group()
def topic() -> None:
    """The Kafka topic that events go to."""


@topic.command("create")
@click.option(
    "--partitions", type=click.IntRange(1, 10_000), help="How many; more later would break the order of keys."
)
@json_option
def create(partitions: int | None, as_json: bool) -> None:
    """Make the topic with safe settings; one that is there already is checked and left as it is."""
    url, settings = _kafka()
    from customersignal_ingest.adapters.outbound.kafka import create_topic

    options = {} if partitions is None else {"partitions": partitions}
    try:
        asyncio.run(create_topic(url, settings=settings, **options))
        made = True
    except FileExistsError:
        made = False
    _say_if_safe(url, settings, created=made, as_json=as_json)


@topic.command("check")
@json_option
def check(as_json: bool) -> None:
    """Say whether the topic could lose what it acknowledged."""
    url, settings = _kafka()
    _say_if_safe(url, settings, created=None, as_json=as_json)


def _kafka() -> "tuple[str, AdapterSettings]":
    settings = given()
    url = settings.required("publisher_url")
    if not settings.publisher_scheme.startswith("kafka"):
        raise ConfigurationError(f"there is no topic: the publisher is {settings.publisher_scheme}:, not kafka:")
    return url, settings.for_adapters(instance="topic")


def _say_if_safe(url: str, settings: "AdapterSettings", *, created: bool | None, as_json: bool) -> None:
    from customersignal_ingest.adapters.outbound.kafka import check_topic

    # Brokers hear of a new topic one after the other, and any of them may be the one that is asked.
    patience_s = NEW_TOPIC_TIMEOUT_S if created else 0.0
    problems = asyncio.run(settled(lambda: check_topic(url, settings=settings), patience_s=patience_s))
    if as_json:
        print_json({"safe": not problems, "problems": problems} | ({} if created is None else {"created": created}))
    else:
        said = {True: "made: ", False: "was there already: ", None: ""}[created]
        for problem in problems:
            click.echo(f"fail  {problem}")
        if not problems:
            click.echo(f"ok    {said}the topic is safe")
    if problems:
        sys.exit(1)
