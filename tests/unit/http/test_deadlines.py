"""Every wait for a client has an end, in simulated time; and the listener has a bound to how many there are."""

import asyncio

import pytest
from bench import BODY, CHUNKED, KEEP_ALIVE_S, Bench, get, post, simulated
from wire import Client

from customersignal_ingest.adapters.inbound.http.asgi import Receive, Scope, Send
from customersignal_ingest.adapters.inbound.http.server.connection import (
    GOODBYE,
    HEAD,
    LAST_GOODBYE,
    READING,
    REST_OF_BODY,
)
from customersignal_ingest.adapters.inbound.http.server.listener import (
    OVERDUE_AT_ONCE,
    SWEEP_S,
    TURNED_AWAY_MAX,
    UNREAD_BYTES_MAX,
)
from tests.unit.simulated_time import everyone_waits

HALF = post()[:60]


def about(seconds: float) -> object:
    """A moment that a sweep notices."""
    return pytest.approx(seconds + SWEEP_S, abs=SWEEP_S + 0.1)


async def drip(client: Client, piece: bytes) -> None:
    while not client.is_parted:
        await client.send(piece)
        await asyncio.sleep(0.3)


@pytest.mark.parametrize("sent", [b"", b"\r\n"])
@simulated
async def test_a_client_that_asks_nothing_is_parted_with_without_a_word(sent: bytes) -> None:
    client = Bench().client()
    await client.send(sent)

    assert await client.parted_after_s() == about(HEAD.seconds)
    assert client.sent == b""


@pytest.mark.parametrize("dripping", [b"", b"a"])
@pytest.mark.parametrize("before", [b"", get()])
@simulated
async def test_a_head_has_a_deadline_whatever_drips_in(before: bytes, dripping: bytes) -> None:
    bench = Bench()
    client = bench.client()
    await client.send(before + b"GET / HTTP/1.1\r\nX-A: ")
    dripping_in = asyncio.create_task(drip(client, dripping))

    assert await client.parted_after_s() == about(HEAD.seconds + GOODBYE.seconds)
    dripping_in.cancel()
    assert client.statuses[-1] == 408
    assert client.answers[-1].code == "REQUEST_TIMEOUT"


@pytest.mark.parametrize(("framing", "dripping"), [(b"Content-Length: 1000", b"a"), (CHUNKED, b"1\r\na\r\n")])
@simulated
async def test_a_body_has_a_deadline_whatever_drips_in(framing: bytes, dripping: bytes) -> None:
    bench = Bench()
    client = bench.client()
    await client.send(post(framing, body=b""))
    dripping_in = asyncio.create_task(drip(client, dripping))

    within_s = bench.service.limits.body_read_timeout_s
    assert await client.parted_after_s() == about(within_s + GOODBYE.seconds)
    dripping_in.cancel()
    assert (client.statuses, bench.stored) == ([408], 0)


@simulated
async def test_the_rest_of_a_body_that_nobody_wants_has_a_deadline() -> None:
    client = Bench().client()
    await client.send(post(key="nobody's")[:-10])

    assert await client.parted_after_s() == about(REST_OF_BODY.seconds)
    assert client.statuses == [401]


@simulated
async def test_an_idle_connection_ends_after_the_time_that_is_set() -> None:
    client = Bench().client()
    await client.send(get())
    await asyncio.sleep(KEEP_ALIVE_S - 5)
    await client.send(get())

    assert await client.parted_after_s() == about(KEEP_ALIVE_S)
    assert client.statuses == [200, 200]


@simulated
async def test_an_answer_that_nobody_reads_has_a_deadline_and_holds_up_the_next_request() -> None:
    bench = Bench()
    client = bench.client()
    client.stop_reading()
    await client.send(post() + post())

    assert bench.stored == 1
    assert await client.parted_after_s() == about(READING.seconds)
    assert bench.stored == 1


