"""What an operator has set, and where: environment variables, a `.env` file, a file for each secret.

A secret's file is named by `<NAME>_FILE`. The environment wins over `.env`. An empty value counts as not set.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import DotEnvSettingsSource

from customersignal_ingest.domain.errors import ConfigurationError
from customersignal_ingest.settings import PREFIX, SECRETS, Settings, variable

DOTENV = Path(".env")

_FOR_TESTS = "CS_INGEST_TEST_"
# What Kubernetes puts into every container beside a Service that is called cs-ingest.
_KUBERNETES = re.compile(r"CS_INGEST_(SERVICE_(HOST|PORT.*)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")
_SECRET_PARAMETER = re.compile(r"([^?&]*(?:password|secret|token)[^=&]*)=[^&]*", re.IGNORECASE)


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
        if name in SECRETS:
            return _masked(value) if name.endswith("_url") else "***"
        return ",".join(map(_masked, value)) if isinstance(value, tuple) else str(value)


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
            nearest = get_close_matches(name, _KNOWN, n=1, cutoff=0)[0]
            raise ConfigurationError(f"unknown setting {name}: did you mean {nearest}?")


def _values(variables: Mapping[str, str], origin: str) -> Mapping[str, tuple[str, str]]:
    """Return value and origin by the setting's name; what is empty is left out."""
    found: dict[str, tuple[str, str]] = {}
    for name in Settings.model_fields:
        if value := variables.get(variable(name)):
            found[name] = value, origin
        if name in SECRETS and (path := variables.get(f"{variable(name)}_FILE")):
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
    got = "" if name in SECRETS else f", got {str(error['input'])[:100]!r}"
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

_KNOWN = tuple(variable(name) for name in Settings.model_fields) + tuple(f"{variable(name)}_FILE" for name in SECRETS)


def _masked(url: str) -> str:
    """Return the URL without its password and what else may be secret in it."""
    scheme, separator, rest = url.partition("://")
    if not separator and "@" in url:  # No URL that anything could read, so what of it is a password is open.
        return "***"
    authority, _, _ = rest.partition("/")
    user, at, _ = authority.rpartition("@")
    if "@" in rest[len(authority) :]:  # After a bare / or ? in a password its rest stands here.
        return f"{scheme}://***"
    if at and ":" in user:
        url = f"{scheme}://{user.partition(':')[0]}:***@{rest[len(user) + 1 :]}"
    return _SECRET_PARAMETER.sub(r"\1=***", url)
