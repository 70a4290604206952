"""Requests that two readers could read in two ways."""

import pytest
from http_service import JSON, KEY, Reply, Service

pytestmark = pytest.mark.anyio

BODY = b'{"event_type":"a","timestamp":"2026-11-23T10:00:00Z","properties":{}}'
LENGTH = ("content-length", str(len(BODY)))


async def send(service: Service, *headers: tuple[str, str], hosts: tuple[str, ...] = ("ingest.test",)) -> Reply:
    sent = [*JSON.items(), ("x-cs-api-key", KEY), *headers]
    return await service.send("POST", "/v1/events", sent, [BODY], hosts=hosts)


def is_refused(service: Service, reply: Reply, status: int, code: str) -> bool:
    closes = reply.headers["connection"] == "close"
    return (reply.status, reply.code) == (status, code) and closes and service.memory.stored == []


@pytest.mark.parametrize(
    "headers",
    [
        [LENGTH, ("transfer-encoding", "chunked")],
        [("transfer-encoding", "gzip, chunked")],
        [("transfer-encoding", "identity")],
        [("transfer-encoding", "xchunked")],
        [("transfer-encoding", "")],
        [("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
        [LENGTH, LENGTH],
        [("content-length", "7, 7")],
        [("content-length", "+7")],
        [("content-length", "0x7")],
        [("content-length", "-1")],
        [("content-length", "")],
        [("content-length", "9" * 5000)],
        [("content-length", "\xb2")],
        [("x-cs-api-key", KEY)],
        [("authorization", "Bearer a"), ("authorization", "Bearer b")],
        [("content-type", "application/json")],
        [("content-encoding", "gzip"), ("content-encoding", "gzip")],
        [("idempotency-key", "a"), ("idempotency-key", "a")],
        [("idempotency-key", "gr\xf6\xdfe")],
        [("idempotency-key", "a\x01b")],
        [("idempotency-key", "a\tb")],
        [("content-encoding", "gzip\x7f")],
        [("authorization", "Bearer \xe9")],
    ],
)
async def test_an_ambiguous_request_is_400_and_the_connection_ends(
    service: Service, headers: list[tuple[str, str]]
) -> None:
    assert is_refused(service, await send(service, *headers), 400, "INVALID_REQUEST")


@pytest.mark.parametrize("host", ["a", "a.b-c_d.", "127.0.0.1:8080", "[::1]", "[::ffff:1.2.3.4]:80", "a:", "%C3%A9"])
async def test_a_name_or_an_address_with_a_port_or_without_is_a_host(service: Service, host: str) -> None:
    assert (await send(service, hosts=(host,))).status == 202


STRANGE = ["a\x01", "a b", "a/b", "a\tb", "<script>", "a:b", "a:80:80", "user@a", "[::1", "[g]", "a?", "a#", ":80", "ä"]


@pytest.mark.parametrize("hosts", [(), ("",), ("a", "b"), ("a", "a"), *((host,) for host in STRANGE)])
async def test_no_host_or_two_or_a_strange_one_is_400(service: Service, hosts: tuple[str, ...]) -> None:
    assert is_refused(service, await send(service, hosts=hosts), 400, "INVALID_REQUEST")


async def test_a_key_that_is_not_ascii_is_400(service: Service) -> None:
    reply = await service.send("POST", "/v1/events", [*JSON.items(), ("x-cs-api-key", "cs_live_\xfc")], [BODY])

    assert (reply.status, reply.code) == (400, "INVALID_REQUEST")


async def test_more_than_a_hundred_headers_are_431(service: Service) -> None:
    reply = await send(service, *((f"x-{n}", "a") for n in range(98)))

    assert is_refused(service, reply, 431, "HEADERS_TOO_LARGE")
    assert reply.json["error"]["details"] == {"limit": "headers_max", "value": 100}


async def test_a_hundred_headers_are_taken(service: Service) -> None:
    assert (await send(service, *((f"x-{n}", "a") for n in range(97)))).status == 202


async def test_more_than_32_kib_of_headers_are_431(service: Service) -> None:
    reply = await send(service, ("x-large", "a" * 32_768))

    assert is_refused(service, reply, 431, "HEADERS_TOO_LARGE")


@pytest.mark.parametrize(
    "headers", [[LENGTH], [("transfer-encoding", "chunked")], [("transfer-encoding", "Chunked")], []]
)
async def test_a_plain_request_is_taken(service: Service, headers: list[tuple[str, str]]) -> None:
    assert (await send(service, *headers)).status == 202


async def test_headers_that_do_not_count_may_hold_anything_twice(service: Service) -> None:
    reply = await send(service, ("x-other", "\xff"), ("x-other", "\xff"), ("x_cs_api_key", "b"), ("accept", "\xff"))

    assert reply.status == 202


@pytest.mark.parametrize("path", ["/health/live", "/nowhere", "/v1/limits"])
async def test_the_guard_stands_before_every_route(service: Service, path: str) -> None:
    assert (await service.send("GET", path, hosts=())).status == 400
