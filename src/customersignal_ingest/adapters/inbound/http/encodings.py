"""Compressed bodies, decoded piece by piece, so that whoever asks can stop at a limit.

What is not whole is refused: a body cut short, and anything behind its end. Several gzip members
or zstd frames, one after the other, are one body, as both formats have it.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, TypeVar

import zstandard

from customersignal_ingest.adapters.inbound.http.problem import Code, Problem

MEMBERS_MAX = 1_000
ZSTD_WINDOW_BYTES_MAX = 8 * 1024 * 1024

_GZIP = 31
_OUT = 64 * 1024
# zlib copies what it did not use, so the pieces it gets are small.
_GZIP_IN = 64 * 1024
# Four bytes of zstd can stand for 128 KiB and its decoder has no limit of its own: with this many
# bytes at a time, one step makes 4 MiB at the most.
_ZSTD_IN = 128


class _Member(Protocol):
    """What the decoders of both libraries have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def unconsumed_tail(self) -> bytes: ...


_M = TypeVar("_M", bound=_Member)


def gunzipped(encoded: bytes, /) -> Iterator[bytes]:
    """Yield what gzip decodes to, 64 KiB at the most at a time. Raises `Problem`."""
    return _decoded(encoded, _GZIP_IN, lambda: zlib.decompressobj(_GZIP), lambda m, data: m.decompress(data, _OUT))


def unzstd(encoded: bytes, /) -> Iterator[bytes]:
    """Yield what zstd decodes to, 4 MiB at the most at a time. Raises `Problem`."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX)
    return _decoded(encoded, _ZSTD_IN, decompressor.decompressobj, lambda m, data: m.decompress(data))


DECODERS: Mapping[str, Callable[[bytes], Iterator[bytes]]] = {"gzip": gunzipped, "zstd": unzstd}
"""What each content encoding is decoded by."""


def _decoded(
    encoded: bytes, piece_bytes: int, begin: Callable[[], _M], step: Callable[[_M, bytes], bytes]
) -> Iterator[bytes]:
    try:
        member, members = begin(), 1
        for at in range(0, len(encoded), piece_bytes):
            piece = encoded[at : at + piece_bytes]
            while piece:
                if member.eof:
                    member, members = _next(begin, members)
                yield step(member, piece)
                piece = member.unused_data if member.eof else member.unconsumed_tail
        while not member.eof:
            yield step(member, b"") or _cut_short()
    except (zlib.error, zstandard.ZstdError) as error:
        raise Problem(Code.INVALID_REQUEST, "the body is not what its content-encoding says") from error


def _next(begin: Callable[[], _M], members: int) -> tuple[_M, int]:
    if members == MEMBERS_MAX:
        raise Problem(Code.INVALID_REQUEST, f"the compressed body has more than {MEMBERS_MAX} members")
    return begin(), members + 1


def _cut_short() -> bytes:
    raise Problem(Code.INVALID_REQUEST, "the compressed body ends before its end")
