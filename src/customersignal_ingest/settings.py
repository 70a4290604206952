"""Every setting: its name, default, range, and what follows from it.

`Settings(...)` takes what it is given and looks at nothing else; `environment` reads what an operator has set.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from customersignal_ingest.domain.errors import ConfigurationError
from customersignal_ingest.registry import AdapterSettings

PREFIX = "CS_INGEST_"

_SECRETS_OF_ADAPTERS = "kafka_"
_PEPPERS_MAX = 2
_PEPPER_OF_MEMORY = b"memory"


def _address(text: str) -> str:
    try:
        parts = urlsplit(f"//{text}")
        good = parts.hostname and parts.port and parts.netloc == text
    except ValueError:
        good = False
    if not good:
        raise ValueError("expected an address and a port, as in 127.0.0.1:8080 or [::1]:8080")
    return text


def _peppers(text: str) -> tuple[bytes, ...]:
    return tuple(pepper.strip().encode() for pepper in re.split(r"[,\n]", text) if pepper.strip())


def _one_or_two(text: str) -> str:
    if not 1 <= len(_peppers(text)) <= _PEPPERS_MAX:
        raise ValueError("expected one secret, or two with a comma or a line break between them")
    return text


def _url(text: str, info: ValidationInfo) -> str:
    if ":" not in text or not text.isprintable() or " " in text:
        raise ValueError(f"expected a URL, as in {_EXAMPLES[str(info.field_name)]}")
    return text


def _split(origins: object) -> object:
    if isinstance(origins, str):
        return tuple(origin.strip() for origin in origins.split(",") if origin.strip())
    return origins


def _exact(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        parts = urlsplit(origin)
        if (
            "*" in origin
            or parts.scheme not in ("http", "https")
            or not parts.hostname
            or f"{parts.scheme}://{parts.netloc}" != origin
        ):
            raise ValueError("expected exact origins with commas between them, as in https://shop.example")
    return origins


def _lower(text: object) -> object:
    return text.lower() if isinstance(text, str) else text


Url = Annotated[str, AfterValidator(_url)]
Secret = Field(default=None, repr=False, json_schema_extra={"secret": True})
Choice = BeforeValidator(_lower)


def _number(default: float, *, least: float, most: float) -> Any:
    return Field(default=default, ge=least, le=most, allow_inf_nan=False)


def _count(default: int, *, least: int, most: int) -> Any:
    return Field(default=default, ge=least, le=most)


class Settings(BaseSettings):
    """What can be set, by name in lower case; raises pydantic's `ValidationError` for what is out of range."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    listen: Annotated[str, AfterValidator(_address)] = "127.0.0.1:8080"
    workers: int = _count(1, least=1, most=64)
    publisher_url: Url | None = Secret
    keys_url: Url | None = Secret
    key_pepper: Annotated[str, AfterValidator(_one_or_two)] | None = Secret
    keys_ttl_s: float = _number(30, least=0, most=86_400)
    keys_stale_s: float = _number(900, least=0, most=604_800)

    event_bytes_max: int = _count(900_000, least=100, most=100_000_000)
    batch_events_max: int = _count(2_000, least=1, most=1_000_000)
    body_bytes_max: int = _count(10_000_000, least=100, most=1_000_000_000)
    encoded_bytes_max: int = _count(5_000_000, least=100, most=1_000_000_000)
    depth_max: int = _count(32, least=1, most=100)
    body_read_timeout_s: float = _number(10, least=0.1, most=600)
    publish_timeout_s: float = _number(15, least=0.1, most=600)
    in_flight_bytes_max: int = _count(64 * 2**20, least=1_000, most=2**40)
    in_flight_events_max: int = _count(20_000, least=1, most=100_000_000)
    tenant_share: float = _number(0.5, least=0.001, most=1)
    drain_delay_s: float = _number(5, least=0, most=3_600)
    keep_alive_s: float = _number(75, least=1, most=86_400)

    transports: Annotated[tuple[str, ...], BeforeValidator(_split)] = Field(default=(), repr=False)
    cors_origins: Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_exact)] = ()
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Choice] = "info"
    log_format: Annotated[Literal["json", "console"], Choice] | None = None

    kafka_security_protocol: str | None = None
    kafka_sasl_mechanism: str | None = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: str | None = Secret
    kafka_ssl_cafile: str | None = None
    kafka_ssl_certfile: str | None = None
    kafka_ssl_keyfile: str | None = None
    kafka_ssl_keyfile_password: str | None = Secret

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Code says everything: somebody's program must not change with the folder that it is started in."""
        return (init_settings,)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.workers > 1 and self.publisher_scheme in ("sqlite", "memory"):
            one = f"{self.publisher_scheme}: is for one process"
            raise ValueError(f"{PREFIX}WORKERS above 1 needs a publisher that several processes can share: {one}")
        return self

    @property
    def publisher_scheme(self) -> str:
        """What stands before the colon of the publisher's URL."""
        return (self.publisher_url or "").partition(":")[0]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on."""
        parts = urlsplit(f"//{self.listen}")
        assert parts.hostname and parts.port  # noqa: PT018  `listen` was checked for both.
        return parts.hostname, parts.port

    @property
    def peppers(self) -> tuple[bytes, ...]:
        """The secrets that key digests are made with, the one for new keys first.

        Raises `ConfigurationError` when there is none and keys outlive the process.
        """
        if self.key_pepper is not None:
            return _peppers(self.key_pepper)
        if self.required("keys_url").startswith("memory:"):
            return (_PEPPER_OF_MEMORY,)
        name = variable("key_pepper")
        raise ConfigurationError(
            f"{name} or {name}_FILE must be set: a long random secret, as from openssl rand -hex 32"
        )

    def required(self, name: Literal["publisher_url", "keys_url"], /) -> str:
        """Return this setting; raises `ConfigurationError`, with what to set, when it is not there."""
        value = getattr(self, name)
        if value is None:
            raise ConfigurationError(f"{variable(name)} must be set: {_EXAMPLES[name]}")
        return str(value)

    @property
    def tenant_bytes_max(self) -> int:
        """What one tenant may have in flight, in bytes."""
        return max(1, int(self.in_flight_bytes_max * self.tenant_share))

    @property
    def in_force(self) -> Self:
        """The same settings, with each limit lowered to what the others let through: a body's, a tenant's share.

        A request that could never be admitted would be answered "later" for ever; now it is told the limit.
        """
        encoded = min(self.encoded_bytes_max, max(1, self.tenant_bytes_max // 3))
        # A compressed body is in memory as it was sent and as it decodes to.
        body = min(self.body_bytes_max, max(1, self.tenant_bytes_max - encoded))
        lowered = {
            "batch_events_max": min(self.batch_events_max, max(1, int(self.in_flight_events_max * self.tenant_share))),
            "encoded_bytes_max": encoded,
            "body_bytes_max": body,
            "event_bytes_max": min(self.event_bytes_max, body),
        }
        return self.model_copy(update=lowered)

    @property
    def lowered(self) -> Mapping[str, tuple[int, int]]:
        """Each limit that is lower in force than as set: both values, by name."""
        pairs = {name: (getattr(self, name), getattr(self.in_force, name)) for name in LIMITS}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    @property
    def limits(self) -> Mapping[str, int | float]:
        """Every limit in force, by its public name: what `/v1/limits` says."""
        return {name: getattr(self.in_force, name) for name in LIMITS}

    def for_adapters(self, *, instance: str) -> AdapterSettings:
        """Return what adapters get beside their URL."""
        others = {name for name in type(self).model_fields if name.startswith(_SECRETS_OF_ADAPTERS)}
        return AdapterSettings(
            publish_timeout_s=self.publish_timeout_s,
            event_bytes_max=self.in_force.event_bytes_max,
            instance=instance,
            secrets={name: value for name in sorted(others) if (value := getattr(self, name)) is not None},
        )


LIMITS = (
    "event_bytes_max",
    "batch_events_max",
    "body_bytes_max",
    "encoded_bytes_max",
    "depth_max",
    "body_read_timeout_s",
    "publish_timeout_s",
    "in_flight_bytes_max",
    "in_flight_events_max",
    "tenant_share",
)
"""The names of the settings that are limits, as they are published."""

_EXAMPLES = {
    "publisher_url": "kafka://host:9092/events_raw, or sqlite:///data/events.db on one machine",
    "keys_url": "postgresql://user:password@host/database, or sqlite:///data/keys.db on one machine",
}
SECRETS = frozenset(
    name
    for name, field in Settings.model_fields.items()
    if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("secret")
)
"""The names of the settings that nobody may see."""


def variable(name: str, /) -> str:
    """Return the environment variable of this setting."""
    return PREFIX + name.upper()
