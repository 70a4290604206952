"""What a fault finds when it comes: brokers, a key database, the service as a process, and clients at work."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import psutil
from prometheus_client.parser import text_string_to_metric_families

from customersignal_ingest.proof.journal import Journal
from tests.faults.cluster import LinkedCluster
from tests.faults.load import Plan
from tests.faults.proxy import Link, Network
from tests.integration.servers.postgres import Server
from tests.integration.servers.service import Service, done, until

ROOT = Path(__file__).parents[2]
PEPPER = "a pepper that no log may have"
PUBLISH_TIMEOUT_S = 10.0
DRAIN_DELAY_S = 1.0
BUSY = 40  # So many requests are accepted before anything is broken.


def now_ms() -> int:
    """Return the time by the clock that the journal has."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class Request:
    """One request as its client saw it. `status` is 0 where no answer came."""

    client: str
    sent_ms: int
    events: int
    status: int = 0
    answered_ms: int | None = None
    outcomes: Counter[int] = field(default_factory=Counter)

    @property
    def kind(self) -> str:
        return self.client.split("-")[1]


class Load:
    """The process of the clients, and what their journal says so far."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.plan, self.journal = plan, Path(plan.journal)
        self.journal.touch()
        self._requests: dict[str, Request] = {}
        self._read_bytes = 0
        with (folder / f"load-{plan.name}.txt").open("wb") as out:
            command = [sys.executable, "-m", "tests.faults.load"]
            self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=out, stderr=out)
        self._tell(plan.line())

    def end(self, within_s: float = 40) -> None:
        """Let every client have the last answer."""
        if self.process.poll() is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
        assert self.process.wait(within_s) == 0

    def kill(self) -> None:
        """End it at once, whatever it waits for."""
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()

    @property
    def requests(self) -> list[Request]:
        """Return everything so far, in the order of sending."""
        with self.journal.open("rb") as file:
            file.seek(self._read_bytes)
            for line in file:
                if line.endswith(b"\n"):  # Else it is being written.
                    self._note(json.loads(line))
                    self._read_bytes += len(line)
        return list(self._requests.values())

    def accepted(self, *, since_ms: int = 0) -> list[Request]:
        """Return the requests that were answered 202 since that moment."""
        return [each for each in self.requests if each.status == 202 and (each.answered_ms or 0) >= since_ms]

    def answered(self, status: int, *, since_ms: int = 0) -> int:
        """Return how many requests were answered so since that moment, those meant to fail left out."""
        found = [r for r in self.requests if r.status == status and (r.answered_ms or 0) >= since_ms]
        return sum(each.kind != "wrong" for each in found)

    def failed(self) -> int:
        """Return how many requests were answered 503 or 504."""
        return self.answered(503) + self.answered(504)

    def everybody_accepted_at(self, *, since_ms: int) -> int:
        """Return when the last of the waiting clients had a 202 for something sent since then; 0 if one has not."""
        first: dict[str, int] = {}
        for request in self.accepted(since_ms=since_ms):
            if request.kind == "waiting" and request.sent_ms >= since_ms:
                first.setdefault(request.client, request.answered_ms or 0)
        return max(first.values(), default=0) if len(first) == self.plan.waiting else 0

    def _tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()

    def _note(self, entry: dict[str, Any]) -> None:
        if entry["kind"] == "sent":
            client = entry["events"][0]["user_id"]
            self._requests[entry["attempt"]] = Request(client, entry["at_ms"], len(entry["events"]))
            return
        request = self._requests[entry["attempt"]]
        request.status, request.answered_ms = entry["status"], entry["at_ms"]
        results = entry.get("results") or [{"status": entry["status"]}] * request.events
        request.outcomes = Counter(result["status"] for result in results)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """A key database behind a link, and a tenant with a key."""

    server: Server
    link: Link
    url: str
    tenant_id: str
    secret: str
    folder: Path

    @property
    def settings(self) -> dict[str, str]:
        """What our commands need to reach it directly, whatever the link does."""
        return {"KEYS_URL": self.url, "KEY_PEPPER": PEPPER}

    @property
    def url_for_service(self) -> str:
        port = urlsplit(self.url).port
        return self.url.replace(f":{port}/", f":{self.link.port}/")

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port
        return port

    def new(self, tenant_id: str | None = None) -> tuple[str, str]:
        """Make a key; return its id and the key itself."""
        [made] = done(self.folder, "keys", "create", "--tenant", tenant_id or self.tenant_id, **self.settings)
        return made["key_id"], made["secret"]


@contextmanager
def keys(server: Server, network: Network, folder: Path) -> Iterator[Keys]:
    """Make a database with one tenant and one key."""
    url = server.new_database()
    made = Keys(
        server=server,
        link=network.link(("127.0.0.1", urlsplit(url).port or 0)),
        url=url,
        tenant_id="acme",
        secret="",
        folder=folder,
    )
    done(folder, "migrate", **made.settings)
    for tenant_id in ("acme", "umbrella"):
        done(folder, "tenants", "create", tenant_id, **made.settings)
    yield Keys(server=server, link=made.link, url=url, tenant_id="acme", secret=made.new()[1], folder=folder)


class Samples:
    """What `/metrics` said at one moment."""

    def __init__(self, text: str) -> None:
        families = list(text_string_to_metric_families(text))
        self._names = tuple(family.name for family in families)
        self._samples = [each for family in families for each in family.samples]

    def total(self, name: str, **labels: str) -> float:
        """Return the sum over all samples of this name that have these labels; of none, 0."""
        assert name.startswith(self._names), f"there is no metric {name}"
        found = [each for each in self._samples if each.name == name and labels.items() <= each.labels.items()]
        return sum(each.value for each in found)


@dataclass(kw_only=True)
class Stage:
    """Everything that a fault may touch. `asides` are requests that no clients of now have made: the fault has."""

    cluster: LinkedCluster
    keys: Keys
    topic: str
    partitions: int
    folder: Path
    random: random.Random
    settings: dict[str, str]
    note: str
    asides: list[Request] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    _names: Iterator[int] = field(default_factory=count)
    _ends: ExitStack = field(default_factory=ExitStack)
    _service: Service | None = None

    def __enter__(self) -> Self:
        self._journal = self._ends.enter_context(Journal(self.folder / "asides.jsonl"))
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    @property
    def service(self) -> Service:
        assert self._service is not None, "the service has not been started"
        return self._service

    @property
    def load(self) -> Load:
        """The clients who are there from the start."""
        return self.loads[0]

    def start_service(self) -> None:
        self._service = Service(self.folder, self.settings)
        self._ends.callback(self._end_service)

    def start_load(self, *, secret: str | None = None, tenant_id: str | None = None, **plan: Any) -> Load:
        """Put clients to work; `plan` as in `Plan`."""
        name = f"c{next(self._names)}"
        load = Load(
            self.folder,
            Plan(
                url=self.service.url,
                journal=str(self.folder / f"{name}.jsonl"),
                tenant_id=tenant_id or self.keys.tenant_id,
                key=secret or self.keys.secret,
                name=name,
                note=self.note,
                **plan,
            ),
        )
        self.loads.append(load)
        self._ends.callback(load.kill)
        return load

    def leader(self) -> int:
        """Return a node that leads a partition and is not the active controller.

        With the controller another one is elected first, which takes Kafka up to three seconds more.
        """
        leaders = {self.cluster.leader_of(self.topic, n) for n in range(self.partitions)} - {None}
        others = sorted(node for node in leaders - {self.cluster.controller()} if node is not None)
        return self.random.choice(others)

    def led_by(self, node: int) -> list[int]:
        """Return the partitions that this node leads."""
        return [n for n in range(self.partitions) if self.cluster.leader_of(self.topic, n) == node]

    def wait(self, seconds: float) -> None:
        """Let the clients work for so long, by the clock: this is how long the fault lasts."""
        time.sleep(seconds)

    def until(self, condition: Callable[[], Any], *, within_s: float = 30.0) -> Any:
        return until(condition, within_s=within_s)

    def post(self, secret: str, *, tenant_id: str | None = None, **event: Any) -> tuple[int, str, float]:
        """Send an event aside from the clients; return status, code and seconds."""
        properties = {"n": next(self._names), **event.pop("properties", {})}
        fields = {"event_type": "aside", "timestamp": "2026-11-23T10:00:00Z", "properties": properties, **event}
        payload = json.dumps(fields).encode()
        attempt, request = self.sent_aside(payload, tenant_id)
        began = time.monotonic()
        answer = self.service.post(secret, payload)
        seconds = time.monotonic() - began
        self._journal.answered(attempt, answer.status_code, answer.content)
        request.status, request.answered_ms = answer.status_code, now_ms()
        request.outcomes[answer.status_code] += 1
        return answer.status_code, answer.json().get("error", {}).get("code", ""), seconds

    def sent_aside(self, payload: bytes, tenant_id: str | None = None) -> tuple[str, Request]:
        """Write down that this is about to be sent, aside from the clients."""
        request = Request("aside-aside", now_ms(), events=1)
        self.asides.append(request)
        return self._journal.sent([payload], tenant_id=tenant_id or self.keys.tenant_id), request

    def let_go(self) -> None:
        """End the first clients, whose journal counts no more: what they have stored is deleted on purpose."""
        load = self.loads.pop(0)
        load.end()
        self.asides += load.requests

    @property
    def requests(self) -> list[Request]:
        """Return the requests of all clients."""
        return [request for load in self.loads for request in load.requests]

    @property
    def journals(self) -> list[Path]:
        return [self._journal.path, *(load.journal for load in self.loads)]

    def metrics(self) -> "Samples":
        """Return what the service has counted and measured."""
        return Samples(self.service.get("/metrics").text)

    def process(self) -> psutil.Process:
        return psutil.Process(self.service.process.pid)

    def logs(self) -> str:
        """Return everything that the service has written."""
        files = [self.folder / name for name in ("out.txt", "err.txt")]
        return "".join(file.read_text() for file in files if file.is_file())

    def _end_service(self) -> None:
        if self.service.process.poll() is None:
            self.service.process.send_signal(signal.SIGCONT)
            self.service.kill()
