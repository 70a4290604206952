"""The HTTP server on real sockets: answers that arrive, clients by the thousand, and the end of the process."""

import asyncio
import gc
import json
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from customersignal_ingest.adapters.inbound.http.asgi import Receive, Scope, Send
from customersignal_ingest.adapters.inbound.http.port import bound
from customersignal_ingest.adapters.inbound.http.server.connection import Connection
from customersignal_ingest.adapters.inbound.http.server.listener import SENT_BYTES_MAX, Listener
from tests.integration.servers.service import PATIENCE_S, Service, done, until

SETTINGS = {
    "PUBLISHER_URL": "memory:",
    "KEYS_URL": "sqlite:///keys.db",
    "KEY_PEPPER": "pepper",
    "DRAIN_DELAY_S": "0",
}
BODY = b'{"event_type":"a","timestamp":"2026-11-23T10:00:00Z","properties":{}}'
LIVE = b"GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n"
CLIENTS = 4500
"""More than the server takes at a time."""


@pytest.fixture(scope="module")
def key(folder: Path) -> str:
    for command in (["migrate"], ["tenants", "create", "acme"]):
        done(folder, *command, **SETTINGS)
    return str(done(folder, "keys", "create", "--tenant", "acme", **SETTINGS)[0]["secret"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("edge")


@pytest.fixture
def service(folder: Path, key: str) -> Iterator[Service]:
    service = Service(folder, SETTINGS).ready()
    yield service
    if service.process.poll() is None:
        service.kill()


@pytest.fixture
def many_files() -> Iterator[None]:
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < CLIENTS + 500:
        pytest.skip(f"this machine lets a process have {most} open files, and {CLIENTS} clients need more")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(files, CLIENTS + 500), most))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))


def connect(service: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE_S)


def head(key: str, length: int) -> bytes:
    lines = ("POST /v1/events HTTP/1.1", "Host: h", "Content-Type: application/json", f"X-CS-API-Key: {key}")
    return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()


def all_of(client: socket.socket) -> bytes:
    """Return what comes until the server says no more; a reset is an error."""
    return b"".join(iter(lambda: client.recv(65_536), b""))


def one_answer(client: socket.socket) -> bytes:
    """Return one answer, that has a body."""
    answer = b""
    while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
        piece = client.recv(65_536)
        assert piece, answer
        answer += piece
    return answer


def status(answer: bytes) -> int:
    return int(answer.split()[1])


@pytest.mark.parametrize("whose", ["ours", "nobody's"])
def test_an_early_answer_reaches_who_sends_its_whole_body_first(service: Service, key: str, whose: str) -> None:
    with connect(service) as client:
        client.sendall(head(key if whose == "ours" else whose, 20_000_000))
        for _ in range(200):
            client.sendall(b"a" * 100_000)

        answer = all_of(client)

    assert status(answer) == (413 if whose == "ours" else 401)
    assert b"\r\nconnection: close\r\n" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] in ("EVENT_TOO_LARGE", "API_KEY_INVALID")


def test_a_client_that_only_closes_its_half_gets_its_answer(service: Service, key: str) -> None:
    with connect(service) as client:
        client.sendall(head(key, len(BODY)) + BODY)
        client.shutdown(socket.SHUT_WR)

        assert status(all_of(client)) == 202


def test_requests_that_are_reset_leave_no_error_in_the_log(service: Service, key: str) -> None:
    for sent in (b"", b"GET", head(key, 10), head(key, 100) + b"a", head(key, len(BODY)) + BODY, LIVE * 30):
        with connect(service) as client:
            # Closed at once, and by a reset.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.sendall(sent)

    assert service.status("/health/live") == 200
    assert service.stop() == 0
    logged = [json.loads(line) for line in (service.folder / "out.txt").read_text().splitlines()]
    assert [line for line in logged if line["level"] == "error"] == []
    statuses = {line["http.response.status_code"] for line in logged if line.get("http.route") == "/v1/events"}
    assert 499 in statuses
    assert max(statuses) < 500
    assert (service.folder / "err.txt").read_text() == ""


