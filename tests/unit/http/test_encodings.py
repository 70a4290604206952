"""Compressed bodies come out as they went in, or not at all, and never at once."""

import gzip
import time
import zlib
from collections.abc import Callable
from random import Random

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from customersignal_ingest.adapters.inbound.http.encodings import DECODERS, MEMBERS_MAX, ZSTD_WINDOW_BYTES_MAX
from customersignal_ingest.adapters.inbound.http.problem import Problem

PIECE_BYTES_MAX = 4 * 2**20
ENCODED_BYTES_MAX = 5_000_000
KIB_64 = 64 * 1024

encodings = pytest.mark.parametrize("encoding", DECODERS)


def gzipped(body: bytes, level: int = 6) -> bytes:
    return gzip.compress(body, level, mtime=0)


def zstd(body: bytes, level: int = 3) -> bytes:
    return zstandard.ZstdCompressor(level=level).compress(body)


COMPRESS: dict[str, Callable[..., bytes]] = {"gzip": gzipped, "zstd": zstd}


def decoded(encoding: str, encoded: bytes) -> bytes | None:
    try:
        return b"".join(DECODERS[encoding](encoded))
    except Problem:
        return None


def bodies() -> st.SearchStrategy[bytes]:
    """Texts that compress well or not at all, with sizes around those of the decoders' steps."""
    sizes = st.integers(0, 300) | st.integers(1, 4).flatmap(lambda n: st.integers(n * KIB_64 - 5, n * KIB_64 + 5))
    repeated = st.builds(lambda piece, size: (piece * (size + 1))[:size], st.binary(min_size=1, max_size=50), sizes)
    return repeated | st.builds(lambda seed, size: Random(seed).randbytes(size), st.integers(0, 2**32), sizes)


@encodings
@given(parts=st.lists(bodies(), min_size=1, max_size=4), level=st.integers(1, 9))
def test_members_one_after_the_other_are_one_body(encoding: str, parts: list[bytes], level: int) -> None:
    encoded = b"".join(COMPRESS[encoding](part, level) for part in parts)

    assert decoded(encoding, encoded) == b"".join(parts)


@encodings
@given(body=bodies(), data=st.data())
def test_a_body_that_is_cut_is_refused(encoding: str, body: bytes, data: st.DataObject) -> None:
    encoded = COMPRESS[encoding](body)

    assert decoded(encoding, encoded[: data.draw(st.integers(0, len(encoded) - 1))]) is None


@encodings
@given(body=bodies(), behind=st.binary(min_size=1, max_size=20))
def test_what_stands_behind_is_a_member_or_refused(encoding: str, body: bytes, behind: bytes) -> None:
    whole = decoded(encoding, COMPRESS[encoding](body) + behind)

    assert whole is None or whole == body + (decoded(encoding, behind) or b"")


@encodings
@given(body=bodies(), at=st.integers(0), flip=st.integers(1, 255))
@example(body=b"a" * 100, at=3, flip=4)
def test_a_flipped_byte_never_raises_anything_else(encoding: str, body: bytes, at: int, flip: int) -> None:
    encoded = bytearray(COMPRESS[encoding](body))
    encoded[at % len(encoded)] ^= flip

    decoded(encoding, bytes(encoded))


@given(encoded=st.binary(max_size=40).map(lambda rest: b"\x1f\x8b\x08" + rest) | st.binary(max_size=40))
def test_gzip_that_we_take_is_what_the_standard_library_reads(encoded: bytes) -> None:
    body = decoded("gzip", encoded)

    assert body is None or gzip.decompress(encoded) == body


@given(body=bodies(), at=st.integers(0), flip=st.integers(1, 255))
def test_gzip_that_was_changed_is_what_the_standard_library_reads(body: bytes, at: int, flip: int) -> None:
    changed = bytearray(gzipped(body))
    changed[at % len(changed)] ^= flip
    mine = decoded("gzip", bytes(changed))

    assert mine is None or gzip.decompress(bytes(changed)) == mine


@encodings
@pytest.mark.parametrize("size_bytes", [30_000_000, 3_000_000, 100_000])
def test_no_piece_is_larger_than_a_few_megabytes(encoding: str, size_bytes: int) -> None:
    pieces = list(DECODERS[encoding](COMPRESS[encoding](bytes(size_bytes))))

    assert max(map(len, pieces)) <= PIECE_BYTES_MAX
    assert sum(map(len, pieces)) == size_bytes


@encodings
def test_as_many_members_as_are_allowed_are_taken_and_no_more(encoding: str) -> None:
    member = COMPRESS[encoding](b"x")

    assert decoded(encoding, member * MEMBERS_MAX) == b"x" * MEMBERS_MAX
    assert decoded(encoding, member * (MEMBERS_MAX + 1)) is None


def framed(body: bytes, *, window_log: int) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(window_log=window_log)
    writer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return writer.compress(body) + writer.flush()


def test_a_zstd_window_is_bounded() -> None:
    widest = ZSTD_WINDOW_BYTES_MAX.bit_length() - 1

    assert decoded("zstd", framed(b"a", window_log=widest)) == b"a"
    assert decoded("zstd", framed(b"a", window_log=widest + 1)) is None


def test_a_zstd_dictionary_that_we_do_not_have_is_refused() -> None:
    dictionary = zstandard.train_dictionary(1_000, [b"event_type %d" % n * 5 for n in range(500)])

    assert decoded("zstd", zstandard.ZstdCompressor(dict_data=dictionary).compress(b"event_type 7" * 9)) is None


GZIP_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
SKIPPED = b"\x50\x2a\x4d\x18\0\0\0\0"


def filled(head: bytes, filling: bytes, end: bytes) -> bytes:
    return head + filling * ((ENCODED_BYTES_MAX - len(head) - len(end)) // len(filling)) + end


@pytest.mark.parametrize(
    ("encoding", "encoded"),
    [
        ("gzip", filled(b"", gzipped(b""), b"")),
        ("gzip", filled(GZIP_HEAD, b"\0\0\0\xff\xff", b"\x01\0\0\xff\xff" + bytes(8))),
        ("gzip", filled(GZIP_HEAD[:3] + b"\x08" + GZIP_HEAD[4:], b"n", b"\0" + gzipped(b"{}")[10:])),
        ("zstd", filled(b"", zstd(b""), b"")),
        ("zstd", filled(b"", SKIPPED, b"")),
        ("zstd", filled(b"\x28\xb5\x2f\xfd\0\x58", b"\0\0\0", b"\x11\0\0{}")),
        ("zstd", framed(b"x" * 4_000, window_log=23) * 1_000),
    ],
    ids=["members", "empty blocks", "a long name", "frames", "frames to skip", "empty raw blocks", "windows"],
)
def test_what_takes_much_work_and_yields_nothing_is_done_soon(encoding: str, encoded: bytes) -> None:
    began = time.process_time()
    decoded(encoding, encoded)

    assert time.process_time() - began < 0.5
    assert len(encoded) <= ENCODED_BYTES_MAX


def test_a_deflate_stream_without_gzip_around_is_refused() -> None:
    assert decoded("gzip", zlib.compress(b"{}")) is None
