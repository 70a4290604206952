"""What happened in one run: complaints, counts, and a trace that is the same whenever the seed is."""

import asyncio
import hashlib
import logging
from collections import Counter


class Journal:
    """For one run. `trace` is kept only on demand; `digest` stands for it."""

    def __init__(self, *, keep_trace: bool = False) -> None:
        self.complaints: list[str] = []
        self.counts: dict[str, Counter[str]] = {}
        self.trace: list[str] | None = [] if keep_trace else None
        self.steps = 0
        self._sha = hashlib.sha256()

    def note(self, what: str) -> None:
        """Write down what happened, and when."""
        line = f"{asyncio.get_running_loop().time():.6f} {what}\n"
        self.steps += 1
        self._sha.update(line.encode())
        if self.trace is not None:
            self.trace.append(line)

    def count(self, kind: str, what: str, times: int = 1) -> None:
        """Count what happened, for the summary."""
        self.counts.setdefault(kind, Counter())[what] += times

    def complain(self, complaint: str) -> None:
        """Say what must not happen, at the moment it does."""
        self.note(f"COMPLAINT {complaint}")
        self.complaints.append(complaint)

    @property
    def digest(self) -> str:
        return self._sha.hexdigest()


class Heard(logging.Handler):
    """Keeps what the package logs by the standard library, while it is used as a context."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    def __enter__(self) -> "Heard":
        log = logging.getLogger("customersignal_ingest")
        self._before = log.propagate
        log.propagate = False
        log.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        log = logging.getLogger("customersignal_ingest")
        log.propagate = self._before
        log.removeHandler(self)
