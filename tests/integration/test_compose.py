"""What docker-compose.yml and its overlay say, and what their commands do when they run as processes here."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
import yaml

from customersignal_ingest.cli import COMMANDS
from customersignal_ingest.environment import read_settings
from customersignal_ingest.settings import PREFIX
from customersignal_ingest.testing.planted import USER_ID
from tests.integration.servers.kafka import Kafka
from tests.integration.servers.postgres import Postgres, psql
from tests.integration.servers.service import Service, done, free_port, run, until

ROOT = Path(__file__).parents[2]
FILES = {"one broker": ["docker-compose.yml"], "three brokers": ["docker-compose.yml", "docker-compose.cluster.yml"]}
ONE_SHOT = {"migrate", "topic"}
EVENT = b'{"event_type":"paid","timestamp":"2026-11-23T10:00:00Z","user_id":"%s","properties":{}}' % USER_ID.encode()
TOPIC = "events_raw"

pytestmark = pytest.mark.parametrize("stack", FILES)


def merged(under: Any, over: Any) -> Any:
    """Lay one file over another as Compose does: mappings are merged, all else is replaced."""
    if isinstance(under, Mapping) and isinstance(over, Mapping):
        return {**under, **{name: merged(under.get(name), value) for name, value in over.items()}}
    return over


@pytest.fixture
def services(stack: str) -> dict[str, dict[str, Any]]:
    found: dict[str, Any] = {}
    for file in FILES[stack]:
        found = merged(found, yaml.safe_load((ROOT / file).read_text()))
    return dict(found["services"])


@pytest.fixture
def ours(services: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The services that run our image."""
    return {name: service for name, service in services.items() if service["image"] == "customersignal-ingest"}


def in_the_image(directive: str) -> str:
    [value] = re.findall(rf"^{directive} (.+)$", (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2], re.M)
    return str(value)


def command_of(service: dict[str, Any]) -> list[str]:
    return list(service.get("command") or yaml.safe_load(in_the_image("CMD")))


def settings_of(service: dict[str, Any]) -> dict[str, str]:
    """What the container's process finds in its environment."""
    variables = dict(word.split("=", 1) for word in shlex.split(in_the_image("ENV"))) | service["environment"]
    return {name: str(value) for name, value in variables.items() if name.startswith(PREFIX)}


