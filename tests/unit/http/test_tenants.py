"""A tenant is who the key says, whatever else a request claims; and one tenant's flood leaves room for the others."""

import json
from typing import Any

import anyio
import pytest
from http_service import ACME, GLOBEX, JSON, KEY, Service, event
from hypothesis import given
from hypothesis import strategies as st

from customersignal_ingest.domain.key import Tenant
from customersignal_ingest.policies import Admission
from tests.unit.simulated_time import everyone_waits, run

SENDERS: dict[str, Tenant] = {KEY: ACME, "globex": GLOBEX}
NAMES = st.sampled_from(["acme", "globex", "acme:u", "", "ACME", "acme "])
CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        "tenant_id": NAMES | st.none() | st.integers(),
        "project_id": st.sampled_from(["web", "shop"]),
        "environment": st.sampled_from(["live", "test"]),
        "event_id": NAMES,
        "received_at": NAMES,
        "user_id": st.sampled_from(["ann", "globex:ann", "acme"]),
        "extra": st.fixed_dictionaries({"tenant_id": NAMES}),
        "properties": st.fixed_dictionaries({"tenant_id": NAMES}),
    },
)
HEADERS = st.dictionaries(st.sampled_from(["x-tenant-id", "x-cs-tenant", "x-forwarded-user", "prefer"]), NAMES)
REQUESTS = st.lists(st.tuples(st.sampled_from([*SENDERS]), CLAIMS, HEADERS), min_size=1, max_size=6)


async def strange_records(requests: list[tuple[str, dict[str, Any], dict[str, str]]]) -> list[str]:
    """Send them all, and return each record that is not of the tenant whose key it came with."""
    service, strange = Service(), list[str]()
    for key, claims, headers in requests:
        before = len(service.memory.stored)
        reply = await service.post(event(**claims), headers={**headers, "x-cs-api-key": key})
        tenant = SENDERS[key]
        if claims.get("tenant_id") not in (None, tenant.tenant_id):
            assert reply.status == 422
        for record in service.memory.stored[before:]:
            said, beside = json.loads(record.value), dict(record.headers)
            ours = (
                record.key.startswith(f"{tenant.tenant_id}:".encode()),
                said["tenant_id"],
                beside["tenant_id"].decode(),
            )
            if ours != (True, tenant.tenant_id, tenant.tenant_id) or said["environment"] != tenant.environment:
                strange.append(f"{key}: {said}")
            if tenant.project_id is not None and said["project_id"] != tenant.project_id:
                strange.append(f"{key}: {said}")
            if said["event_id"] == claims.get("event_id") or said["received_at"] == claims.get("received_at"):
                strange.append(f"{key}: {said}")
    return strange


@given(REQUESTS)
def test_nothing_but_the_key_decides_whose_an_event_is(
    requests: list[tuple[str, dict[str, Any], dict[str, str]]],
) -> None:
    assert run(strange_records(requests)) == []


@pytest.mark.parametrize("batch", [False, True])
def test_one_tenants_flood_is_told_not_now_and_leaves_room_for_another(batch: bool) -> None:
    async def flooded() -> tuple[list[int | None], int | None]:
        service = Service(*["hangs"] * 5, admission=Admission(events_max=10, bytes_max=10**6, tenant_share=0.5))
        send = service.batch if batch else service.post
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(send, [event()] if batch else event())
            await everyone_waits()
            statuses = [(await send([event()] if batch else event())).status for _ in range(3)]
            other = await send([event()] if batch else event(), headers={"x-cs-api-key": "globex"})
            group.cancel_scope.cancel()
        return statuses, other.status

    assert run(flooded()) == ([503] * 3, 202)


@given(st.integers(1, 12), st.integers(1, 12))
def test_no_tenant_gets_more_events_in_flight_than_its_share(acme: int, globex: int) -> None:
    async def admitted() -> tuple[int, int]:
        service = Service(*["hangs"] * 24, admission=Admission(events_max=10, bytes_max=10**6, tenant_share=0.5))
        async with anyio.create_task_group() as group:
            for _ in range(acme):
                group.start_soon(service.post, event())
            await everyone_waits()
            of_acme = service.admission.events
            for _ in range(globex):
                group.start_soon(_post_as_globex, service)
            await everyone_waits()
            of_both = service.admission.events
            group.cancel_scope.cancel()
        return of_acme, of_both - of_acme

    assert run(admitted()) == (min(acme, 5), min(globex, 5))


async def _post_as_globex(service: Service) -> None:
    body = json.dumps(event()).encode()
    headers = {**JSON, "x-cs-api-key": "globex", "content-length": str(len(body))}
    await service.send("POST", "/v1/events", list(headers.items()), [body])
