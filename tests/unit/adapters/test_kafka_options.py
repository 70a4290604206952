"""What a Kafka URL and the secrets may say, and what stops the start."""

import ssl
from pathlib import Path

import pytest

from customersignal_ingest.adapters.outbound.kafka import open_publisher, open_reader
from customersignal_ingest.adapters.outbound.kafka.options import Options, Security, read_options
from customersignal_ingest.domain.errors import ConfigurationError
from customersignal_ingest.registry import AdapterSettings, open_url


def read(url: str, **secrets: str) -> Options:
    return read_options(url, AdapterSettings(instance="i1", secrets=secrets))


def test_a_url_names_servers_and_topic() -> None:
    options = read("kafka://h1:9092,h2,[::1]:9094,[fe80::2]/events_raw?linger_ms=1#here")

    assert options.servers == ("h1:9092", "h2:9092", "[::1]:9094", "[fe80::2]:9092")
    assert options.topic == "events_raw"


def test_the_safe_settings_are_the_defaults() -> None:
    options = read("kafka://h/events_raw")

    assert (options.replication_min, options.insync_min, options.compression) == (3, 2, "none")


def test_every_parameter_is_read() -> None:
    options = read("kafka://h/t?replication_min=1&insync_min=1&linger_ms=5&compression=zstd&request_timeout_ms=2000")

    assert (options.replication_min, options.insync_min, options.linger_ms) == (1, 1, 5)
    assert (options.compression, options.request_timeout_ms) == ("zstd", 2000)


def test_an_unknown_parameter_names_the_nearest_known_one() -> None:
    with pytest.raises(ConfigurationError, match="replication_min"):
        read("kafka://h/t?replication_mni=1")


@pytest.mark.parametrize(
    "url",
    [
        "kafka://h1:9092",
        "kafka://h1:9092/",
        "kafka:///events_raw",
        "kafka:h1/events_raw",
        "kafka://[::1/events_raw",
        "kafka://::1:9092/events_raw",
        "kafka://[h1]:9092/events_raw",
        "kafka://h1]:9092/events_raw",
        "kafka://h1[::1]/events_raw",
        "kafka://h1:abc/events_raw",
        "kafka://h1:0/events_raw",
        "kafka://h1,,h2/events_raw",
        "kafka://h1/a/b",
        "kafka://h1/sp%20ace",
        "kafka://user:secret@h1/events_raw",
        "kafka://h1/events_raw?compression=snappy",
        "kafka://h1/events_raw?linger_ms=-1",
        "kafka://h1/events_raw?insync_min=0",
        "kafka://h1/events_raw?insync_min=1&insync_min=2",
    ],
)
def test_a_wrong_url_stops_the_start(url: str) -> None:
    with pytest.raises(ConfigurationError):
        read(url)


def test_a_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as error:
        read("kafka://user:hunter2@h1/events_raw")

    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    "secrets",
    [
        {"kafka_security_protocol": "TLS"},
        {"kafka_security_protocol": "SASL_SSL"},
        {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_username": "u"},
        {"kafka_sasl_mechanism": "GSSAPI"},
        {"kafka_sasl_user": "u"},
    ],
)
def test_wrong_secrets_stop_the_start(secrets: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        read("kafka://h/t", **secrets)


@pytest.mark.parametrize(
    ("secrets", "said"),
    [
        ({"kafka_security_protocol": "TLS"}, "CS_INGEST_KAFKA_SECURITY_PROTOCOL is one of PLAINTEXT, SSL"),
        ({"kafka_sasl_mechanism": "GSSAPI"}, "CS_INGEST_KAFKA_SASL_MECHANISM is one of PLAIN"),
        (
            {"kafka_security_protocol": "SASL_SSL"},
            "needs CS_INGEST_KAFKA_SASL_USERNAME and CS_INGEST_KAFKA_SASL_PASSWORD",
        ),
        ({"kafka_ssl_keyfile": "key.pem"}, "CS_INGEST_KAFKA_SSL_KEYFILE needs CS_INGEST_KAFKA_SSL_CERTFILE"),
    ],
)
def test_a_wrong_setting_is_called_by_the_name_that_an_operator_gave_it(secrets: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        read("kafka://h/t", **secrets)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"kafka_ssl_cafile": "/nowhere/ca.pem"}, "CS_INGEST_KAFKA_SSL_CAFILE can't be read: No such file"),
        (
            {"kafka_ssl_certfile": "/nowhere/c.pem"},
            "CS_INGEST_KAFKA_SSL_CERTFILE, or its KEYFILE, can't be read: No such",
        ),
    ],
)
def test_a_certificate_that_can_not_be_read_is_named(files: dict[str, str], said: str) -> None:
    options = read("kafka://h/t", kafka_security_protocol="SSL", **files)

    with pytest.raises(ConfigurationError, match=said):
        options.security.ssl_context()


def test_the_secrets_of_others_are_not_ours() -> None:
    assert read("kafka://h/t", key_pepper="x").security == Security()


def test_sasl_over_tls_verifies_the_certificate() -> None:
    options = read(
        "kafka://h/t",
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_mechanism="SCRAM-SHA-512",
        kafka_sasl_username="u",
        kafka_sasl_password="p",
    )

    context = options.connection()["ssl_context"]

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.anyio
async def test_a_certificate_that_is_not_there_stops_the_opening(tmp_path: Path) -> None:
    secrets = {"kafka_security_protocol": "SSL", "kafka_ssl_cafile": str(tmp_path / "none.pem")}
    publisher = open_publisher("kafka://h/t", settings=AdapterSettings(secrets=secrets))

    with pytest.raises(ConfigurationError):
        await publisher.open()


def test_the_secrets_are_in_no_repr() -> None:
    options = read(
        "kafka://h/t",
        kafka_security_protocol="SASL_PLAINTEXT",
        kafka_sasl_username="u",
        kafka_sasl_password="hunter2",
        kafka_ssl_keyfile_password="hunter3",
    )

    assert "hunter" not in repr(options)


def test_the_scheme_finds_publisher_and_reader() -> None:
    publisher = open_url("publishers", "kafka://h/t", settings=AdapterSettings())
    reader = open_url("readers", "kafka://h/t", settings=AdapterSettings())

    assert isinstance(publisher, type(open_publisher("kafka://h/t", settings=AdapterSettings())))
    assert isinstance(reader, type(open_reader("kafka://h/t", settings=AdapterSettings())))
