"""The corpus: one request a row, and what the contract says of it. How rows are written stands in corpus/README.md."""

import gzip
import re
import tomllib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import zstandard

FOLDER = Path(__file__).parent / "corpus"
GOOD_EVENT = {"event_type": '"signed_up"', "timestamp": '"2026-11-23T10:00:00Z"', "properties": "{}"}

Words = Mapping[str, bytes]
Then = Literal["wait", "half-close", "leave"]

_MARK = re.compile("«([^«»]*)»")
_HEX = re.compile("[0-9a-f]{2}(?: [0-9a-f]{2})*")
_KEYS = {
    *("name", "is", "results", "stored", "keeps", "raw", "then", "drip_s", "answers", "answers_most"),
    *("method", "target", "headers", "without", "body", "event", "batch", "packed", "chunk"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """One end that a request may come to: an answer, or a connection that is closed without a word."""

    status: int | None
    code: str | None = None
    field: str | None = None

    def __str__(self) -> str:
        if self.status is None:
            return "closed"
        return " ".join(map(str, filter(None, [self.status, self.code, self.field])))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One request as bytes, and what must become of it.

    `results` are those of a batch, in order: `accepted`, or code and pointer. `stored` is how many
    events must be in the log afterwards, `keeps` what the value of the first must have, `answers` how
    few and how many there may be.
    """

    group: str
    name: str
    request: bytes
    ends: tuple[Expected, ...]
    results: tuple[str, ...] | None = None
    stored: int = 0
    keeps: bytes | None = None
    then: Then = "wait"
    drip_s: float | None = None
    answers: tuple[int, int] = (1, 1)

    @property
    def is_good(self) -> bool:
        """Tell whether the service must take it."""
        return any(end.status is not None and end.status < 300 for end in self.ends)

    @property
    def method(self) -> str:
        """The method as sent, for whoever reads the answer: one to HEAD has no body."""
        return self.request.partition(b" ")[0].decode("latin-1")


GROUPS = tuple(sorted(file.stem for file in FOLDER.glob("*.toml")))


def read_group(name: str, words: Words, /) -> list[Row]:
    """Return the rows of one file; `words` are the keys, by name, that rows speak of."""
    return [_row(name, number, written, words) for number, written in enumerate(_written(name))]


@cache
def _written(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = tomllib.loads((FOLDER / f"{name}.toml").read_text())["rows"]
    return rows


def _row(group: str, number: int, written: dict[str, Any], words: Words) -> Row:
    assert written.keys() <= _KEYS, f"{group}, {written['name']}: {written.keys() - _KEYS} is no key of a row"
    ends = tuple(_expected(text) for text in written["is"].split(" or "))
    results = written.get("results")
    accepted = sum(text == "accepted" for text in results) if results is not None else int(ends[0].status == 202)
    words = {**words, "trace": traceparent(group, number).encode()}
    return Row(
        group=group,
        name=written["name"],
        request=_raw(written["raw"], words) if "raw" in written else _request(written, words),
        ends=ends,
        results=None if results is None else tuple(_bytes(text, words).decode() for text in results),
        stored=written.get("stored", accepted),
        keeps=_bytes(written["keeps"], words) if "keeps" in written else None,
        then=written.get("then", "wait"),
        drip_s=written.get("drip_s"),
        answers=(written.get("answers", 1), written.get("answers_most", written.get("answers", 1))),
    )


def traceparent(group: str, number: int, /) -> str:
    """Return the trace context that a row's request carries, and each record that comes of it."""
    return f"00-{zlib.crc32(group.encode()):08x}{number:024x}-{1:016x}-01"


def _expected(text: str) -> Expected:
    if text == "closed":
        return Expected(status=None)
    status, code, field, *_ = [*text.split(" ", 2), None, None]
    return Expected(status=int(str(status)), code=code, field=field)


def _bytes(text: str, words: Words) -> bytes:
    """Return the bytes that a text stands for: see corpus/README.md."""
    parts = _MARK.split(text)
    return b"".join(_marked(part, words) if at % 2 else part.encode() for at, part in enumerate(parts))


def _marked(text: str, words: Words) -> bytes:
    if text in words:
        return words[text]
    if text == "many":
        return b"X-A: %s\r\n" % (b"b" * 400) * 90
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    repeated, _, times = text.rpartition("*")
    return (bytes.fromhex(repeated) if _HEX.fullmatch(repeated) else repeated.encode()) * int(times)


def _raw(lines: list[str], words: Words) -> bytes:
    event = _object(GOOD_EVENT).encode()
    usual = ["Host: ingest.test", "Content-Type: application/json", "X-CS-API-Key: «key»", "traceparent: «trace»"]
    headers = _bytes("\r\n".join(usual), words)
    post = b"POST /v1/events HTTP/1.1\r\n" + headers
    whole = b"%s\r\nContent-Length: %d\r\n\r\n%s" % (post, len(event), event)
    words = {**words, "event": event, "headers": headers, "POST": post, "whole": whole}
    words |= {"chunk": b"%x\r\n%s\r\n" % (len(event), event), "last": b"0\r\n\r\n"}
    body = _bytes(lines[-1], words)
    words |= {"length": b"%d" % len(body)}
    return b"\r\n".join([*(_bytes(line, words) for line in lines[:-1]), body])


def _request(written: dict[str, Any], words: Words) -> bytes:
    body = _packed(_body(written, words), written.get("packed", ""))
    method, target = written.get("method", "POST"), written.get("target", _target(written))
    chunk = written.get("chunk")
    length = "Transfer-Encoding: chunked" if chunk else f"Content-Length: {len(body)}"
    head = [f"{method} {target} HTTP/1.1", *_headers(written, length)]
    sent = _chunked(body, chunk) if chunk else body
    return b"\r\n".join([*(_bytes(line, words) for line in head), b"", sent])


def _target(written: dict[str, Any]) -> str:
    return "/v1/events/batch" if "batch" in written else "/v1/events"


def _headers(written: dict[str, Any], length: str) -> list[str]:
    """Return the headers of a good request, each taken away or replaced where the row says so."""
    given = written.get("headers", [])
    packed = next((coding for coding in ("gzip", "zstd", "identity") if coding in written.get("packed", "")), None)
    usual = [
        "Host: ingest.test",
        length,
        "Content-Type: application/json",
        "X-CS-API-Key: «key»",
        "traceparent: «trace»",
    ]
    usual += [f"Content-Encoding: {packed}"] if packed else []
    gone = {name.partition(":")[0].lower() for name in [*given, *written.get("without", [])]}
    return [*(line for line in usual if line.partition(":")[0].lower() not in gone), *given]


def _body(written: dict[str, Any], words: Words) -> bytes:
    event = _object(GOOD_EVENT)
    words = {**words, "event": event.encode()}
    if "batch" in written:
        return _bytes(f'{{"events":[{",".join(written["batch"])}]}}', words)
    if "event" in written:
        return _bytes(_object({**GOOD_EVENT, **written["event"]}), words)
    return _bytes(written.get("body", event), words)


def _object(members: Mapping[str, str]) -> str:
    return "{" + ",".join(f'"{name}":{value}' for name, value in members.items() if value) + "}"


def _chunked(body: bytes, size: int) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])


