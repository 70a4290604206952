"""What comes on a connection and what becomes of it, over the whole app: one answer a request, whatever arrives."""

import asyncio
import gc
import json
from itertools import pairwise
from typing import Any

import pytest
from bench import BODY, CHUNKED, Bench, chunks, get, post, simulated
from http_service import KEY
from hypothesis import given
from hypothesis import strategies as st

from customersignal_ingest.adapters.inbound.http.asgi import Message, Receive, Scope, Send
from customersignal_ingest.adapters.inbound.http.guard import HEADERS_MAX, READ, REFUSED, read_headers
from customersignal_ingest.adapters.inbound.http.server.again import KNOWN_BYTES_MAX
from customersignal_ingest.adapters.inbound.http.server.connection import PIPELINED_MAX, UNREAD_BYTES_MAX, Connection
from customersignal_ingest.adapters.inbound.http.server.reader import HEAD_BYTES_MAX, Reader
from customersignal_ingest.adapters.inbound.http.server.request import REST_BYTES_MAX, Request
from tests.unit.simulated_time import everyone_waits, run

H2C = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")


@simulated
async def test_requests_on_one_connection_are_answered_in_their_order() -> None:
    bench = Bench()
    client = bench.client()

    await client.send(post() + get() + get(b"/nowhere") + post(CHUNKED, body=chunks(BODY)))

    assert client.statuses == [202, 200, 404, 202]
    assert bench.stored == 2
    assert not client.is_told_the_end


STREAM = b"".join(
    [
        b"\r\n",
        post(),
        post(CHUNKED, b"Trailer: x-a", body=chunks(BODY[:5], BODY[5:])[:-2] + b"X-A: b\r\n\r\n"),
        get(),
        post(*H2C),
        get(method=b"HEAD"),
        post(b"Connection: close"),
        post(),
    ]
)


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_however_the_bytes_are_cut_the_answers_are_the_same(cuts: list[int]) -> None:
    async def played() -> tuple[list[int], int, bool]:
        bench = Bench()
        client = bench.client()
        places = sorted({0, *cuts, len(STREAM)})
        await client.send(*(STREAM[begin:end] for begin, end in pairwise(places)))
        return client.statuses, bench.stored, client.is_told_the_end

    assert run(played()) == ([202, 202, 200, 202, 200, 202], 4, True)


GARBAGE = st.one_of(
    st.binary(max_size=200),
    st.sampled_from(
        [b"\r\n", b"\n", b"\r", b"\0", b" ", b"0\r\n\r\n", b"Content-Length: 1\r\n", b"Host: h\r\n", b"a" * 70_000]
    ),
)


@given(begin=st.integers(0, len(STREAM)), size=st.integers(0, 60), garbage=GARBAGE, ending=st.booleans())
def test_whatever_comes_is_answered_in_our_shape_without_an_error_of_ours(
    begin: int, size: int, garbage: bytes, ending: bool
) -> None:
    async def played() -> None:
        bench = Bench()
        client = bench.client()
        await client.send(STREAM[:begin] + garbage, STREAM[begin + size :])
        await (client.half_close() if ending else client.leave())

        assert 500 not in client.statuses
        assert {line["level"] for line in bench.service.log.lines} <= {"info"}
        assert bench.stored >= client.statuses.count(202)
        assert (bench.service.admission.events, bench.service.admission.bytes) == (0, 0)
        assert len(bench.listener._connections) == 0

    run(played())


@simulated
async def test_an_answer_is_sent_in_one_piece_with_its_length_and_the_date() -> None:
    client = Bench().client()

    await client.send(post())

    [answer] = client.answers
    assert client.writes == 1
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.headers["date"].endswith(" GMT")
    assert "connection" not in answer.headers
    assert json.loads(answer.body)["status"] == "accepted"


@simulated
async def test_an_answer_to_head_has_no_body_and_the_length_that_one_would_have() -> None:
    client = Bench().client()

    await client.send(get(method=b"HEAD") + get(b"/nowhere"))

    assert client.sent.count(b"content-length: 17\r\n") == 1
    assert client.sent.count(b"live") == 0
    assert client.statuses == [200, 404]


@pytest.mark.parametrize("line", [b"Connection: close", b"connection: Keep-Alive, CLOSE"])
@simulated
async def test_the_connection_ends_when_the_client_says_so(line: bytes) -> None:
    client = Bench().client()

    await client.send(get(b"/health/live", line))

    assert client.answers[0].headers["connection"] == "close"
    assert client.is_told_the_end


