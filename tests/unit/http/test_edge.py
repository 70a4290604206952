"""What holds for every request: errors in one shape, request ids, methods, headers, health, the log."""

import json
from typing import Any

import anyio
import pytest
from http_service import KEY, Keys, Service, event

from customersignal_ingest.adapters.inbound.http.app import create_app
from customersignal_ingest.adapters.inbound.http.events import HttpLimits
from customersignal_ingest.domain.errors import Unavailable

pytestmark = pytest.mark.anyio

ROUTES = {
    "/v1/events": "POST",
    "/v1/events/batch": "POST",
    "/v1/limits": "GET",
    "/health/live": "GET, HEAD",
    "/health/ready": "GET, HEAD",
    "/metrics": "GET",
    "/schema/openapi.json": "GET",
    "/schema": "GET",
}
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("method", METHODS)
async def test_a_method_that_a_path_does_not_have_is_405_with_allow(service: Service, path: str, method: str) -> None:
    reply = await service.send(method, path, [("x-cs-api-key", KEY)])

    if method in ROUTES[path].split(", "):
        assert reply.status != 405
    else:
        assert (reply.status, reply.headers["allow"]) == (405, ROUTES[path])
        assert reply.body == b"" if method == "HEAD" else reply.code == "METHOD_NOT_ALLOWED"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/events/",
        "//v1/events",
        "/v1/events/batch/x",
        "/V1/events",
        "/schema/",
        "/docs",
        "*",
        "/v1%2Fevents",
    ],
)
async def test_any_other_path_is_404(service: Service, path: str) -> None:
    reply = await service.post(event(), path)

    assert (reply.status, reply.code) == (404, "NOT_FOUND")
    assert service.memory.stored == []


async def test_an_error_has_our_shape(service: Service) -> None:
    reply = await service.get("/nowhere", x_request_id="r-1")

    assert reply.headers["content-type"] == "application/json"
    assert reply.json == {
        "error": {"code": "NOT_FOUND", "message": "There is nothing at this path.", "details": {}},
        "request_id": "r-1",
    }


@pytest.mark.parametrize("accept", ["application/problem+json", "text/html, application/problem+json;q=0.9"])
async def test_an_error_is_rfc9457_when_asked_for(service: Service, accept: str) -> None:
    reply = await service.post(event(timestamp=None), headers={"accept": accept, "x-request-id": "r-1"})

    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json == {
        "type": "/schema#FIELD_TYPE",
        "title": "A field has the wrong JSON type.",
        "status": 422,
        "detail": "timestamp must be a string, not null",
        "instance": "urn:request:r-1",
        "code": "FIELD_TYPE",
        "details": {"field": "/timestamp"},
        "request_id": "r-1",
    }


@pytest.mark.parametrize("accept", ["", "*/*", "application/json", "application/problem+json;q=0"])
async def test_an_error_has_our_shape_otherwise(service: Service, accept: str) -> None:
    assert "error" in (await service.get("/nowhere", accept=accept)).json


async def test_a_batch_of_which_nothing_is_stored_keeps_its_results_in_rfc9457() -> None:
    reply = await Service("lost").batch([event()], headers={"accept": "application/problem+json"})

    assert (reply.json["status"], reply.json["code"]) == (503, "NOT_STORED")
    assert [result["status"] for result in reply.json["results"]] == ["not_stored"]


@pytest.mark.parametrize("request_id", ["a", "A-b_c.1", "x" * 64])
async def test_a_good_request_id_comes_back(service: Service, request_id: str) -> None:
    assert (await service.post(event(), headers={"x-request-id": request_id})).headers["x-request-id"] == request_id


@pytest.mark.parametrize("request_id", ["", "x" * 65, "a b", "a\x01", "ä", "a,b", KEY])
async def test_another_request_id_is_replaced(service: Service, request_id: str) -> None:
    replaced = (await service.post(event(), headers={"x-request-id": request_id})).headers["x-request-id"]

    assert replaced != request_id
    assert replaced.isalnum()


async def test_two_request_ids_are_replaced(service: Service) -> None:
    reply = await service.send("GET", "/health/live", [("x-request-id", "a"), ("x-request-id", "b")])

    assert len(reply.headers["x-request-id"]) == 32


@pytest.mark.parametrize("path", [*ROUTES, "/nowhere"])
async def test_every_answer_says_that_it_is_neither_sniffed_nor_kept(service: Service, path: str) -> None:
    """So does every other answer that these tests get, refusals and failures included: see `http_service`."""
    headers = (await service.get(path)).headers

    assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")


