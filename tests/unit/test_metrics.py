"""Our histogram is the library's, only cheaper."""

import prometheus_client
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from customersignal_ingest.metrics import Histogram

BUCKETS = (0.001, 0.0025, 1, 30)
LABELS = ("route", "status")
SERIES = st.tuples(st.sampled_from(["/v1/events", 'a"b\\\n']), st.sampled_from([202, 503]))
VALUES = st.sampled_from(BUCKETS) | st.floats(-1, 100) | st.integers(0, 2000)


def text(registry: CollectorRegistry) -> list[bytes]:
    """Return what a scrape gets, but for when each series was made, which the library says, and nobody asked for."""
    return [line for line in generate_latest(registry).splitlines() if b"_created" not in line]


@given(st.lists(st.tuples(SERIES, VALUES)))
def test_what_is_scraped_is_what_the_library_would_say(observed: list[tuple[tuple[str, int], float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    histogram = Histogram("seconds", "How long.", LABELS, buckets=BUCKETS)
    ours.register(histogram)
    library = prometheus_client.Histogram("seconds", "How long.", LABELS, buckets=BUCKETS, registry=theirs)

    for labels, value in observed:
        histogram.labels(*labels).observe(value)
        library.labels(*labels).observe(value)

    assert text(ours) == text(theirs)


@given(st.lists(VALUES))
def test_without_labels_it_is_one_series_from_the_start(observed: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    histogram = Histogram("seconds", "How long.", buckets=BUCKETS)
    ours.register(histogram)
    library = prometheus_client.Histogram("seconds", "How long.", buckets=BUCKETS, registry=theirs)

    for value in observed:
        histogram.labels().observe(value)
        library.observe(value)

    assert text(ours) == text(theirs)