@simulated
async def test_who_reads_again_gets_the_next_answer() -> None:
    bench = Bench()
    client = bench.client()
    client.stop_reading()
    await client.send(post() + post())
    await asyncio.sleep(READING.seconds - 1)

    await client.read_again()

    assert client.statuses == [202, 202]
    assert await client.parted_after_s() == about(KEEP_ALIVE_S)


@simulated
async def test_the_last_answer_may_be_read_slowly_too() -> None:
    client = Bench().client()
    client.stop_reading()
    await client.send(get(b"/health/live", b"Connection: close"))

    assert await client.parted_after_s() == about(READING.seconds)


@simulated
async def test_a_client_that_has_its_last_answer_has_some_time_to_go() -> None:
    client = Bench().client()
    await client.send(get(b"/health/live", b"Connection: close"))

    assert client.is_told_the_end
    assert await client.parted_after_s() == about(GOODBYE.seconds)


@simulated
async def test_a_client_that_goes_after_its_last_answer_is_parted_with_at_once() -> None:
    client = Bench().client()
    await client.send(get(b"/health/live", b"Connection: close"))

    await client.half_close()

    assert client.is_parted


@simulated
async def test_a_request_in_work_has_the_time_that_the_app_takes() -> None:
    bench = Bench("slow")
    client = bench.client()
    await client.send(post())
    await asyncio.sleep(1000)

    await bench.service.publisher.release()
    await everyone_waits()

    assert client.statuses == [202]


# How many there may be.


@simulated
async def test_there_is_room_for_one_more_where_somebody_is_idle_and_who_has_been_so_for_longest_goes() -> None:
    bench = Bench(connections_max=3)
    first, second, third = bench.client(), bench.client(), bench.client()
    for client in (second, third, first):
        await client.send(get())

    fourth = bench.client()
    await fourth.send(get())

    assert [client.is_parted for client in (first, second, third, fourth)] == [False, True, False, False]
    assert fourth.statuses == [200]


@simulated
async def test_half_requests_are_no_reason_to_stay() -> None:
    bench = Bench(connections_max=3)
    slow = [bench.client() for _ in range(3)]
    for client in slow:
        await client.send(HALF)

    ours = bench.client()
    await ours.send(post())

    assert ours.statuses == [202]
    assert [client.is_parted for client in slow] == [True, False, False]


@simulated
async def test_whoever_comes_while_all_others_wait_for_an_answer_is_told_to_come_later() -> None:
    bench = Bench("slow", "slow", connections_max=2)
    waiting = [bench.client(), bench.client()]
    for client in waiting:
        await client.send(post())

    late = bench.client()
    await late.send(post())

    assert (late.statuses, late.answers[0].code) == ([503], "NOT_STORED")
    assert late.answers[0].headers["retry-after"] == "2"
    assert late.is_told_the_end
    await bench.service.publisher.release()
    await everyone_waits()
    assert [client.statuses for client in waiting] == [[202], [202]]
    assert bench.stored == 2


async def answers_never(*_: object) -> None:
    await asyncio.Event().wait()


@simulated
async def test_so_many_are_told_to_come_later_and_no_more() -> None:
    bench = Bench(app=answers_never, connections_max=1)
    await bench.client().send(get())

    late = [bench.client() for _ in range(TURNED_AWAY_MAX + 5)]
    await everyone_waits()

    assert [client.is_parted for client in late] == [False] * TURNED_AWAY_MAX + [True] * 5