@pytest.mark.parametrize("line", [b"X: a", b"Connection: keep-alive"])
@simulated
async def test_http_1_0_has_one_request_a_connection(line: bytes) -> None:
    bench = Bench()
    client = bench.client()

    await client.send(post(line, line=b"POST /v1/events HTTP/1.0"), post())

    assert client.statuses == [202]
    assert client.is_told_the_end
    assert bench.stored == 1


# What can't be read.

UNREADABLE = [
    b"GET / HTTP/1.1\nHost: h\n\n",
    b"GET /\r\n\r\n",
    b"nonsense\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / RTSP/1.0\r\nHost: h\r\n\r\n",
    b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
    get(b"/", *H2C).replace(b"HTTP", b"RTSP"),
    b"BREW / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n",
    get(b"/", b" folded: a"),
    get(b"/", b"a: b", b" c"),
    get(b"/", b"a : b"),
    get(b"/", b"a: \0"),
    get(b"http://other/"),
    get(b"ftp://h/"),
    get(b"http://h@other/"),
    post(b"Content-Length: 69", CHUNKED, body=chunks(BODY)),
    post(b"Content-Length: 69", b"Content-Length: 69"),
    post(b"Transfer-Encoding: chunked, identity", body=chunks(BODY)),
    post(CHUNKED, body=b"5\r\nhelloXX5\r\nworld\r\n0\r\n\r\n"),
    post(CHUNKED, body=b"-1\r\n\r\n0\r\n\r\n"),
    post(CHUNKED, body=b"fffffffffffffffff\r\n" + BODY),
    post(CHUNKED, body=b"%x\n%s\n0\n\n" % (len(BODY), BODY)),
    post(CHUNKED, body=chunks(BODY)[:-2] + b"no trailer\r\n\r\n"),
]


@pytest.mark.parametrize("unreadable", UNREADABLE)
@simulated
async def test_what_can_not_be_read_is_400_after_the_answers_before_and_is_the_last(unreadable: bytes) -> None:
    bench = Bench()
    client = bench.client()

    await client.send(post() + unreadable + post(), post())

    assert client.statuses == [202, 400]
    assert client.answers[1].code == "INVALID_REQUEST"
    assert client.answers[1].headers["connection"] == "close"
    assert client.is_told_the_end
    assert (bench.stored, bench.logged) == (1, [202, 400])


@pytest.mark.parametrize("unreadable", UNREADABLE)
@simulated
async def test_it_is_the_same_for_whatever_comes_byte_by_byte(unreadable: bytes) -> None:
    bench = Bench()
    client = bench.client()

    await client.send(*(bytes([byte]) for byte in unreadable))

    assert client.statuses == [400]
    assert (bench.stored, bench.logged) == (0, [400])


@simulated
async def test_a_rest_of_a_body_that_can_not_be_read_ends_the_connection() -> None:
    client = Bench().client()
    refused = post(b"Content-Length: 5", body=b"hello", key="nobody's")

    await client.send(refused[:-3])
    await client.half_close()

    assert client.statuses == [401]
    assert client.is_parted


@simulated
async def test_nothing_is_begun_behind_a_request_that_was_the_last() -> None:
    bench = Bench()
    client = bench.client()
    client.stop_reading()

    await client.send(post(b"Host: other") + post())
    await client.read_again()

    assert (client.statuses, bench.stored) == ([400], 0)


@simulated
async def test_what_comes_behind_the_last_request_is_dropped_while_its_answer_is_owed() -> None:
    bench = Bench("slow")
    client = bench.client()
    old = b"POST /v1/events HTTP/1.0"
    large = b"a" * 1_000_000

    await client.send(post(b"Connection: keep-alive", line=old), post(b"Connection: keep-alive", line=old, body=large))

    assert client.unread_bytes == 0
    await bench.service.publisher.release()
    await everyone_waits()
    assert (client.statuses, bench.stored) == ([202], 1)


@simulated
async def test_a_trailer_is_no_header() -> None:
    bench = Bench()
    client = bench.client()

    await client.send(post(CHUNKED, body=chunks(BODY)[:-2] + b"X-CS-API-Key: other\r\n\r\n"))

    assert (client.statuses, bench.stored) == ([202], 1)


