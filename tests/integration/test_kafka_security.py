"""TLS, SASL and access rules on a real broker: who is right is served, who is wrong is told why and stores nothing."""

import asyncio
import json
import re
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AclOperation

from customersignal_ingest.adapters.outbound.kafka import KafkaPublisher, check_topic, open_reader
from customersignal_ingest.adapters.outbound.kafka.librdkafka.client import _settings
from customersignal_ingest.adapters.outbound.kafka.options import read_options
from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.key import Tenant
from customersignal_ingest.domain.outcome import NotStored, Stored
from customersignal_ingest.registry import AdapterSettings
from tests.integration.servers import kafka as kafka_server
from tests.integration.servers import secured_kafka
from tests.integration.servers.secured_kafka import PASSWORD, SESSION_S, USER, SecuredKafka
from tests.integration.servers.service import Load, Service, done, run, until
from tests.integration.test_kafka_faults import a_record, one, opened, until_stored

pytestmark = pytest.mark.anyio

SCHEMES = ("kafka", "kafka+librdkafka")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
WRONG_PASSWORD = "hush-%42-hush"
ANSWER_MAX_S = 6.0
TENANT = Tenant(tenant_id="acme", environment="live")


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to come in: a door, under which name, and with which settings. `told` is what who is wrong must read."""

    door: str
    secrets: Mapping[str, str] = field(default_factory=dict)
    host: str = "localhost"
    told: str = ""

    def url(self, scheme: str, kafka: SecuredKafka, topic: str) -> str:
        port = kafka.bootstrap.rpartition(":")[2] if self.door == "PLAINTEXT" else kafka.door(self.door)
        return f"{scheme}://{self.host}:{port}/{topic}?replication_min=1&insync_min=1"

    def settings(self, kafka: SecuredKafka) -> AdapterSettings:
        """Fill in the files: `authority` and `stranger` name whom to trust, or who has signed our certificate."""
        secrets = {f"kafka_{name}": value for name, value in self.secrets.items()}
        authorities = {"authority": kafka.authority, "stranger": kafka.stranger}
        if trusted := secrets.get("kafka_ssl_cafile"):
            secrets["kafka_ssl_cafile"] = str(authorities[trusted].cafile)
        if signer := secrets.get("kafka_ssl_certfile"):
            files = authorities[signer].certificate("ada")
            secrets["kafka_ssl_certfile"], secrets["kafka_ssl_keyfile"] = map(str, files)
        return AdapterSettings(publish_timeout_s=3.0, instance="test", secrets=secrets)


def tls(*, trusts: str = "authority", **more: str) -> dict[str, str]:
    return {"security_protocol": "SSL", "ssl_cafile": trusts, **more}


def sasl(protocol: str, mechanism: str, *, username: str = USER, password: str = PASSWORD) -> dict[str, str]:
    secrets = {"sasl_mechanism": mechanism, "sasl_username": username, "sasl_password": password}
    return tls() | secrets | {"security_protocol": protocol}


RIGHT = {
    "TLS": Way(door="SSL", secrets=tls()),
    "mutual TLS": Way(door="MUTUAL_TLS", secrets=tls(ssl_certfile="authority")),
    **{
        f"{mechanism} over {protocol}": Way(door=protocol, secrets=sasl(protocol, mechanism))
        for protocol in ("SASL_PLAINTEXT", "SASL_SSL")
        for mechanism in MECHANISMS
    },
}

UNKNOWN_CA = Way(door="SSL", secrets=tls(trusts="stranger"), told="SSLCertVerificationError.*issuer")
WRONG_NAME = Way(door="SSL", secrets=tls(), host="127.0.0.1", told="SSLCertVerificationError.*'127.0.0.1'")
WRONG_LOG_IN = Way(
    door="SASL_SSL",
    secrets=sasl("SASL_SSL", "SCRAM-SHA-512", password=WRONG_PASSWORD),
    told="SaslAuthenticationFailed",
)
WRONG = {
    "a certificate of an unknown authority": UNKNOWN_CA,
    "a certificate for another name": WRONG_NAME,
    "a wrong password, by SCRAM": WRONG_LOG_IN,
    "a wrong password, by PLAIN": Way(
        door="SASL_PLAINTEXT",
        secrets=sasl("SASL_PLAINTEXT", "PLAIN", password=WRONG_PASSWORD),
        told="SaslAuthenticationFailed",
    ),
    "an unknown user": Way(
        door="SASL_SSL",
        secrets=sasl("SASL_SSL", "SCRAM-SHA-256", username="eve"),
        told="SaslAuthenticationFailed",
    ),
    "a mechanism that is not offered": Way(
        door="SHORT_SESSIONS", secrets=sasl("SASL_SSL", "PLAIN"), told="UnsupportedSaslMechanism"
    ),
    "no TLS where it is wanted": Way(door="SSL", told="wants TLS"),
    "SASL without TLS where it is wanted": Way(
        door="SASL_SSL", secrets=sasl("SASL_PLAINTEXT", "PLAIN"), told="wants TLS"
    ),
    "no SASL where it is wanted": Way(door="SASL_PLAINTEXT", told="KafkaConnectionError"),
    "TLS where there is none": Way(door="PLAINTEXT", secrets=tls(), told="ConnectionResetError|SSLError"),
    "SASL where there is none": Way(door="PLAINTEXT", secrets=sasl("SASL_PLAINTEXT", "PLAIN"), told="IllegalSaslState"),
    "no certificate where one is wanted": Way(door="MUTUAL_TLS", secrets=tls(), told="SSLError.*CERTIFICATE"),
    "a certificate signed by a stranger": Way(
        door="MUTUAL_TLS", secrets=tls(ssl_certfile="stranger"), told="SSLError.*CERTIFICATE"
    ),
}


@pytest.fixture(scope="session")
def secured() -> Iterator[SecuredKafka]:
    """A Kafka with TLS, SASL and access rules; skips where there is none, and fails there with `CI=true`."""
    try:
        with secured_kafka.running() as kafka:
            yield kafka
    except kafka_server.Missing as error:
        pytest.skip(str(error))


@pytest.fixture
def topic(secured: SecuredKafka) -> str:
    name = f"secured-{uuid.uuid4().hex[:12]}"
    secured.create_topic(name)
    return name


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("way", RIGHT.values(), ids=RIGHT)
async def test_who_is_right_is_ready_and_stores_what_another_client_reads(
    secured: SecuredKafka, topic: str, scheme: str, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    sent = a_record("right")

    async with opened(way.url(scheme, secured, topic), way.settings(secured)) as publisher:
        await publisher.ping()
        outcome = await one(publisher, sent)

    [found] = secured.read(topic)
    assert outcome == Stored(topic, found.partition, found.offset)
    assert (found.key, found.value) == (sent.key, sent.value)
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_who_is_right_reads_the_topic_back_and_can_check_it(
    secured: SecuredKafka, topic: str, scheme: str
) -> None:
    async with opened(secured.url(topic)) as publisher:
        await one(publisher, a_record("another client's"))

    async def looked(way: Way) -> tuple[list[str], list[bytes]]:
        url, settings = way.url(scheme, secured, topic), way.settings(secured)
        keys = [record.key async for record in open_reader(url, settings=settings).read()]
        return await check_topic(url, settings=settings), keys

    seen = dict(zip(RIGHT, await asyncio.gather(*map(looked, RIGHT.values())), strict=True))

    assert seen == dict.fromkeys(RIGHT, ([], [b"acme:another client's"]))


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_who_is_wrong_gets_nothing_stored_and_is_told_why_within_seconds(
    secured: SecuredKafka, topic: str, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def told(way: Way) -> list[str]:
        url, settings = way.url(scheme, secured, topic), way.settings(secured)
        async with opened(url, settings) as publisher:
            at_once = await one(publisher, a_record("wrong"))
            said = [await _named(publisher, way.told)]
            outcome = await one(publisher, a_record("wrong"))
            assert isinstance(at_once, NotStored)
            assert isinstance(outcome, NotStored)
            said.append(outcome.reason)
        reading = open_reader(url, settings=settings).read()
        said += [await _complaint(check_topic(url, settings=settings)), await _complaint(anext(reading))]
        assert WRONG_PASSWORD not in repr([said, publisher, settings, read_options(url, settings)])
        return said

    async with asyncio.timeout(ANSWER_MAX_S):
        reasons = dict(zip(WRONG, await asyncio.gather(*map(told, WRONG.values())), strict=True))

    unnamed = {name: said for name, said in reasons.items() for each in said if not re.search(WRONG[name].told, each)}
    assert unnamed == {}
    assert secured.read(topic) == []
    assert WRONG_PASSWORD not in caplog.text
    assert PASSWORD not in caplog.text


async def test_librdkafka_itself_sends_nothing_to_a_broker_that_it_does_not_know(
    secured: SecuredKafka, topic: str
) -> None:
    """The publisher asks with aiokafka first, so only its settings alone show what librdkafka makes of them."""

    def delivered(way: Way) -> bool:
        options = read_options(way.url("kafka+librdkafka", secured, topic), way.settings(secured))
        delivered_well: list[bool] = []
        producer = Producer(_settings(options) | {"message.timeout.ms": 1000, "log_level": 0})
        producer.produce(topic, b"alone", on_delivery=lambda error, _: delivered_well.append(error is None))
        assert producer.flush(ANSWER_MAX_S) == 0
        return delivered_well == [True]

    ways = [RIGHT["TLS"], UNKNOWN_CA, WRONG_NAME, WRONG_LOG_IN]

    assert [await asyncio.to_thread(delivered, way) for way in ways] == [True, False, False, False]
    assert len(secured.read(topic)) == 1


@pytest.mark.parametrize("also", [(), (AclOperation.DESCRIBE, AclOperation.READ)], ids=["write", "everything"])
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_who_may_not_write_any_more_is_told_so_until_he_may_again(
    secured: SecuredKafka, topic: str, scheme: str, also: tuple[AclOperation, ...], caplog: pytest.LogCaptureFixture
) -> None:
    taken = (AclOperation.WRITE, *also)
    kept = {AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS, AclOperation.READ} - set(taken)
    secured.allow(USER, topic, *kept, *taken)
    way = RIGHT["SCRAM-SHA-512 over SASL_SSL"]
    async with opened(way.url(scheme, secured, topic), way.settings(secured)) as publisher:
        await until_stored(publisher, within_s=5)
        secured.take_back(USER, topic, *taken)
        last = await _until_not_stored(publisher)
        outcomes, complaints, began = [], [], time.monotonic()
        while time.monotonic() - began < 1.5:
            outcomes.append(await one(publisher, a_record("denied")))
            complaints.append(await _complaint(publisher.ping()))
            await asyncio.sleep(0.05)
        stored = len(secured.read(topic))
        secured.allow(USER, topic, *taken)
        await until_stored(publisher, within_s=8)

    named = re.compile("not allowed|TopicAuthorizationFailed|TOPIC_AUTHORIZATION_FAILED")
    assert stored == last + 1
    assert {type(outcome) for outcome in outcomes} == {NotStored}
    reasons = [outcome.reason for outcome in outcomes if isinstance(outcome, NotStored)]
    assert [reason for reason in reasons if not named.search(reason)] == []
    # Each attempt to write again looks well until it is denied.
    assert named.search(complaints[-1])
    assert [each for each in complaints if each and not named.search(each)] == []
    assert sum(publisher.restarts.values()) < 10
    assert len(caplog.records) < 40


def test_a_service_whose_log_in_is_taken_away_says_so_and_serves_again_once_it_is_back(
    secured: SecuredKafka, tmp_path: Path
) -> None:
    """Both publishers at once, where log-ins last so short that they end again and again."""
    user = f"bob-{uuid.uuid4().hex}"
    keys = {"KEYS_URL": f"sqlite:///{tmp_path}/keys.db", "KEY_PEPPER": "a pepper for tests"}
    done(tmp_path, "migrate", **keys)
    done(tmp_path, "tenants", "create", TENANT.tenant_id, **keys)
    [made] = done(tmp_path, "keys", "create", "--tenant", TENANT.tenant_id, **keys)
    settings = {
        **keys,
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "KAFKA_SASL_USERNAME": user,
        "KAFKA_SASL_PASSWORD": WRONG_PASSWORD,  # Wrong until the broker has it.
        "KAFKA_SSL_CAFILE": str(secured.authority.cafile),
        "PUBLISH_TIMEOUT_S": "3",
        "DRAIN_DELAY_S": "0",
        "LOG_LEVEL": "debug",
    }
    topics = [f"service-{uuid.uuid4().hex[:12]}" for _ in SCHEMES]
    with ExitStack() as stack:
        services = []
        for scheme, topic in zip(SCHEMES, topics, strict=True):
            secured.create_topic(topic)
            (tmp_path / scheme).mkdir()
            url = Way(door="SHORT_SESSIONS").url(scheme, secured, topic)
            services.append(Service(tmp_path / scheme, settings | {"PUBLISHER_URL": url}))
            stack.callback(services[-1].kill)
        for service in services:
            _says_that_the_log_in_failed(service)
        for command in ("check", "tail"):
            refused = run(tmp_path, command, **services[0].variables)
            assert refused.returncode == 1
            assert "SaslAuthenticationFailed" in refused.stdout + refused.stderr
            assert WRONG_PASSWORD not in refused.stdout + refused.stderr

        secured.set_password(user, WRONG_PASSWORD)
        loads = [
            stack.enter_context(Load(service.ready(), made["secret"], TENANT, clients=2, pause_s=0.05))
            for service in services
        ]
        until(lambda: all(_span_s(load) > 2.5 * SESSION_S for load in loads))
        assert [set(load.tally) for load in loads] == [{202}, {202}]

        secured.forget_password(user)
        for service in services:
            _says_that_the_log_in_failed(service)
        until(lambda: all(load.tally[503] for load in loads))

        secured.set_password(user, WRONG_PASSWORD)
        for service, load in zip(services, loads, strict=True):
            service.ready()
            back_s = time.monotonic()
            until(lambda load=load, back_s=back_s: load.accepted(since_s=back_s))  # type: ignore[misc]
        for load in loads:
            load.end()
        assert [service.stop() for service in services] == [0, 0]

    for service, load, topic in zip(services, loads, topics, strict=True):
        assert load.tally.keys() <= {202, 503, 504}
        assert load.complaints(secured.read(topic)) == []
        said = (service.folder / "out.txt").read_text()
        assert WRONG_PASSWORD not in said + (service.folder / "err.txt").read_text()
        reasons = Counter(line["message"] for line in map(json.loads, said.splitlines()) if "logger" in line)
        assert sum(count for message, count in reasons.items() if "SaslAuthenticationFailed" in message) < 10
        assert max(Counter(re.sub(r"\d+", "0", message) for message in reasons.elements()).values()) == 1


def _says_that_the_log_in_failed(service: Service) -> None:
    until(lambda: service.readiness()[0] == 503 and "SaslAuthenticationFailed" in str(service.readiness()[1]))


def _span_s(load: Load) -> float:
    moments = [answer.answered_s for answer in load.answers]
    return max(moments) - min(moments) if moments else 0.0


async def _complaint(asked: Awaitable[object]) -> str:
    """Return why this could not be done, or nothing."""
    try:
        await asked
    except Unavailable as error:
        return str(error)
    return ""


async def _named(publisher: KafkaPublisher, told: str) -> str:
    """Ask whether it works until it says why not."""
    while not re.search(told, complaint := await _complaint(publisher.ping())):  # noqa: ASYNC110  It must be asked.
        await asyncio.sleep(0.05)
    return complaint


async def _until_not_stored(publisher: KafkaPublisher) -> int:
    """Publish until a record is not stored; return the last place where one was: one is there already."""
    offset = 0
    async with asyncio.timeout(ANSWER_MAX_S):
        while isinstance(outcome := await one(publisher, a_record("allowed")), Stored):
            offset = outcome.offset
    return offset
