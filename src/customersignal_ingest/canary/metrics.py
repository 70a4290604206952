"""What a canary counts, in Prometheus' terms. Every series exists, at 0, from the start."""

from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from customersignal_ingest.proof.report import Kind

Answer = Literal["accepted", "refused", "not_stored", "unknown", "no_answer", "not_sent"]
"""What became of an event, as its client knows it."""

RoundResult = Literal["clean", "wrong", "unverified"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30)


class CanaryMetrics:
    """The instruments of one canary."""

    def __init__(self) -> None:
        """Every series, at 0."""
        to = self.registry = CollectorRegistry()
        self.events = Counter("cs_ingest_canary_events", "Events by what was answered.", ("answer",), registry=to)
        self.answer_seconds = Histogram(
            "cs_ingest_canary_answer_duration_seconds",
            "Time from a request to its answer.",
            buckets=_SECONDS,
            registry=to,
        )
        self.verified = Counter(
            "cs_ingest_canary_verified_events", "Accepted events that were found in the store.", registry=to
        )
        self.findings = Counter("cs_ingest_canary_findings", "What was wrong, by kind.", ("kind",), registry=to)
        self.rounds = Counter("cs_ingest_canary_rounds", "Rounds of events by result.", ("result",), registry=to)
        self.rounds_pending = Gauge("cs_ingest_canary_rounds_pending", "Rounds that wait to be verified.", registry=to)
        self.failed_reads = Counter(
            "cs_ingest_canary_failed_reads", "How often the store could not be read.", registry=to
        )
        self.last_verified = Gauge(
            "cs_ingest_canary_last_verified_timestamp_seconds",
            "When a round was last verified, Unix time.",
            registry=to,
        )
        for answer in get_args(Answer):
            self.events.labels(answer)
        for kind in Kind:
            self.findings.labels(kind)
        for result in get_args(RoundResult):
            self.rounds.labels(result)
