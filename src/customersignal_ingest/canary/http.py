"""One event over HTTP, as a client of the service sends it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

ROUTE = "v1/events"
BODY_BYTES_MAX = 64 * 1024
IDLE_S = 5.0
"""So long a connection is kept without a request: less than any server or proxy keeps it."""


class NoAnswer(Exception):
    """No answer came, or none that can be read; the event may be stored. The message says why."""


class Http:
    """Posts events to the single route. Whoever calls sets the deadline; calls may overlap."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        """`client` knows the service's URL and the API key."""
        self._client = client

    async def __call__(self, payload: bytes, /) -> tuple[int, bytes]:
        """Return the answer's status and the beginning of its body; raises `NoAnswer`."""
        headers = {"Content-Type": "application/json"}
        try:
            async with self._client.stream("POST", ROUTE, content=payload, headers=headers) as answer:
                return answer.status_code, await _beginning(answer)
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise NoAnswer(f"{type(error).__name__}: {error}") from error


@asynccontextmanager
async def opened(url: str, api_key: str, /, *, connections_max: int, timeout_s: float) -> AsyncIterator[Http]:
    """Provide what posts to the service at `url`; a path in it is kept, proxies of the environment are used."""
    limits = httpx.Limits(max_connections=connections_max, keepalive_expiry=IDLE_S)
    headers = {"X-CS-API-Key": api_key}
    async with httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=timeout_s) as client:
        yield Http(client)


async def _beginning(answer: httpx.Response) -> bytes:
    """Return as much of the body as our service could have sent: what is longer is somebody else's."""
    body = b""
    async for piece in answer.aiter_bytes():
        body += piece
        if len(body) > BODY_BYTES_MAX:
            break
    return body[:BODY_BYTES_MAX]
