"""Looks at the health of a service again and again, as an orchestrator does."""

import threading
from typing import Self

from tests.faults.oracles import Look
from tests.faults.stage import now_ms
from tests.integration.servers.service import PATIENCE_S, Service

INTERVAL_S = 0.25


class Watch:
    """Looks while the block runs, or until `end`."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.looks: list[Look] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        self._over.set()
        self._thread.join(PATIENCE_S)

    def _watch(self) -> None:
        while not self._over.wait(INTERVAL_S):
            live = self._service.status("/health/live")
            ready, reasons = self._service.readiness()
            # The moment of the answer: a process that stood still tells how it is then.
            self.looks.append(Look(at_ms=now_ms(), live=live, ready=ready, reasons="; ".join(reasons.values())))
