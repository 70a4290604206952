"""Web pages of another origin, in a real Chromium: who may call from there, what comes back, what is stored."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from customersignal_ingest.adapters.outbound.sqlite_log import open_reader
from customersignal_ingest.registry import AdapterSettings
from customersignal_ingest.testing.planted import PEPPER
from tests.integration.servers import browser
from tests.integration.servers.browser import Pages, browsing
from tests.integration.servers.service import Service, done, until

STORES = {"PUBLISHER_URL": "sqlite:///events.db", "KEYS_URL": "sqlite:///keys.db", "KEY_PEPPER": PEPPER}

# What every page here begins with: its settings are in its address, and `call` sends one event.
_SCRIPT = """<!doctype html><title>a shop</title><script>
const given = new URLSearchParams(location.search);
const service = given.get("service") + "/v1/events", key = given.get("key");
const event = (type) => JSON.stringify({event_type: type, timestamp: "2026-11-23T10:00:00Z", properties: {}});
const call = (type, more = {}) => fetch(service, {
  method: "POST", keepalive: true, body: event(type), ...more,
  headers: {"X-CS-API-Key": key, "Content-Type": "application/json", "X-Request-Id": "of-the-page", ...more.headers},
});
const told = async (calling) => {
  try {
    const answer = await calling;
    return {status: answer.status, request_id: answer.headers.get("X-Request-Id"), body: await answer.json()};
  } catch (error) {
    return {error: error.name};
  }
};
const report = (what) => fetch("/report", {method: "POST", body: JSON.stringify(what)});
"""
PAGES = {
    "/calls": _SCRIPT
    + """
(async () => report({
  kept_alive: await told(call("kept_alive")),
  bearer: await told(fetch(service, {method: "POST", keepalive: true, body: event("bearer"),
    headers: {"Authorization": "Bearer " + key, "Content-Type": "application/json"}})),
  idempotent: await told(call("idempotent", {headers: {"Idempotency-Key": "order-1", "Prefer": "return=minimal"}})),
  wrong_key: await told(call("wrong_key", {headers: {"X-CS-API-Key": "nobody's"}})),
  no_event: await told(call("no_event", {body: "{"})),
}))();
</script>""",
    "/leaves": _SCRIPT
    + """
addEventListener("pagehide", () => { call("left"); });
addEventListener("load", () => setTimeout(() => { location.href = "/left"; }, 100));
</script>""",
    "/left": "<!doctype html><script>fetch('/report', {method: 'POST', body: '{}'})</script>",
    "/beacon": _SCRIPT
    + """
const queued = navigator.sendBeacon(service, new Blob([event("beacon")], {type: "application/json"}));
addEventListener("load", () => report({queued}));
</script>""",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    done(tmp_path, "migrate", **STORES)
    done(tmp_path, "tenants", "create", "acme", **STORES)
    return tmp_path


@pytest.fixture
def pages() -> Iterator[Pages]:
    served = Pages(PAGES)
    yield served
    served.close()


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[..., Service]]:
    services: list[Service] = []

    def start(**variables: str) -> Service:
        services.append(Service(folder, {**STORES, "DRAIN_DELAY_S": "0", **variables}))
        return services[-1].ready()

    yield start
    for service in services:
        service.end()


def visit(
    pages: Pages,
    path: str,
    service: Service,
    *,
    host: str = "127.0.0.1",
    then: Callable[[], object] = lambda: True,
) -> Any:
    """Open the page in Chromium, return what it reports, and close the browser once `then` is true."""
    [key] = done(service.folder, "keys", "create", "--tenant", "acme", **STORES)
    url = f"http://{host}:{pages.port}{path}?service={service.url}&key={key['secret']}"
    try:
        with browsing(url, service.folder):
            report = pages.reports.get(timeout=browser.PATIENCE_S)
            until(then)
            return report
    except browser.Missing as error:
        pytest.skip(str(error))


def stored(service: Service) -> list[str]:
    """Return the event types in the log, in their order."""

    async def read() -> list[str]:
        reader = open_reader(f"sqlite:///{service.folder}/events.db", settings=AdapterSettings())
        return [json.loads(record.value)["event_type"] async for record in reader.read()]

    return sorted(asyncio.run(read()))


def requests_to(service: Service) -> Counter[tuple[str, int]]:
    """Return how often the service was called by each method for events, and how it answered."""
    lines = [json.loads(line) for line in (service.folder / "out.txt").read_text().splitlines()]
    of_events = [line for line in lines if line.get("http.route") == "/v1/events"]
    return Counter((line["http.request.method"], line["http.response.status_code"]) for line in of_events)


def test_a_page_of_an_allowed_origin_sends_events_and_reads_every_answer(
    pages: Pages, serve: Callable[..., Service]
) -> None:
    service = serve(CORS_ORIGINS=f"http://127.0.0.1:{pages.port}")

    told = visit(pages, "/calls", service)

    assert {name: answer.get("status") for name, answer in told.items()} == {
        "kept_alive": 202,
        "bearer": 202,
        "idempotent": 202,
        "wrong_key": 401,
        "no_event": 400,
    }
    assert told["kept_alive"]["request_id"] == "of-the-page"
    assert told["kept_alive"]["body"]["receipt"].startswith("events_raw/")
    assert told["wrong_key"]["body"]["error"]["code"] == "API_KEY_INVALID"
    assert len(told["bearer"]["request_id"]) == 32
    assert stored(service) == ["bearer", "idempotent", "kept_alive"]
    # The browser asked before its first call, without a key, and was let.
    until(lambda: requests_to(service)["OPTIONS", 204] >= 1)


def test_a_page_that_is_left_still_delivers_its_event(pages: Pages, serve: Callable[..., Service]) -> None:
    service = serve(CORS_ORIGINS=f"http://127.0.0.1:{pages.port}")

    visit(pages, "/leaves", service, then=lambda: stored(service))

    assert stored(service) == ["left"]


@pytest.mark.parametrize("origins", [None, "http://127.0.0.1:1", "https://127.0.0.1"])
def test_a_page_of_any_other_origin_gets_nothing_in_and_nothing_out(
    pages: Pages, serve: Callable[..., Service], origins: str | None
) -> None:
    """By default, with no origin named, that is every page. Another port or scheme is another origin."""
    service = serve(**{} if origins is None else {"CORS_ORIGINS": origins})

    told = visit(pages, "/calls", service)

    assert {name: answer for name, answer in told.items() if answer != {"error": "TypeError"}} == {}
    assert stored(service) == []
    until(lambda: set(requests_to(service)) == {("OPTIONS", 405)})


def test_another_name_of_the_same_machine_is_another_origin(pages: Pages, serve: Callable[..., Service]) -> None:
    service = serve(CORS_ORIGINS=f"http://127.0.0.1:{pages.port}")

    told = visit(pages, "/calls", service, host="localhost")

    assert told["kept_alive"] == {"error": "TypeError"}
    assert stored(service) == []


def test_a_beacon_can_not_carry_a_key_and_stores_nothing(pages: Pages, serve: Callable[..., Service]) -> None:
    service = serve(CORS_ORIGINS=f"http://127.0.0.1:{pages.port}")

    told = visit(pages, "/beacon", service, then=lambda: requests_to(service))

    assert told == {"queued": True}
    assert {*requests_to(service)} <= {("OPTIONS", 204), ("POST", 401)}
    assert stored(service) == []
