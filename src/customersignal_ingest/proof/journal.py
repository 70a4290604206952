"""What a client sent and what it was answered, written down as it happens: JSON Lines in UTF-8.

Two lines belong to a request. The first is in the file before the request leaves:

    {"journal":1,"kind":"sent","attempt":"7f3a90c2-0","at_ms":1795428000000,"tenant_id":"acme",
     "project_id":"web","events":[{"event_type":"a",...}],"idempotency_key":"k1"}

The second follows its answer:

    {"journal":1,"kind":"answered","attempt":"7f3a90c2-0","at_ms":1795428000012,"status":207,
     "results":[{"status":202,"event_id":"019a...","receipt":"events_raw/4/0"},{"status":422,"code":"FIELD_TYPE"}]}

A request without its second line has an unknown outcome: a crash, a time-out, a lost connection.

- `tenant_id` and `project_id` are those of the API key; a key of no project has none.
- `events` has the bytes of each payload as sent, with line breaks between tokens as blanks. What is no
  JSON (and so no event) stands there as a JSON string.
- `idempotency_key` is the header `Idempotency-Key`, which the single route alone has. The field of that
  name stays within its event.
- `results` has one entry per event, in their order. Its `status` is a number for batches too: what the
  HTTP answer calls `accepted`, `rejected`, `not_stored` and `unknown` is 202, 422, 503 and 504 here.
- Without `results` the answer's `status`, and `code` if it has one, stand for every event: a batch of
  which all are stored, or a request refused as a whole.
"""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

_STATUS = {"accepted": 202, "rejected": 422, "not_stored": 503, "unknown": 504}
_LINE_BREAKS = bytes.maketrans(b"\r\n", b"  ")
_TAIL_BYTES = 64 * 1024

VERSION = 1
LINE_BYTES_MAX = 128 * 2**20
"""A line that is longer is none of a journal: several times the largest body that can be sent."""


class JournalError(Exception):
    """The file is no journal, or not a whole one; the message is one line that names file and line."""


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one event was answered. `code` is the error's, where there is one."""

    status: int
    event_id: str | None = None
    receipt: str | None = None
    code: str | None = None


class Sent(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="sent"):
    """A request that is about to leave. `at_ms` is Unix time by the client's clock."""

    journal: Literal[1]
    attempt: str
    at_ms: int
    tenant_id: str
    events: tuple[msgspec.Raw, ...]
    project_id: str | None = None
    idempotency_key: str | None = None


class Answered(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="answered"):
    """The answer to a request. Without `results`, `status` and `code` stand for every event."""

    journal: Literal[1]
    attempt: str
    at_ms: int
    status: int
    results: tuple[Result, ...] = ()
    code: str | None = None


class Torn(msgspec.Struct, frozen=True):
    """The last line is not whole: the client was killed while it wrote. Its request had not left."""


Entry = Sent | Answered | Torn