@simulated
async def test_no_more_headers_are_kept_than_it_takes_to_refuse_them() -> None:
    client = Bench().client()

    await client.send(b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 5000)
    assert len(client.protocol._reader._headers) == HEADERS_MAX + 1

    await client.send(b"\r\n")
    assert client.statuses == [431]


ENDLESS = {
    "header": b"GET / HTTP/1.1\r\nHost: h\r\nX-A: ",
    "header's name": b"GET / HTTP/1.1\r\nHost: h\r\n",
    "target": b"GET /",
    "chunk's extension": post(CHUNKED, body=b"5;"),
    "trailer": post(CHUNKED, body=chunks(BODY)[:-2] + b"X-A: "),
}


@pytest.mark.parametrize("endless", ENDLESS)
@simulated
async def test_what_has_no_end_is_431(endless: str) -> None:
    bench = Bench()
    client = bench.client()

    await client.send(ENDLESS[endless], *[b"a" * 1000] * (HEAD_BYTES_MAX // 1000 + 1))

    assert client.statuses == [431]
    assert client.answers[0].code == "HEADERS_TOO_LARGE"
    assert bench.stored == 0


@simulated
async def test_empty_lines_without_end_are_431() -> None:
    client = Bench().client()

    await client.send(*[b"\r\n" * 500] * (HEAD_BYTES_MAX // 1000 + 1))

    assert client.statuses == [431]


@simulated
async def test_blanks_around_a_value_are_no_part_of_it() -> None:
    bench = Bench()
    client = bench.client()

    await client.send(post().replace(b"Host: h", b"Host: \t h \t").replace(b"application/json", b"application/json "))

    assert client.statuses == [202]


@pytest.mark.parametrize("target", [b"http://h/v1/events", b"HTTPS://H/v1/events", b"http://h/v1/events?a=b"])
@simulated
async def test_a_target_may_name_the_host_that_the_header_names(target: bytes) -> None:
    client = Bench().client()

    await client.send(post(line=b"POST %s HTTP/1.1" % target))

    assert client.statuses == [202]


# Wishes that are not granted, and one that is.


@simulated
async def test_a_wish_for_http_2_is_ignored_and_the_request_is_taken() -> None:
    bench = Bench()
    client = bench.client()

    await client.send(post(*H2C) + post(*H2C, CHUNKED, body=chunks(BODY)) + get())

    assert client.statuses == [202, 202, 200]
    assert bench.stored == 2


@simulated
async def test_a_thousand_such_wishes_are_a_thousand_requests() -> None:
    client = Bench().client()

    await client.send(get(b"/health/live", *H2C) * 500)

    assert client.statuses == [200] * (PIPELINED_MAX + 1)


@simulated
async def test_a_client_that_waits_to_be_asked_for_its_body_is_asked_when_it_is_wanted() -> None:
    client = Bench().client()

    await client.send(post(b"Expect: 100-continue").removesuffix(BODY))
    assert client.sent == b"HTTP/1.1 100 Continue\r\n\r\n"

    await client.send(BODY)
    assert client.statuses == [100, 202]


@simulated
async def test_a_client_that_did_not_wait_for_it_is_not_asked() -> None:
    client = Bench().client()
    request = post(b"Expect: 100-continue")

    await client.send(request[:-10], request[-10:])

    assert client.statuses == [202]


@simulated
async def test_a_client_that_waits_to_be_asked_for_its_body_is_not_asked_when_the_answer_is_no() -> None:
    client = Bench().client()

    await client.send(post(b"Expect: 100-continue", key="nobody's").removesuffix(BODY))

    assert client.statuses == [401]
    assert client.is_told_the_end  # What it sends next may be the body or another request.


# Answers that are given while the body comes.


@simulated
async def test_after_a_refusal_a_short_rest_of_the_body_is_read_over_and_the_connection_goes_on() -> None:
    bench = Bench()
    client = bench.client()
    refused = post(key="nobody's")

    await client.send(refused[:-10], refused[-10:] + get())

    assert client.statuses == [401, 200]
    assert not client.is_told_the_end


@simulated
async def test_it_goes_on_where_much_of_the_body_waited_too() -> None:
    client = Bench().client()
    body = b"a" * (UNREAD_BYTES_MAX + REST_BYTES_MAX)

    await client.send(post(b"Expect: 100-continue", key="nobody's", body=body), get())

    assert client.statuses == [401, 200]


@pytest.mark.parametrize("framing", [b"Content-Length: %d" % (REST_BYTES_MAX + 1), CHUNKED])
@simulated
async def test_after_a_refusal_the_connection_ends_where_much_may_come(framing: bytes) -> None:
    client = Bench().client()

    await client.send(post(framing, key="nobody's", body=b""))

    assert client.statuses == [401]
    assert client.answers[0].headers["connection"] == "close"
    assert client.is_told_the_end


@simulated
async def test_what_comes_after_the_last_answer_is_read_and_dropped_so_that_the_answer_is_not_lost() -> None:
    bench = Bench()
    client = bench.client()

    await client.send(post(b"Content-Length: 20000000", body=b""), *[b"a" * 100_000] * 20, post())

    assert client.statuses == [413]
    assert (client.unread_bytes, client.is_parted, bench.stored) == (0, False, 0)


# Clients that leave.


@simulated
async def test_who_says_that_it_sends_no_more_gets_the_answers_that_are_owed() -> None:
    bench = Bench("slow", "ok")
    client = bench.client()

    await client.send(post() + post())
    await client.half_close()
    await bench.service.publisher.release()
    await everyone_waits()

    assert client.statuses == [202, 202]
    assert client.is_parted


@pytest.mark.parametrize(("cut", "logged"), [(30, 400), (-10, 499)])
@simulated
async def test_who_says_so_too_early_is_told(cut: int, logged: int) -> None:
    bench = Bench()
    client = bench.client()

    await client.send(post()[:cut])
    await client.half_close()

    assert client.statuses == [400]
    assert client.is_parted
    assert (bench.stored, bench.logged) == (0, [logged])


@simulated
async def test_who_says_so_before_anything_else_is_told_nothing() -> None:
    bench = Bench()
    client = bench.client()

    await client.half_close()

    assert (client.sent, client.is_parted, bench.logged) == (b"", True, [])


@simulated
async def test_who_leaves_in_a_body_leaves_a_line_of_499_and_nothing_else() -> None:
    bench = Bench()
    client = bench.client()

    await client.send(post()[:-10])
    await client.leave()

    assert (bench.stored, bench.logged, client.sent) == (0, [499], b"")
    assert (bench.service.admission.events, bench.service.admission.bytes) == (0, 0)


@simulated
async def test_what_was_whole_when_its_client_left_is_stored() -> None:
    bench = Bench("slow")
    client = bench.client()

    await client.send(post())
    await client.leave()
    await bench.service.publisher.release()
    await everyone_waits()

    assert (bench.stored, bench.logged) == (1, [499])


@simulated
async def test_what_was_whole_when_its_client_left_can_be_read_afterwards() -> None:
    read: list[Message] = []

    async def late(_scope: Scope, receive: Receive, _send: Send) -> None:
        await asyncio.sleep(1)
        read.append(await receive())

    client = Bench(app=late).client()
    await client.send(post())
    await client.leave()
    await asyncio.sleep(2)

    assert read == [{"type": "http.request", "body": BODY, "more_body": False}]


@simulated
async def test_what_waits_for_an_answer_before_is_not_begun_when_its_client_left() -> None:
    bench = Bench("slow")
    client = bench.client()

    await client.send(post() + post())
    await client.leave()
    await bench.service.publisher.release()
    await everyone_waits()

    assert (bench.stored, bench.logged) == (1, [499])


# Bounds.


@simulated
async def test_so_many_requests_may_wait_for_the_answer_of_one_and_the_last_of_them_ends_the_connection() -> None:
    bench = Bench()
    client = bench.client()

    await client.send(get() * (PIPELINED_MAX + 20))

    assert client.statuses == [200] * (PIPELINED_MAX + 1)
    assert [a.headers.get("connection") for a in client.answers] == [None] * PIPELINED_MAX + ["close"]
    assert client.is_told_the_end


@simulated
async def test_nothing_more_is_read_while_a_request_waits_for_the_answer_of_another() -> None:
    bench = Bench("slow")
    client = bench.client()

    await client.send(post() + post(), post())
    assert client.unread_bytes == len(post())

    await bench.service.publisher.release()
    await everyone_waits()
    assert client.unread_bytes == 0
    assert client.statuses == [202] * 3


async def wants_no_body(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(1)
    more = True
    while more:
        more = (await receive())["more_body"]
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


@simulated
async def test_no_more_of_a_body_is_read_than_the_app_takes() -> None:
    client = Bench(app=wants_no_body).client()
    body = b"a" * 1_000_000

    await client.send(post(b"Content-Length: %d" % len(body), body=body))
    assert client.unread_bytes > len(body) - 3 * UNREAD_BYTES_MAX

    await asyncio.sleep(2)
    assert client.unread_bytes == 0
    assert client.statuses == [204]


async def says_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    pass


@simulated
async def test_an_app_that_says_nothing_ends_the_connection() -> None:
    client = Bench(app=says_nothing).client()

    await client.send(get() + get())

    assert client.sent == b""
    assert client.is_parted


class Together:
    """Answers once it is told to, and writes down when who was answered, and what a client had got by then."""

    def __init__(self) -> None:
        self.told = asyncio.Event()
        self.bench = Bench(app=self)
        self.clients = [self.bench.client() for _ in range(3)]
        self.got: list[int] = []
        self.cut_at_once = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.told.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a"})
        self.got.append(sum(len(client.answers) for client in self.clients))
        if self.cut_at_once:
            for client in self.clients:
                client.protocol.cut()


@simulated
async def test_answers_of_one_round_of_the_loop_are_sent_together_at_its_end() -> None:
    together = Together()
    for client in together.clients:
        await client.send(get())

    together.told.set()
    await everyone_waits()

    assert together.got == [0, 0, 0]
    assert [client.statuses for client in together.clients] == [[200]] * 3
    assert [client.writes for client in together.clients] == [1] * 3


@simulated
async def test_an_answer_that_was_given_is_sent_before_its_connection_is_cut() -> None:
    together = Together()
    together.cut_at_once = True
    await together.clients[0].send(get())

    together.told.set()
    await everyone_waits()

    assert together.clients[0].is_parted
    assert together.clients[0].statuses == [200]


@simulated
async def test_a_line_in_the_log_follows_the_answers_of_the_round() -> None:
    bench = Bench("slow", "slow")
    clients = [bench.client() for _ in range(2)]
    answered: list[int] = []

    class Lines(list[dict[str, Any]]):
        def append(self, line: dict[str, Any]) -> None:
            answered.append(sum(len(client.answers) for client in clients))
            super().append(line)

    bench.service.log.lines = Lines()
    for client in clients:
        await client.send(post())

    await bench.service.publisher.release()
    await everyone_waits()

    assert answered == [2, 2]


@pytest.mark.parametrize(
    "sent",
    [
        post() + get() + post(key="nobody's") + post(body=b"{"),
        post()[:60],
        post()[:-10],
        post(key="nobody's")[:-10],
        post(CHUNKED, body=b"zz\r\n"),
        post(b"Host: another"),
        b"RTSP\r\n\r\n",
        get(b"/nowhere") + post(b"Connection: close") + post(),
    ],
)
@simulated
async def test_a_connection_that_is_over_is_no_garbage(sent: bytes) -> None:
    bench = Bench()
    gc.collect()
    gc.disable()
    try:
        await sent_and_left(bench, sent)
        left = [type(thing) for thing in gc.get_objects() if isinstance(thing, Request | Reader | Connection)]
    finally:
        gc.enable()

    assert left == []


async def sent_and_left(bench: Bench, sent: bytes) -> None:
    client = bench.client()
    await client.send(sent)
    await client.leave()
    await everyone_waits()
    vars(client).clear()  # It holds the connection, as the connection holds it.


async def in_pieces(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for piece in (b"a", b"b", b"c"):
        await send({"type": "http.response.body", "body": piece, "more_body": piece != b"c"})


@simulated
async def test_an_answer_in_pieces_is_sent_whole() -> None:
    client = Bench(app=in_pieces).client()

    await client.send(get() + get())

    assert [answer.body for answer in client.answers] == [b"abc", b"abc"]
    assert client.writes == 2


# A head that comes again.

SAID = [b"X-Request-Id: a-1", b"Idempotency-Key: k-1", b"Traceparent: 00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"]
LENGTH = len(BODY)
ODD = [b"", b" c", b"c ", b"a\tb", b"a\x7fb", b"\xe9", b"a\rb", b"a\nb", b"a\0b"]
VALUES = {
    b"X-Request-Id": [b"a-1", b"b", *ODD],
    b"Idempotency-Key": [b"k-1", b"k-2", *ODD],
    b"User-Agent": [b"x", b"y"],
    b"Connection": [b"keep-alive", b"close"],
    b"Content-Length": [b"%d" % (LENGTH + by) for by in (0, -1, 1)] + [b"0%d" % LENGTH, b"+%d" % LENGTH],
}
BODIES = [BODY, BODY.replace(b'"a"', b'"abc"'), b"", BODY + b"\r\n", BODY + get()]
KEYS = [KEY, KEY, "cs_live_unknown"]
EDITS = [
    (b"", b""),
    (b"\r\n", b"\n"),
    (b": ", b":"),
    (b": ", b" : "),
    (b"Host", b"host"),
    (b"POST", b"PUT"),
]


@st.composite
def much_alike(draw: st.DrawFn) -> list[bytes]:
    """Requests with the same headers: three that are alike, and some with other values, or odd in one place."""
    names = draw(st.permutations(draw(st.lists(st.sampled_from(list(VALUES)), unique=True))))
    usual = post(*[b"%s: %s" % (name, VALUES[name][0]) for name in names])
    sent = [usual] * 3
    for _ in range(draw(st.integers(1, 3))):
        lines = [b"%s: %s" % (name, draw(st.sampled_from(VALUES[name]))) for name in names]
        request = post(*lines, body=draw(st.sampled_from([BODY, *BODIES])), key=draw(st.sampled_from(KEYS)))
        sent.append(request.replace(*draw(st.sampled_from([*EDITS[:1], *EDITS])), draw(st.sampled_from([1, 1, 9]))))
    return sent


def whatever_is_learned_is_the_same(requests: list[bytes]) -> bool:
    async def played(*, learning: bool) -> list[tuple[Any, ...]]:
        seen: list[tuple[Any, ...]] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            asked = {name: scope[name] for name in ("method", "path", "raw_path", "query_string", "http_version")}
            try:
                body: Any = (await receive())["body"]
            except Exception as error:  # noqa: BLE001  Whatever it is, it must be the same.
                body = type(error)
            headers = scope["headers"]
            read = None if REFUSED in scope else (scope.get(READ) or read_headers(headers))[0]
            seen.append((asked, headers, read, body))
            await send({"type": "http.response.start", "status": 202, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        bench = Bench(app=app)
        client = bench.client()
        for request in requests:
            if not learning:
                client.protocol._reader._known = None
            await client.send(request)
        return [*seen, client.statuses, client.is_told_the_end]

    return run(played(learning=True)) == run(played(learning=False))


@given(requests=much_alike())
def test_a_head_that_comes_again_is_taken_as_it_was_the_first_time(requests: list[bytes]) -> None:
    assert whatever_is_learned_is_the_same(requests)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in VALUES.items() for value in values])
def test_so_it_is_with_any_other_value(name: bytes, value: bytes) -> None:
    usual = post(name + b": " + VALUES[name][0])

    assert whatever_is_learned_is_the_same([usual] * 3 + [post(name + b": " + value)] + [usual])


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("body", BODIES)
def test_so_it_is_with_any_other_body_and_any_other_byte(edit: tuple[bytes, bytes], body: bytes) -> None:
    odd = post(body=body).replace(*edit)

    assert whatever_is_learned_is_the_same([post()] * 3 + [odd, post()])


@simulated
async def test_a_head_that_comes_again_goes_without_the_parser_and_what_differs_is_of_its_own_request() -> None:
    bench = Bench()
    client = bench.client()
    await client.send(post(*SAID), post(*SAID))
    client.protocol._reader._parser = None  # type: ignore[assignment]  # Whoever uses it now fails.

    await client.send(post(b"X-Request-Id: b", *SAID[1:]), post(*SAID, body=BODY.replace(b'"a"', b'"abc"')))

    assert client.statuses == [202] * 4
    assert [answer.headers["x-request-id"] for answer in client.answers] == ["a-1", "a-1", "b", "a-1"]


@simulated
async def test_a_long_head_is_not_remembered() -> None:
    bench = Bench()
    client = bench.client()

    await client.send(*[post(b"X-A: " + b"a" * KNOWN_BYTES_MAX)] * 3)

    assert client.statuses == [202] * 3
    assert client.protocol._reader._known is None


@simulated
async def test_of_a_head_that_may_come_again_no_key_is_kept() -> None:
    bench = Bench()
    client = bench.client()
    await client.send(*[post(*SAID)] * 3)

    reader = client.protocol._reader
    known = reader._known

    kept = repr([getattr(each, name) for each in (known, reader) for name in type(each).__slots__])
    assert "application/json" in kept
    assert KEY not in kept
    assert "k-1" not in kept
