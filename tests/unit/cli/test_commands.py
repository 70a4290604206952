"""The command line, command by command, over stores in SQLite files."""

import json
import re
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from customersignal_ingest.cli import COMMANDS, commands
from customersignal_ingest.cli.records import _as_json
from customersignal_ingest.cli.shared import Duration, Moment
from customersignal_ingest.domain.event import StoredRecord
from customersignal_ingest.version import __version__

Run = Callable[..., Result]

STORES = {
    "CS_INGEST_PUBLISHER_URL": "sqlite:///events.db",
    "CS_INGEST_KEYS_URL": "sqlite:///keys.db",
    "CS_INGEST_KEY_PEPPER": "pepper",
}
GOOD = b'{"event_type":"a","timestamp":"2026-11-23T10:00:00Z","user_id":"u1","properties":{"n":1.0}}'


@pytest.fixture(scope="session")
def newest_keys(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A key database at the newest schema, with the tenant `acme`: alembic is slow, so it is made once."""
    file = tmp_path_factory.mktemp("keys") / "keys.db"
    environment = {**STORES, "CS_INGEST_KEYS_URL": f"sqlite:///{file}"}
    for command in (["migrate"], ["tenants", "create", "acme"]):
        done = CliRunner().invoke(commands, command, env=environment)
        assert done.exit_code == 0, done.output
    return file.read_bytes()


@pytest.fixture
def with_keys(run: Run, newest_keys: bytes) -> Run:
    Path("keys.db").write_bytes(newest_keys)
    return lambda *arguments, **more: run(*arguments, **{**STORES, **more})


def only_json(done: Result) -> Any:
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def create_key(run: Run, *options: str) -> Any:
    return only_json(run("keys", "create", "--tenant", "acme", "--json", *options))


def test_every_command_of_the_contract_is_there(run: Run) -> None:
    promised = {"dev", "serve", "config", "probe", "check", "migrate", "tenants", "keys", "topic", "tail", "send"}
    promised |= {"verify", "canary"}

    assert set(COMMANDS) == promised
    assert all(run(name, "--help").exit_code == 0 for name in promised)


def test_help_takes_less_than_150_ms_of_cpu() -> None:
    def cpu_s() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def one_help() -> float:
        before = cpu_s()
        subprocess.run([sys.executable, "-m", "customersignal_ingest", "--help"], check=True, capture_output=True)
        return cpu_s() - before

    assert min(one_help() for _ in range(3)) < 0.15


def test_version_names_product_python_and_libraries(run: Run) -> None:
    lines = run("--version").stdout.splitlines()

    assert lines[0] == f"cs-ingest {__version__}"
    assert {"python", "httptools", "litestar", "aiokafka"} <= {line.split()[0] for line in lines}


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["keys", "create"],
        ["tail", "--since", "soon"],
        ["tail", "--from", "events_raw/4"],
        ["keys", "list", "-x"],
        ["verify"],
        ["verify", "nowhere.jsonl"],
        ["canary", "--url", "http://h"],
        ["canary", "--url", "ftp://h", "--tenant", "t"],
        ["canary", "--url", "https://user:password@h", "--tenant", "t"],
        ["canary", "--url", "http://h:port", "--tenant", "t"],
        ["canary", "--url", "http://h h", "--tenant", "t"],
        ["canary", "--url", "http://h", "--tenant", "t", "--rate", "nan"],
        ["canary", "--url", "http://h", "--tenant", "t", "--rate", "21"],
        ["canary", "--url", "http://h", "--tenant", "t", "--metrics", "9464"],
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], run: Run) -> None:
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize(
    "arguments", [["tail"], ["check"], ["migrate"], ["tenants", "list"], ["keys", "list"], ["topic", "check"]]
)
def test_without_settings_a_command_says_in_one_line_what_to_set(arguments: list[str], run: Run) -> None:
    done = run(*arguments)

    assert done.exit_code == 1
    assert re.search(r"CS_INGEST_(PUBLISHER|KEYS)_URL must be set", done.output)
    assert "Traceback" not in done.output


def test_a_file_in_the_way_is_no_bug(run: Run) -> None:
    Path("data").write_text("no folder")

    assert run("dev", CS_INGEST_LISTEN="127.0.0.1:1").stderr == "cs-ingest: data: File exists\n"


def test_a_key_database_where_none_can_be_made_is_not_sent_to_be_migrated(run: Run) -> None:
    Path("nowhere").mkdir()
    Path("nowhere/keys.db").symlink_to("gone/keys.db")  # For root any folder may be written to.

    done = run("migrate", **STORES | {"CS_INGEST_KEYS_URL": "sqlite:///nowhere/keys.db"})

    assert (done.exit_code, done.stderr.endswith("nowhere/keys.db: may its folder be written to?\n")) == (1, True)


def test_a_key_database_that_is_none_is_named(run: Run) -> None:
    Path("keys.db").write_bytes(b"no database" * 100)

    assert run("keys", "list", **STORES).stderr.endswith("keys.db: file is not a database\n")


def test_a_traceback_is_there_when_asked_for(run: Run) -> None:
    assert "Traceback" in run("--debug", "tail").stderr


@pytest.mark.parametrize(("options", "said"), [([], ""), (["--debug"], "WARNING:somebody.else:said by a library\n")])
def test_what_libraries_log_is_there_when_asked_for(options: list[str], said: str) -> None:
    # In a process of its own: pytest listens to what is logged here.
    program = """
import logging, sys
from customersignal_ingest.cli import commands
commands([*sys.argv[1:], "config"], standalone_mode=False)
logging.getLogger("somebody.else").warning("said by a library")
"""
    command = [sys.executable, "-c", program, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)

    assert done.stderr == said


def test_config_shows_each_setting_with_its_origin_and_no_secret(run: Run) -> None:
    done = run("config", "--json", CS_INGEST_KEY_PEPPER="hush", CS_INGEST_KEYS_URL="postgresql://u:hush@h/d")

    rows = {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert rows["CS_INGEST_KEY_PEPPER"] == {"name": "CS_INGEST_KEY_PEPPER", "value": "***", "origin": "env"}
    assert rows["CS_INGEST_LISTEN"]["origin"] == "default"
    assert "hush" not in done.output


def test_a_tenant_is_made_once(with_keys: Run) -> None:
    assert only_json(with_keys("tenants", "create", "shop", "--json")) == {"tenant_id": "shop", "created": True}
    assert only_json(with_keys("tenants", "create", "shop", "--json")) == {"tenant_id": "shop", "created": False}
    assert with_keys("tenants", "list").stdout.split() == ["acme", "shop"]


@pytest.mark.parametrize("tenant", ["", "a:b", "a b", "-a", "a\n", "a" * 129])
def test_a_tenant_id_is_plain(tenant: str, with_keys: Run) -> None:
    assert with_keys("tenants", "create", "--", tenant).exit_code == 2


def test_a_new_key_is_told_with_exactly_these_fields(with_keys: Run) -> None:
    made = create_key(with_keys, "--project", "web", "--environment", "test", "--name", "shop", "--expires-in", "90d")

    assert list(made) == ["key_id", "secret", "tenant_id", "project_id", "environment", "expires_at"]
    assert (made["tenant_id"], made["project_id"], made["environment"]) == ("acme", "web", "test")
    assert made["secret"].startswith("cs_test_")
    in_90_days = datetime.now(UTC) + timedelta(days=90)
    assert abs(datetime.fromisoformat(made["expires_at"]) - in_90_days) < timedelta(minutes=1)


def test_a_new_key_is_live_and_lasts_by_default(with_keys: Run) -> None:
    made = create_key(with_keys)

    assert (made["environment"], made["project_id"], made["expires_at"]) == ("live", None, None)


def test_without_json_the_secret_alone_goes_to_standard_output(with_keys: Run) -> None:
    done = with_keys("keys", "create", "--tenant", "acme")

    assert re.fullmatch(r"cs_live_\w+\n", done.stdout)


def test_a_key_for_an_unknown_tenant_is_one_clear_line(with_keys: Run) -> None:
    done = with_keys("keys", "create", "--tenant", "nobody")

    assert done.exit_code == 1
    assert done.stderr == "cs-ingest: there is no tenant 'nobody'\n"


def test_a_list_of_keys_has_no_secret_in_it(with_keys: Run) -> None:
    made = create_key(with_keys)

    for done in (with_keys("keys", "list"), with_keys("keys", "list", "--json")):
        assert made["key_id"] in done.output
        assert made["secret"] not in done.output


def test_one_sees_which_keys_need_which_pepper(with_keys: Run) -> None:
    """What an operator goes by to take an old pepper away: see docs/security.md."""
    old = create_key(with_keys)
    both = {"CS_INGEST_KEY_PEPPER": "new,pepper"}
    new = only_json(with_keys("keys", "create", "--tenant", "acme", "--json", **both))

    def peppers(**settings: str) -> dict[str, str]:
        lines = with_keys("keys", "list", "--json", **settings).stdout.splitlines()
        return {key["key_id"]: key["pepper"] for key in map(json.loads, lines)}

    assert peppers(**both) == {old["key_id"]: "second", new["key_id"]: "first"}
    assert peppers(CS_INGEST_KEY_PEPPER="new") == {old["key_id"]: "other", new["key_id"]: "first"}


def test_a_key_of_which_nobody_noted_the_pepper_is_listed_without_one(with_keys: Run) -> None:
    create_key(with_keys)
    with closing(sqlite3.connect("keys.db")) as database, database:
        database.execute("UPDATE api_keys SET pepper_id = NULL")

    assert only_json(with_keys("keys", "list", "--json"))["pepper"] is None


def test_a_revoked_key_is_listed_as_such(with_keys: Run) -> None:
    made = create_key(with_keys)

    assert with_keys("keys", "revoke", made["key_id"]).exit_code == 0

    assert only_json(with_keys("keys", "list", "--json"))["revoked_at"] is not None


def test_a_key_that_is_not_there_can_not_be_revoked(with_keys: Run) -> None:
    done = with_keys("keys", "revoke", "nothing")

    assert (done.exit_code, done.stderr) == (1, "cs-ingest: there is no key 'nothing'\n")


def test_a_rotated_key_stays_good_for_the_grace_period(with_keys: Run) -> None:
    old = create_key(with_keys, "--project", "web", "--environment", "test")

    new = only_json(with_keys("keys", "rotate", old["key_id"], "--grace", "12h", "--json"))

    rows = {row["key_id"]: row for row in map(json.loads, with_keys("keys", "list", "--json").stdout.splitlines())}
    in_12_hours = datetime.now(UTC) + timedelta(hours=12)
    assert abs(datetime.fromisoformat(rows[old["key_id"]]["expires_at"]) - in_12_hours) < timedelta(minutes=1)
    assert (new["project_id"], new["environment"], new["expires_at"]) == ("web", "test", None)


def test_a_rotated_key_lives_as_long_as_the_old_one_did(with_keys: Run) -> None:
    old = create_key(with_keys, "--expires-in", "90d")

    new = only_json(with_keys("keys", "rotate", old["key_id"], "--json"))

    assert abs(datetime.fromisoformat(new["expires_at"]) - datetime.fromisoformat(old["expires_at"])) < timedelta(
        minutes=1
    )


def test_keys_in_memory_are_not_made_in_vain(run: Run) -> None:
    done = run("tenants", "create", "acme", CS_INGEST_KEYS_URL="memory:")

    assert done.exit_code == 1
    assert "keys in memory end with this command" in done.stderr


def test_check_names_each_component(with_keys: Run) -> None:
    done = with_keys("check")

    assert done.exit_code == 0
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["ok", "settings"],
        ["ok", "key_pepper"],
        ["ok", "keys"],
        ["ok", "publisher"],
    ]


def test_check_says_what_is_wrong(with_keys: Run) -> None:
    done = with_keys("check", CS_INGEST_PUBLISHER_URL="sqlite:////proc/nowhere/events.db")

    assert done.exit_code == 1
    assert re.search(r"^fail +publisher +\S", done.stdout, re.M)


def test_there_is_a_topic_in_kafka_alone(run: Run) -> None:
    done = run("topic", "check", **STORES)

    assert (done.exit_code, done.stderr) == (1, "cs-ingest: there is no topic: the publisher is sqlite:, not kafka:\n")


def send(run: Run, content: bytes, *options: str) -> Result:
    Path("key").write_text(create_key(run)["secret"])
    Path("events.ndjson").write_bytes(content)
    return run("send", "events.ndjson", "--key-file", "key", *options)


def test_what_is_sent_is_stored_and_read_back(with_keys: Run) -> None:
    done = send(with_keys, GOOD + b"\n\n" + GOOD)

    receipts = [line.split()[0] for line in done.stdout.splitlines()]
    assert done.exit_code == 0
    assert len(receipts) == 2
    assert [line.split("  ") for line in with_keys("tail").stdout.splitlines()] == [
        [receipt, "acme", "a", "u1", '{"n":1.0}'] for receipt in receipts
    ]


def test_each_line_sent_has_an_answer_with_its_number(with_keys: Run) -> None:
    done = send(with_keys, GOOD + b"\n\n{}\nnonsense", "--json")

    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == 1
    assert [(answer["line"], answer["status"]) for answer in answers] == [
        (1, "accepted"),
        (3, "rejected"),
        (4, "rejected"),
    ]
    assert [answer["error"]["code"] for answer in answers[1:]] == ["FIELD_REQUIRED", "MALFORMED_JSON"]


def test_standard_input_is_a_file_too(with_keys: Run) -> None:
    secret = create_key(with_keys)["secret"]

    assert with_keys("send", "-", stdin=GOOD, CS_API_KEY=secret).exit_code == 0


def test_nothing_is_sent_with_a_key_that_opens_nothing(with_keys: Run) -> None:
    done = with_keys("send", "-", stdin=GOOD, CS_API_KEY="cs_live_wrong")

    assert (done.exit_code, done.stderr) == (1, "cs-ingest: the API key opens nothing: API_KEY_INVALID\n")


@pytest.mark.parametrize("key", ["", "two words", "two\nlines", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_told_without_it(key: str, run: Run) -> None:
    Path("key").write_text(key)

    done = run("canary", "--url", "http://h", "--tenant", "acme", "--key-file", "key", **STORES)

    expected = "cs-ingest: the API key is empty, or has characters that no key has\n"
    assert (done.exit_code, done.output) == (1, expected)


def test_tail_prints_exactly_these_fields_and_the_value_as_it_is(with_keys: Run) -> None:
    send(with_keys, GOOD)

    done = with_keys("tail", "--json")

    record = only_json(done)
    assert list(record) == ["receipt", "key", "timestamp", "headers", "value"]
    assert record["key"] == "acme:u1"
    assert record["headers"]["tenant_id"] == "acme"
    assert '"properties":{"n":1.0}' in done.stdout


def test_tail_prints_a_record_on_one_line_whatever_lines_its_client_made() -> None:
    record = StoredRecord(
        topic="t", partition=0, offset=0, timestamp_ms=0, key=b"k", headers=(), value=b'{"a":\r\n [1.0,\n"b\\n"]}'
    )

    assert _as_json(record).endswith(',"value":{"a":   [1.0, "b\\n"]}}')


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--tenant", "acme"], 1),
        (["--tenant", "x"], 0),
        (["--since", "1h"], 1),
        (["--since", "now"], 0),
        (["--from", "events_raw/4/0"], 1),
        (["--from", "events_raw/4/1"], 0),
        (["--from", "events_raw/3/0"], 0),
    ],
)
def test_tail_can_be_narrowed(options: list[str], count: int, with_keys: Run) -> None:
    send(with_keys, GOOD)

    assert len(with_keys("tail", *options).stdout.splitlines()) == count


def test_a_clients_escape_sequence_does_not_reach_the_terminal(with_keys: Run) -> None:
    send(with_keys, GOOD.replace(b'"u1"', b'"u\\u001b[31m\\n"'))

    assert "\x1b" not in with_keys("tail").stdout
    assert len(with_keys("tail").stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "seconds"), [("90d", 90 * 86_400), ("12h", 43_200), ("30m", 1_800), ("5s", 5), ("2w", 1_209_600)]
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert Duration().convert(text, None, None) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "d", "90", "0d", "-1d", "1.5h", "90y", "99999999999d", "999999999w", "٣d"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Duration().convert(text, None, None)


@pytest.mark.parametrize("text", ["2026-11-23T10:00:00", "yesterday", "10"])
def test_a_moment_has_a_zone(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Moment().convert(text, None, None)


def test_a_signal_during_slow_imports_is_not_lost_when_an_import_swallows_exceptions() -> None:
    program = """
import signal
from customersignal_ingest.cli.service import leave_at_once
leave_at_once()
try:
    signal.raise_signal(signal.SIGTERM)
except BaseException:
    pass
print("still here")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)

    assert (done.returncode, done.stdout) == (0, "")
