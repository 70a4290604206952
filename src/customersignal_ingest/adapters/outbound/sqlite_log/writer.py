"""The one thread that writes: it commits the records of all waiting calls together."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Any

from customersignal_ingest.adapters.outbound.sqlite_log.log_file import LogFile
from customersignal_ingest.domain.event import Record
from customersignal_ingest.domain.outcome import NotStored, Outcome, Unknown

QUEUE_RECORDS_MAX = 50_000
QUEUE_BYTES_MAX = 128 * 2**20
COMMIT_RECORDS_MAX = 5_000
COMMIT_BYTES_MAX = 16 * 2**20

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """The records of one `publish`, and the future of its answer."""

    records: Sequence[Record]
    size_bytes: int
    answer: asyncio.Future[Sequence[Outcome]] = field(repr=False)

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        """Answer, unless the caller has gone or has its answer."""
        if not self.answer.done():
            self.answer.set_result(outcomes)

    def settle_all(self, outcome: Outcome) -> None:
        """Answer the same of every record."""
        self.settle([outcome] * len(self.records))


class Writer:
    """A queue with bounds, and the thread that empties it. Made and used on one event loop."""

    def __init__(self, log: LogFile) -> None:
        self.log = log
        self._loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._changed = Condition()
        self._waiting: deque[Call] = deque()
        self._taken: Sequence[Call] = ()
        self._records = 0
        self._bytes = 0
        self._stopping = False
        # A daemon, so that a disk that never answers can't keep the process from ending.
        self._thread = Thread(target=self._run, name="sqlite-log", daemon=True)

    def start(self) -> None:
        """Start the thread; `opened` says how it went, `ended` when it is over."""
        self._thread.start()

    def submit(self, call: Call) -> str | None:
        """Put the call in the queue; return the reason when it does not go in."""
        with self._changed:
            if self._stopping:
                return "closed"
            if self._records + len(call.records) > QUEUE_RECORDS_MAX or self._bytes + call.size_bytes > QUEUE_BYTES_MAX:
                return "queue full"
            self._waiting.append(call)
            self._records += len(call.records)
            self._bytes += call.size_bytes
            self._changed.notify()
        return None

    def withdraw(self, call: Call) -> bool:
        """Take the call out of the queue; `False` when the thread has it already."""
        with self._changed:
            try:
                self._waiting.remove(call)
            except ValueError:
                return False
            self._forget(call)
            return True

    def stop(self) -> None:
        """Let nothing more in; what waits is still written."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def abandon(self) -> None:
        """Answer every call that is left: what waits is not stored, what was taken may be."""
        with self._changed:
            self._stopping = True
            waiting, taken = list(self._waiting), self._taken
            self._waiting.clear()
            self._records = self._bytes = 0
            self._changed.notify()
        for call in waiting:
            call.settle_all(NotStored("closed"))
        for call in taken:
            call.settle_all(Unknown("closed before the disk answered"))

    def _run(self) -> None:
        try:
            if self._open():
                self._write()
        finally:
            self._tell(self._end)

    def _open(self) -> bool:
        try:
            self.log.open()
        except Exception as error:  # noqa: BLE001 - whatever it is, open() must hear of it.
            self._tell(_fail, self.opened, error)
            return False
        self._tell(_succeed, self.opened)
        return True

    def _write(self) -> None:
        try:
            while calls := self._take():
                outcomes = self._append([record for call in calls for record in call.records])
                self._tell(_settle, calls, outcomes)
        finally:
            self.log.close()

    def _take(self) -> Sequence[Call]:
        """Wait for calls and return as many as one commit takes; none once stopped and empty."""
        with self._changed:
            self._taken = ()
            while not self._waiting and not self._stopping:
                self._changed.wait()
            self._taken = self._next_commit()
            return self._taken

    def _next_commit(self) -> Sequence[Call]:
        calls: list[Call] = []
        records = size_bytes = 0
        while self._waiting:
            call = self._waiting[0]
            records += len(call.records)
            size_bytes += call.size_bytes
            if calls and (records > COMMIT_RECORDS_MAX or size_bytes > COMMIT_BYTES_MAX):
                break
            calls.append(self._waiting.popleft())
            self._forget(call)
        return calls

    def _forget(self, call: Call) -> None:
        self._records -= len(call.records)
        self._bytes -= call.size_bytes

    def _append(self, records: Sequence[Record]) -> Sequence[Outcome]:
        try:
            return self.log.append(records)
        except Exception:  # noqa: BLE001 - the thread outlives a mistake of ours; how far it got is not known.
            _log.exception("the embedded log failed in a way that is not foreseen")
            self.log.discard()
            return [Unknown("internal error")] * len(records)

    def _tell(self, what: Callable[..., None], *about: Any) -> None:
        with suppress(RuntimeError):  # The loop is closed: nobody is left who waits.
            self._loop.call_soon_threadsafe(what, *about)

    def _end(self) -> None:
        self.abandon()
        _succeed(self.ended)


def _settle(calls: Sequence[Call], outcomes: Sequence[Outcome]) -> None:
    start = 0
    for call in calls:
        end = start + len(call.records)
        call.settle(outcomes[start:end])
        start = end


def _succeed(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fail(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
