"""What happened in one run: complaints, counts, and a trace that is the same whenever the seed is."""

import asyncio
import hashlib
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

    def count(self, kind: str, what: str) -> None:
        """Count what happened, for the summary."""
        self.counts.setdefault(kind, Counter())[what] += 1

    def complain(self, complaint: str) -> None:
        """Say what must not happen, at the moment it does."""
        self.note(f"COMPLAINT {complaint}")
        self.complaints.append(complaint)

    @property
    def digest(self) -> str:
        return self._sha.hexdigest()
