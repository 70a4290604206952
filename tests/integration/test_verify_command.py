"""`cs-ingest verify` and `canary` against the real server as a process, over the embedded log and over Kafka."""

import json
import re
import signal
import socket
import sqlite3
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from customersignal_ingest.proof.journal import Journal
from tests.integration.servers.kafka import Kafka
from tests.integration.servers.service import CS_INGEST, PATIENCE_S, Service, done, environment, free_port, run, until

EVENT = {"event_type": "paid", "timestamp": "2026-11-23T10:00:00Z", "user_id": "u1", "properties": {"n": 1.0}}


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A service, a key to it, and the settings of whoever reads its store."""

    service: Service
    key: str
    settings: dict[str, str]

    @property
    def folder(self) -> Path:
        return self.service.folder

    def post(self, *numbers: int, journal: str = "journal") -> None:
        """Send an event for each number, and one that is wrong, and write everything down."""
        with Journal(self.folder / journal) as client:
            for payload in [*(json.dumps(EVENT | {"properties": {"n": n}}).encode() for n in numbers), b"{}"]:
                attempt = client.sent([payload], tenant_id="acme")
                answer = self.service.post(self.key, payload)
                client.answered(attempt, answer.status_code, answer.content)

    def verify(self, *arguments: str) -> tuple[int, list[str]]:
        """Return the exit code, and the kinds of all findings."""
        ended = run(self.folder, "verify", "journal", "--json", *arguments, **self.settings)
        assert not ended.stderr
        *findings, report = map(json.loads, ended.stdout.splitlines())
        assert report["clean"] == (not findings)
        return ended.returncode, [finding["kind"] for finding in findings]

    def canary(self, *options: str, **settings: str) -> "Canary":
        (self.folder / "canary.key").write_text(self.key)
        return Canary(self, options, self.settings | settings)


class Canary:
    """A running `cs-ingest canary` in quick rounds."""

    def __init__(self, system: System, options: tuple[str, ...], settings: dict[str, str]) -> None:
        self.port, self._system = free_port(), system
        command = [
            *("canary", "--url", system.service.url, "--tenant", "acme", "--key-file", "canary.key"),
            *(
                "--rate",
                "20",
                "--round",
                "1s",
                "--settle",
                "1s",
                "--metrics",
                f"127.0.0.1:{self.port}",
                "--json",
                *options,
            ),
        ]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [*CS_INGEST, *command], cwd=system.folder, env=environment(settings), stdout=pipe, stderr=pipe, text=True
        )

    def count(self, name: str, label: str = "") -> float:
        """Return what its metrics say; nothing while it does not serve them yet."""
        try:
            text = httpx.get(f"http://127.0.0.1:{self.port}/metrics", trust_env=False).text
        except httpx.TransportError:
            return 0.0
        [value] = re.findall(rf"^cs_ingest_canary_{name}{re.escape(label)} (\S+)$", text, re.M)
        return float(value)

    def answered(self, answer: str) -> float:
        return self.count("events_total", f'{{answer="{answer}"}}')

    def ended(self) -> tuple[int, list[dict[str, Any]]]:
        """Wait for its end; return its exit code and what it has logged."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        assert not err
        assert self._system.key not in out
        return self.process.returncode, [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[System]:
    """The service as `cs-ingest dev` runs it."""
    service = Service(tmp_path, {}, command="dev").ready()
    yield System(service=service, key=(tmp_path / "data/demo.key").read_text().strip(), settings={})
    service.kill()


@pytest.fixture
def over_kafka(kafka: Kafka, tmp_path: Path) -> Iterator[System]:
    """The service over a topic of its own with one partition."""
    topic = f"verify-{uuid.uuid4().hex[:12]}"
    settings = {"PUBLISHER_URL": kafka.url(topic)}
    stores = settings | {"KEYS_URL": "sqlite:///keys.db", "KEY_PEPPER": "a pepper for tests", "DRAIN_DELAY_S": "0"}
    kafka.create_topic(topic, partitions=1)
    done(tmp_path, "migrate", **stores)
    done(tmp_path, "tenants", "create", "acme", **stores)
    [made] = done(tmp_path, "keys", "create", "--tenant", "acme", **stores)
    with ExitStack() as stack:
        service = Service(tmp_path, stores)
        stack.callback(service.kill)
        yield System(service=service.ready(), key=made["secret"], settings=settings)
    kafka.delete_topic(topic)


def topic_of(system: System) -> str:
    return system.settings["PUBLISHER_URL"].partition("?")[0].rpartition("/")[2]


def test_a_journal_of_the_embedded_log_is_clean_after_kill_9_and_not_after_a_loss(embedded: System) -> None:
    embedded.post(*range(10))
    embedded.service.kill()

    assert embedded.verify("--only-journal") == (0, [])

    with sqlite3.connect(embedded.folder / "data/events.db") as log:
        log.execute("DELETE FROM log WHERE sequence = 5")
    log.close()
    assert embedded.verify("--only-journal") == (1, ["missing"])


def test_a_journal_of_kafka_is_clean_until_a_loss_and_a_duplicate_are_planted(over_kafka: System, kafka: Kafka) -> None:
    over_kafka.post(*range(10))
    assert over_kafka.verify("--only-journal") == (0, [])

    records = kafka.read(topic_of(over_kafka))
    kafka.write(records[3])
    with Journal(over_kafka.folder / "journal") as client:
        attempt = client.sent([json.dumps(EVENT).encode()], tenant_id="acme")
        lie = {"status": "accepted", "event_id": "never", "receipt": f"{records[0].topic}/0/999"}
        client.answered(attempt, 202, json.dumps(lie).encode())

    code, findings = over_kafka.verify()
    assert (code, sorted(findings)) == (1, ["missing", "stored_twice"])


def test_what_retention_has_taken_is_called_unreadable_unless_nobody_asks_for_it(
    over_kafka: System, kafka: Kafka
) -> None:
    over_kafka.post(*range(10))
    kafka.delete_before(topic_of(over_kafka), 0, 3)

    assert over_kafka.verify() == (1, ["unreadable"] * 3)
    assert over_kafka.verify("--since", "now") == (0, [])


def test_a_kafka_that_is_away_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "journal").touch()

    ended = run(tmp_path, "verify", "journal", PUBLISHER_URL="kafka://127.0.0.1:1/events_raw")

    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch(r"cs-ingest: no Kafka broker answered .+\n", ended.stderr)