async def test_a_bug_is_500_in_our_shape_without_a_trace_of_its_cause() -> None:
    service = Service("raises")

    reply = await service.post(event())

    assert (reply.status, reply.code) == (500, "INTERNAL_ERROR")
    assert b"on purpose" not in reply.body
    assert [line["event"] for line in service.log.lines if line["level"] == "error"] == ["unexpected error"]


async def test_a_store_that_says_unavailable_by_mistake_is_no_promise_that_nothing_was_stored() -> None:
    service = Service()

    async def broken(*_: object, **__: object) -> Any:
        raise Unavailable("a stranger's publisher raised")

    app = create_app(
        ingest=broken,
        authenticate=Keys(),
        admission=service.admission,
        limits=HttpLimits(),
        published_limits={},
        health=service.health,
        metrics=service.metrics,
        log=service.log,
    )
    service.app = app

    assert (await service.post(event())).code == "INTERNAL_ERROR"


async def test_live_is_200_whatever_the_components_say(service: Service) -> None:
    assert (await service.get("/health/live")).status == 200


async def test_ready_is_503_and_names_the_component_until_it_works(service: Service) -> None:
    before = await service.get("/health/ready")
    await service.health.look()
    after = await service.get("/health/ready")

    assert (before.status, before.json["components"]) == (
        503,
        {"publisher": {"state": "fail", "reason": "not looked at yet"}},
    )
    assert (after.status, after.json) == (
        200,
        {"status": "ready", "draining": False, "components": {"publisher": {"state": "ok", "reason": ""}}},
    )


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
async def test_head_is_get_without_the_body(service: Service, path: str) -> None:
    got, headed = await service.get(path), await service.send("HEAD", path)

    assert (headed.status, headed.body) == (got.status, b"")
    assert headed.headers["content-length"] == got.headers["content-length"]


async def test_a_draining_process_is_not_ready_and_still_stores_and_closes_connections(service: Service) -> None:
    await service.health.look()
    service.health.drain()

    ready, stored = await service.get("/health/ready"), await service.post(event())

    assert (ready.status, ready.json["draining"], stored.status) == (503, True, 202)
    assert (ready.headers["connection"], stored.headers["connection"]) == ("close", "close")


async def test_a_connection_of_http2_is_not_told_to_close(service: Service) -> None:
    service.health.drain()

    assert "connection" not in (await service.send("GET", "/health/live", http_version="2")).headers


async def test_the_limits_in_force_are_published_by_name(service: Service) -> None:
    assert (await service.get("/v1/limits")).json == {"event_bytes_max": 900_000, "publish_timeout_s": 15.0}


async def test_metrics_are_prometheus_text_by_route_and_never_by_path(service: Service) -> None:
    await service.post(event())
    await service.get("/secret-path")
    await service.send("BREW", "/v1/events")

    reply = await service.get("/metrics")

    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'http_request_method="POST",http_response_status_code="202",http_route="/v1/events"' in reply.body.decode()
    assert 'http_route="unmatched"' in reply.body.decode()
    assert 'http_request_method="OTHER"' in reply.body.decode()
    assert b"secret-path" not in reply.body


async def test_one_line_a_request_says_what_became_of_it() -> None:
    service = Service("ok lost ack_lost refused")

    await service.batch([event(), event(), event(), event(), {}], headers={"x-request-id": "r-1", "user-agent": "shop"})

    (line,) = service.log.lines
    assert line.pop("duration_s") >= 0
    assert line.pop("http.request.body.size") > 300
    assert line == {
        "event": "request",
        "level": "info",
        "request_id": "r-1",
        "http.request.method": "POST",
        "http.route": "/v1/events/batch",
        "http.response.status_code": 207,
        "user_agent.original": "shop",
        "tenant_id": "acme",
        "key_id": "kAcme",
        "error.reason": "lost on purpose",
        "events.stored": 1,
        "events.rejected": 1,
        "events.refused": 1,
        "events.not_stored": 1,
        "events.unknown": 1,
    }


async def test_the_log_line_of_an_error_has_its_code(service: Service) -> None:
    await service.get("/nowhere")

    assert (service.log.lines[0]["http.route"], service.log.lines[0]["error.type"]) == ("unmatched", "NOT_FOUND")


async def test_the_log_line_of_a_5xx_is_a_warning() -> None:
    service = Service("lost")
    await service.post(event())

    assert service.log.lines[0]["level"] == "warning"


