"""The service as a process of its own, its command line, and clients that keep it busy."""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

from customersignal_ingest.domain.event import IngestEvent, StoredRecord, encode
from customersignal_ingest.domain.key import Tenant
from customersignal_ingest.domain.rules import Limits, parse_event
from tests.leaks import also_secret, watch
from tests.unit.law import Attempt, Draft, Row, about_ids, about_the_answer, about_the_log

CS_INGEST = [sys.executable, "-m", "customersignal_ingest"]
PATIENCE_S = 30.0

T = TypeVar("T")
Variables = dict[str, str]


def until(condition: Callable[[], T], *, within_s: float = PATIENCE_S) -> T:
    """Return what the condition returns, once that is true: other processes are asked, not waited for."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {within_s:g} s"
        time.sleep(0.05)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(variables: Variables) -> Variables:
    """Return this process's environment with these settings, named without their prefix, and no others."""
    # Byte code is kept, whatever this machine's habit: the tests start some seventy processes.
    left_out = ("CS_INGEST_", "COV_", "PYTHONDONTWRITEBYTECODE")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return clean | {f"CS_INGEST_{name}": value for name, value in variables.items()}


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, whatever that is."""
    ended = subprocess.run(
        [*CS_INGEST, *arguments],
        cwd=folder,
        env=environment(variables),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    watch(f"standard error of {arguments[0]}", lambda: ended.stderr)
    return ended


def done(folder: Path, *arguments: str, **variables: str) -> list[dict[str, Any]]:
    """Run a command that must succeed, and return the objects that it prints with `--json`."""
    finished = run(folder, *arguments, "--json", **variables)
    assert finished.returncode == 0, finished.stderr
    return [json.loads(line) for line in finished.stdout.splitlines()]


def expected(payload: bytes, *, tenant: Tenant, event_id: str, received_at: str) -> bytes:
    """Return the bytes that must be stored for an event that was answered so."""
    event = parse_event(
        payload,
        tenant=tenant,
        received_at=datetime.fromisoformat(received_at),
        new_id=lambda _: event_id,
        limits=Limits(),
    )
    assert isinstance(event, IngestEvent)
    return encode(event).value


@dataclass
class Service:
    """A running `cs-ingest`, and a way to talk to it. `variables` are settings without their prefix.

    `before` is put before the command: what starts it, in the same process.
    """

    folder: Path
    variables: Variables
    port: int = field(default_factory=free_port)
    command: str = "serve"
    stdout: int | None = None
    before: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.url = f"http://127.0.0.1:{self.port}"
        self._watch_output()
        self.start()

    def start(self) -> None:
        variables = {"LISTEN": f"127.0.0.1:{self.port}", **self.variables}
        with (self.folder / "out.txt").open("ab") as out, (self.folder / "err.txt").open("ab") as err:
            command = [*self.before, *CS_INGEST, self.command]
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=environment(variables), stdout=self.stdout or out, stderr=err
            )

    def ask(self, path: str) -> tuple[int | None, dict[str, Any]]:
        """Return status and body of a GET; no status where nobody answers."""
        try:
            answer = self.get(path)
        except httpx.TransportError:
            return None, {}
        return answer.status_code, answer.json()

    def get(self, path: str) -> httpx.Response:
        with _client() as client:
            return client.get(self.url + path)

    def status(self, path: str) -> int | None:
        return self.ask(path)[0]

    def readiness(self) -> tuple[int | None, dict[str, str]]:
        """Return the status of the health route, and what speaks against being ready, by component."""
        status, body = self.ask("/health/ready")
        components = body.get("components", {})
        return status, {name: state["reason"] for name, state in components.items() if state.get("reason")}

    def live(self) -> Self:
        return self._says(200, "/health/live")

    def ready(self) -> Self:
        return self._says(200, "/health/ready")

    def post(self, key: str, payload: bytes, path: str = "/v1/events", **headers: str) -> httpx.Response:
        also_secret(key)
        sent = {"X-CS-API-Key": key, "Content-Type": "application/json", **headers}
        with _client() as client:
            return client.post(self.url + path, content=payload, headers=sent)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def end(self) -> None:
        """Have all that it said searched for secrets, its metrics too, and kill it: for after a test."""
        self._watch_output()
        if self.process.poll() is None:
            with suppress(httpx.TransportError):
                metrics = self.get("/metrics").text
                watch("the service's metrics", lambda: metrics)
            self.kill()

    def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE_S)

    def _watch_output(self) -> None:
        for name in ("out.txt", "err.txt"):
            watch(f"the service's {name}", partial(_text_of, self.folder / name))

    def _says(self, status: int, path: str) -> Self:
        until(lambda: self.process.poll() is not None or self.status(path) == status)
        assert self.process.poll() is None, (self.folder / "err.txt").read_text()
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of one request. `status` is 0 where no answer came; `code` says more of it."""

    attempt: Attempt
    status: int
    code: str
    answered_s: float
    seconds: float


