"""What the headers of an event request ask for, read strictly."""

import re
from collections.abc import Mapping

from customersignal_ingest.adapters.inbound.http.encodings import DECODERS
from customersignal_ingest.adapters.inbound.http.problem import Code, Problem

Headers = Mapping[str, str]

_JSON = re.compile(r'application/json(?:\s*;\s*charset=(?:utf-8|"utf-8"))?\s*;?', re.IGNORECASE)
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_ACCEPTED_ENCODINGS = ", ".join(DECODERS)


def api_key_of(headers: Headers, /) -> str | None:
    """Return the API key, whichever of the two headers has it; raises `Problem` when both are there."""
    key, authorization = headers.get("x-cs-api-key"), headers.get("authorization")
    if authorization is None:
        return key
    if key is not None:
        raise Problem(Code.INVALID_REQUEST, "X-CS-API-Key and Authorization are both there; send one of them")
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def require_json(headers: Headers, /) -> None:
    """Raise `Problem` unless the body is said to be JSON in UTF-8."""
    media_type = headers.get("content-type", "")
    if media_type != "application/json" and _JSON.fullmatch(media_type) is None:  # As nearly all say it.
        raise Problem(
            Code.UNSUPPORTED_MEDIA_TYPE,
            "the body must be JSON in UTF-8, and say so: add the header  Content-Type: application/json",
            headers={"accept": "application/json"},
        )


def encoding_of(headers: Headers, /) -> str | None:
    """Return the content encoding of the body, `None` for a plain one; raises `Problem` for an unknown one."""
    encoding = headers.get("content-encoding")
    if encoding is None or (encoding := encoding.lower()) in ("", "identity"):
        return None
    if encoding not in DECODERS:
        raise Problem(
            Code.UNSUPPORTED_ENCODING,
            f"the content encodings are {_ACCEPTED_ENCODINGS}, one at a time",
            headers={"accept-encoding": _ACCEPTED_ENCODINGS},
        )
    return encoding


def wants_representation(headers: Headers, /) -> bool:
    """Tell whether the client prefers an answer that lists everything (RFC 7240)."""
    preferences = headers.get("prefer", "").lower().split(",")
    return any(preference.replace(" ", "") in _REPRESENTATION for preference in preferences)


_REPRESENTATION = ("return=representation", 'return="representation"')


def wants_problem(headers: Headers, /) -> bool:
    """Tell whether the client asks for errors as RFC 9457 has them."""
    return any(
        media_type.strip().lower() == "application/problem+json" and "q=0" not in parameters.replace(" ", "").split(";")
        for media_type, _, parameters in (part.partition(";") for part in headers.get("accept", "").split(","))
    )


def traceparent_of(headers: Headers, /) -> str | None:
    """Return the W3C trace context if it is a valid one; another is as good as none."""
    traceparent = headers.get("traceparent")
    return traceparent if traceparent is not None and _TRACEPARENT.fullmatch(traceparent) else None
