"""How a body is read: media types, encodings, sizes, deadlines, clients that leave."""

import gzip
import json
import zlib
from collections.abc import Callable

import pytest
import zstandard
from http_service import JSON, KEY, Reply, Service, event

from customersignal_ingest.adapters.inbound.http.events import BYTES_AN_EVENT, HttpLimits
from customersignal_ingest.policies import Admission

pytestmark = pytest.mark.anyio

SINGLE, BATCH = "/v1/events", "/v1/events/batch"
EVENT = json.dumps(event(properties={"text": "a" * 1000})).encode()
COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}


async def send(service: Service, *chunks: bytes, path: str = SINGLE, then: str = "end", **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await service.send("POST", path, list({**JSON, "x-cs-api-key": KEY, **named}.items()), chunks, then=then)


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        'application/json; charset="utf-8"',
    ],
)
async def test_json_in_utf8_is_taken(service: Service, media_type: str) -> None:
    assert (await send(service, EVENT, content_type=media_type)).status == 202


@pytest.mark.parametrize(
    "media_type",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin-1",
        "application/json; charset=utf-8; charset=utf-16",
        "application/json5",
        "application/cloudevents+json",
        "application/json, text/plain",
    ],
)
async def test_another_media_type_is_415_that_shows_the_header_to_add(service: Service, media_type: str) -> None:
    reply = await send(service, EVENT, content_type=media_type)

    assert (reply.status, reply.code) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert reply.headers["accept"] == "application/json"
    assert "Content-Type: application/json" in reply.json["error"]["message"]


async def test_no_media_type_is_415(service: Service) -> None:
    reply = await service.send("POST", SINGLE, [("x-cs-api-key", KEY)], [EVENT])

    assert (reply.status, reply.code) == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "zstd,gzip", "identity, gzip", "*"])
async def test_another_or_a_nested_encoding_is_415(service: Service, encoding: str) -> None:
    reply = await send(service, EVENT, content_encoding=encoding)

    assert (reply.status, reply.code) == (415, "UNSUPPORTED_ENCODING")
    assert reply.headers["accept-encoding"] == "gzip, zstd"


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "zstd"])
async def test_a_compressed_body_is_taken(service: Service, encoding: str) -> None:
    assert (await send(service, COMPRESS[encoding.lower()](EVENT), content_encoding=encoding)).status == 202
    assert service.values[0]["properties"] == {"text": "a" * 1000}


async def test_identity_is_no_encoding(service: Service) -> None:
    assert (await send(service, EVENT, content_encoding="identity")).status == 202


@pytest.mark.parametrize("encoding", COMPRESS)
async def test_several_members_or_frames_are_one_body(service: Service, encoding: str) -> None:
    compress = COMPRESS[encoding]

    assert (await send(service, compress(EVENT[:9]) + compress(EVENT[9:]), content_encoding=encoding)).status == 202


@pytest.mark.parametrize("encoding", COMPRESS)
async def test_a_body_of_very_many_members_is_refused(service: Service, encoding: str) -> None:
    reply = await send(service, COMPRESS[encoding](b"") * 1001, content_encoding=encoding)

    assert (reply.status, reply.code) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("encoding", COMPRESS)
@pytest.mark.parametrize(
    "harm", [lambda b: b[:-1], lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b + b"x", lambda b: b"x" + b]
)
async def test_a_compressed_body_cut_short_or_with_something_behind_it_is_400(
    service: Service, encoding: str, harm: Callable[[bytes], bytes]
) -> None:
    reply = await send(service, harm(COMPRESS[encoding](EVENT)), content_encoding=encoding)

    assert (reply.status, reply.code) == (400, "INVALID_REQUEST")
    assert service.memory.stored == []


@pytest.mark.parametrize("encoding", COMPRESS)
async def test_a_bomb_is_413_without_being_decoded_whole(encoding: str) -> None:
    service = Service(limits=HttpLimits(body_bytes_max=100_000))

    reply = await send(service, COMPRESS[encoding](b" " * 50_000_000), path=BATCH, content_encoding=encoding)

    assert (reply.status, reply.code) == (413, "PAYLOAD_TOO_LARGE")
    assert reply.json["error"]["details"] == {"limit": "body_bytes_max", "value": 100_000}


async def test_a_zstd_window_beyond_8_mib_is_refused(service: Service) -> None:
    wide = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=25))
    writer = wide.compressobj()

    reply = await send(service, writer.compress(EVENT) + writer.flush(), content_encoding="zstd")

    assert (reply.status, reply.code) == (400, "INVALID_REQUEST")


async def test_the_limit_of_a_compressed_body_as_sent_is_its_own() -> None:
    service = Service(limits=HttpLimits(encoded_bytes_max=50))

    reply = await send(service, gzip.compress(EVENT, 0), content_encoding="gzip")

    assert (reply.status, reply.code) == (413, "PAYLOAD_TOO_LARGE")
    assert reply.json["error"]["details"] == {"limit": "encoded_bytes_max", "value": 50}