class Load:
    """Clients who send one event after the other on connections that they keep, and never send one again.

    Each is one user, so its events share a partition. Ends with the block.
    """

    def __init__(self, service: Service, key: str, tenant: Tenant, *, clients: int = 6, pause_s: float = 0.02) -> None:
        self._address = ("127.0.0.1", service.port)
        self._key, self._tenant, self._pause_s = key, tenant, pause_s
        self._over = threading.Event()
        self._answers: list[list[Answer]] = [[] for _ in range(clients)]
        self._threads = [threading.Thread(target=self._be_a_client, args=(n,)) for n in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Let every client have its last answer."""
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        assert not any(thread.is_alive() for thread in self._threads)

    @property
    def answers(self) -> list[Answer]:
        return [answer for answers in self._answers for answer in answers]

    @property
    def tally(self) -> Counter[int]:
        """How many answers of each status."""
        return Counter(answer.status for answer in self.answers)

    def accepted(self, *, since_s: float = 0.0) -> list[Answer]:
        """Return what was accepted since that moment."""
        return [answer for answer in self.answers if answer.status == 202 and answer.answered_s >= since_s]

    def gap_s(self) -> float:
        """Return the longest time that any client was without a 202, once it had its first."""
        moments = [[answer.answered_s for answer in answers if answer.status == 202] for answers in self._answers]
        return max(later - earlier for each in moments for earlier, later in pairwise(each))

    def complaints(self, stored: Sequence[StoredRecord]) -> list[str]:
        """Return whatever the answers say that is not so: see `tests.unit.law`."""
        attempts = [answer.attempt for answer in self.answers]
        answered = [attempt for attempt in attempts if attempt.row is not None]
        rows = [attempt.row for attempt in answered if attempt.row is not None]
        return [*about_the_answer(answered, rows, stored), *about_the_log(attempts, stored), *about_ids(attempts)]

    def _be_a_client(self, number: int) -> None:
        with ExitStack() as stack:
            connection = http.client.HTTPConnection(*self._address, timeout=PATIENCE_S)
            stack.callback(connection.close)
            for attempt in self._attempts(number):
                self._answers[number].append(self._answered(connection, attempt))
                self._over.wait(self._pause_s)

    def _attempts(self, client: int) -> Iterator[Attempt]:
        number = 0
        while not self._over.is_set():
            number += 1
            draft = Draft(user_id=f"u{client}", properties=f'{{"n":{number}.0}}')
            yield Attempt(tenant=self._tenant, mark=f"c{client}.{number}", draft=draft, began=time.monotonic_ns())

    def _answered(self, connection: http.client.HTTPConnection, attempt: Attempt) -> Answer:
        headers = {"X-CS-API-Key": self._key, "Content-Type": "application/json"}
        try:
            connection.request("POST", "/v1/events", attempt.draft.payload(attempt.mark), headers)
            response = connection.getresponse()
            status, body = response.status, json.loads(response.read())
            attempt.row = _row(status, body)
        except ConnectionRefusedError:
            connection.close()
            status, attempt.row = 0, Row(status="not_stored", code="nobody listens")
        except (OSError, http.client.HTTPException):  # It may have been read, and may have been stored.
            connection.close()
            status, attempt.row = 0, None
        attempt.answered = time.monotonic_ns()
        return Answer(
            attempt=attempt,
            status=status,
            code=(attempt.row and attempt.row.code) or "",
            answered_s=attempt.answered / 1e9,
            seconds=(attempt.answered - attempt.began) / 1e9,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the health routes said at one moment."""

    at_s: float
    live: int | None
    ready: int | None
    reasons: dict[str, str]


class Watch:
    """Looks at the health of a service again and again, while the block runs."""

    def __init__(self, service: Service, *, interval_s: float = 0.2) -> None:
        self._service, self._interval_s = service, interval_s
        self.looks: list[Look] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(PATIENCE_S)

    def lies(self, *, well_until_s: float, well_from_s: float) -> list[Look]:
        """Return the looks at which the process was not live, not ready though all was well, or gave no reason."""
        return [
            look
            for look in self.looks
            if look.live != 200
            or (look.ready != 200 and not look.reasons)
            or (look.ready != 200 and not well_until_s < look.at_s < well_from_s)
        ]

    def _watch(self) -> None:
        while not self._over.wait(self._interval_s):
            at_s = time.monotonic()
            ready, reasons = self._service.readiness()
            self.looks.append(Look(at_s=at_s, live=self._service.status("/health/live"), ready=ready, reasons=reasons))


def _text_of(file: Path) -> str:
    return file.read_text() if file.is_file() else ""  # A test may have put a pipe there.


def _client() -> httpx.Client:
    """Return a client on a connection of its own; to read the certificates, which we don't need, takes longest."""
    return httpx.Client(verify=False, trust_env=False, timeout=PATIENCE_S)


def _row(status: int, body: dict[str, Any]) -> Row:
    if status == 202:
        return Row(status="accepted", event_id=body["event_id"], receipt=body["receipt"])
    code = body["error"]["code"]
    return Row(status="unknown" if status in (500, 504) else "not_stored" if status == 503 else "rejected", code=code)
