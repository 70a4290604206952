"""What went wrong with a request, by name. Which status a name gets is for `answers` to say."""

from collections.abc import Mapping
from enum import StrEnum


class Code(StrEnum):
    """Every error code that an answer can carry. The names are public and stable."""

    # Of one event, and of a request that is one event.
    FIELD_REQUIRED = "FIELD_REQUIRED"
    FIELD_TYPE = "FIELD_TYPE"
    FIELD_VALUE = "FIELD_VALUE"
    FIELD_TOO_LONG = "FIELD_TOO_LONG"
    FIELD_REPEATED = "FIELD_REPEATED"
    TOO_DEEP = "TOO_DEEP"
    TENANT_MISMATCH = "TENANT_MISMATCH"
    PROJECT_MISMATCH = "PROJECT_MISMATCH"
    EVENT_TOO_LARGE = "EVENT_TOO_LARGE"
    MALFORMED_JSON = "MALFORMED_JSON"
    REFUSED_BY_STORE = "REFUSED_BY_STORE"
    NOT_STORED = "NOT_STORED"
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    # Of a request alone.
    INVALID_REQUEST = "INVALID_REQUEST"
    API_KEY_MISSING = "API_KEY_MISSING"
    API_KEY_INVALID = "API_KEY_INVALID"
    API_KEY_REVOKED = "API_KEY_REVOKED"
    API_KEY_EXPIRED = "API_KEY_EXPIRED"
    KEYS_UNAVAILABLE = "KEYS_UNAVAILABLE"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    HEADERS_TOO_LARGE = "HEADERS_TOO_LARGE"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    UNSUPPORTED_ENCODING = "UNSUPPORTED_ENCODING"
    REQUEST_TIMEOUT = "REQUEST_TIMEOUT"
    NOT_FOUND = "NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    INTERNAL_ERROR = "INTERNAL_ERROR"


class Problem(Exception):
    """The request ends here, for the reason that `code` names.

    `message` is for people and echoes no value of the client's; without one, the code's meaning
    stands for it. `beside` is what the answer says beside the error. `close` ends the connection
    too, because what is left on it can't be trusted, or would have to be read for nothing.
    """

    def __init__(
        self,
        code: Code,
        message: str | None = None,
        *,
        details: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        beside: Mapping[str, object] | None = None,
        close: bool = False,
    ) -> None:
        """Take what the answer will say."""
        super().__init__(code)
        self.code = code
        self.message = message
        self.details = details or {}
        self.headers = headers or {}
        self.beside = beside or {}
        self.close = close


class ClientGone(Exception):
    """The client left before its request was whole, or sent what the server could not read to its end."""
