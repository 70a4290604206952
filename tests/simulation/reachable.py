"""What must have happened in a long run: a simulation that never gets somewhere proves nothing about it."""

from collections import Counter
from collections.abc import Mapping

from tests.simulation.cluster import ENDS, FATES, STARTS
from tests.simulation.database import MODES

EXPECTED: Mapping[str, tuple[str, ...]] = {
    "cluster": (*FATES, *STARTS, *ENDS),
    "retirements": (
        "no progress",
        "the sender died",
        "age",
        "sequence numbers",
        "NetworkException",
        "KafkaStorageError",
        "OutOfOrderSequenceNumber",
        "InvalidRecord",
        "TopicAuthorizationFailed",
        "the producer is closed",
    ),
    "reasons": (
        "no confirmation within the deadline",
        "could not be sent within the deadline",
        "the producer died",
        "queue full",
        "too many producers were replaced at once",
        "no producer started within 16 s",
        "min.insync.replicas is 1",
    ),
    "answers": (
        "202",
        "207",
        "400 INVALID_REQUEST",
        "401 API_KEY_MISSING",
        "401 API_KEY_INVALID",
        "401 API_KEY_REVOKED",
        "401 API_KEY_EXPIRED",
        "408 REQUEST_TIMEOUT",
        "422",
        "422 FIELD_VALUE",
        "422 REFUSED_BY_STORE",
        "503 KEYS_UNAVAILABLE",
        "503 NOT_STORED",
        "504 OUTCOME_UNKNOWN",
        "client left",
        "connection refused",
        "cut",
    ),
    "events": ("accepted", "rejected", "not_stored", "unknown"),
    "keys": (*MODES, "made", "revoked", "expires"),
    "look-ups of keys": ("hit", "miss", "stale", "unknown", "unavailable"),
    "world": (
        "Kafka away",
        "no leader",
        "unsafe topic",
        "SIGTERMs",
        "crashes",
        "clock steps",
        "stalls",
        "floods",
        "saturated",
        "late confirmations",
    ),
}


def unreached(counts: Mapping[str, Counter[str]]) -> list[str]:
    """Return what is expected and was not seen once, by kind and name."""
    return [
        f"{kind}: {name}" for kind, names in EXPECTED.items() for name in names if not counts.get(kind, Counter())[name]
    ]
