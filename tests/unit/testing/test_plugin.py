"""The fixture `cs_ingest`, used as a developer of an application uses it."""

from typing import Any

import pytest

from customersignal_ingest.testing.service import Service

pytestmark = pytest.mark.anyio

EVENT = {"event_type": "order_completed", "timestamp": "2026-11-23T10:00:00Z", "properties": {"total": 12.5}}


async def test_what_the_application_sent_is_stored(cs_ingest: Service) -> None:
    await cs_ingest.client.post("/v1/events", json=EVENT)

    assert [event.event_type for event in cs_ingest.stored] == ["order_completed"]
    assert cs_ingest.stored[0].properties == {"total": 12.5}


async def test_the_answer_is_the_services_own(cs_ingest: Service) -> None:
    answer = await cs_ingest.client.post("/v1/events", json=EVENT)

    assert answer.status_code == 202
    assert answer.json()["receipt"] == cs_ingest.stored[0].record.receipt


async def test_the_rules_are_the_real_ones(cs_ingest: Service) -> None:
    answer = await cs_ingest.client.post("/v1/events", json={**EVENT, "timestamp": "yesterday"})

    assert answer.status_code == 422
    assert answer.json()["error"]["details"]["field"] == "/timestamp"
    assert cs_ingest.stored == []


async def test_a_key_that_is_not_the_services_opens_nothing(cs_ingest: Service) -> None:
    answer = await cs_ingest.client.post("/v1/events", json=EVENT, headers={"X-CS-API-Key": "another"})

    assert answer.status_code == 401


async def test_an_application_that_retries_sends_one_event(cs_ingest: Service) -> None:
    cs_ingest.faults("ack_lost", "ok")

    statuses = [await post_once(cs_ingest, {**EVENT, "idempotency_key": "order-1"}) for _ in range(2)]

    assert statuses == [504, 202]
    assert len(cs_ingest.stored) == 2
    assert len({event.event_id for event in cs_ingest.stored}) == 1


@pytest.mark.parametrize(
    ("fault", "status", "stored"),
    [("lost", 503, 0), ("refused", 422, 0), ("ack_lost", 504, 1), ("stored_late", 504, 0), ("raises", 504, 1)],
)
async def test_a_fault_has_its_own_answer(cs_ingest: Service, fault: str, status: int, stored: int) -> None:
    cs_ingest.faults(fault)

    assert await post_once(cs_ingest, EVENT) == status
    assert len(cs_ingest.stored) == stored


async def test_the_service_is_ready(cs_ingest: Service) -> None:
    assert (await cs_ingest.client.get("/health/ready")).status_code == 200


async def test_a_setting_can_be_given() -> None:
    service = Service(batch_events_max=1)

    answer = await service.client.post("/v1/events/batch", json={"events": [EVENT, EVENT]})

    assert answer.status_code == 413


async def post_once(service: Service, event: dict[str, Any]) -> int:
    return (await service.client.post("/v1/events", json=event)).status_code
