"""Every label of every metric has a few values, all ours: none is from a request, a tenant or an error's text."""

import json
from collections.abc import Mapping
from typing import Any, get_args

import pytest
from http_service import JSON, KEY, Service, event
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from customersignal_ingest.adapters.inbound.http.access import METHODS
from customersignal_ingest.adapters.inbound.http.answers import CODES
from customersignal_ingest.domain.outcome import Reason
from customersignal_ingest.metrics import CAUSES_MAX, OUTCOMES, Metrics
from customersignal_ingest.policies import Lookup
from tests.unit.simulated_time import run

ROUTES = {"/v1/events", "/v1/events/batch", "/v1/limits", "/health/live", "/health/ready", "/metrics", "/schema"}
STATUSES = {meaning.status for meaning in CODES.values()} | {200, 202, 204, 207, 499}
VALUES: Mapping[str, set[str]] = {
    "http_request_method": {*METHODS, "OTHER"},
    "http_route": {*ROUTES, "/schema/openapi.json", "unmatched"},
    "http_response_status_code": {str(status) for status in STATUSES},
    "outcome": {*OUTCOMES.values()},
    "reason": {reason.value for reason in Reason},
    "result": {*get_args(Lookup)},
    "component": {"publisher", "keys"},
    "version": {"1"},
    "publisher": {"memory"},
}
BUCKETS = {"le"}

TEXTS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=30)
METHODS_SENT = st.sampled_from([*sorted(METHODS), "BREW", "get"]) | TEXTS
PATHS = st.sampled_from([*sorted(ROUTES), "/v1/events/"]) | TEXTS.map(lambda text: "/" + text)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["x-cs-api-key", "authorization", "content-type", "x-request-id", "origin", "host"]),
        TEXTS | st.just(KEY),
    ),
    max_size=4,
)
BODIES = st.sampled_from([event(), event(event_type=1), event(tenant_id="globex"), {}, []]).map(
    lambda body: json.dumps(body).encode()
) | st.binary(max_size=30)
PLANS = st.sampled_from(["ok", "lost", "ack_lost", "refused", "raises"])


def strange_labels(text: str) -> list[tuple[str, str, str]]:
    """Return each label's value that is none of ours."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return [
        (sample.name, label, value)
        for sample in samples
        for label, value in sample.labels.items()
        if label not in BUCKETS and value not in VALUES.get(label, set())
    ]


@given(st.lists(st.tuples(METHODS_SENT, PATHS, HEADERS, BODIES, PLANS), min_size=1, max_size=8))
def test_no_request_whatever_it_is_makes_a_label_of_its_own(requests: list[tuple[Any, ...]]) -> None:
    async def labels() -> list[tuple[str, str, str]]:
        service = Service()
        await service.health.look()
        for method, path, headers, body, plan in requests:
            service.publisher.plan(plan)
            given_headers = {**JSON, "x-cs-api-key": KEY, **dict(headers)}
            await service.send(method, path, list(given_headers.items()), [body])
        return strange_labels(service.metrics.text().decode())

    assert run(labels()) == []


def test_a_label_that_is_not_ours_is_found() -> None:
    metrics = Metrics(version="1", publisher="memory")
    metrics.request_seconds.labels("GET", "/acme", 200).observe(1)

    assert ("http_server_request_duration_seconds_count", "http_route", "/acme") in strange_labels(
        metrics.text().decode()
    )


def test_every_label_that_there_is_is_one_of_these() -> None:
    metrics = Metrics(version="1", publisher="memory")

    labels = {
        name
        for instrument in vars(metrics).values()
        for names in ("_labelnames", "label_names")
        for name in getattr(instrument, names, ())
    }

    assert labels == {*VALUES, "cause"} - {"outcome", "result", "version", "publisher"}


@pytest.mark.parametrize("causes", [1, CAUSES_MAX, 10 * CAUSES_MAX])
def test_a_publisher_with_ever_new_causes_makes_no_more_series_than_there_may_be(causes: int) -> None:
    metrics = Metrics(version="1", publisher="memory")

    for number in range(causes):
        metrics.count_restarts(f"cause {number}", 1)

    found = {
        sample.labels["cause"]: sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "cs_ingest_publisher_restarts_total"
    }
    assert len(found) <= CAUSES_MAX + 1
    assert sum(found.values()) == causes
