"""A round: the events that are judged together, with a journal of their own."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from customersignal_ingest.canary.metrics import Answer
from customersignal_ingest.proof.journal import Journal

_CERTAINLY_NOT = frozenset({"NOT_STORED", "KEYS_UNAVAILABLE"})
_TROUBLE_MAX = 200


class Round:
    """Writes down what is sent and answered. It is over once it was ended and everybody has an answer, or none.

    `since` is the earliest moment at which one of its events can have arrived, by the clocks of canary and
    service; `receipts` are those of its accepted events, `trouble` what was last wrong with an answer.
    """

    def __init__(self, path: Path, /, *, tenant_id: str, project_id: str | None, now: Callable[[], datetime]) -> None:
        """Begin the journal."""
        self.path = path
        self.since = now()
        self.receipts: set[str] = set()
        self.answers: Counter[Answer] = Counter()
        self.trouble: str | None = None
        self.over = asyncio.Event()
        self._began_at = _loop_s()
        self._over_at = float("inf")
        self._tenant_id, self._project_id = tenant_id, project_id
        self._journal = Journal(path)
        self._waiting = 0
        self._ended = False

    def seconds_until(self, at_s: float, /) -> float:
        """Return how much later than the beginning of this round that moment of the loop is."""
        return at_s - self._began_at

    def settled_at(self, settle_s: float, /) -> float:
        """Return the moment of the loop at which it will have been over for so long."""
        return self._over_at + settle_s

    def sent(self, payload: bytes, /) -> str:
        """Write down that it is about to leave; return the id of the attempt."""
        attempt = self._journal.sent([payload], tenant_id=self._tenant_id, project_id=self._project_id)
        self._waiting += 1
        return attempt

    def answered(self, attempt: str, status: int, body: bytes, /) -> Answer:
        """Write down the answer, and return what it says."""
        self._journal.answered(attempt, status, body)
        said = _object_of(body)
        answer = _answer(status, said)
        if answer == "accepted":
            self._learn(said)
        else:
            self.trouble = f"{status} {_code(said) or ''}".strip()[:_TROUBLE_MAX]
        return self._count(answer)

    def unanswered(self, why: str, /) -> Answer:
        """Take note that no answer will come: the journal has none."""
        self.trouble = why[:_TROUBLE_MAX]
        return self._count("no_answer")

    def not_sent(self) -> None:
        """Take note of an event that did not leave, because too many wait for an answer."""
        self.answers["not_sent"] += 1

    def end(self) -> None:
        """Send no more in this round."""
        self._ended = True
        self._look_if_over()

    def _count(self, answer: Answer) -> Answer:
        self.answers[answer] += 1
        self._waiting -= 1
        self._look_if_over()
        return answer

    def _look_if_over(self) -> None:
        if self._ended and not self._waiting and not self.over.is_set():
            self._journal.close()
            self._over_at = _loop_s()
            self.over.set()

    def _learn(self, said: dict[str, object]) -> None:
        self.receipts.add(str(said.get("receipt")))
        try:
            received_at = datetime.fromisoformat(str(said.get("received_at")))
        except ValueError:
            return
        self.since = min(self.since, received_at if received_at.tzinfo else received_at.replace(tzinfo=UTC))


def _loop_s() -> float:
    return asyncio.get_running_loop().time()


def _object_of(body: bytes) -> dict[str, object]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _code(said: dict[str, object]) -> str | None:
    error = said.get("error")
    return str(error.get("code")) if isinstance(error, dict) else None


def _answer(status: int, said: dict[str, object]) -> Answer:
    if status == 202:
        return "accepted"
    if 400 <= status < 500:
        return "refused"
    return "not_stored" if status == 503 and _code(said) in _CERTAINLY_NOT else "unknown"
