"""How fast the service is, beside what one might pick instead: `make bench`.

One Kafka for all. The contestants take turns, A B C D A B C D …; in its turn each is started on an
empty topic, warmed up, loaded over HTTP by a process of its own, and ended. After every load the
topic must have grown by exactly the events that were accepted, else the run fails. Ratios are made
round by round, and their median counts.

Server and load don't share cores: the server has one, the broker and the client have the others.
So nobody gains by what the client leaves over, and "one worker" is one core for everybody: Go sees
one core and uses it, too. `--together` lets all use all.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import machine, page
from benchmarks.broker import broker
from benchmarks.client import Client, Load, build
from benchmarks.contestants import Contestant, ours
from benchmarks.figures import markdown, median, text
from benchmarks.key_store import make_keys
from benchmarks.results import BATCH, HALF, SINGLE, SLOW, WORKS, Results, charts, table, verdicts
from benchmarks.rivals import rivals
from benchmarks.turn import Measured, Stage

PARTITIONS = 8
SINGLE_LOAD = Load(connections=64)
QUIET = 0.1
BATCH_LOAD = Load(connections=16, batch=100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long everything takes."""

    rounds: int
    seconds: float
    warm_up_s: float


@contextmanager
def stage(*, together: bool, nodes: int = 1, tenants: int = 1) -> Iterator[Stage]:
    """Start the broker, and get ready all else that the turns share."""
    machine.allow_many_files()
    shares = machine.together() if together else machine.apart()
    logs = page.CACHE / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="bench-keys-"))
        keys = make_keys(Path(folder), count=tenants)
        client = Client(build(page.CACHE), shares.others)
        kafka = stack.enter_context(broker(shares.others, nodes=nodes))
        yield Stage(broker=kafka, client=client, keys=keys, shares=shares, partitions=PARTITIONS, logs=logs)


def loads(plan: Plan, half: float) -> dict[str, Load]:
    """Return what is measured, by its name."""
    return {
        SINGLE: SINGLE_LOAD.for_seconds(plan.seconds),
        BATCH: BATCH_LOAD.for_seconds(plan.seconds),
        SLOW: replace(SINGLE_LOAD, rate=1000, seconds=plan.seconds),
        HALF: replace(SINGLE_LOAD, rate=half, seconds=plan.seconds),
    }


def compare(stage: Stage, contestants: Sequence[Contestant], plan: Plan) -> tuple[Results, float]:
    """Let everybody have a turn in every round; return all figures, and half of our top rate."""
    half = _half_of_top(stage, contestants[0], plan)
    found: dict[str, dict[str, list[Mapping[str, float]]]] = {
        each.name: {work: [] for work in WORKS} for each in contestants
    }
    for number in range(1, plan.rounds + 1):
        for contestant in contestants:
            for work, measured in _turn(stage, contestant, plan, half):
                print(f"round {number}  {contestant.name:20} {work:42} {_in_short(measured)}", flush=True)
                found[contestant.name][work].append(measured.to_json())
    return found, half


def _turn(stage: Stage, contestant: Contestant, plan: Plan, half: float) -> Iterator[tuple[str, Measured]]:
    wanted = loads(plan, half)
    top = 0.0
    with stage.running(contestant) as running:
        for load in (wanted[SINGLE], wanted[BATCH]):
            running.measure(load.for_seconds(plan.warm_up_s))
        for work, load in wanted.items():
            if load.rate > 0.9 * top and work in (SLOW, HALF):
                continue  # It would only show how a queue grows.
            measured = running.measure(load)
            top = measured.requests_s if work == SINGLE else top
            yield work, measured


def _half_of_top(stage: Stage, contestant: Contestant, plan: Plan) -> float:
    with stage.running(contestant) as running:
        rates = [running.measure(SINGLE_LOAD.for_seconds(plan.warm_up_s)).requests_s for _ in range(3)]
    return round(max(rates) / 2, -2)


def _in_short(measured: Measured) -> str:
    return (
        f"{measured.events_s:9,.0f} events/s  p50 {measured.p50_ms:7.2f}  p99 {measured.p99_ms:7.2f} ms  "
        f"{measured.cpu_us:6.1f} µs/event  {measured.resident_mb:4.0f} MB  "
        f"cores {measured.server_cores:.2f} + {measured.others_cores:.2f}, elsewhere {measured.elsewhere:.0%}"
    )


