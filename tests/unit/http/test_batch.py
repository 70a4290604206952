"""Batches over HTTP: the batch route."""

import json
from typing import Any

import pytest
from http_service import RECEIVED_AT, Service, event

from customersignal_ingest.adapters.inbound.http.events import BYTES_AN_EVENT, HttpLimits
from customersignal_ingest.policies import Admission

pytestmark = pytest.mark.anyio

BATCH = "/v1/events/batch"
VALID = [event(user_id=f"u{n}", properties={"n": n}) for n in range(100)]


async def test_a_hundred_valid_events_are_202_and_all_stored_in_order(service: Service) -> None:
    reply = await service.batch(VALID)

    assert (reply.status, reply.json) == (202, {"status": "accepted", "accepted": 100, "failed": 0})
    assert [value["properties"]["n"] for value in service.values] == list(range(100))


async def test_three_broken_events_of_a_hundred_are_207_and_exactly_those_are_rejected(service: Service) -> None:
    events: list[Any] = list(VALID)
    events[3] = {name: value for name, value in VALID[3].items() if name != "timestamp"}
    events[50] = event(user_id=7)
    events[99] = "no event"

    reply = await service.batch(events)

    assert (reply.status, reply.json["status"], reply.json["accepted"], reply.json["failed"]) == (207, "partial", 97, 3)
    results = reply.json["results"]
    assert [result["index"] for result in results] == list(range(100))
    rejected = [result for result in results if result["status"] != "accepted"]
    assert [(r["index"], r["status"], r["error"]["code"], r["error"]["details"]) for r in rejected] == [
        (3, "rejected", "FIELD_REQUIRED", {"field": "/timestamp", "index": 3}),
        (50, "rejected", "FIELD_TYPE", {"field": "/user_id", "index": 50}),
        (99, "rejected", "FIELD_TYPE", {"field": "", "index": 99}),
    ]
    assert [value["properties"]["n"] for value in service.values] == [n for n in range(100) if n not in (3, 50, 99)]


async def test_each_accepted_result_has_the_id_and_receipt_of_its_record(service: Service) -> None:
    reply = await service.batch([event(user_id="a"), {}, event(user_id="b")])

    accepted = [(r["event_id"], r["receipt"]) for r in reply.json["results"] if r["status"] == "accepted"]
    assert accepted == [(json.loads(record.value)["event_id"], record.receipt) for record in service.memory.stored]


async def test_a_202_lists_its_results_when_asked_and_says_so(service: Service) -> None:
    reply = await service.batch([event()], headers={"prefer": "respond-async, return=representation"})

    assert reply.status == 202
    assert reply.headers["preference-applied"] == "return=representation"
    assert reply.json["results"] == [
        {"index": 0, "status": "accepted", "event_id": "id-0", "receipt": "events_raw/0/0"}
    ]


async def test_another_preference_is_not_said_to_be_applied(service: Service) -> None:
    reply = await service.batch([event()], headers={"prefer": "return=minimal"})

    assert "preference-applied" not in reply.headers
    assert "results" not in reply.json


async def test_a_batch_without_a_valid_event_is_422_rejected(service: Service) -> None:
    reply = await service.batch([{}, 5])

    assert reply.status == 422
    assert (reply.json["status"], reply.json["accepted"], reply.json["failed"]) == ("rejected", 0, 2)
    assert [result["status"] for result in reply.json["results"]] == ["rejected", "rejected"]


async def test_an_event_that_the_store_refuses_is_rejected() -> None:
    reply = await Service("ok refused").batch([event(), event()])

    assert reply.status == 207
    assert reply.json["results"][1]["status"] == "rejected"
    assert reply.json["results"][1]["error"]["code"] == "REFUSED_BY_STORE"


@pytest.mark.parametrize(
    ("plan", "status", "word", "code"),
    [
        ("lost lost", 503, "not_stored", "NOT_STORED"),
        ("lost refused", 503, "not_stored", "NOT_STORED"),
        ("lost ack_lost", 504, "unknown", "OUTCOME_UNKNOWN"),
        ("refused ack_lost", 504, "unknown", "OUTCOME_UNKNOWN"),
        ("ack_lost ack_lost", 504, "unknown", "OUTCOME_UNKNOWN"),
    ],
)
async def test_a_batch_with_nothing_stored_is_as_bad_as_its_worst_outcome(
    plan: str, status: int, word: str, code: str
) -> None:
    reply = await Service(plan).batch([event(), event(), {}])

    assert (reply.status, reply.json["status"], reply.code) == (status, word, code)
    assert reply.headers["retry-after"].isdigit()
    assert [result["index"] for result in reply.json["results"]] == [0, 1, 2]


@pytest.mark.parametrize("plan", ["ok lost", "ok ack_lost", "refused ok"])
async def test_a_batch_with_something_stored_is_207_whatever_the_rest(plan: str) -> None:
    reply = await Service(plan).batch([event(), event()])

    assert (reply.status, reply.json["accepted"], reply.json["failed"]) == (207, 1, 1)