def test_a_canary_outlives_a_service_that_is_killed_and_finds_nothing(embedded: System) -> None:
    canary = embedded.canary()
    until(lambda: canary.answered("accepted") > 10)
    embedded.service.kill()
    until(lambda: canary.answered("no_answer") > 5)
    embedded.service.start()
    embedded.service.ready()
    before = canary.count("verified_events_total")
    until(lambda: canary.count("verified_events_total") > before + 20)

    canary.process.send_signal(signal.SIGTERM)

    code, lines = canary.ended()
    [ended] = [line for line in lines if line["message"] == "ended"]
    assert code == 0
    assert ended["findings"] == ended["rounds.unverified"] == 0
    assert ended["verified"] == ended["accepted"] > 30
    assert list((embedded.folder / "canary").iterdir()) == []


def test_a_canary_that_looks_into_another_store_misses_its_events(embedded: System) -> None:
    """Its journals stay, and agree with the right store."""
    other = Service(embedded.folder / "data", {}, command="dev").ready()
    assert other.stop() == 0

    canary = embedded.canary("--for", "2s", PUBLISHER_URL="sqlite:///data/data/events.db")

    code, lines = canary.ended()
    findings = [line for line in lines if line["message"] == "finding"]
    assert code == 1
    assert {line["kind"] for line in findings} == {"missing"}
    assert len(findings) == sum(line["events.accepted"] for line in lines if line["message"] == "round")
    journals = [str(each) for each in (embedded.folder / "canary").iterdir()]
    assert run(embedded.folder, "verify", *journals).returncode == 0


def test_a_canary_over_kafka_finds_nothing(over_kafka: System) -> None:
    code, lines = over_kafka.canary("--for", "4s").ended()

    assert code == 0
    assert lines[-1]["verified"] == lines[-1]["accepted"] > 0


def test_a_canary_finds_a_duplicate_in_kafka(over_kafka: System, kafka: Kafka) -> None:
    canary = over_kafka.canary("--settle", "5s")
    records = until(lambda: kafka.read(topic_of(over_kafka)))
    kafka.write(records[0])
    until(lambda: canary.count("findings_total", '{kind="stored_twice"}'))

    canary.process.terminate()

    code, lines = canary.ended()
    assert code == 1
    assert [line["kind"] for line in lines if line["message"] == "finding"] == ["stored_twice"]


def test_a_canary_whose_metrics_have_no_port_does_not_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = ("canary", "--url", "http://127.0.0.1:1", "--tenant", "acme", "--metrics", address)
        (tmp_path / "key").write_text("cs_live_any")
        ended = run(tmp_path, *command, "--key-file", "key", PUBLISHER_URL="sqlite:///events.db")

    assert ended.returncode == 1
    assert ended.stderr == f"cs-ingest: metrics can't be served at {address}: Address already in use\n"


def test_a_canary_without_an_accepted_event_has_verified_nothing(embedded: System) -> None:
    (embedded.folder / "wrong.key").write_text("cs_live_wrong")

    ended = run(
        embedded.folder,
        *("canary", "--url", embedded.service.url, "--tenant", "acme", "--key-file", "wrong.key"),
        *("--for", "1s", "--settle", "1s", "--textfile", "canary.prom", "--json"),
    )

    assert ended.returncode == 1
    assert ended.stderr == "cs-ingest: nothing was accepted, so nothing was verified\n"
    assert '"401 API_KEY_INVALID"' in ended.stdout
    assert 'answer="refused"} 1.0' in (embedded.folder / "canary.prom").read_text()
