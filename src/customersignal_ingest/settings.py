"""Every setting: its name, default, range, and where its value came from.

`Settings(...)` in code takes what it is given and looks at nothing else. `read_settings` reads what
an operator has set: environment variables, a `.env` file, and for each secret a file that
`<NAME>_FILE` names. The environment wins over `.env`. An empty value counts as not set.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from customersignal_ingest.domain.errors import ConfigurationError
from customersignal_ingest.registry import AdapterSettings

PREFIX = "CS_INGEST_"
DOTENV = Path(".env")

_FOR_TESTS = "CS_INGEST_TEST_"
# What Kubernetes puts into every container beside a Service that is called cs-ingest.
_KUBERNETES = re.compile(r"CS_INGEST_(SERVICE_(HOST|PORT.*)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")
_SECRET_PARAMETER = re.compile(r"([^?&]*(?:password|secret|token)[^=&]*)=[^&]*", re.IGNORECASE)
_SECRETS_OF_ADAPTERS = "kafka_"
_PEPPERS_MAX = 2
_PEPPER_OF_MEMORY = b"memory"


def _address(text: str) -> str:
    parts = urlsplit(f"//{text}")
    try:
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


def _url(text: str) -> str:
    if ":" not in text or not text.isprintable() or " " in text:
        raise ValueError("expected a URL, as in kafka://host:9092/events_raw, sqlite:///data/events.db or memory:")
    return text


def _split(origins: object) -> object:
    if isinstance(origins, str):
        return tuple(origin.strip() for origin in origins.split(",") if origin.strip())
    return origins


def _exact(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.hostname or f"{parts.scheme}://{parts.netloc}" != origin:
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

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

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

    transports: Annotated[tuple[str, ...], BeforeValidator(_split)] = ()
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
_SECRETS = frozenset(
    name
    for name, field in Settings.model_fields.items()
    if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("secret")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """Settings as read, and for each of them by name where its value came from."""

    settings: Settings
    origins: Mapping[str, str]

    def shown(self, name: str, /) -> str | None:
        """Return the value for people's eyes: a secret as `***`, a URL without its password."""
        value = getattr(self.settings, name)
        if value is None or value == ():
            return None
        if name in _SECRETS:
            return _masked(value) if name.endswith("_url") else "***"
        return ",".join(value) if isinstance(value, tuple) else str(value)


def variable(name: str, /) -> str:
    """Return the environment variable of this setting."""
    return PREFIX + name.upper()


def read_settings(environ: Mapping[str, str] = os.environ, dotenv: Path = DOTENV) -> Effective:
    """Return what is set; raises `ConfigurationError`, in one line, for a name or a value that is wrong."""
    values: dict[str, str] = {}
    origins = dict.fromkeys(Settings.model_fields, "default")
    for origin, variables in (("env", environ), (".env", _read_dotenv(dotenv))):
        ours = {name: value for name, value in variables.items() if name.startswith(PREFIX)}
        _refuse_unknown(ours, in_kubernetes="KUBERNETES_SERVICE_HOST" in environ)
        for name, (value, where) in _values(ours, origin).items():
            if name not in values:
                values[name], origins[name] = value, where
    return Effective(settings=_checked(values), origins=origins)


def _read_dotenv(path: Path) -> Mapping[str, str]:
    if not path.is_file():
        return {}
    try:
        found = DotEnvSettingsSource(Settings, env_file=path, env_file_encoding="utf-8", case_sensitive=True).env_vars
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} can't be read: {type(error).__name__}") from error
    return {name: value for name, value in found.items() if value is not None}


def _refuse_unknown(variables: Mapping[str, str], *, in_kubernetes: bool) -> None:
    for name in variables:
        injected = in_kubernetes and _KUBERNETES.fullmatch(name)
        if name not in _KNOWN and not name.startswith(_FOR_TESTS) and not injected:
            close = get_close_matches(name, _KNOWN, n=1)
            hint = f"did you mean {close[0]}?" if close else "`cs-ingest config` lists those that there are"
            raise ConfigurationError(f"unknown setting {name}: {hint}")


def _values(variables: Mapping[str, str], origin: str) -> Mapping[str, tuple[str, str]]:
    """Return value and origin by the setting's name; what is empty is left out."""
    found: dict[str, tuple[str, str]] = {}
    for name in Settings.model_fields:
        if value := variables.get(variable(name)):
            found[name] = value, origin
        if name in _SECRETS and (path := variables.get(f"{variable(name)}_FILE")):
            if name in found:
                raise ConfigurationError(f"{variable(name)} and {variable(name)}_FILE are both set: which one counts?")
            found[name] = _read_secret(f"{variable(name)}_FILE", path), f"file {path}"
    return found


def _read_secret(name: str, path: str) -> str:
    try:
        secret = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"{name}: {path} can't be read: {reason}") from error
    if not secret:
        raise ConfigurationError(f"{name}: {path} is empty")
    return secret


def _checked(values: Mapping[str, str]) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError("; ".join(_explained(each) for each in error.errors(include_url=False))) from None


def _explained(error: Any) -> str:
    """Say which variable is wrong, what was expected, and what was there if that is no secret."""
    if not error["loc"]:
        return str(error["ctx"]["error"])
    name, context = str(error["loc"][0]), error.get("ctx", {})
    explain = _EXPECTED.get(error["type"])
    expected = error["msg"] if explain is None else explain(context)
    got = "" if name in _SECRETS else f", got {str(error['input'])[:100]!r}"
    return f"{variable(name)}: {expected}{got}"


_EXPECTED: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "int_parsing": lambda _: "expected an integer",
    "int_parsing_size": lambda _: "expected a smaller integer",
    "int_from_float": lambda _: "expected an integer",
    "float_parsing": lambda _: "expected a number",
    "finite_number": lambda _: "expected a finite number",
    "greater_than_equal": lambda context: f"expected at least {context['ge']:g}",
    "less_than_equal": lambda context: f"expected at most {context['le']:g}",
    "literal_error": lambda context: f"expected one of {context['expected'].replace(' or ', ', ')}",
    "value_error": lambda context: str(context["error"]),
}

_KNOWN = tuple(variable(name) for name in Settings.model_fields) + tuple(f"{variable(name)}_FILE" for name in _SECRETS)


def _masked(url: str) -> str:
    """Return the URL without its password and what else may be secret in it."""
    scheme, _, rest = url.partition("://")
    authority, _, _ = rest.partition("/")
    user, at, _ = authority.rpartition("@")
    if "@" in rest[len(authority) :]:  # After a bare / or ? in a password its rest stands here.
        return f"{scheme}://***"
    if at and ":" in user:
        url = f"{scheme}://{user.partition(':')[0]}:***@{rest[len(user) + 1 :]}"
    return _SECRET_PARAMETER.sub(r"\1=***", url)
