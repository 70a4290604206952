"""What is counted and measured, in Prometheus' terms. A series whose labels are known exists, at 0, from the start."""

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from customersignal_ingest.domain.event import Record
from customersignal_ingest.domain.key import Tenant
from customersignal_ingest.domain.outcome import NotStored, Outcome, Reason, Receipt, Refused, Rejected, Stored, Unknown
from customersignal_ingest.domain.rules import Payload
from customersignal_ingest.ingest import Ingest
from customersignal_ingest.policies import Lookup
from customersignal_ingest.ports import EventPublisher

OUTCOMES: dict[type[Outcome] | type[Rejected], str] = {
    Stored: "stored",
    Rejected: "rejected",
    Refused: "refused",
    NotStored: "not_stored",
    Unknown: "unknown",
}
CAUSES_MAX = 32
"""How many causes of a restart are told apart; all others are one: no publisher makes series without end."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30)
_BATCH = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


class Count:
    """A number that grows. For one thread."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, number: int = 1, /) -> None:
        """Count so many more."""
        self.value += number


class Counts(Collector):
    """A counter of Prometheus' kind: the library's takes a lock for each event, of which there is no need here."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str]) -> None:
        """No series exists yet."""
        self._name, self._documentation, self.label_names = name, documentation, labels
        self._series: dict[tuple[str, ...], Count] = {}

    def labels(self, *values: object) -> Count:
        """Return the series with these values of the labels, which is worth keeping."""
        return self._series.setdefault(tuple(map(str, values)), Count())

    def describe(self) -> Iterator[CounterMetricFamily]:
        """Tell the registry its name."""
        yield CounterMetricFamily(self._name, self._documentation, labels=self.label_names)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield all series as they are now."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self.label_names)
        for values, series in self._series.items():
            family.add_metric(values, series.value)
        yield family


class Distribution:
    """How many of what was observed is in each bucket, and the sum of it all. For one thread."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` are the highest values of the buckets, in their order; what is above all is counted too."""
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, /) -> None:
        """Count it."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value


class Histogram(Collector):
    """A histogram of Prometheus' kind: the library's takes two locks for each value, and every request has three."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str] = (), *, buckets: Sequence[float]) -> None:
        """Without `labels` it is one series, which exists from the start."""
        self._name, self._documentation, self.label_names = name, documentation, labels
        self._buckets = buckets
        self._series: dict[tuple[str, ...], Distribution] = {}
        if not labels:
            self.labels()

    def labels(self, *values: object) -> Distribution:
        """Return the series with these values of the labels, which is worth keeping."""
        return self._series.setdefault(tuple(map(str, values)), Distribution(self._buckets))

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """Tell the registry its name."""
        yield HistogramMetricFamily(self._name, self._documentation, labels=self.label_names)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield all series as they are now."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self.label_names)
        bounds = [*map(floatToGoString, self._buckets), "+Inf"]
        for values, series in self._series.items():
            buckets = list(zip(bounds, accumulate(series.counts), strict=True))
            family.add_metric(values, buckets, sum_value=series.sum)
        yield family


