"""The law, for every fault plan, batch, cancellation and retry: `law.py` says what it is.

Over the real use case and policies, with and without the HTTP transport before them, in simulated time.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import event, given, settings, target
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from law import Draft, Law, Row
from simulated_time import everyone_waits, run, runner
from system import TIMEOUT_S, HttpSystem, System

from customersignal_ingest.domain.key import Tenant
from customersignal_ingest.domain.outcome import Reason
from customersignal_ingest.testing.planted import MARK
from customersignal_ingest.testing.strategies import broken_events, fault_plans, json_objects

ACME, GLOBEX = Tenant(tenant_id="acme", key_id="k1"), Tenant(tenant_id="globex", key_id="k2")
TENANTS = st.sampled_from([ACME, GLOBEX])
GOOD_DRAFTS = st.builds(
    Draft,
    user_id=st.sampled_from([None, "ann", "bob"]),
    idempotency_key=st.sampled_from([None, None, f"order-1-{MARK}", f"order-2-{MARK}"]),
    properties=st.sampled_from(['{"n":1.0}', "{}"]) | json_objects().map(lambda text: text.strip(" \t\r\n")),
)
# One element that is no JSON makes a whole HTTP batch none, which is another test's matter.
BROKEN = broken_events().filter(lambda broken: broken.reason is not Reason.MALFORMED_JSON)
DRAFTS = GOOD_DRAFTS | GOOD_DRAFTS | GOOD_DRAFTS | BROKEN.map(lambda broken: Draft(broken=broken.payload))
BATCHES = st.lists(DRAFTS, min_size=1, max_size=4)
REQUESTS = st.tuples(TENANTS, BATCHES)
ONE_FAULT = fault_plans(calls_max=1) | st.sampled_from([["slow"], ["hangs"], ["ok"]])


SYSTEMS = pytest.mark.parametrize("new_system", [System, HttpSystem])


@SYSTEMS
@given(requests=st.lists(REQUESTS, min_size=1, max_size=3), plan=fault_plans())
def test_requests_at_once_keep_the_law_under_every_fault(
    new_system: Callable[[], System], requests: list[tuple[Tenant, list[Draft]]], plan: list[str]
) -> None:
    assert run(send_all(new_system(), requests, plan)) == []


async def send_all(
    system: System, requests: Sequence[tuple[Tenant, Sequence[Draft]]], plan: Sequence[str]
) -> list[str]:
    """Send all requests at once, let time run out, then let what is late arrive; return the complaints."""
    law = Law(lambda: system.stored)
    system.faults.plan(*plan)
    await asyncio.gather(*[law.send(system.submit, tenant, drafts) for tenant, drafts in requests])
    complaints = law.check()
    await system.faults.release()
    return complaints + law.check()


@SYSTEMS
@given(request_=REQUESTS, plans=st.lists(ONE_FAULT, min_size=1, max_size=4))
def test_sending_again_stores_everything_in_the_end_and_keeps_the_law(
    new_system: Callable[[], System], request_: tuple[Tenant, list[Draft]], plans: list[list[str]]
) -> None:
    assert run(send_until_stored(new_system(), *request_, plans)) == []


async def send_until_stored(
    system: System, tenant: Tenant, drafts: Sequence[Draft], plans: Sequence[Sequence[str]]
) -> list[str]:
    """Send again what the contract says may be sent again, as often as there are plans and once more."""
    law = Law(lambda: system.stored)
    for plan in [*plans, ["ok"]]:
        system.faults.plan(*plan)
        rows = await law.send(system.submit, tenant, drafts)
        await system.faults.release()
        drafts = [draft for draft, row in zip(drafts, rows, strict=True) if row.status in ("not_stored", "unknown")]
        if not drafts:
            break
    return [*law.check(), *[f"never stored: {draft}" for draft in drafts]]


@SYSTEMS
def test_a_batch_gets_each_word_of_its_plan_in_order(new_system: Callable[[], System]) -> None:
    async def statuses() -> list[str]:
        system = new_system()
        system.faults.plan("ok lost refused ack_lost stored_late ok")
        rows = await Law(lambda: system.stored).send(system.submit, ACME, [Draft()] * 6)
        return [row.status for row in rows]

    assert run(statuses()) == ["accepted", "not_stored", "rejected", "unknown", "unknown", "accepted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request on its way, or answered."""

    tenant: Tenant
    drafts: Sequence[Draft]
    task: asyncio.Task[Sequence[Row]]

    @property
    def answered(self) -> bool:
        return self.task.done() and not self.task.cancelled()


