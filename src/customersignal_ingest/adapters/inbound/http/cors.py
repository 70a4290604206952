"""Which web pages may call this service from a browser: none, unless their exact origin is named."""

from collections.abc import Mapping

_ANSWER = {
    "access-control-allow-methods": "GET, POST",
    "access-control-allow-headers": (
        "X-CS-API-Key, Authorization, Content-Type, Content-Encoding, Idempotency-Key, Prefer, X-Request-Id, "
        "traceparent"
    ),
    "access-control-max-age": "600",
}
_EXPOSED = "X-Request-Id, Retry-After, Preference-Applied"


class Cors:
    """The origins that are allowed, compared as they are: no patterns, no `*`."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        """Take the origins, each as a browser sends it: `https://shop.example`."""
        self._origins = frozenset(origins)

    def preflight(self, method: str, headers: Mapping[str, str]) -> Mapping[str, str] | None:
        """Return the headers that answer a browser's question, `None` if this is none or the answer is no."""
        if method != "OPTIONS" or "access-control-request-method" not in headers:
            return None
        return _ANSWER if headers.get("origin") in self._origins else None

    def of_answer(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return the headers by which the browser lets the page read an answer."""
        if not self._origins:
            return {}
        if headers.get("origin") not in self._origins:
            return {"vary": "Origin"}
        return {
            "access-control-allow-origin": headers["origin"],
            "access-control-expose-headers": _EXPOSED,
            "vary": "Origin",
        }
