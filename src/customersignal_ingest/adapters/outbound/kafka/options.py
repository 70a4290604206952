"""What a `kafka://` URL and the secrets say, checked before anything is connected."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv6Address
from typing import Any, Literal, get_args
from urllib.parse import unquote

from customersignal_ingest.domain.errors import ConfigurationError
from customersignal_ingest.registry import AdapterSettings, nearest, one_of, url_parameters, whole_number
from customersignal_ingest.version import __version__

Compression = Literal["none", "gzip", "lz4", "zstd"]

PORT = 9092
TOPIC_CHARACTERS_MAX = 249

_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """How to talk to the brokers; certificates are always verified."""

    protocol: str = "PLAINTEXT"
    mechanism: str = "PLAIN"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    cafile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    keyfile_password: str | None = field(default=None, repr=False)

    def ssl_context(self) -> ssl.SSLContext | None:
        """Read the certificates; raises `ConfigurationError` when a file is missing or is none."""
        if "SSL" not in self.protocol.split("_"):
            return None
        try:
            context = ssl.create_default_context(cafile=self.cafile)
        except OSError as error:
            raise _unreadable("CS_INGEST_KAFKA_SSL_CAFILE", error) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certfile:
            try:
                context.load_cert_chain(self.certfile, self.keyfile, self.keyfile_password)
            except OSError as error:
                raise _unreadable("CS_INGEST_KAFKA_SSL_CERTFILE, or its KEYFILE,", error) from error
        return context


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """All there is to know before the first connection."""

    servers: tuple[str, ...]
    topic: str
    client_id: str
    publish_timeout_s: float
    event_bytes_max: int
    replication_min: int = 3
    insync_min: int = 2
    linger_ms: int = 0
    compression: Compression = "none"
    request_timeout_ms: int = 4000
    security: Security = Security()

    def connection(self) -> dict[str, Any]:
        """Return what every client of aiokafka is told; reads the certificates."""
        return {
            "client_id": self.client_id,
            "request_timeout_ms": self.request_timeout_ms,
            "security_protocol": self.security.protocol,
            "ssl_context": self.security.ssl_context(),
            "sasl_mechanism": self.security.mechanism,
            "sasl_plain_username": self.security.username,
            "sasl_plain_password": self.security.password,
        }


def read_options(url: str, settings: AdapterSettings, /) -> Options:
    """Read the URL and the secrets; raises `ConfigurationError` for whatever is not understood."""
    # Not by `urlsplit`: several servers, one of them [::1], are no URL for it, from some release of Python on.
    servers, _, path = url.partition("://")[2].partition("#")[0].partition("?")[0].partition("/")
    if "@" in servers:
        raise ConfigurationError(
            "a Kafka URL has no user or password: set CS_INGEST_KAFKA_SASL_USERNAME and ..._PASSWORD"
        )
    return Options(
        servers=tuple(_server(each) for each in servers.split(",")),
        topic=_topic(unquote(path)),
        client_id=f"cs-ingest-{__version__}-{settings.instance}",
        publish_timeout_s=settings.publish_timeout_s,
        event_bytes_max=settings.event_bytes_max,
        security=_security(settings.secrets),
        **url_parameters(url, _PARAMETERS),
    )


def _unreadable(what: str, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"{what} can't be read: {error.strerror or type(error).__name__}")


def _server(text: str) -> str:
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host, port = text, str(PORT)
    if not _is_host(host) or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigurationError("a Kafka URL looks like kafka://host:9092,host2:9092/events_raw")
    return f"{host}:{port}"


def _is_host(text: str) -> bool:
    if not set(text) & set("[]:"):
        return bool(text)
    try:
        IPv6Address(text[1:-1])
    except AddressValueError:
        return False
    return text[:1] + text[-1:] == "[]"


def _topic(topic: str) -> str:
    good = topic.isascii() and topic.replace(".", "").replace("_", "").replace("-", "").isalnum()
    if not good or len(topic) > TOPIC_CHARACTERS_MAX:
        raise ConfigurationError("a Kafka URL ends with the topic's name, as in kafka://host:9092/events_raw")
    return topic


def _security(secrets: Mapping[str, str]) -> Security:
    names = {name: name.removeprefix("kafka_") for name in secrets if name.startswith("kafka_")}
    unknown = names.keys() - _SECRETS.keys()
    if unknown:
        wrong = min(unknown)
        raise ConfigurationError(f"unknown setting {wrong!r}: {nearest(wrong, tuple(sorted(_SECRETS)))}")
    security = Security(**{_SECRETS[name]: secrets[name] for name in names})
    if security.protocol not in _PROTOCOLS:
        raise ConfigurationError(f"CS_INGEST_KAFKA_SECURITY_PROTOCOL is one of {', '.join(_PROTOCOLS)}")
    if security.mechanism not in _MECHANISMS:
        raise ConfigurationError(f"CS_INGEST_KAFKA_SASL_MECHANISM is one of {', '.join(_MECHANISMS)}")
    if security.protocol.startswith("SASL") and (security.username is None or security.password is None):
        raise ConfigurationError("SASL needs CS_INGEST_KAFKA_SASL_USERNAME and CS_INGEST_KAFKA_SASL_PASSWORD")
    if security.keyfile is not None and security.certfile is None:
        raise ConfigurationError("CS_INGEST_KAFKA_SSL_KEYFILE needs CS_INGEST_KAFKA_SSL_CERTFILE")
    return security


_SECRETS = {
    "kafka_security_protocol": "protocol",
    "kafka_sasl_mechanism": "mechanism",
    "kafka_sasl_username": "username",
    "kafka_sasl_password": "password",
    "kafka_ssl_cafile": "cafile",
    "kafka_ssl_certfile": "certfile",
    "kafka_ssl_keyfile": "keyfile",
    "kafka_ssl_keyfile_password": "keyfile_password",
}


_PARAMETERS = {
    "replication_min": whole_number(1, 100),
    "insync_min": whole_number(1, 100),
    "linger_ms": whole_number(0, 1000),
    "compression": one_of(*get_args(Compression)),
    "request_timeout_ms": whole_number(500, 60_000),
}
