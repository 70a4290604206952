"""Lines in, answers out, and never more than a line's limit in memory."""

import asyncio
import io
import os
import threading
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from customersignal_ingest.adapters.inbound.stdin import LINES_MAX, Answer, send_lines
from customersignal_ingest.domain.key import Tenant
from customersignal_ingest.domain.outcome import Reason, Receipt, Rejected, Result, Stored
from customersignal_ingest.domain.rules import Payload

pytestmark = pytest.mark.anyio

TENANT = Tenant(tenant_id="acme")


class Heard:
    """A use case that stores everything, but for payloads that are too long."""

    def __init__(self, *, bytes_max: int = 1_000_000) -> None:
        self.calls: list[list[Payload]] = []
        self._bytes_max = bytes_max

    async def __call__(
        self,
        tenant: Tenant,
        payloads: Sequence[Payload],
        /,
        *,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
    ) -> Receipt:
        self.calls.append(list(payloads))
        return Receipt(datetime.now(UTC), tuple(map(self._result, payloads)))

    def _result(self, payload: Payload) -> Result:
        if len(payload) > self._bytes_max:
            return Result(None, Rejected(Reason.EVENT_TOO_LARGE, "too large"))
        return Result("id", Stored("events_raw", 0, 1))

    @property
    def payloads(self) -> list[Payload]:
        return [payload for call in self.calls for payload in call]


class Pieces(io.RawIOBase):
    """A pipe that gives what it has in these pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    def read1(self, _: int) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


async def send(
    stream: Pieces | io.BytesIO | io.FileIO, heard: Heard, *, line_bytes_max: int = 1_000_000
) -> list[Answer]:
    answers: list[Answer] = []
    await send_lines(
        stream,  # type: ignore[arg-type]  # of a stream it needs `read1`
        tenant=TENANT,
        ingest=heard,
        line_bytes_max=line_bytes_max,
        write=answers.append,
    )
    return answers


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n"])
async def test_each_line_is_a_payload(end: bytes) -> None:
    heard = Heard()

    await send(io.BytesIO(b"a\nb" + end), heard)

    assert heard.payloads == [b"a", b"b"]


async def test_empty_lines_are_counted_and_not_sent() -> None:
    answers = await send(io.BytesIO(b"\na\n  \nb"), Heard())

    assert [answer.number for answer in answers] == [2, 4]


async def test_a_line_that_comes_in_pieces_is_one_payload() -> None:
    heard = Heard()

    await send(Pieces(b"a", b"b\nc", b"d"), heard)

    assert heard.payloads == [b"ab", b"cd"]


async def test_what_is_there_is_sent_before_more_comes() -> None:
    heard = Heard()

    await send(Pieces(b"a\nb\n", b"c\n"), heard)

    assert heard.calls == [[b"a", b"b"], [b"c"]]


async def test_a_step_has_a_bound() -> None:
    heard = Heard()

    await send(io.BytesIO(b"a\n" * (2 * LINES_MAX + 1)), heard)

    assert [len(call) for call in heard.calls] == [LINES_MAX, LINES_MAX, 1]


async def test_a_line_without_end_is_cut_and_rejected_alone() -> None:
    heard = Heard(bytes_max=10)

    answers = await send(Pieces(*[b"x" * 100] * 50, b"\nok\n"), heard, line_bytes_max=10)

    assert [len(payload) for payload in heard.payloads] == [11, 2]
    assert [type(answer.result.outcome) for answer in answers] == [Rejected, Stored]


async def test_a_line_that_is_too_long_is_never_taken_for_its_beginning() -> None:
    heard = Heard(bytes_max=10)

    (answer,) = await send(io.BytesIO(b"{}" + b" " * 100 + b"oops"), heard, line_bytes_max=10)

    assert isinstance(answer.result.outcome, Rejected)


@pytest.mark.timeout(20)
def test_who_waits_for_input_ends_as_soon_as_it_is_cancelled() -> None:
    """Without the input: asyncio would wait at its end for a thread of its own that reads."""
    outlet, inlet = os.pipe()
    stream, reading = io.FileIO(outlet), list[threading.Thread]()

    async def begin_and_cancel() -> None:
        sending = asyncio.create_task(send(stream, Heard()))
        while not reading:
            await asyncio.sleep(0)
            reading.extend(thread for thread in threading.enumerate() if thread.name == "input")
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending

    asyncio.run(begin_and_cancel())
    os.close(inlet)
    reading[0].join()
    stream.close()