def facts(stage: Stage, contestants: Sequence[Contestant]) -> dict[str, Any]:
    """Return when, where and with what it was measured."""
    return {
        "date": page.today(),
        "machine": machine.described(),
        "cores": stage.shares.text,
        "kafka": f"{stage.broker.version}, {stage.partitions} partitions",
        "contestants": {contestant.name: contestant.version() for contestant in contestants},
    }


def elsewhere(results: Results) -> float:
    """Return which part of the machine was busy with something else, in the middle of all measurements."""
    return median(each["elsewhere"] for works in results.values() for rounds in works.values() for each in rounds)


def rendered(known: Mapping[str, Any], results: Results, half: float) -> str:
    """Return what the page says of a run."""
    on = known["machine"]
    met = (
        f"Measured on {known['date']}: {on['processor']}, {on['memory']}, {on['system']}, Python {on['python']}. "
        f"{known['kafka']}; {known['cores']}. {known['rounds']} rounds of {known['seconds']:g} s a load, medians. "
        f"Half of our top rate was {half:.0f} requests/s. "
        f"Meanwhile {elsewhere(results):.0%} of the machine was busy with something else"
        f"{'.' if elsewhere(results) < QUIET else ': **times of such a run are worth little**.'}"
    )
    parts = [
        met,
        "\n".join(f"- {name}: {version}" for name, version in known["contestants"].items()),
        "![events a second and CPU an event, ours and theirs](performance/compare.svg)",
    ]
    for work in WORKS:
        head, rows = table(results, work)
        parts += [f"### {work[0].upper()}{work[1:]}", markdown(head, rows)]
    return "\n\n".join([*parts, "### What was to be reached", markdown(*verdicts(results))])


def show(results: Results) -> None:
    """Print the same for a terminal."""
    for work in WORKS:
        print(f"\n{work}\n{text(*table(results, work))}", end="")
    print(f"\nagainst what was to be reached\n{text(*verdicts(results))}", end="")
    print(f"\n{elsewhere(results):.0%} of the machine was busy with something else meanwhile")


def _chosen(arguments: argparse.Namespace) -> list[Contestant]:
    others = [each for each in rivals(page.CACHE) if _is_wanted(each.name, arguments.only)]
    versions = [ours(name=name, python=python) for name, _, python in (text.partition("=") for text in arguments.ours)]
    return [ours(), *versions, *others]


def _is_wanted(name: str, only: str | None) -> bool:
    return only is None or any(word.strip().lower() in name.lower() for word in only.split(","))


def main() -> None:
    """Install, start, measure, print, write down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8, help="of each load")
    parser.add_argument("--warm-up", type=float, default=3, help="seconds of each of two loads before", metavar="S")
    parser.add_argument("--only", help="rivals by parts of their names, as in go,fastapi", metavar="NAMES")
    parser.add_argument(
        "--ours", action="append", default=[], help="another version of ours, as in old=/path/to/python", metavar="N=P"
    )
    parser.add_argument("--nodes", type=int, default=1, help="Kafka brokers")
    parser.add_argument("--together", action="store_true", help="let server, broker and client use all cores")
    parser.add_argument("--dry", action="store_true", help="print only, and leave the page as it is")
    arguments = parser.parse_args()
    plan = Plan(rounds=arguments.rounds, seconds=arguments.seconds, warm_up_s=arguments.warm_up)
    contestants = _chosen(arguments)
    page.CACHE.mkdir(parents=True, exist_ok=True)
    for contestant in contestants:
        print(f"installing {contestant.name} …", flush=True)
        contestant.install()
    with stage(together=arguments.together, nodes=arguments.nodes) as here:
        results, half = compare(here, contestants, plan)
        known = facts(here, contestants) | {"rounds": plan.rounds, "seconds": plan.seconds}
    show(results)
    if not arguments.dry:
        page.write("compare", rendered(known, results, half), known | {"results": results}, chart=charts(results))


if __name__ == "__main__":
    main()
