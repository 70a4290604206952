"""What can be set, what is refused, and in which words."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from customersignal_ingest.domain.errors import ConfigurationError
from customersignal_ingest.environment import Effective, read_settings
from customersignal_ingest.settings import Settings

NOWHERE = Path("/nonexistent/.env")


def read(dotenv: Path = NOWHERE, /, **variables: str) -> Effective:
    return read_settings({f"CS_INGEST_{name}": value for name, value in variables.items()}, dotenv)


def refusal(dotenv: Path = NOWHERE, /, **variables: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(dotenv, **variables)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("listen", "127.0.0.1:8080"),
        ("workers", 1),
        ("publisher_url", None),
        ("keys_url", None),
        ("key_pepper", None),
        ("keys_ttl_s", 30),
        ("keys_stale_s", 900),
        ("event_bytes_max", 900_000),
        ("batch_events_max", 2_000),
        ("body_bytes_max", 10_000_000),
        ("encoded_bytes_max", 5_000_000),
        ("depth_max", 32),
        ("body_read_timeout_s", 10),
        ("publish_timeout_s", 15),
        ("in_flight_bytes_max", 64 * 1024 * 1024),
        ("in_flight_events_max", 20_000),
        ("tenant_share", 0.5),
        ("drain_delay_s", 5),
        ("cors_origins", ()),
        ("log_level", "info"),
        ("log_format", None),
    ],
)
def test_a_default_is_what_the_contract_says(name: str, default: object) -> None:
    assert getattr(read().settings, name) == default


def test_the_defaults_need_no_lowering() -> None:
    assert Settings().lowered == {}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORKERS": "four"}, "CS_INGEST_WORKERS: expected an integer, got 'four'"),
        ({"WORKERS": "0"}, "CS_INGEST_WORKERS: expected at least 1, got '0'"),
        ({"WORKERS": "1.5"}, "CS_INGEST_WORKERS: expected an integer, got '1.5'"),
        ({"KEYS_TTL_S": "soon"}, "CS_INGEST_KEYS_TTL_S: expected a number, got 'soon'"),
        ({"PUBLISH_TIMEOUT_S": "inf"}, "CS_INGEST_PUBLISH_TIMEOUT_S: expected a finite number, got 'inf'"),
        ({"TENANT_SHARE": "1.5"}, "CS_INGEST_TENANT_SHARE: expected at most 1, got '1.5'"),
        ({"LOG_LEVEL": "loud"}, "CS_INGEST_LOG_LEVEL: expected one of 'debug', 'info', 'warning', 'error', got 'loud'"),
        ({"LOG_FORMAT": "xml"}, "CS_INGEST_LOG_FORMAT: expected one of 'json', 'console', got 'xml'"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_was_expected(variables: dict[str, str], message: str) -> None:
    assert refusal(**variables) == message


@pytest.mark.parametrize(
    "listen", ["8080", "localhost", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:70000", "a:1/x", ""]
)
def test_an_address_without_a_host_or_a_port_is_refused(listen: str) -> None:
    with pytest.raises(ValidationError, match="expected an address and a port"):
        Settings(listen=listen)


def test_an_ipv6_address_is_read_without_its_brackets() -> None:
    assert Settings(listen="[::1]:8080").address == ("::1", 8080)


def test_every_wrong_value_is_told_at_once_in_one_line() -> None:
    message = refusal(WORKERS="four", DEPTH_MAX="deep")

    assert "CS_INGEST_WORKERS" in message
    assert "CS_INGEST_DEPTH_MAX" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["KEY_PEPPER", "PUBLISHER_URL", "KEYS_URL"])
def test_a_secret_is_never_in_an_error(name: str) -> None:
    assert "hush" not in refusal(**{name: "hush, hush, hush\n"})


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("WORKER", "WORKERS"), ("PUBLISHR_URL", "PUBLISHER_URL"), ("KEY_PEPER_FILE", "KEY_PEPPER_FILE")],
)
def test_an_unknown_variable_is_refused_with_the_nearest_known_one(wrong: str, meant: str) -> None:
    assert refusal(**{wrong: "1"}) == f"unknown setting CS_INGEST_{wrong}: did you mean CS_INGEST_{meant}?"


def test_an_unknown_variable_that_is_near_to_none_is_refused_with_the_nearest_too() -> None:
    assert "did you mean CS_INGEST_" in refusal(SOMETHING_ELSE_ALTOGETHER_AND_QUITE_A_LOT_LONGER="1")


def test_an_unknown_variable_in_the_dotenv_file_is_refused_too(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("CS_INGEST_WORKER=2\nOTHER=fine\n")

    assert "did you mean CS_INGEST_WORKERS?" in refusal(dotenv)


def test_a_file_is_for_secrets_alone() -> None:
    assert "unknown setting CS_INGEST_WORKERS_FILE" in refusal(WORKERS_FILE="x")


def test_variables_of_the_tests_are_nobodys_business() -> None:
    assert read(TEST_KAFKA="localhost:9092").settings == Settings()


def test_what_kubernetes_sets_for_a_service_of_our_name_is_no_error() -> None:
    injected = {
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
        "CS_INGEST_SERVICE_HOST": "10.0.0.2",
        "CS_INGEST_SERVICE_PORT_HTTP": "8080",
        "CS_INGEST_PORT": "tcp://10.0.0.2:8080",
        "CS_INGEST_PORT_8080_TCP_ADDR": "10.0.0.2",
    }

    assert read_settings(injected, NOWHERE).settings == Settings()


def test_the_same_names_elsewhere_are_typing_errors() -> None:
    assert "unknown setting CS_INGEST_PORT" in refusal(PORT="8080")


def test_the_environment_wins_over_the_dotenv_file(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("CS_INGEST_WORKERS=2\nCS_INGEST_DEPTH_MAX=7\n")

    effective = read(dotenv, WORKERS="3")

    assert (effective.settings.workers, effective.origins["workers"]) == (3, "env")
    assert (effective.settings.depth_max, effective.origins["depth_max"]) == (7, ".env")
    assert effective.origins["listen"] == "default"


def test_an_empty_value_counts_as_not_set() -> None:
    assert read(WORKERS="", PUBLISHER_URL="").settings == Settings()


@pytest.mark.parametrize("name", ["KEY_PEPPER", "PUBLISHER_URL", "KEYS_URL", "KAFKA_SASL_PASSWORD"])
def test_a_secret_can_be_in_a_file(name: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("memory:\n")

    effective = read(**{f"{name}_FILE": str(file)})

    assert getattr(effective.settings, name.lower()) == "memory:"
    assert effective.origins[name.lower()] == f"file {file}"


def test_a_secret_and_its_file_together_are_refused(tmp_path: Path) -> None:
    assert "are both set" in refusal(KEY_PEPPER="a", KEY_PEPPER_FILE=str(tmp_path))


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_a_secrets_file_that_is_missing_empty_or_no_text_is_refused(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "pepper"
    if content is not None:
        file.write_bytes(content)

    assert refusal(KEY_PEPPER_FILE=str(file)).startswith(f"CS_INGEST_KEY_PEPPER_FILE: {file} ")


@pytest.mark.parametrize("text", ["new,old", "new\nold", " new , old \n"])
def test_two_peppers_may_be_given_the_first_for_new_keys(text: str) -> None:
    assert Settings(key_pepper=text, keys_url="sqlite:///keys.db").peppers == (b"new", b"old")


def test_three_peppers_are_too_many() -> None:
    assert "one secret, or two" in refusal(KEY_PEPPER="a,b,c")


def test_keys_that_outlive_the_process_need_a_pepper() -> None:
    with pytest.raises(ConfigurationError, match="CS_INGEST_KEY_PEPPER or CS_INGEST_KEY_PEPPER_FILE must be set"):
        _ = Settings(keys_url="sqlite:///keys.db").peppers


def test_keys_in_memory_need_no_pepper() -> None:
    assert Settings(keys_url="memory:").peppers


@pytest.mark.parametrize("name", ["publisher_url", "keys_url"])
def test_there_is_no_default_store(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"CS_INGEST_{name.upper()} must be set"):
        Settings().required(name)  # type: ignore[arg-type]  # one of the two that it takes


@pytest.mark.parametrize("url", ["sqlite:///events.db", "memory:"])
def test_several_workers_need_a_publisher_that_they_can_share(url: str) -> None:
    assert "CS_INGEST_WORKERS above 1" in refusal(WORKERS="2", PUBLISHER_URL=url)


def test_an_event_larger_than_a_body_may_be_lowers_the_limit() -> None:
    settings = Settings(event_bytes_max=2_000, body_bytes_max=1_000)

    assert settings.lowered == {"event_bytes_max": (2_000, 1_000)}


def test_a_batch_that_no_tenant_could_have_admitted_lowers_the_limit() -> None:
    settings = Settings(in_flight_events_max=1_000, batch_events_max=2_000, tenant_share=0.5)

    assert settings.lowered == {"batch_events_max": (2_000, 500)}
    assert settings.limits["batch_events_max"] == 500


def test_a_body_that_no_tenant_could_have_admitted_lowers_the_limits() -> None:
    settings = Settings(in_flight_bytes_max=1_000_000, tenant_share=0.3)

    in_force = settings.in_force

    assert in_force.encoded_bytes_max + in_force.body_bytes_max <= 300_000
    assert in_force.event_bytes_max <= in_force.body_bytes_max
    assert set(settings.lowered) == {"encoded_bytes_max", "body_bytes_max", "event_bytes_max"}


@pytest.mark.parametrize(
    "origin", ["*", "https://*.shop.example", "shop.example", "https://shop.example/", "https://shop.example/a", "null"]
)
def test_an_origin_that_is_not_exact_is_refused(origin: str) -> None:
    assert "expected exact origins" in refusal(CORS_ORIGINS=origin)


def test_a_url_that_is_none_is_shown_one_that_this_setting_takes() -> None:
    assert "as in postgresql://user:password@host/database" in refusal(KEYS_URL="postgres")
    assert "as in kafka://host:9092/events_raw" in refusal(PUBLISHER_URL="kafka")


def test_origins_are_given_with_commas_between_them() -> None:
    settings = read(CORS_ORIGINS="https://a.example, http://localhost:3000").settings

    assert settings.cors_origins == ("https://a.example", "http://localhost:3000")


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("KEY_PEPPER", "hush", "***"),
        ("KAFKA_SASL_PASSWORD", "hush", "***"),
        ("KEYS_URL", "postgresql://ada:hush@db/keys", "postgresql://ada:***@db/keys"),
        ("KEYS_URL", "postgresql://ada:hu/sh@db/keys", "postgresql://***"),
        ("KEYS_URL", "postgresql:ada:hush@db/keys", "***"),
        ("KEYS_URL", "//ada:hush@db/keys", "***"),
        ("PUBLISHER_URL", "ada:hush@kafka:9092/events_raw", "***"),
        ("KEYS_URL", "postgresql://ada@db/keys?password=hush&a=1", "postgresql://ada@db/keys?password=***&a=1"),
        ("PUBLISHER_URL", "sqlite:///data/events.db?partitions=2", "sqlite:///data/events.db?partitions=2"),
        ("PUBLISHER_URL", "memory:", "memory:"),
        ("CORS_ORIGINS", "https://a.example,https://b.example", "https://a.example,https://b.example"),
        ("TRANSPORTS", "nats://ada:hush@h,lines://h:1", "nats://ada:***@h,lines://h:1"),
        ("WORKERS", "1", "1"),
    ],
)
def test_what_is_shown_of_a_setting_has_no_secret_in_it(name: str, value: str, shown: str) -> None:
    assert read(**{name: value}).shown(name.lower()) == shown


def test_a_representation_of_the_settings_has_no_secret_in_it() -> None:
    settings = Settings(
        publisher_url="kafka://hush/t",
        keys_url="hush:",
        key_pepper="hush",
        kafka_sasl_password="hush",
        transports="nats://ada:hush@h",
    )

    assert "hush" not in repr(settings)


@pytest.mark.parametrize("wrong", [{"keys_url": "hu sh"}, {"key_pepper": "hush,hush,hush"}, {"hush": "hush"}])
def test_what_is_wrong_with_a_setting_made_in_code_is_said_without_its_value(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(**wrong)  # type: ignore[arg-type]  # wrong on purpose

    assert "input_value" not in str(refused.value)
    assert not [value for value in wrong.values() if f"'{value}'" in str(refused.value)]


def test_what_only_adapters_need_is_handed_to_them() -> None:
    settings = Settings(kafka_sasl_username="ada", kafka_sasl_password="hush", publish_timeout_s=7)

    given = settings.for_adapters(instance="here")

    assert (given.publish_timeout_s, given.event_bytes_max, given.instance) == (7, 900_000, "here")
    assert given.secrets == {"kafka_sasl_username": "ada", "kafka_sasl_password": "hush"}


def test_settings_made_in_code_look_at_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CS_INGEST_DEPTH_MAX=7\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CS_INGEST_WORKERS", "3")

    assert (Settings().workers, Settings().depth_max) == (1, 32)
