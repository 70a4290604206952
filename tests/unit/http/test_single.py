"""One event over HTTP: the single route."""

import json

import pytest
from http_service import ACME, JSON, KEY, Service, event

from customersignal_ingest.adapters.inbound.http.events import HttpLimits
from customersignal_ingest.testing.planted import IDEMPOTENCY_KEY

pytestmark = pytest.mark.anyio

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_a_stored_event_is_answered_202_with_its_receipt(service: Service) -> None:
    reply = await service.post(event())

    assert reply.status == 202
    assert reply.json == {
        "status": "accepted",
        "event_id": "id-0",
        "received_at": "2026-11-23T10:00:00.123456Z",
        "receipt": "events_raw/0/0",
    }


async def test_an_accepted_event_is_in_the_store_with_the_tenant_of_the_key(service: Service) -> None:
    await service.post(event(user_id="u1"))

    (value,) = service.values
    assert (value["event_id"], value["tenant_id"], value["user_id"]) == ("id-0", ACME.tenant_id, "u1")


async def test_every_number_and_string_is_stored_as_it_was_sent(service: Service) -> None:
    properties = b'{"a":1.0,"b":12345678901234567890,"c":"\\u00e9"}'

    await service.post(b'{"event_type":"a","timestamp":"2026-11-23T10:00:00Z","properties":' + properties + b"}")

    assert b'"properties":' + properties in service.memory.stored[0].value


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        (event(event_type=None), "FIELD_TYPE", "/event_type"),
        (event(event_type=""), "FIELD_VALUE", "/event_type"),
        (event(event_type="a" * 201), "FIELD_TOO_LONG", "/event_type"),
        ({"timestamp": "2026-11-23T10:00:00Z", "properties": {}}, "FIELD_REQUIRED", "/event_type"),
        (event(timestamp="yesterday"), "FIELD_VALUE", "/timestamp"),
        (b'{"event_type":"a","event_type":"b"}', "FIELD_REPEATED", "/event_type"),
        (event(properties=json.loads('{"a":' * 40 + "1" + "}" * 40)), "TOO_DEEP", "/properties" + "/a" * 32),
        (event(tenant_id="globex"), "TENANT_MISMATCH", "/tenant_id"),
    ],
)
async def test_an_event_against_the_rules_is_422_with_code_and_pointer(
    service: Service, body: object, code: str, field: str
) -> None:
    reply = await service.post(body)

    assert (reply.status, reply.code, reply.json["error"]["details"]) == (422, code, {"field": field})
    assert service.memory.stored == []


async def test_an_event_of_another_project_than_the_keys_is_422(service: Service) -> None:
    reply = await service.post(event(project_id="app"), headers={"x-cs-api-key": "globex"})

    assert (reply.status, reply.code) == (422, "PROJECT_MISMATCH")


@pytest.mark.parametrize("body", [b"", b"{", b"nope", b'{"a":NaN}', b"\xff\xfe{}", b"\xef\xbb\xbf{}"])
async def test_a_body_that_is_not_json_is_400(service: Service, body: bytes) -> None:
    reply = await service.post(body)

    assert (reply.status, reply.code) == (400, "MALFORMED_JSON")


@pytest.mark.parametrize("body", [b"1", b'"a"', b"null", b"true"])
async def test_a_body_that_is_no_object_is_400(service: Service, body: bytes) -> None:
    reply = await service.post(body)

    assert (reply.status, reply.code) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("body", [b"[]", b" \n[{}]", b'{"events":[{}]}'])
async def test_a_batch_at_the_single_route_is_400_that_names_the_other(service: Service, body: bytes) -> None:
    reply = await service.post(body)

    assert (reply.status, reply.code) == (400, "INVALID_REQUEST")
    assert "/v1/events/batch" in reply.json["error"]["message"]


@pytest.mark.parametrize("announced", [True, False])
async def test_an_event_over_the_limit_is_413_that_names_limit_and_value(announced: bool) -> None:
    service = Service(limits=HttpLimits(event_bytes_max=200))
    body = json.dumps(event(user_id="a" * 200)).encode()
    length = {"content-length": str(len(body))} if announced else {}

    reply = await service.send("POST", "/v1/events", list({**JSON, **length, "x-cs-api-key": KEY}.items()), [body])

    assert (reply.status, reply.code) == (413, "EVENT_TOO_LARGE")
    assert reply.json["error"]["details"] == {"limit": "event_bytes_max", "value": 200}
    assert "event_bytes_max=200" in reply.json["error"]["message"]


async def test_an_event_that_was_surely_not_stored_is_503_with_retry_after() -> None:
    reply = await Service("lost").post(event())

    assert (reply.status, reply.code) == (503, "NOT_STORED")
    assert reply.headers["retry-after"].isdigit()


async def test_an_event_of_which_nothing_is_known_is_504_with_retry_after_and_its_id() -> None:
    reply = await Service("ack_lost").post(event())

    assert (reply.status, reply.code) == (504, "OUTCOME_UNKNOWN")
    assert reply.headers["retry-after"].isdigit()
    assert reply.json["error"]["details"] == {"event_id": "id-0"}


async def test_an_event_that_the_store_refuses_is_422() -> None:
    reply = await Service("refused").post(event())

    assert (reply.status, reply.code) == (422, "REFUSED_BY_STORE")


async def test_the_header_idempotency_key_stands_for_the_field(service: Service) -> None:
    first = await service.post(event(), headers={"idempotency-key": IDEMPOTENCY_KEY})
    again = await service.post(event(idempotency_key=IDEMPOTENCY_KEY))

    assert first.json["event_id"] == again.json["event_id"]
    assert service.values[0]["idempotency_key"] == IDEMPOTENCY_KEY


async def test_an_idempotency_key_in_header_and_field_may_be_the_same(service: Service) -> None:
    assert (
        await service.post(event(idempotency_key=IDEMPOTENCY_KEY), headers={"idempotency-key": IDEMPOTENCY_KEY})
    ).status == 202


async def test_an_idempotency_key_in_header_and_field_that_differs_is_400(service: Service) -> None:
    reply = await service.post(event(idempotency_key=IDEMPOTENCY_KEY), headers={"idempotency-key": "k2"})

    assert (reply.status, reply.code) == (400, "INVALID_REQUEST")
    assert service.memory.stored == []


async def test_a_valid_traceparent_goes_into_the_record(service: Service) -> None:
    await service.post(event(), headers={"traceparent": TRACEPARENT})

    assert ("traceparent", TRACEPARENT.encode()) in service.memory.stored[0].headers


@pytest.mark.parametrize(
    "traceparent", ["", "x", TRACEPARENT.upper(), "00-" + "0" * 32 + TRACEPARENT[35:], "ff" + TRACEPARENT[2:]]
)
async def test_another_traceparent_is_left_out(service: Service, traceparent: str) -> None:
    await service.post(event(), headers={"traceparent": traceparent})

    assert "traceparent" not in dict(service.memory.stored[0].headers)


async def test_nothing_is_in_flight_after_any_answer() -> None:
    service = Service("lost", "ack_lost", "refused", "raises")
    for body in (event(), event(), event(), event(), event(), b"{", b"[]"):
        await service.post(body)

    assert (service.admission.events, service.admission.bytes) == (0, 0)


async def test_an_event_is_in_flight_until_its_answer_is_sent() -> None:
    service = Service()

    await service.post(event())

    assert (service.held, service.admission.events) == ([1, 1], 0)