def test_compose_itself_accepts_the_files(stack: str) -> None:
    compose = [*_compose(), *(word for file in FILES[stack] for word in ("-f", file))]

    checked = subprocess.run([*compose, "config", "--quiet"], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert (checked.returncode, checked.stderr) == (0, "")


def _compose() -> list[str]:
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and not subprocess.run([*command, "version"], capture_output=True).returncode:
            return command
    pytest.skip("install Compose (Debian: apt install docker-compose); it needs no engine to read the files")


def test_every_command_is_one_of_ours(ours: dict[str, dict[str, Any]]) -> None:
    commands = [command_of(service) for service in ours.values()]
    commands += [service["healthcheck"]["test"][1:] for service in ours.values() if "test" in service["healthcheck"]]

    assert len(commands) == 4
    assert [command for command in commands if command[0] != "cs-ingest" or command[1] not in COMMANDS] == []


def test_every_setting_is_known(ours: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    for service in ours.values():
        assert read_settings(settings_of(service), tmp_path / "no.env").settings.publisher_url


def test_the_service_waits_for_what_must_have_ended_well(ours: dict[str, dict[str, Any]]) -> None:
    awaited = {name: how["condition"] for name, how in ours["ingest"]["depends_on"].items()}

    assert awaited == dict.fromkeys(ONE_SHOT, "service_completed_successfully")


def test_everything_awaited_is_there_and_healthy_services_have_a_check(services: dict[str, dict[str, Any]]) -> None:
    awaited = [
        (name, how["condition"]) for each in services.values() for name, how in each.get("depends_on", {}).items()
    ]

    healthy = {name for name, condition in awaited if condition == "service_healthy"}
    assert {name for name, _ in awaited} <= services.keys()
    assert {name for name in healthy if "test" not in services[name].get("healthcheck", {})} == set()


def test_whoever_waits_long_enough_for_kafka_waits_for_every_broker_in_the_url(
    services: dict[str, dict[str, Any]],
) -> None:
    url = urlsplit(settings_of(services["topic"])["CS_INGEST_PUBLISHER_URL"])

    assert {server.partition(":")[0] for server in url.netloc.split(",")} == set(services["topic"]["depends_on"])


def test_there_is_time_to_drain_before_docker_kills(ours: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    settings = read_settings(settings_of(ours["ingest"]), tmp_path / "no.env").settings

    grace_s = int(ours["ingest"]["stop_grace_period"].removesuffix("s"))

    assert grace_s >= settings.drain_delay_s + settings.publish_timeout_s + 5


@pytest.fixture
def here(kafka: Kafka, postgres: Postgres, services: dict[str, dict[str, Any]]) -> Iterator[dict[str, str]]:
    """The servers of this machine, by the names that the files give to theirs; user, password and database as there."""
    if kafka.has_topic(TOPIC) or kafka.replicas < 3:
        pytest.skip("needs three brokers of the tests' own")
    given = services["postgres"]["environment"]
    user, password, database = (given[f"POSTGRES_{name}"] for name in ("USER", "PASSWORD", "DB"))
    psql(postgres.url, f"CREATE ROLE {user} LOGIN PASSWORD '{password}'")
    psql(postgres.url, f"CREATE DATABASE {database} OWNER {user}")
    yield {"kafka": kafka.bootstrap, "postgres": urlsplit(postgres.url).netloc.rpartition("@")[2]}
    psql(postgres.url, f"DROP DATABASE {database} WITH (FORCE)")
    psql(postgres.url, f"DROP ROLE {user}")
    with suppress(Exception):
        kafka.delete_topic(TOPIC)


def moved(settings: dict[str, str], here: dict[str, str]) -> dict[str, str]:
    """Return the settings, without their prefix, with the hosts of this machine and nothing else changed."""
    publisher, keys = urlsplit(settings["CS_INGEST_PUBLISHER_URL"]), urlsplit(settings["CS_INGEST_KEYS_URL"])
    user = keys.netloc.rpartition("@")[0]
    changed = {
        "CS_INGEST_PUBLISHER_URL": urlunsplit(publisher._replace(netloc=here["kafka"])),
        "CS_INGEST_KEYS_URL": urlunsplit(keys._replace(netloc=f"{user}@{here['postgres']}")),
    }
    return {name.removeprefix(PREFIX): value for name, value in (settings | changed).items()}


def test_what_the_containers_start_ends_with_a_service_that_takes_an_event(
    ours: dict[str, dict[str, Any]], here: dict[str, str], kafka: Kafka, tmp_path: Path
) -> None:
    settings = {name: moved(settings_of(service), here) for name, service in ours.items()}
    for name in ONE_SHOT:
        ended = run(tmp_path, *command_of(ours[name])[1:], **settings[name])
        assert ended.returncode == 0, ended.stderr
    port = free_port()
    own = settings["ingest"] | {"LISTEN": f"0.0.0.0:{port}"}

    service = Service(tmp_path, own, port=port, command=command_of(ours["ingest"])[1])
    try:
        probe = ours["ingest"]["healthcheck"]["test"][2:]
        until(lambda: run(tmp_path, *probe, **own).returncode == 0)
        done(tmp_path, "tenants", "create", "acme", **own)
        [key] = done(tmp_path, "keys", "create", "--tenant", "acme", **own)
        answer = service.post(key["secret"], EVENT)
    finally:
        service.end()

    assert answer.status_code == 202
    assert [record.receipt for record in kafka.read(TOPIC)] == [answer.json()["receipt"]]