_to_json = msgspec.json.Encoder().encode
_entry_of: Callable[[bytes], Sent | Answered] = msgspec.json.Decoder(Sent | Answered).decode


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Journal:
    """Appends to a journal. Safe for tasks and threads: every line is one write, and a killed process loses none.

    One file has one writer: raises `JournalError` while another has it. What a killed writer left of
    a last line is cut off, because the request of an unfinished line has not left. A power cut may
    take lines along: they are handed to the system, not forced to the disk.
    """

    def __init__(self, path: str | Path, *, clock_ms: Callable[[], int] = _now_ms) -> None:
        """Open the file, which is made if it is not there."""
        self.path = Path(path)
        self._clock_ms = clock_ms
        self._writer, self._numbers = secrets.token_hex(4), count()
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _cut_torn_line(self._file)
        except BlockingIOError:
            os.close(self._file)
            raise JournalError(f"{self.path}: another process writes this journal") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    @property
    def size_bytes(self) -> int:
        """How large the file is now."""
        return os.fstat(self._file).st_size

    def sent(
        self,
        payloads: Sequence[bytes],
        /,
        *,
        tenant_id: str,
        project_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Write down, before it leaves, a request with these payloads; return the id of the attempt.

        Each payload is the bytes of one event's JSON. `idempotency_key` is the header's.
        """
        attempt = f"{self._writer}-{next(self._numbers)}"
        events = tuple(msgspec.Raw(_embeddable(payload)) for payload in payloads)
        self._write(
            Sent(
                journal=1,
                attempt=attempt,
                at_ms=self._clock_ms(),
                tenant_id=tenant_id,
                events=events,
                project_id=project_id,
                idempotency_key=idempotency_key,
            )
        )
        return attempt

    def answered(self, attempt: str, status: int, body: bytes = b"", /) -> None:
        """Write down the answer to an attempt: its HTTP status, and its body as it came."""
        said = _object_of(body)
        self._write(
            Answered(
                journal=1,
                attempt=attempt,
                at_ms=self._clock_ms(),
                status=status,
                results=_results_of(status, said),
                code=_code_of(said),
            )
        )

    def _write(self, entry: Entry) -> None:
        line = _to_json(entry) + b"\n"
        if os.write(self._file, line) != len(line):
            raise JournalError(f"{self.path}: a line could not be written whole: is the disk full?")


def read(path: str | Path, /) -> Iterator[tuple[int, Entry]]:
    """Yield each entry with the number of its line, from 1, in the order of the file; a line at a time in memory.

    Raises `JournalError` for a file that can't be read, and for a line that is none of a journal.
    """
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(iter(partial(file.readline, LINE_BYTES_MAX + 1), b""), start=1):
                if len(line) > LINE_BYTES_MAX:
                    raise JournalError(f"{path}, line {number}: longer than any line of a journal")
                if not line.endswith(b"\n"):
                    yield number, Torn()
                    return
                yield number, _entry(line, f"{path}, line {number}")
    except OSError as error:
        raise JournalError(f"{path} can't be read: {error.strerror}") from error


def _entry(line: bytes, where: str) -> Entry:
    try:
        return _entry_of(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise JournalError(f"{where}: this is no line of a journal of version {VERSION}{_other(line)}") from error


def _other(line: bytes) -> str:
    """Say which version a line is of, if it says so itself."""
    version = _object_of(line).get("journal", VERSION)
    return f", but of version {version}" if isinstance(version, int) and version != VERSION else ""


def _embeddable(payload: bytes) -> bytes:
    """Return the payload on one line if it is JSON, else a JSON string of its text."""
    try:
        json.loads(payload.decode(), parse_int=str, parse_constant=_refuse)
        msgspec.json.decode(payload, type=msgspec.Raw)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return _to_json(payload.decode(errors="backslashreplace"))
    return payload.translate(_LINE_BREAKS)  # A string can't have one unescaped, so these are blanks.


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _object_of(body: bytes) -> Mapping[str, Any]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}  # Some proxy's page, or half an answer.
    return said if isinstance(said, dict) else {}


def _results_of(status: int, said: Mapping[str, Any]) -> tuple[Result, ...]:
    """Return what the answer says of each event; nothing where it says nothing of single ones."""
    if isinstance(listed := said.get("results"), list):
        return tuple(_listed(result if isinstance(result, dict) else {}) for result in listed)
    if status == _STATUS["accepted"] and "event_id" in said:
        return (Result(status, _text(said, "event_id"), _text(said, "receipt")),)
    event_id = _text(_member(_member(said, "error"), "details"), "event_id")
    return () if event_id is None else (Result(status, event_id, code=_code_of(said)),)


def _listed(result: Mapping[str, Any]) -> Result:
    # A word that nobody knows confirms nothing.
    status = _STATUS.get(str(result.get("status")), _STATUS["unknown"])
    return Result(status, _text(result, "event_id"), _text(result, "receipt"), _code_of(result))


def _code_of(said: Mapping[str, Any]) -> str | None:
    return _text(_member(said, "error"), "code")


def _member(said: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = said.get(name)
    return value if isinstance(value, dict) else {}


def _text(said: Mapping[str, Any], name: str) -> str | None:
    value = said.get(name)
    return value if isinstance(value, str) else None


def _cut_torn_line(file: int) -> None:
    size = os.fstat(file).st_size
    end = size
    while end > 0:
        start = max(0, end - _TAIL_BYTES)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(file, end)