class ClientsAndAnUnreliableStore(RuleBasedStateMachine):
    """Clients send, leave and send again, while the store is slow, late, lost and back."""

    new_system: Callable[[], System] = System

    def __init__(self) -> None:
        super().__init__()
        self.runner = runner()
        self.system = type(self).new_system()
        self.law = Law(lambda: self.system.stored)
        self.requests: list[Request] = []
        self.slowest_s = 0.0
        self.most_waiting = 0

    @property
    def waiting(self) -> list[Request]:
        return [request for request in self.requests if not request.task.done()]

    @rule(request_=REQUESTS, plan=ONE_FAULT)
    def client_sends(self, request_: tuple[Tenant, list[Draft]], plan: list[str]) -> None:
        self.runner.run(self.start(*request_, plan))

    @rule(tenant=TENANTS)
    def one_tenant_floods_a_slow_store(self, tenant: Tenant) -> None:
        for _ in range(6):
            self.runner.run(self.start(tenant, [Draft()] * 3, ["slow"]))

    @precondition(lambda self: any(request.answered for request in self.requests))
    @rule(data=st.data(), plan=ONE_FAULT)
    def client_sends_again(self, data: st.DataObject, plan: list[str]) -> None:
        request = data.draw(st.sampled_from([request for request in self.requests if request.answered]))
        self.runner.run(self.start(request.tenant, request.drafts, plan))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def client_leaves(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.waiting)).task.cancel()
        self.runner.run(everyone_waits())

    @rule()
    def store_catches_up(self) -> None:
        self.runner.run(self.system.faults.release())
        self.runner.run(everyone_waits())

    @rule(seconds=st.sampled_from([TIMEOUT_S / 2, TIMEOUT_S]))
    def time_passes(self, seconds: float) -> None:
        self.runner.run(asyncio.sleep(seconds))

    @rule()
    def store_closes_and_opens_again(self) -> None:
        self.runner.run(self.system.log.close())
        self.runner.run(self.start(ACME, [Draft()], ["ok"]))
        self.runner.run(self.system.log.open())

    @invariant()
    def the_law_is_kept(self) -> None:
        assert self.law.check() == []

    @invariant()
    def what_is_in_flight_is_what_waits(self) -> None:
        assert self.system.admission.events == sum(len(request.drafts) for request in self.waiting)

    @invariant()
    def no_bound_is_exceeded(self) -> None:
        admission = self.system.admission
        assert 0 <= admission.events <= admission.events_max
        assert 0 <= admission.bytes <= admission.bytes_max

    @invariant()
    def no_tenant_has_more_than_its_share(self) -> None:
        for tenant in (ACME, GLOBEX):
            held = sum(len(request.drafts) for request in self.waiting if request.tenant == tenant)
            assert held <= self.system.admission.tenant_events_max

    @invariant()
    def every_answer_comes_in_time(self) -> None:
        assert self.slowest_s <= TIMEOUT_S + 1

    def teardown(self) -> None:
        with self.runner:
            self.runner.run(asyncio.sleep(TIMEOUT_S))
            self.store_catches_up()
            assert self.waiting == []
            assert (self.system.admission.events, self.system.admission.bytes) == (0, 0)
            self.runner.run(self.start(ACME, [Draft()], ["ok"]))
            assert [row.status for row in self.requests[-1].task.result()] == ["accepted"]
            self.the_law_is_kept()
            assert self.runner.run(others()) == 0
        target(float(self.most_waiting), label="requests in flight")
        for attempt in self.law.attempts:
            event(attempt.row.status if attempt.row else "left")

    async def start(self, tenant: Tenant, drafts: Sequence[Draft], plan: Sequence[str]) -> None:
        self.system.faults.plan(*plan)
        task = asyncio.create_task(self.send(tenant, drafts))
        self.requests.append(Request(tenant=tenant, drafts=drafts, task=task))
        await everyone_waits()
        self.most_waiting = max(self.most_waiting, len(self.waiting))

    async def send(self, tenant: Tenant, drafts: Sequence[Draft]) -> Sequence[Row]:
        began_s = asyncio.get_running_loop().time()
        try:
            return await self.law.send(self.system.submit, tenant, drafts)
        finally:
            self.slowest_s = max(self.slowest_s, asyncio.get_running_loop().time() - began_s)


async def others() -> int:
    """How many tasks there are beside this one."""
    return len(asyncio.all_tasks()) - 1


class OverHttp(ClientsAndAnUnreliableStore):
    """The same over HTTP."""

    new_system = HttpSystem


FEW = settings(max_examples=max(15, settings.default.max_examples // 4), stateful_step_count=20)
TestTheLaw = ClientsAndAnUnreliableStore.TestCase
TestTheLaw.settings = FEW
TestTheLawOverHttp = OverHttp.TestCase
TestTheLawOverHttp.settings = FEW
