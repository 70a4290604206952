"""Clients who leave, dawdle, flood, and send again without a key."""

import json
import socket
import time
from contextlib import ExitStack, suppress
from select import select

from tests.faults.fault import Breaking, fault
from tests.faults.stage import Stage

SLOW_CLIENTS = 300


@fault("F40", "clients leave while they wait", gap_s=2.0)
def leaving_while_waiting(stage: Stage) -> Breaking:
    """Whether it is stored nobody can know; it is no error of ours."""
    for link in stage.cluster.links.values():
        link.harm(answer_delay_s=0.5)
    left = 0
    for n in range(40):
        event = {"event_type": "left", "timestamp": "2026-11-23T10:00:00Z", "properties": {"n": n}}
        payload = json.dumps(event).encode()
        stage.sent_aside(payload)
        with connected(stage) as connection:
            connection.sendall(head(stage, len(payload)) + payload)
            left += not select([connection], [], [], 0.05)[0]
    for link in stage.cluster.links.values():
        link.heal()
    assert left > 30
    assert requests_of_status(stage, "500") == 0
    yield f"{left} of 40 clients left before their answer came"


@fault("F41", "clients leave in the middle of a body", gap_s=2.0, short=True)
def leaving_mid_body(stage: Stage) -> Breaking:
    payload = json.dumps({"event_type": "half", "timestamp": "2026-11-23T10:00:00Z", "properties": {}}).encode()
    for n in range(60):
        with connected(stage) as connection:
            connection.sendall(head(stage, len(payload)) + payload[: 1 + n % (len(payload) - 1)])
    stage.until(lambda: stage.metrics().total("cs_ingest_in_flight_bytes") < 10_000)
    stage.wait(2)
    assert not any(b'"half"' in record.value for record in stage.cluster.read(stage.topic))
    assert requests_of_status(stage, "500") == 0
    yield f"60 bodies were left unfinished; {requests_of_status(stage, '499'):g} end as 499, none is stored"


@fault("F42", "slow clients by the hundred", gap_s=2.0, settings={"BODY_READ_TIMEOUT_S": "4"})
def slow_clients(stage: Stage) -> Breaking:
    """Heads and bodies that never end, and answers that nobody reads: all bounded, and nobody else waits for them."""
    files = stage.process().num_fds()
    with ExitStack() as stack:
        dawdlers = [stack.enter_context(connected(stage)) for _ in range(SLOW_CLIENTS)]
        for n, connection in enumerate(dawdlers):
            whole = head(stage, 1000) + b"{"
            connection.sendall(whole[:40] if n % 3 == 0 else whole if n % 3 == 1 else unread())
        stage.until(lambda: stage.process().num_fds() - files > SLOW_CLIENTS / 2)
        timed_out = [connection for n, connection in enumerate(dawdlers) if n % 3 == 1]
        began_s = time.monotonic()
        answers = [first_line(connection) for connection in timed_out]
        took_s = time.monotonic() - began_s
        assert set(answers) <= {b"HTTP/1.1 408", b""}, set(answers)
        assert took_s < 4 + 6, took_s
        yield f"{SLOW_CLIENTS} dawdlers, {answers.count(b'HTTP/1.1 408')} bodies end as 408 after {took_s:.1f} s"
    stage.until(lambda: stage.process().num_fds() < files + 20, within_s=40)


@fault("F46", "ten times as many clients as usual", answers={503}, gap_s=4.0, lasts_s=10)
def overload(stage: Stage) -> Breaking:
    """What can't be served is told so at once, and the rest goes on."""
    calm = rate(stage, 3)
    stage.start_load(waiting=60, per_s=100, batches=4, retrying=0, wrong=0, pause_s=0.0)
    stage.wait(3)
    loaded = rate(stage, 5)
    yield f"{loaded:.0f} accepted requests a second, {calm:.0f} before"
    stage.loads[1].end()
    assert loaded > calm * 0.8, "overload has cost the clients their throughput"


@fault("F47", "one tenant floods", answers={503}, gap_s=3.0, settings={"IN_FLIGHT_EVENTS_MAX": "200"})
def flood(stage: Stage) -> Breaking:
    """Another tenant has nineteen in twenty of all requests, and most of what it may have in flight."""
    _, secret = stage.keys.new("umbrella")
    flooding = stage.start_load(
        secret=secret, tenant_id="umbrella", waiting=120, per_s=0, batches=0, retrying=0, wrong=0, pause_s=0.0
    )
    stage.until(lambda: flooding.answered(503), within_s=30)
    stage.wait(6)
    ours = [r for r in stage.load.requests if r.status and r.kind in ("waiting", "open")]
    failed = sum(r.status != 202 for r in ours)
    assert failed <= len(ours) * 0.001, f"{failed} of {len(ours)} requests of another tenant failed"
    yield f"{len(flooding.requests)} requests of the flooding tenant, {flooding.answered(503)} of them 503"
    flooding.end()


def connected(stage: Stage) -> socket.socket:
    return socket.create_connection(("127.0.0.1", stage.service.port), timeout=30)


def head(stage: Stage, length: int) -> bytes:
    lines = [
        "POST /v1/events HTTP/1.1",
        "Host: ingest",
        f"X-CS-API-Key: {stage.keys.secret}",
        "Content-Type: application/json",
        f"Content-Length: {length}",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def unread() -> bytes:
    """Return many requests whose answers are long, for a client who reads none."""
    return b"GET /schema/openapi.json HTTP/1.1\r\nHost: ingest\r\n\r\n" * 20


def first_line(connection: socket.socket) -> bytes:
    with suppress(OSError):
        return connection.recv(12)
    return b""


def requests_of_status(stage: Stage, status: str) -> float:
    return stage.metrics().total("http_server_request_duration_seconds_count", http_response_status_code=status)


def rate(stage: Stage, seconds: float) -> float:
    """Return how many requests a second are accepted, of all clients."""
    before = sum(len(load.accepted()) for load in stage.loads)
    stage.wait(seconds)
    return (sum(len(load.accepted()) for load in stage.loads) - before) / seconds