@pytest.mark.parametrize("plan", ["ok", "lost", "ack_lost", "refused", "raises"])
@pytest.mark.parametrize("broken", [{}, {"event_type": 1}, {"tenant_id": "SECRET"}])
async def test_no_line_has_a_key_a_payload_a_user_or_the_query(plan: str, broken: dict[str, Any]) -> None:
    service = Service(plan)
    secret = event(user_id="SECRET", idempotency_key="SECRET", properties={"SECRET": "SECRET"}) | broken
    headers = {"x-cs-api-key": KEY, "idempotency-key": "SECRET", "cookie": "SECRET"}

    await service.post(secret, headers=headers, query=b"key=SECRET")
    await service.post(secret, "/SECRET", headers=headers)
    await service.post(secret, headers={"x-cs-api-key": "SECRET"})

    written = json.dumps([{k: repr(v) for k, v in line.items()} for line in service.log.lines])
    assert "SECRET" not in written
    assert KEY not in written


async def test_no_answer_echoes_a_key_or_a_value(service: Service) -> None:
    bodies: list[object] = [event(user_id=["SECRET"]), event(timestamp="SECRET"), b"SECRET", event(tenant_id="SECRET")]
    replies = [await service.post(body) for body in bodies]
    replies.append(await service.post(event(), headers={"x-cs-api-key": "SECRET"}))
    replies.append(await service.post(event(), headers={"content-type": "SECRET", "content-encoding": "SECRET"}))

    assert not [reply for reply in replies if b"SECRET" in reply.body]


async def test_a_request_that_is_cancelled_is_499_and_gives_everything_back() -> None:
    service = Service("hangs")

    with anyio.move_on_after(0):
        await service.post(event())

    assert [line["http.response.status_code"] for line in service.log.lines] == [499]
    assert (service.admission.events, service.admission.bytes) == (0, 0)


async def test_a_client_that_is_gone_when_it_is_answered_is_499_and_no_error(service: Service) -> None:
    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_: Any) -> None:
        raise ConnectionResetError

    scope = {"type": "http", "method": "GET", "path": "/health/live", "headers": [(b"host", b"a")]}
    await service.app(scope | {"query_string": b"", "root_path": ""}, receive, send)

    assert [(line["level"], line["http.response.status_code"]) for line in service.log.lines] == [("info", 499)]


async def test_a_websocket_is_turned_away(service: Service) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await service.app({"type": "websocket", "path": "/v1/events", "headers": []}, receive, send)

    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_the_life_of_the_server_is_answered(service: Service) -> None:
    sent: list[Any] = []
    asked = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> Any:
        return {"type": next(asked)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await service.app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


PREFLIGHT = {"origin": "https://shop.example", "access_control_request_method": "POST"}


async def options(service: Service, **headers: str) -> Any:
    return await service.send("OPTIONS", "/v1/events", [(n.replace("_", "-"), v) for n, v in headers.items()])


async def test_no_web_page_may_call_by_default(service: Service) -> None:
    assert (await options(service, **PREFLIGHT)).status == 405
    assert not [name for name in (await service.get("/v1/limits", **PREFLIGHT)).headers if "access-control" in name]


async def test_a_page_of_an_allowed_origin_may_call() -> None:
    service = Service(cors_origins=("https://shop.example",))

    reply = await options(service, **PREFLIGHT)  # No key: a browser's question has none.

    assert (reply.status, reply.body) == (204, b"")
    assert reply.headers["access-control-max-age"] == "600"
    assert reply.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in reply.headers
    assert reply.headers["access-control-allow-origin"] == "https://shop.example"
    allowed = reply.headers["access-control-allow-headers"].lower().split(", ")
    ours = {"x-cs-api-key", "authorization", "content-type", "idempotency-key", "prefer", "x-request-id", "traceparent"}
    assert ours <= set(allowed)


@pytest.mark.parametrize("claim", [{"origin": "https://shop.example"}, {}])
async def test_an_answer_that_hangs_on_the_origin_says_so_to_caches(claim: dict[str, str]) -> None:
    service = Service(cors_origins=("https://shop.example",))

    assert (await service.get("/v1/limits", **claim)).headers["vary"] == "Origin"


async def test_a_page_of_an_allowed_origin_may_read_errors_too() -> None:
    service = Service(cors_origins=("https://shop.example",))

    reply = await service.post(b"", headers={"origin": "https://shop.example"})

    assert (reply.status, reply.headers["access-control-allow-origin"]) == (400, "https://shop.example")
    assert reply.headers["vary"] == "Origin"


@pytest.mark.parametrize("origin", ["https://shop.example.evil", "http://shop.example", "null", ""])
async def test_a_page_of_another_origin_may_not(origin: str) -> None:
    service = Service(cors_origins=("https://shop.example",))

    reply = await options(service, **PREFLIGHT | {"origin": origin})

    assert (reply.status, "access-control-allow-origin" in reply.headers) == (405, False)
