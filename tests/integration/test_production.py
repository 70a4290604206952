"""The service as it runs in production: a process over three Kafka brokers and PostgreSQL, set up by its commands."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from customersignal_ingest.domain.event import StoredRecord
from customersignal_ingest.domain.key import Tenant
from customersignal_ingest.testing.planted import MARK, PEPPER
from tests.integration.servers.kafka import Cluster, Kafka
from tests.integration.servers.postgres import Postgres, Server
from tests.integration.servers.service import Load, Service, Watch, done, expected, run, until

ACME = Tenant(tenant_id="acme", environment="live")
UMBRELLA = Tenant(tenant_id="umbrella", environment="live")
SESSION_TIMEOUT_S = 6.0
PUBLISH_TIMEOUT_S = 10.0
BUSY = 30  # So many events are accepted before anything is broken.

USER = f"u1-{MARK}"
EVENT = (
    b'{"event_type":"paid","timestamp":"2026-11-23T10:00:00+01:00","user_id":"%b","extra":1e2,' % USER.encode()
    + b'"properties":%s}'
)
PROPERTIES = (b'{"n":1.0,"digits":12345678901234567890.10,"s":"\\u00e9 \xc3\xa9"}', b"{}", b'{"deep":[[{"a":null}]]}')


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """A key database, and a key of each of two tenants in it."""

    folder: Path
    settings: dict[str, str]
    acme: str
    umbrella: str

    def new(self, tenant_id: str) -> tuple[str, str]:
        """Make a key; return its id and the key itself."""
        [made] = done(self.folder, "keys", "create", "--tenant", tenant_id, **self.settings)
        return made["key_id"], made["secret"]


@pytest.fixture(scope="module")
def keys(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("operator")
    settings = {"KEYS_URL": postgres.new_database(), "KEY_PEPPER": PEPPER}
    done(folder, "migrate", **settings)
    keys = Keys(folder=folder, settings=settings, acme="", umbrella="")
    for tenant in (ACME, UMBRELLA):
        done(folder, "tenants", "create", tenant.tenant_id, **settings)
    return Keys(folder=folder, settings=settings, acme=keys.new("acme")[1], umbrella=keys.new("umbrella")[1])


@pytest.fixture
def no_topic(kafka: Kafka) -> Iterator[str]:
    """The name of a topic that is not there yet."""
    name = f"production-{uuid.uuid4().hex[:12]}"
    yield name
    with suppress(Exception):
        kafka.delete_topic(name)


@pytest.fixture
def topic(kafka: Kafka, no_topic: str, tmp_path: Path) -> str:
    """A topic made by our own command."""
    done(tmp_path, "topic", "create", "--partitions", "3", PUBLISHER_URL=kafka.url(no_topic))
    until(lambda: None not in [kafka.leader_of(no_topic, n) for n in range(3)])
    return no_topic


@pytest.fixture
def serve(keys: Keys, kafka: Kafka, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Start the service on a topic; further settings by name."""
    with ExitStack() as stack:

        def start(topic: str, **settings: str) -> Service:
            times = {"PUBLISH_TIMEOUT_S": str(PUBLISH_TIMEOUT_S), "DRAIN_DELAY_S": "0"}
            service = Service(tmp_path, keys.settings | times | {"PUBLISHER_URL": kafka.url(topic)} | settings)
            stack.callback(service.end)
            return service

        yield start


def at(receipt: str, stored: list[StoredRecord]) -> StoredRecord:
    [record] = [each for each in stored if each.receipt == receipt]
    return record


def test_an_accepted_event_is_what_a_consumer_reads_at_its_receipt(
    serve: Callable[..., Service], kafka: Kafka, topic: str, keys: Keys
) -> None:
    service = serve(topic).ready()
    payloads = [EVENT % properties for properties in PROPERTIES]

    answers = [service.post(keys.acme, payload) for payload in payloads]

    stored = kafka.read(topic)
    assert [answer.status_code for answer in answers] == [202] * len(payloads)
    assert len(stored) == len(payloads)
    for payload, answer in zip(payloads, (each.json() for each in answers), strict=True):
        wanted = expected(payload, tenant=ACME, event_id=answer["event_id"], received_at=answer["received_at"])
        assert at(answer["receipt"], stored).value == wanted


def test_every_event_of_an_accepted_batch_is_what_a_consumer_reads_at_its_receipt(
    serve: Callable[..., Service], kafka: Kafka, topic: str, keys: Keys
) -> None:
    service = serve(topic).ready()
    payloads = [(EVENT % properties).replace(b"u1", b"u%d" % n) for n in range(20) for properties in PROPERTIES]
    body = b'{"events":[%s]}' % b",".join(payloads)

    answer = service.post(keys.umbrella, body, "/v1/events/batch", Prefer="return=representation")

    stored = kafka.read(topic)
    assert answer.status_code == 202
    assert len(stored) == len(payloads)
    for payload, result in zip(payloads, answer.json()["results"], strict=True):
        record = at(result["receipt"], stored)
        received_at = json.loads(record.value)["received_at"]
        wanted = expected(payload, tenant=UMBRELLA, event_id=result["event_id"], received_at=received_at)
        assert record.value == wanted


