"""What a refused key tells by the time it takes, and what a flood of unknown keys costs everybody else.

`python -m benchmarks.keys`, against a service of its own with its keys in a PostgreSQL of its own, on
this machine, by HTTP.

- Refusals: requests with keys that open nothing, each key used once, the kinds in a random order on one
  connection. For each kind the median, and how far it is from that of a well-formed key, with the
  interval that holds it in 95 of 100 draws (bootstrap). All keys have the same length.
- Flood: one client with a known key sends an event every few milliseconds, while others try so many
  keys a second that nobody knows, each once. What the first waits, and how many statements PostgreSQL
  counts a second.
"""

import argparse
import asyncio
import http.client
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import count
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path

from customersignal_ingest.domain.key import new_key
from tests.integration.servers.postgres import psql, running
from tests.integration.servers.service import Service, done

EVENT = b'{"event_type":"a","timestamp":"2026-11-23T10:00:00Z","properties":{}}'
WARM_UP_S = 2.0
PAUSE_S = 0.005
CONNECTIONS = 32
DRAWS = 1000


def _changed(key: str, at: int) -> str:
    return key[:at] + ("x" if key[at] != "x" else "y") + key[at + 1 :]


KINDS: dict[str, Callable[[str], str]] = {
    "well-formed": lambda _: new_key("live", os.urandom).secret,
    "wrong checksum": lambda _: _changed(new_key("live", os.urandom).secret, -1),
    "no key of ours": lambda known: os.urandom(len(known)).hex()[: len(known)],
    "begins like a known one": lambda known: known[:40] + new_key("live", os.urandom).secret[40:],
}


class Client:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def post(self, key: str) -> tuple[int, float]:
        """Send an event; return status and seconds."""
        began_s = time.perf_counter()
        self._connection.request("POST", "/v1/events", EVENT, {"X-CS-API-Key": key, "Content-Type": "application/json"})
        answer = self._connection.getresponse()
        answer.read()
        return answer.status, time.perf_counter() - began_s


def refusals(port: int, known: str, requests: int) -> dict[str, list[float]]:
    """Return the milliseconds of each refusal, by kind of key."""
    client, took = Client(port), {kind: list[float]() for kind in KINDS}
    for _ in range(requests):
        for kind in random.sample(list(KINDS), len(KINDS)):
            status, seconds = client.post(KINDS[kind](known))
            assert status == 401, status
            took[kind].append(seconds * 1e3)
    return took


def interval(some: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """Return between what the medians differ in 95 of 100 draws."""
    draws = sorted(
        statistics.median(random.choices(some, k=len(some))) - statistics.median(random.choices(others, k=len(others)))
        for _ in range(DRAWS)
    )
    return draws[int(DRAWS * 0.025)], draws[int(DRAWS * 0.975)]


def flood(port: int, rate: float, over: Event, told: "Queue[float]") -> None:
    """Try so many keys a second, until it is over; tell how many a second were refused."""
    told.put(asyncio.run(_flood(port, rate, over)))


async def _flood(port: int, rate: float, over: Event) -> float:
    numbers, began_s = count(), time.monotonic()

    async def one() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        refused = 0
        while not over.is_set():
            number = next(numbers)
            await asyncio.sleep(began_s + number / rate - time.monotonic())
            head = f"POST /v1/events HTTP/1.1\r\nHost: a\r\nX-CS-API-Key: {new_key('live', os.urandom).secret}\r\n"
            writer.write(head.encode() + b"Content-Type: application/json\r\nContent-Length: 0\r\n\r\n")
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            refused += answer.startswith(b"HTTP/1.1 401")
        writer.close()
        return refused

    refused = sum(await asyncio.gather(*(one() for _ in range(CONNECTIONS))))
    return refused / (time.monotonic() - began_s)


def amid_a_flood(service: Service, known: str, rate: float, seconds: float, statements: Callable[[], int]) -> list[str]:
    """Return a row of the table for so many unknown keys a second."""
    apart = multiprocessing.get_context("spawn")
    over, told = apart.Event(), apart.Queue()
    attacker = apart.Process(target=flood, args=(service.port, rate, over, told))
    if rate:
        attacker.start()
        time.sleep(WARM_UP_S)
    client, waits_ms, before, began_s = Client(service.port), list[float](), statements(), time.monotonic()
    ends_s = time.monotonic() + seconds
    while time.monotonic() < ends_s:
        status, took_s = client.post(known)
        assert status == 202, status
        waits_ms.append(took_s * 1e3)
        time.sleep(PAUSE_S)
    asked_each_second = (statements() - before) / (time.monotonic() - began_s)
    over.set()
    refused_each_second = told.get(timeout=30) if rate else 0.0
    if rate:
        attacker.join()
    waits_ms.sort()
    figures = [refused_each_second, waits_ms[len(waits_ms) // 2], waits_ms[int(len(waits_ms) * 0.99)]]
    return [f"{rate:g}", *(f"{figure:.1f}" for figure in figures), f"{asked_each_second:.0f}"]


def statements_of(url: str) -> int:
    """Return how many statements PostgreSQL has counted in this database; sessions tell it once a second."""
    time.sleep(1.2)
    return int(psql(url, "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"))


def print_refusals(took: dict[str, list[float]]) -> None:
    print(f"{'refused keys, each used once':30} {'median ms':>10} {'p90':>8} {'off by':>8}   95 %")
    for kind, each in took.items():
        low, high = interval(each, took["well-formed"])
        off = statistics.median(each) - statistics.median(took["well-formed"])
        print(
            f"{kind:30} {statistics.median(each):10.3f} {sorted(each)[int(len(each) * 0.9)]:8.3f} "
            f"{off:+8.3f}   {low:+.3f} to {high:+.3f}"
        )


def main() -> None:
    """Start everything, measure, print."""
    parser = argparse.ArgumentParser(description="What refused keys tell by their time, and what a flood costs.")
    parser.add_argument("--requests", type=int, default=500, help="refusals of each kind")
    parser.add_argument("--seconds", type=float, default=8, help="how long each flood is")
    parser.add_argument("--rates", type=float, nargs="*", default=[0, 300, 1000, 2000], help="unknown keys a second")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running() as postgres:
        url = postgres.new_database()
        stores = {"PUBLISHER_URL": "sqlite:///events.db", "KEYS_URL": url, "KEY_PEPPER": os.urandom(32).hex()}
        done(Path(folder), "migrate", **stores)
        done(Path(folder), "tenants", "create", "acme", **stores)
        [made] = done(Path(folder), "keys", "create", "--tenant", "acme", **stores)
        service = Service(Path(folder), {**stores, "DRAIN_DELAY_S": "0"}).ready()
        try:
            print_refusals(refusals(service.port, made["secret"], arguments.requests))
            print(
                f"\n{'tried a second':>14} {'refused':>9} {'known p50':>10} {'p99 ms':>8} {'statements a second':>21}"
            )
            for rate in arguments.rates:
                row = amid_a_flood(service, made["secret"], rate, arguments.seconds, lambda: statements_of(url))
                print(" ".join(cell.rjust(width) for cell, width in zip(row, (14, 9, 10, 8, 21), strict=True)))
        finally:
            service.kill()


if __name__ == "__main__":
    main()