class Metrics:
    """The instruments of one process; one instance per container, so that tests do not share counts."""

    def __init__(self, *, version: str, publisher: str) -> None:
        """`publisher` is the URL scheme in use; both arguments label the build info."""
        self.registry = CollectorRegistry()
        to = self.registry
        self.request_seconds = Histogram(
            "http_server_request_duration_seconds",
            "Time from a request's first line to its answer.",
            ("http_request_method", "http_route", "http_response_status_code"),
            buckets=_SECONDS,
        )
        events = Counts("cs_ingest_events", "Events by what became of them.", ("outcome",))
        self._events = {kind: events.labels(name) for kind, name in OUTCOMES.items()}
        self.rejections = Counts("cs_ingest_rejections", "Rejected events by reason.", ("reason",))
        publish_seconds = Histogram(
            "cs_ingest_publish_duration_seconds", "Time from a publish to its outcomes.", buckets=_SECONDS
        )
        batch_events = Histogram("cs_ingest_batch_events", "Events in a request.", buckets=_BATCH)
        self.in_flight_events = Gauge(
            "cs_ingest_in_flight_events", "Events admitted and not yet answered.", registry=to
        )
        self.in_flight_bytes = Gauge("cs_ingest_in_flight_bytes", "Bytes admitted and not yet answered.", registry=to)
        self.in_flight_events_max = Gauge(
            "cs_ingest_in_flight_events_max", "The bound of events in flight.", registry=to
        )
        self.in_flight_bytes_max = Gauge("cs_ingest_in_flight_bytes_max", "The bound of bytes in flight.", registry=to)
        self.ready = Gauge("cs_ingest_ready", "1 when an event sent now could be stored.", registry=to)
        self.component_up = Gauge("cs_ingest_component_up", "1 when the component works.", ("component",), registry=to)
        self._stored_at = 0.0
        last_stored = Gauge(
            "cs_ingest_last_stored_timestamp_seconds", "When an event was last stored, Unix time.", registry=to
        )
        last_stored.set_function(lambda: self._stored_at)
        key_lookups = Counts("cs_ingest_key_lookups", "Look-ups of API keys by result.", ("result",))
        self.late_acks = Counter(
            "cs_ingest_late_acks", "Confirmations that came after Unknown was answered.", registry=to
        )
        self._causes: set[str] = set()
        self.publisher_restarts = Counter(
            "cs_ingest_publisher_restarts", "Producers retired and replaced, by cause.", ("cause",), registry=to
        )
        self.log_lines_dropped = Counter(
            "cs_ingest_log_lines_dropped", "Log lines given up because nobody reads the log.", registry=to
        )
        event_loop_lag = Histogram(
            "cs_ingest_event_loop_lag_seconds", "How late the event loop comes round.", buckets=_SECONDS
        )
        histograms = (self.request_seconds, publish_seconds, batch_events, event_loop_lag)
        for ours in (events, self.rejections, key_lookups, *histograms):
            to.register(ours)
        self.publish_seconds, self.batch_events = publish_seconds.labels(), batch_events.labels()
        self.event_loop_lag = event_loop_lag.labels()
        for reason in Reason:
            self.rejections.labels(reason)
        self._lookups = {result: key_lookups.labels(result) for result in get_args(Lookup)}
        build = Gauge("cs_ingest_build_info", "Always 1.", ("version", "publisher"), registry=to)
        build.labels(version, publisher).set(1)

    def count(self, receipt: Receipt) -> None:
        """Count each event of a receipt by what became of it, and note when something was last stored."""
        self.batch_events.observe(len(receipt.results))
        tally = receipt.tally
        for kind, number in tally.items():
            self._events[kind].inc(number)
        if Stored in tally:
            self._stored_at = time.time()
        if Rejected in tally:
            for reason in [result.outcome.reason for result in receipt.results if isinstance(result.outcome, Rejected)]:
                self.rejections.labels(reason).inc()

    def count_lookup(self, result: Lookup) -> None:
        """Count one look-up of an API key."""
        self._lookups[result].inc()

    def count_restarts(self, cause: str, number: int) -> None:
        """Count producers that were replaced for this cause."""
        if len(self._causes) < CAUSES_MAX:
            self._causes.add(cause)
        self.publisher_restarts.labels(cause if cause in self._causes else "other").inc(number)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)


class Counted:
    """An `Ingest` whose receipts are counted; a call that is cancelled is not."""

    def __init__(self, ingest: Ingest, metrics: Metrics) -> None:
        """Wrap `ingest`."""
        self._ingest = ingest
        self._metrics = metrics

    async def __call__(
        self,
        tenant: Tenant,
        payloads: Sequence[Payload],
        /,
        *,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
    ) -> Receipt:
        """Ingest, then count."""
        receipt = await self._ingest(tenant, payloads, idempotency_key=idempotency_key, traceparent=traceparent)
        self._metrics.count(receipt)
        return receipt


class Timed:
    """A publisher whose publishes are timed."""

    def __init__(self, publisher: EventPublisher, metrics: Metrics) -> None:
        """Wrap `publisher`."""
        self._publisher = publisher
        self._metrics = metrics

    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        """Publish, then note how long it took. What came back is not looked at: a stranger's may be anything."""
        started = time.perf_counter()
        outcomes = await self._publisher.publish(records)
        self._metrics.publish_seconds.observe(time.perf_counter() - started)
        return outcomes