def test_a_killed_leader_costs_a_pause_and_no_accepted_event(
    serve: Callable[..., Service], cluster: Cluster, topic: str, keys: Keys
) -> None:
    service = serve(topic).ready()
    # Not the active controller: a new one is elected first, which takes Kafka up to three seconds more.
    leaders = {cluster.leader_of(topic, partition): partition for partition in range(3)}
    leader, partition = next((node, at) for node, at in leaders.items() if node and node != cluster.controller())
    with Load(service, keys.acme, ACME) as load, Watch(service) as watch:
        until(lambda: len(load.accepted()) > BUSY)
        killed_s = time.monotonic()
        cluster.kill(leader)
        until(lambda: cluster.leader_of(topic, partition) not in (None, leader))
        led_s = time.monotonic()
        until(lambda: len(load.accepted(since_s=led_s + 2)) > BUSY)

    cluster.heal()
    assert load.complaints(cluster.read(topic)) == []
    assert load.gap_s() <= SESSION_TIMEOUT_S + 3
    assert load.tally.keys() <= {202, 503, 504}
    assert watch.lies(well_until_s=killed_s, well_from_s=led_s + 3) == []


@pytest.mark.parametrize("broken", ["kill", "freeze"])
def test_known_keys_work_while_postgres_is_broken_and_others_are_told_to_wait(
    broken: str, serve: Callable[..., Service], topic: str, keys: Keys, kafka: Kafka, postgres_to_break: Server
) -> None:
    # A key is looked up again after a second: the database is needed, and its loss is felt.
    service = serve(topic, KEYS_TTL_S="1").ready()
    with Load(service, keys.acme, ACME) as load:
        until(lambda: len(load.accepted()) > BUSY)
        getattr(postgres_to_break, broken)()
        broken_s = time.monotonic()
        unknown = [timed(lambda n=n: service.post(f"cs_live_unknown{n}", EVENT % b"{}")) for n in range(4)]  # type: ignore[misc]  # a default binds it
        until(lambda: len(load.accepted(since_s=broken_s + 2)) > BUSY)

    assert [(answer.status_code, answer.json()["error"]["code"]) for _, answer in unknown] == [
        (503, "KEYS_UNAVAILABLE")
    ] * len(unknown)
    assert max(seconds for seconds, _ in unknown) < 1.5
    assert load.tally.keys() == {202}
    assert load.complaints(kafka.read(topic)) == []


def test_after_postgres_is_back_new_keys_work_and_unknown_ones_are_bad(
    serve: Callable[..., Service], topic: str, keys: Keys, postgres_to_break: Server
) -> None:
    service = serve(topic).ready()
    postgres_to_break.kill()
    assert service.post("cs_live_unknown", EVENT % b"{}").status_code == 503

    postgres_to_break.start()

    until(lambda: service.post("cs_live_unknown", EVENT % b"{}").status_code == 401, within_s=5)
    assert service.post(keys.new("acme")[1], EVENT % b"{}").status_code == 202


def timed(call: Callable[[], httpx.Response]) -> tuple[float, httpx.Response]:
    began = time.monotonic()
    answer = call()
    return time.monotonic() - began, answer


def test_a_key_revoked_by_the_command_is_refused_within_two_seconds(
    serve: Callable[..., Service], topic: str, keys: Keys, tmp_path: Path
) -> None:
    service = serve(topic, KEYS_TTL_S="300").ready()
    key_id, key = keys.new("acme")
    assert service.post(key, EVENT % b"{}").status_code == 202

    done(tmp_path, "keys", "revoke", key_id, **keys.settings)

    answer = until(lambda: refused(service.post(key, EVENT % b"{}")), within_s=2)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "API_KEY_REVOKED")


def refused(answer: httpx.Response) -> httpx.Response | None:
    return None if answer.status_code == 202 else answer


def test_sigterm_under_load_loses_nothing_and_fails_nothing(
    serve: Callable[..., Service], kafka: Kafka, topic: str, keys: Keys
) -> None:
    service = serve(topic, DRAIN_DELAY_S="1").ready()
    with Load(service, keys.acme, ACME) as load:
        until(lambda: len(load.accepted()) > BUSY)
        asked_s = time.monotonic()
        service.process.terminate()
        until(lambda: service.status("/health/ready") == 503)
        told_s = time.monotonic()
        code = service.process.wait(1 + PUBLISH_TIMEOUT_S + 5)

    assert code == 0
    assert load.accepted(since_s=told_s)  # Not ready, and still serving: a load balancer needs its time.
    assert load.tally.keys() == {202, 0}
    assert load.complaints(kafka.read(topic)) == []
    assert all(answer.answered_s > asked_s + 1 for answer in load.answers if answer.status == 0)