@pytest.mark.alone
@pytest.mark.usefixtures("many_files")
def test_slow_clients_by_the_thousand_keep_nobody_from_being_served(service: Service, key: str) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(service)) for _ in range(CLIENTS // 2)]
        for client in slow:
            client.sendall(b"POST /v1/events HTTP/1.1\r\nHost: h\r\nX-Slow: ")
        before = [service.post(key, BODY).status_code for _ in range(20)]
        for _ in range(CLIENTS // 2):
            stack.enter_context(connect(service)).sendall(LIVE)
        after = [service.post(key, BODY).status_code for _ in range(20)]

    assert before + after == [202] * 40
    until(lambda: psutil.Process(service.process.pid).num_fds() < 100)


def test_clients_wait_where_no_more_files_may_be_opened_and_the_log_says_so_in_a_line(service: Service) -> None:
    pid, said = service.process.pid, service.folder / "out.txt"
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (psutil.Process(pid).num_fds(), limits[1]))
    with connect(service) as client:
        client.sendall(LIVE)
        until(lambda: "clients have to wait until they can connect: Too many open files" in said.read_text())
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)

        assert status(one_answer(client)) == 200
    assert "Traceback" not in said.read_text() + (service.folder / "err.txt").read_text()


def test_sigterm_ends_idle_connections_and_answers_who_is_in_the_middle(service: Service, key: str) -> None:
    idle, halfway = connect(service), connect(service)
    with idle, halfway:
        idle.sendall(LIVE)
        assert status(one_answer(idle)) == 200
        halfway.sendall(head(key, len(BODY)) + BODY[:10])
        until(lambda: b"cs_ingest_in_flight_events 1.0" in service.get("/metrics").content)

        service.process.terminate()

        assert idle.recv(1) == b""
        halfway.sendall(BODY[10:])
        answer = all_of(halfway)
    assert status(answer) == 202
    assert b"\r\nconnection: close\r\n" in answer
    assert service.process.wait(PATIENCE_S) == 0


async def say_live(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


@pytest.mark.anyio
async def test_each_connection_sends_at_once_and_keeps_no_more_than_a_bound() -> None:
    class Seen(Listener):
        def came(self, connection: Connection, /) -> bool:
            sockets.append(connection._transport.get_extra_info("socket"))
            return super().came(connection)

    sockets: list[socket.socket] = []
    listener = Seen(say_live, connections_max=10, keep_alive_s=5)
    port = bound(("127.0.0.1", 0), shared=False)
    await listener.open(port)
    reader, writer = await asyncio.open_connection(*port.getsockname())
    writer.write(LIVE)
    await reader.readuntil(b"{}")

    [accepted] = sockets
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * SENT_BYTES_MAX
    writer.close()
    await writer.wait_closed()
    assert await listener.close(5)


@pytest.mark.anyio
async def test_a_connection_that_ended_leaves_nothing_to_the_garbage_collector() -> None:
    class Left(Listener):
        def left(self, connection: Connection, /) -> None:
            super().left(connection)
            gone.set()

    gone = asyncio.Event()
    listener = Left(say_live, connections_max=10, keep_alive_s=5)
    port = bound(("127.0.0.1", 0), shared=False)
    await listener.open(port)
    gc.collect()
    gc.disable()
    try:
        for sent in (LIVE, LIVE[:20], b"no HTTP\r\n\r\n"):
            gone.clear()
            await asyncio.to_thread(sent_and_left, port.getsockname(), sent)
            await gone.wait()
        await asyncio.sleep(0)  # asyncio lets go of the socket after it has told us.
        left = [thing for thing in gc.get_objects() if isinstance(thing, Connection | asyncio.Transport)]
    finally:
        gc.enable()

    assert left == []
    assert await listener.close(5)


def sent_and_left(address: tuple[str, int], sent: bytes) -> None:
    with socket.create_connection(address, timeout=PATIENCE_S) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        while client.recv(1000):
            pass


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from customersignal_ingest.adapters.inbound.http.transport import _connections_max
print(_connections_max(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "connections", "files"), [(200, 200, 100, 200), (256, 2000, 1488, 2000), (1024, 5000, 4096, 4608)]
)
def test_there_are_no_more_connections_than_files(soft: int, hard: int, connections: int, files: int) -> None:
    code = LIMITED.format(soft=soft, hard=hard)

    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE_S)

    assert told.stdout.split() == [str(connections), str(files)]