async def test_a_body_announced_too_large_is_413_before_it_is_read() -> None:
    service = Service(limits=HttpLimits(body_bytes_max=1000))

    reply = await send(service, b"", path=BATCH, then="stall", content_length="1001")

    assert (reply.status, reply.code) == (413, "PAYLOAD_TOO_LARGE")
    assert reply.headers["connection"] == "close"


async def test_a_body_that_grows_too_large_is_413_without_reading_on() -> None:
    service = Service(limits=HttpLimits(body_bytes_max=1000))

    reply = await send(service, b" " * 600, b" " * 600, path=BATCH, then="stall")

    assert (reply.status, reply.code) == (413, "PAYLOAD_TOO_LARGE")


async def test_a_body_of_exactly_the_limit_is_taken() -> None:
    service = Service(limits=HttpLimits(body_bytes_max=len(EVENT) + 13))

    assert (await send(service, b'{"events": [' + EVENT + b"]}", path=BATCH)).status == 413
    assert (await send(service, b'{"events":[' + EVENT + b"]}", path=BATCH)).status == 202


async def test_a_body_in_pieces_is_one_body(service: Service) -> None:
    assert (await send(service, EVENT[:5], b"", EVENT[5:9], EVENT[9:], b"")).status == 202


async def test_a_body_that_stalls_is_408_and_ends_the_connection() -> None:
    service = Service(body_read_timeout_s=0.0)

    reply = await send(service, EVENT[:5], then="stall")

    assert (reply.status, reply.code) == (408, "REQUEST_TIMEOUT")
    assert reply.headers["connection"] == "close"
    assert (service.memory.stored, service.admission.bytes) == ([], 0)


@pytest.mark.parametrize("announced", [len(EVENT) - 1, len(EVENT) + 1])
async def test_a_body_of_another_length_than_announced_is_400(service: Service, announced: int) -> None:
    reply = await send(service, EVENT, content_length=str(announced))

    assert (reply.status, reply.code) == (400, "INVALID_REQUEST")
    assert service.memory.stored == []


async def test_nothing_is_stored_for_a_client_that_leaves(service: Service) -> None:
    await send(service, EVENT, then="leave")

    assert (service.memory.stored, service.admission.bytes) == ([], 0)


async def test_what_a_server_cannot_read_to_its_end_is_400_and_no_5xx(service: Service) -> None:
    reply = await send(service, EVENT, then="leave")

    assert (reply.status, reply.code, reply.headers["connection"]) == (400, "INVALID_REQUEST", "close")


async def test_a_client_that_leaves_is_499_in_the_log_and_no_error(service: Service) -> None:
    await send(service, EVENT, then="leave")

    (line,) = service.log.lines
    assert (line["level"], line["http.response.status_code"]) == ("info", 499)
    assert b'http_response_status_code="499"' in service.metrics.text()


async def test_bytes_beyond_what_may_be_in_flight_are_503_before_they_are_read() -> None:
    service = Service(admission=Admission(events_max=10, bytes_max=100, tenant_share=1.0))

    reply = await send(service, b"", then="stall", content_length="101")

    assert (reply.status, reply.code) == (503, "NOT_STORED")
    assert reply.headers["retry-after"].isdigit()


@pytest.mark.parametrize("path", [SINGLE, BATCH])
async def test_where_no_event_more_may_be_in_flight_the_answer_is_503_before_the_body_is_read(path: str) -> None:
    service = Service(admission=Admission(events_max=2, bytes_max=1 << 20, tenant_share=1.0))
    service.admission.take("other", 2, 0)

    reply = await send(service, b"", path=path, then="stall", content_length="101")

    assert (reply.status, reply.code) == (503, "NOT_STORED")
    assert (service.admission.events, service.admission.bytes) == (2, 0)


async def test_a_batch_whose_events_would_hardly_find_room_is_503_before_the_body_is_read() -> None:
    service = Service(admission=Admission(events_max=800, bytes_max=1 << 20, tenant_share=1.0))
    service.admission.take("other", 750, 0)

    reply = await send(service, b"", path=BATCH, then="stall", content_length=str(51 * BYTES_AN_EVENT))

    assert (reply.status, reply.code) == (503, "NOT_STORED")
    assert (service.admission.events, service.admission.bytes) == (750, 0)


@pytest.mark.parametrize("headers", [{}, {"content_encoding": "gzip"}])
async def test_bytes_count_as_they_come_when_nothing_is_announced(headers: dict[str, str]) -> None:
    service = Service(admission=Admission(events_max=10, bytes_max=500, tenant_share=1.0))

    reply = await send(service, gzip.compress(EVENT) if headers else EVENT, **headers)

    assert (reply.status, reply.code) == (503, "NOT_STORED")
    assert service.admission.bytes == 0


async def test_decoding_yields_what_is_still_in_the_decoder_at_the_end(service: Service) -> None:
    long = json.dumps(event(properties={"text": "a" * 300_000})).encode()
    packed = zlib.compressobj(9, zlib.DEFLATED, 31)

    assert (await send(service, packed.compress(long) + packed.flush(), content_encoding="gzip")).status == 202