def test_sigterm_with_kafka_frozen_ends_in_time_with_true_answers(
    serve: Callable[..., Service], cluster: Cluster, topic: str, keys: Keys
) -> None:
    service = serve(topic, DRAIN_DELAY_S="1", PUBLISH_TIMEOUT_S="4").ready()
    with Load(service, keys.acme, ACME) as load:
        until(lambda: len(load.accepted()) > BUSY)
        cluster.freeze()
        service.process.terminate()
        code = service.process.wait(1 + 4 + 5)

    cluster.heal()
    assert code == 0
    assert load.tally.keys() <= {202, 503, 504, 0}
    assert load.tally[504] > 0
    assert load.complaints(cluster.read(topic)) == []


def test_a_service_without_a_topic_says_so_at_once_and_is_ready_once_there_is_one(
    serve: Callable[..., Service], kafka: Kafka, no_topic: str, keys: Keys, tmp_path: Path
) -> None:
    service = serve(no_topic).live()
    status, reasons = until(lambda: why(service, "is missing"))
    seconds, answer = timed(lambda: service.post(keys.acme, EVENT % b"{}"))

    done(tmp_path, "topic", "create", PUBLISHER_URL=kafka.url(no_topic))

    until(lambda: service.status("/health/ready") == 200, within_s=10)
    assert status == 503
    assert reasons["publisher"] == f"the topic {no_topic} is missing"
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "NOT_STORED")
    assert seconds < 1
    assert service.post(keys.acme, EVENT % b"{}").status_code == 202


def why(service: Service, word: str) -> tuple[int | None, dict[str, str]] | None:
    """Return the readiness once its reason has this word."""
    status, reasons = service.readiness()
    return (status, reasons) if word in str(reasons) else None


def test_an_unsafe_topic_is_named_and_gets_nothing(
    serve: Callable[..., Service], cluster: Cluster, no_topic: str, keys: Keys, tmp_path: Path
) -> None:
    cluster.create_topic(no_topic, min_insync_replicas=1)
    service = serve(no_topic).live()
    name = f"{no_topic}: min.insync.replicas is 1, needs 2"

    status, reasons = until(lambda: why(service, name))
    answer = service.post(keys.acme, EVENT % b"{}")
    check = run(tmp_path, "topic", "check", PUBLISHER_URL=cluster.url(no_topic))

    assert status == 503
    assert name in reasons["publisher"]
    assert answer.status_code == 503
    assert cluster.read(no_topic) == []
    assert check.returncode == 1
    assert name in check.stdout


def test_the_topic_that_our_command_makes_is_safe(topic: str, kafka: Kafka, tmp_path: Path) -> None:
    [said] = done(tmp_path, "topic", "check", PUBLISHER_URL=kafka.url(topic))

    assert said == {"safe": True, "problems": []}


def test_tail_prints_what_is_stored_by_tenant_and_by_time(
    serve: Callable[..., Service], kafka: Kafka, topic: str, keys: Keys, tmp_path: Path
) -> None:
    service = serve(topic).ready()
    first, second, third = (service.post(key, EVENT % b"{}").json() for key in (keys.acme, keys.umbrella, keys.acme))
    url = {"PUBLISHER_URL": kafka.url(topic)}

    def receipts(*options: str) -> set[str]:
        return {line["receipt"] for line in done(tmp_path, "tail", *options, **url)}

    assert receipts() == {first["receipt"], second["receipt"], third["receipt"]}
    assert receipts("--tenant", "umbrella") == {second["receipt"]}
    assert receipts("--since", third["received_at"]) == {third["receipt"]}


def test_tail_prints_the_record_as_it_is(
    serve: Callable[..., Service], kafka: Kafka, topic: str, keys: Keys, tmp_path: Path
) -> None:
    receipt = serve(topic).ready().post(keys.acme, EVENT % PROPERTIES[0]).json()["receipt"]

    line = run(tmp_path, "tail", "--json", PUBLISHER_URL=kafka.url(topic)).stdout

    record = at(receipt, kafka.read(topic))
    assert line.rstrip().endswith(f'"value":{record.value.decode()}}}')
    assert json.loads(line)["key"] == f"acme:{USER}"


def test_two_workers_serve_one_port_and_end_together(
    serve: Callable[..., Service], kafka: Kafka, topic: str, keys: Keys
) -> None:
    service = serve(topic, WORKERS="2").ready()
    workers = until(lambda: two_ready(service))
    with Load(service, keys.acme, ACME) as load:
        until(lambda: len(load.accepted()) > BUSY)

    service.process.terminate()

    assert service.process.wait(PUBLISH_TIMEOUT_S + 7) == 0
    assert psutil.wait_procs(workers, timeout=1)[1] == []
    assert load.tally.keys() == {202}
    assert load.complaints(kafka.read(topic)) == []


def two_ready(service: Service) -> list[psutil.Process]:
    """Return the workers once both say, through either of them, that they are ready."""
    text = service.get("/metrics").text
    both = all(f'cs_ingest_ready{{worker="{number}"}} 1.0' in text for number in (1, 2))
    return psutil.Process(service.process.pid).children() if both else []
