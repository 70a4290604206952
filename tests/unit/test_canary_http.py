"""One event over HTTP: an answer, or the reason why there is none."""

from collections.abc import AsyncIterator

import httpx
import pytest

from customersignal_ingest.canary.http import BODY_BYTES_MAX, Http, NoAnswer, opened

pytestmark = pytest.mark.anyio


class Endless(httpx.AsyncByteStream):
    """A body that never ends."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1000


def client(answer: httpx.Response | Exception) -> tuple[Http, list[httpx.Request]]:
    asked: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    transport = httpx.MockTransport(handle)
    return Http(httpx.AsyncClient(transport=transport, base_url="https://ingest.test/behind/")), asked


async def test_an_event_is_posted_as_it_is_to_the_route_behind_the_url() -> None:
    post, asked = client(httpx.Response(202, content=b"stored"))

    assert await post(b'{"a":1}') == (202, b"stored")
    [request] = asked
    assert str(request.url) == "https://ingest.test/behind/v1/events"
    assert (request.content, request.headers["content-type"]) == (b'{"a":1}', "application/json")


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("nobody listens"), httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("odd")]
)
async def test_no_answer_has_a_reason(error: Exception) -> None:
    post, _ = client(error)

    with pytest.raises(NoAnswer, match=f"{type(error).__name__}: {error}"):
        await post(b"{}")


async def test_an_answer_without_an_end_is_cut() -> None:
    post, _ = client(httpx.Response(200, stream=Endless()))

    assert await post(b"{}") == (200, b"x" * BODY_BYTES_MAX)


async def test_a_redirect_is_an_answer_like_any_other() -> None:
    post, asked = client(httpx.Response(307, headers={"Location": "https://elsewhere.test/"}))

    assert (await post(b"{}"))[0] == 307
    assert len(asked) == 1


async def test_nobody_listening_is_no_answer() -> None:
    async with opened("http://127.0.0.1:1", "key", connections_max=1, timeout_s=5) as post:
        with pytest.raises(NoAnswer, match="ConnectError"):
            await post(b"{}")
