"""What the proxies claim, against a server that echoes."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.faults.proxy import Link, Network

pytestmark = pytest.mark.short

PATIENCE_S = 5.0


class Echo:
    """A server that sends back, on each connection, what it gets; `got` is all of it."""

    def __init__(self, reply: bytes = b"") -> None:
        self._reply = reply
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self.got = bytearray()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(65536):
                self.got += data
                connection.sendall(self._reply or data)


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture
def link(network: Network, echo: Echo) -> Link:
    return network.link(echo.address)


def connect(link: Link) -> socket.socket:
    return socket.create_connection(("127.0.0.1", link.port), timeout=PATIENCE_S)


def echoed(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    return received(connection, len(data))


def received(connection: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size and (more := connection.recv(65536)):
        got += more
    return got


def turned_away(link: Link) -> bool:
    """Connect, and tell whether the connection ends by itself, during the connecting or after it."""
    with suppress(ConnectionResetError), connect(link) as connection:
        return ended(connection)
    return True


def ended(connection: socket.socket) -> bool:
    """Wait until the other side ends the connection, in order or not."""
    with suppress(ConnectionResetError):
        while connection.recv(65536):
            pass
    return True


def silent(connection: socket.socket, *, for_s: float = 0.2) -> bool:
    connection.settimeout(for_s)
    try:
        return not connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(PATIENCE_S)


def test_a_calm_link_passes_everything_on_in_order(link: Link) -> None:
    data = bytes(range(256)) * 4096
    with connect(link) as connection:
        sender = threading.Thread(target=connection.sendall, args=(data,))
        sender.start()
        assert received(connection, len(data)) == data
        sender.join(PATIENCE_S)
    assert link.tally.passed_bytes == 2 * len(data)


def test_the_end_of_a_connection_is_passed_on(link: Link) -> None:
    with connect(link) as connection:
        connection.sendall(b"last words")
        connection.shutdown(socket.SHUT_WR)
        assert received(connection, 10) == b"last words"
        assert ended(connection)


def test_a_slow_link_delivers_late_and_does_not_throttle(link: Link) -> None:
    link.harm(answer_delay_s=0.3)
    with connect(link) as connection:
        began = time.monotonic()
        for _ in range(5):
            connection.sendall(b"x")
            time.sleep(0.02)
        assert received(connection, 5) == b"xxxxx"
        took_s = time.monotonic() - began
    assert 0.3 <= took_s < 0.9  # And not five times as long.
    assert link.tally.delayed > 0


def test_what_was_held_arrives_once_the_harm_is_over(link: Link, echo: Echo) -> None:
    with connect(link) as connection:
        assert echoed(connection, b"a") == b"a"
        link.harm(holds=True)
        connection.sendall(b"b")
        assert silent(connection)
        assert echo.got == b"a"
        link.heal()
        assert received(connection, 1) == b"b"
    assert link.tally.held > 0


def test_lost_requests_never_arrive_and_the_connection_is_reset_after_it(link: Link, echo: Echo) -> None:
    with connect(link) as connection:
        assert echoed(connection, b"a") == b"a"
        link.harm(loses_requests=True)
        connection.sendall(b"b")
        assert silent(connection)
        link.heal()
        assert ended(connection)
    assert echo.got == b"a"
    assert link.tally.lost_bytes == 1


def test_a_forgotten_connection_is_silent_and_a_new_one_works(link: Link, echo: Echo) -> None:
    with connect(link) as old:
        assert echoed(old, b"a") == b"a"
        link.forget()
        old.sendall(b"b")
        assert silent(old)
        with connect(link) as new:
            assert echoed(new, b"c") == b"c"
    assert echo.got == b"ac"


def test_a_lost_answer_was_heard_by_the_server(link: Link, echo: Echo) -> None:
    link.harm(loses_answers=True)
    with connect(link) as connection:
        connection.sendall(b"heard")
        assert silent(connection)
    assert echo.got == b"heard"


def test_a_connection_is_cut_once_the_server_has_answered(link: Link, echo: Echo) -> None:
    with connect(link) as connection:
        link.harm(cuts=1)
        connection.sendall(b"heard")
        with pytest.raises(ConnectionResetError):
            received(connection, 5)
    assert echo.got == b"heard"
    assert link.tally.cut == 1
    with connect(link) as connection:
        assert echoed(connection, b"next") == b"next"


def test_an_answer_is_cut_in_the_middle(network: Network) -> None:
    server = Echo(reply=b"0123456789")
    link = network.link(server.address)
    link.harm(cuts=1, cut_after=4)
    with connect(link) as connection:
        connection.sendall(b"?")
        got = b""
        with suppress(ConnectionResetError):
            got = received(connection, 10)
    server.close()
    assert got in (b"", b"0123")  # A reset may overtake what was on its way.
    assert link.tally.cut == 1


def test_a_refusing_link_resets_whoever_connects(link: Link, echo: Echo) -> None:
    link.harm(refuses=True)
    assert turned_away(link)
    assert link.tally.refused == 1
    assert echo.got == b""


def test_a_link_to_nobody_resets_whoever_connects(network: Network, echo: Echo) -> None:
    link = network.link(echo.address)
    echo.close()
    link.lead_to(("127.0.0.1", 1))
    assert turned_away(link)


def test_a_link_can_lead_elsewhere(link: Link, echo: Echo) -> None:
    elsewhere = Echo()
    with connect(link) as before:
        assert echoed(before, b"a") == b"a"
        link.lead_to(elsewhere.address)
        assert ended(before)
    with connect(link) as after:
        assert echoed(after, b"b") == b"b"
    elsewhere.close()
    assert (bytes(echo.got), bytes(elsewhere.got)) == (b"a", b"b")
