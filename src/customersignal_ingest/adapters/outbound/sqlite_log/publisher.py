"""The publisher: hands records to the writer and answers within its deadline."""

import asyncio
from collections.abc import Sequence

from customersignal_ingest.adapters.outbound.sqlite_log.log_file import LogFile
from customersignal_ingest.adapters.outbound.sqlite_log.writer import Call, Writer
from customersignal_ingest.domain.errors import Unavailable
from customersignal_ingest.domain.event import Record
from customersignal_ingest.domain.outcome import NotStored, Outcome, Unknown

OPEN_TIMEOUT_S = 30.0  # After a crash SQLite reads its whole WAL first.
CLOSE_TIMEOUT_S = 5.0
PING_TIMEOUT_S = 1.5


class SqlitePublisher:
    """Stores records in one SQLite file. Opened, used and closed on one event loop."""

    def __init__(
        self, log: LogFile, *, publish_timeout_s: float = 15.0, close_timeout_s: float = CLOSE_TIMEOUT_S
    ) -> None:
        self._log = log
        self._close_timeout_s = close_timeout_s
        self._publish_timeout_s = publish_timeout_s
        self._writer: Writer | None = None

    async def publish(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        """Return once the commit that holds the records has returned, or at the deadline.

        A caller that is cancelled withdraws nothing: its records are stored in their turn.
        """
        writer = self._writer
        if writer is None or not records:
            return [NotStored("closed")] * len(records)
        call = _call(tuple(records))
        if refusal := writer.submit(call):
            return [NotStored(refusal)] * len(records)
        timer = call.answer.get_loop().call_later(self._publish_timeout_s, _expire, writer, call)
        try:
            return await call.answer
        finally:
            timer.cancel()

    async def open(self) -> None:
        """Lock and open the file, made with its folder if need be.

        Raises `ConfigurationError` when it can't be used, `Unavailable` when the disk does not answer.
        """
        if self._writer is not None:
            return
        writer = Writer(self._log)
        writer.start()
        self._writer = writer
        try:
            # Not by `wait_for`, which until Python 3.12 loses a cancellation that comes at the same moment.
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await writer.opened
        except TimeoutError:
            await self.close()
            raise Unavailable("the disk of the embedded log does not answer") from None
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Write what waits, within `close_timeout_s`, and let go of the file.

        The lock of a disk that does not answer is kept until it does or the process ends.
        """
        writer, self._writer = self._writer, None
        if writer is None:
            return
        writer.stop()
        await asyncio.wait({writer.ended}, timeout=self._close_timeout_s)
        writer.abandon()

    async def ping(self) -> None:
        """Have the writer read the log, or write to it if it had failed; raises `Unavailable` with the reason."""
        writer = self._writer
        call = _call(())
        if writer is None or writer.submit(call):
            raise Unavailable("closed")
        await asyncio.wait({call.answer}, timeout=PING_TIMEOUT_S)
        if not call.answer.done():
            raise Unavailable("the disk does not answer")
        if self._log.trouble is not None:
            raise Unavailable(self._log.trouble)


def _call(records: Sequence[Record]) -> Call:
    size_bytes = sum(record.size_bytes for record in records)
    return Call(records=records, size_bytes=size_bytes, answer=asyncio.get_running_loop().create_future())


def _expire(writer: Writer, call: Call) -> None:
    withdrawn = writer.withdraw(call)
    call.settle_all(NotStored("deadline") if withdrawn else Unknown("deadline"))