async def says_much(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"a" * (UNREAD_BYTES_MAX // 10)})


@simulated
async def test_so_much_may_be_left_unread_and_who_has_done_so_for_longest_goes() -> None:
    bench = Bench(app=says_much)
    clients = [bench.client() for _ in range(11)]
    for client in clients:
        client.stop_reading()
        await client.send(get())

    assert [client.is_parted for client in clients] == [True, True] + [False] * 9


@simulated
async def test_what_was_read_or_left_behind_is_not_counted() -> None:
    bench = Bench(app=says_much)
    clients = [bench.client() for _ in range(11)]
    for number, client in enumerate(clients):
        client.stop_reading()
        await client.send(get())
        if number == 0:
            await client.read_again()
        if number == 1:
            await client.leave()

    assert [client.is_parted for client in clients] == [False, True] + [False] * 9


@simulated
async def test_a_crowd_whose_time_is_up_together_is_told_bit_by_bit() -> None:
    bench = Bench()
    crowd = [bench.client() for _ in range(3 * OVERDUE_AT_ONCE)]
    for client in crowd:
        await client.send(HALF)
    await asyncio.sleep(HEAD.seconds - 2 * SWEEP_S)

    told = {0}
    for _ in range(100):
        await asyncio.sleep(SWEEP_S / 10)
        told.add(sum(client.statuses == [408] for client in crowd))

    assert sorted(told) == [0, OVERDUE_AT_ONCE, 2 * OVERDUE_AT_ONCE, 3 * OVERDUE_AT_ONCE]


# The end.


@simulated
async def test_the_end_does_not_wait_for_the_rest_of_a_body_that_nobody_wants() -> None:
    bench = Bench()
    client = bench.client()
    await client.send(post(key="nobody's")[:-10])
    closing = asyncio.create_task(bench.listener.close(20))
    await everyone_waits()

    assert client.is_told_the_end
    assert await client.parted_after_s() == about(LAST_GOODBYE.seconds)
    assert await closing


@simulated
async def test_the_end_finds_the_idle_gone_and_the_others_answered() -> None:
    bench = Bench("slow")
    idle, working, halfway, in_body = (bench.client() for _ in range(4))
    await idle.send(get())
    await working.send(post())
    await halfway.send(HALF)
    await in_body.send(post()[:-10])
    closing = asyncio.create_task(bench.listener.close(20))
    await everyone_waits()

    assert idle.is_parted
    await halfway.send(post()[60:])
    await in_body.send(BODY[-10:])
    await bench.service.publisher.release()
    await everyone_waits()
    for client in (working, halfway, in_body):
        assert client.statuses == [202]
        assert client.answers[0].headers["connection"] == "close"
        await client.half_close()
    assert await closing
    assert bench.stored == 3


@simulated
async def test_a_client_that_does_not_go_holds_up_the_end_for_a_moment() -> None:
    bench = Bench()
    client = bench.client()
    await client.send(get(b"/health/live", b"Connection: close"))
    closing = asyncio.create_task(bench.listener.close(20))

    assert await client.parted_after_s() == about(LAST_GOODBYE.seconds)
    assert await closing


@simulated
async def test_a_client_that_has_just_come_has_a_moment_to_ask() -> None:
    bench = Bench()
    asks, is_silent = bench.client(), bench.client()
    closing = asyncio.create_task(bench.listener.close(20))
    await everyone_waits()

    await asks.send(post())

    assert asks.statuses == [202]
    assert await is_silent.parted_after_s() == about(LAST_GOODBYE.seconds)
    assert await closing


@simulated
async def test_the_end_has_a_bound_and_tells_of_what_was_cut() -> None:
    bench = Bench("slow")
    client = bench.client()
    await client.send(post())

    assert await bench.listener.close(20) is False
    await everyone_waits()
    assert client.is_parted


@simulated
async def test_the_end_waits_for_what_a_client_that_left_has_sent() -> None:
    bench = Bench("slow")
    client = bench.client()
    await client.send(post())
    await client.leave()
    closing = asyncio.create_task(bench.listener.close(20))
    await everyone_waits()
    assert not closing.done()

    await bench.service.publisher.release()

    assert await closing
    assert bench.stored == 1


@simulated
async def test_half_a_head_that_does_not_go_on_is_no_request_that_was_cut() -> None:
    bench = Bench()
    client = bench.client()
    await client.send(HALF)

    assert await bench.listener.close(2) is True
    await everyone_waits()
    assert client.is_parted
