"""API keys over HTTP."""

import pytest
from http_service import JSON, KEY, Reply, Service, event

pytestmark = pytest.mark.anyio

BODY = b'{"event_type":"a","timestamp":"2026-11-23T10:00:00Z","properties":{}}'


async def send(service: Service, *headers: tuple[str, str], path: str = "/v1/events", then: str = "end") -> Reply:
    return await service.send("POST", path, [*JSON.items(), *headers], [BODY], then=then)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([], "API_KEY_MISSING"),
        ([("x-cs-api-key", "")], "API_KEY_MISSING"),
        ([("authorization", "Bearer")], "API_KEY_MISSING"),
        ([("authorization", "Basic dTpw")], "API_KEY_MISSING"),
        ([("x-cs-api-key", "cs_live_unknown")], "API_KEY_INVALID"),
        ([("x-cs-api-key", "not a key")], "API_KEY_INVALID"),
        ([("authorization", "Bearer cs_live_unknown")], "API_KEY_INVALID"),
        ([("x-cs-api-key", "revoked")], "API_KEY_REVOKED"),
        ([("x-cs-api-key", "expired")], "API_KEY_EXPIRED"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/events", "/v1/events/batch"])
async def test_a_key_that_opens_nothing_is_401_with_a_challenge(
    service: Service, headers: list[tuple[str, str]], code: str, path: str
) -> None:
    reply = await send(service, *headers, path=path)

    assert (reply.status, reply.code) == (401, code)
    assert "X-CS-API-Key" in reply.headers["www-authenticate"]
    assert service.memory.stored == []


@pytest.mark.parametrize("name", ["x-cs-api-key", "X-CS-API-KEY"])
async def test_a_known_key_opens(service: Service, name: str) -> None:
    assert (await send(service, (name, KEY))).status == 202


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_bearer_token_is_the_same_as_the_key(service: Service, scheme: str) -> None:
    assert (await send(service, ("authorization", f"{scheme} {KEY}"))).status == 202


@pytest.mark.parametrize(
    "headers",
    [
        [("x-cs-api-key", KEY), ("authorization", f"Bearer {KEY}")],
        [("x-cs-api-key", KEY), ("x-cs-api-key", KEY)],
        [("authorization", f"Bearer {KEY}"), ("authorization", f"Bearer {KEY}")],
    ],
)
async def test_two_keys_are_400(service: Service, headers: list[tuple[str, str]]) -> None:
    reply = await send(service, *headers)

    assert (reply.status, reply.code) == (400, "INVALID_REQUEST")


async def test_a_key_that_cannot_be_checked_is_503_with_retry_after(service: Service) -> None:
    service.keys.away = True

    reply = await send(service, ("x-cs-api-key", KEY))

    assert (reply.status, reply.code) == (503, "KEYS_UNAVAILABLE")
    assert reply.headers["retry-after"].isdigit()
    assert b"db.internal" not in reply.body


async def test_a_bad_key_is_refused_before_the_body_is_read(service: Service) -> None:
    reply = await send(service, ("x-cs-api-key", "unknown"), then="stall")

    assert reply.code == "API_KEY_INVALID"
    assert service.log.lines[-1]["http.request.body.size"] == 0


async def test_unknown_and_malformed_keys_are_answered_alike(service: Service) -> None:
    unknown = await send(service, ("x-cs-api-key", KEY[:-1] + "x"), ("x-request-id", "r"))
    malformed = await send(service, ("x-cs-api-key", "?"), ("x-request-id", "r"))

    assert unknown == malformed


@pytest.mark.parametrize("path", ["/v1/limits", "/health/live", "/metrics", "/schema", "/schema/openapi.json"])
async def test_what_is_about_the_service_needs_no_key(service: Service, path: str) -> None:
    assert (await service.get(path)).status == 200


async def test_each_key_stores_for_its_own_tenant(service: Service) -> None:
    await service.post(event())
    await service.post(event(), headers={"x-cs-api-key": "globex"})

    assert [(v["tenant_id"], v.get("project_id")) for v in service.values] == [("acme", None), ("globex", "web")]


async def test_a_bad_key_counts_for_more_than_a_bad_media_type(service: Service) -> None:
    reply = await service.send("POST", "/v1/events", [("x-cs-api-key", "unknown"), ("content-type", "text/plain")])

    assert reply.code == "API_KEY_INVALID"
