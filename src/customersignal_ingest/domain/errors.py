"""The errors of the core. An exception means that nothing was looked at; fates of events are values."""

from enum import StrEnum


class IngestError(Exception):
    """The root of what this package raises on purpose."""


class ConfigurationError(IngestError):
    """A setting, URL or file is wrong; the message is one line that says what to do."""


class Unavailable(IngestError):
    """A component could not tell now; asking again later may help. Never means "no"."""


class KeyProblem(StrEnum):
    """Why an API key opens nothing. The names are public and stable."""

    MISSING = "API_KEY_MISSING"
    INVALID = "API_KEY_INVALID"
    REVOKED = "API_KEY_REVOKED"
    EXPIRED = "API_KEY_EXPIRED"


class Unauthenticated(IngestError):
    """The API key opens nothing, for certain."""

    def __init__(self, problem: KeyProblem) -> None:
        """Keep the problem; the key itself is never part of the message."""
        super().__init__(problem.value)
        self.problem = problem


class Saturated(IngestError):
    """A limit of what may be in flight is reached; nothing was taken. The message names the limit."""
