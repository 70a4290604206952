"""What is stored, held against the journals of the clients by the checker that operators have."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from customersignal_ingest.proof.checker import Checker
from customersignal_ingest.proof.content import found
from customersignal_ingest.proof.journal import read
from customersignal_ingest.proof.report import Kind
from tests.integration.servers.kafka import Kafka

FINDINGS_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`lost` was accepted and is not there; `twice` counts second copies, which `complaints` allow where a
    client sent again or has no answer.
    """

    lost: int
    twice: int
    complaints: Sequence[str]


def verify(journals: Sequence[Path], kafka: Kafka, topic: str) -> Verdict:
    """Read the topic from its beginning to its end, by another client library than the service's, and judge."""
    records = kafka.read(topic)
    with Checker(only_journal=True) as checker:
        for journal in journals:
            checker.add_journal(journal.name, read(journal))
        for record in records:
            checker.add_record(record)
        report = checker.report()
    contents = [found(record) for record in records]
    copies = Counter(content.identity for content in contents if content is not None)
    complaints = [f"{times} times {kind}" for kind, times in report.wrong.items()]
    return Verdict(
        lost=report.wrong[Kind.MISSING],
        twice=sum(copies.values()) - len(copies),
        complaints=[*complaints, *(str(finding) for finding in report.findings[:FINDINGS_SHOWN])],
    )