def _packed(body: bytes, steps: str) -> bytes:
    for step in filter(None, steps.split(" ")):
        body = _STEPS[step](body)
    return body


def _wide_zstd(body: bytes) -> bytes:
    wide = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=27)).compressobj()
    return wide.compress(body) + wide.flush()


def _zlib(body: bytes, bits: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, bits)
    return packer.compress(body) + packer.flush()


def _in_members(body: bytes, pack: Callable[[bytes], bytes], count: int) -> bytes:
    size = -(-len(body) // count)
    return b"".join(pack(body[at : at + size]) for at in range(0, len(body), size))


def _gzip(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)


def _zstd(body: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(body)


_STEPS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": _gzip,
    "zstd": _zstd,
    "identity": bytes,
    "deflate": lambda body: _zlib(body, 15),
    "raw-deflate": lambda body: _zlib(body, -15),
    "wide-zstd": _wide_zstd,
    "gzip-members": lambda body: _in_members(body, _gzip, 5),
    "zstd-frames": lambda body: _in_members(body, _zstd, 5),
    "gzip-with-name": lambda body: b"\x1f\x8b\x08\x08\0\0\0\0\0\xffname\0" + _gzip(body)[10:],
    "empty-gzip-members": lambda body: _gzip(b"") * 3_000 + body,
    "empty-zstd-frames": lambda body: _zstd(b"") * 3_000 + body,
    "a-few-empty-members": lambda body: _gzip(b"") * 100 + body,
    "skippable-frame": lambda body: b"\x50\x2a\x4d\x18\x04\0\0\0skip" + body,
    "bomb": lambda body: body[:-1] + b" " * 12_000_000 + body[-1:],
    "without-last-byte": lambda body: body[:-1],
    "half": lambda body: body[: len(body) // 2],
    "nothing": lambda body: b"",
    "and-garbage": lambda body: body + b"garbage",
    "and-zeros": lambda body: body + bytes(8),
    "and-half-a-member": lambda body: body + _gzip(b" " * 100)[:15],
    "after-garbage": lambda body: b"x" + body,
    "wrong-checksum": lambda body: body[:-8] + bytes([body[-8] ^ 1]) + body[-7:],
    "wrong-length": lambda body: body[:-1] + bytes([body[-1] ^ 1]),
    "flipped": lambda body: body[:12] + bytes([body[12] ^ 0xFF]) + body[13:],
    "twice": lambda body: body + body,
}
"""What may become of a body before it is sent, by the words of `packed`."""