async def test_the_results_say_which_event_to_send_again() -> None:
    reply = await Service("ok lost ack_lost refused").batch([event()] * 4)

    statuses = [result["status"] for result in reply.json["results"]]
    assert statuses == ["accepted", "not_stored", "unknown", "rejected"]
    assert [result["index"] for result in reply.json["results"]] == [0, 1, 2, 3]
    assert [result["event_id"] for result in reply.json["results"]] == ["id-0", "id-1", "id-2", "id-3"]


@pytest.mark.parametrize("body", [b"[]", b"1", b"null", b"{}", b'{"events":{}}', b'{"events":[],"more":1}'])
async def test_a_body_that_is_no_batch_is_400_that_names_the_other_route(service: Service, body: bytes) -> None:
    reply = await service.post(body, BATCH)

    assert (reply.status, reply.code) == (400, "INVALID_REQUEST")
    assert reply.json["error"]["message"].endswith("goes to /v1/events")


async def test_a_bare_event_at_the_batch_route_is_400_that_names_the_other_route(service: Service) -> None:
    reply = await service.post(event(), BATCH)

    assert (reply.status, reply.code) == (400, "INVALID_REQUEST")
    assert reply.json["error"]["message"].endswith("goes to /v1/events")


async def test_an_empty_batch_is_400(service: Service) -> None:
    reply = await service.batch([])

    assert (reply.status, reply.code) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("body", [b"", b'{"events":[', b'{"events":[NaN]}', b'{"events":["\xff"]}'])
async def test_a_batch_that_is_not_json_is_400(service: Service, body: bytes) -> None:
    reply = await service.post(body, BATCH)

    assert (reply.status, reply.code) == (400, "MALFORMED_JSON")


async def test_a_batch_nested_too_deep_to_be_read_is_422(service: Service) -> None:
    reply = await service.post(b'{"events":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}", BATCH)

    assert (reply.status, reply.code) == (422, "TOO_DEEP")


async def test_too_many_events_are_413_that_names_limit_and_value() -> None:
    service = Service(limits=HttpLimits(batch_events_max=2))

    reply = await service.batch([event()] * 3)

    assert (reply.status, reply.code) == (413, "PAYLOAD_TOO_LARGE")
    assert reply.json["error"]["details"] == {"limit": "batch_events_max", "value": 2}
    assert service.memory.stored == []


async def test_one_event_that_is_too_large_is_its_own_rejection_only() -> None:
    service = Service(limits=HttpLimits(event_bytes_max=200))

    reply = await service.batch([event(user_id="a" * 200), event()])

    assert reply.status == 207
    assert reply.json["results"][0]["error"]["code"] == "EVENT_TOO_LARGE"
    assert reply.json["results"][0]["error"]["details"] == {"limit": "event_bytes_max", "value": 200, "index": 0}


async def test_the_header_idempotency_key_is_refused_for_a_batch(service: Service) -> None:
    reply = await service.batch([event()], headers={"idempotency-key": "k"})

    assert (reply.status, reply.code) == (400, "INVALID_REQUEST")
    assert service.memory.stored == []


async def test_a_batch_beyond_what_may_be_in_flight_is_503_with_retry_after() -> None:
    service = Service(admission=Admission(events_max=2, bytes_max=1 << 20, tenant_share=1.0))

    reply = await service.batch([event()] * 3)

    assert (reply.status, reply.code) == (503, "NOT_STORED")
    assert reply.headers["retry-after"].isdigit()
    assert (service.memory.stored, service.admission.events, service.admission.bytes) == ([], 0, 0)


async def test_all_events_of_a_batch_arrived_at_one_moment(service: Service) -> None:
    await service.batch([event(), event()])

    assert {record.timestamp_ms for record in service.memory.stored} == {int(RECEIVED_AT.timestamp() * 1000)}


async def test_a_batch_of_large_events_finds_room_where_there_is_room_for_as_many_as_it_has() -> None:
    service = Service(admission=Admission(events_max=4, bytes_max=1 << 20, tenant_share=1.0))

    assert (await service.batch([event(properties={"text": "x" * 9 * BYTES_AN_EVENT})] * 4)).status == 202


@pytest.mark.parametrize("events", [1, 3])
async def test_a_batch_of_large_events_holds_no_more_than_those_that_it_has(events: int) -> None:
    service = Service(admission=Admission(events_max=100, bytes_max=1 << 20, tenant_share=1.0))

    reply = await service.batch([event(properties={"text": "x" * 9 * BYTES_AN_EVENT})] * events)

    assert (reply.status, set(service.held), service.admission.events) == (202, {events}, 0)


async def test_the_events_of_a_batch_are_in_flight_until_the_answer_is_sent() -> None:
    service = Service()

    await service.batch([event(), {}, event()])

    assert (service.held, service.admission.events) == ([3, 3], 0)
