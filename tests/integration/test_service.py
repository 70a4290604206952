"""The real server as a process over the embedded log: started, asked, killed, stopped."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from customersignal_ingest.adapters.outbound.sqlite_log import open_reader
from customersignal_ingest.domain.event import StoredRecord
from customersignal_ingest.domain.key import Tenant
from customersignal_ingest.registry import AdapterSettings
from customersignal_ingest.testing.planted import PROPERTY, USER_ID
from tests.integration.servers.service import PATIENCE_S, Load, Service, Variables, expected, free_port, run, until

EVENT = {
    "event_type": "signed_up",
    "timestamp": "2026-11-23T10:00:00Z",
    "user_id": USER_ID,
    "properties": {"n": 1.0, "is": PROPERTY},
}
TENANT = Tenant(tenant_id="acme", environment="test")  # Whose the demo key is.


def demo_key(folder: Path) -> str:
    return (folder / "data/demo.key").read_text().strip()


def post(service: Service) -> httpx.Response:
    return service.post(demo_key(service.folder), json.dumps(EVENT).encode())


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stores, pepper and key that `cs-ingest dev` makes."""
    folder = tmp_path_factory.mktemp("prepared")
    service = Service(folder, {"DRAIN_DELAY_S": "0"}, command="dev").ready()
    assert service.stop() == 0
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    shutil.copytree(prepared / "data", tmp_path / "data")
    return tmp_path


STORES = {
    "PUBLISHER_URL": "sqlite:///data/events.db",
    "KEYS_URL": "sqlite:///data/keys.db",
    "KEY_PEPPER_FILE": "data/pepper",
}


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[..., Service]]:
    services: list[Service] = []

    def start(
        *, command: str = "serve", stdout: int | None = None, port: int | None = None, **variables: str
    ) -> Service:
        given = {"DRAIN_DELAY_S": "0"} | ({} if command == "dev" else STORES)
        port = free_port() if port is None else port
        services.append(Service(folder, {**given, **variables}, port=port, command=command, stdout=stdout))
        return services[-1]

    yield start
    for service in services:
        service.end()


def stored(folder: Path) -> dict[str, bytes]:
    """Return the record's exact value by receipt, as `tail` prints it."""
    done = run(folder, "tail", "--json", **STORES)
    assert done.returncode == 0, done.stderr
    found = {}
    for line in done.stdout.splitlines():
        receipt = json.loads(line)["receipt"]
        assert receipt not in found
        found[receipt] = line.partition('"value":')[2][:-1].encode()
    return found


def as_answered(answer: httpx.Response) -> bytes:
    """Return the bytes that must be stored for an event that was answered so."""
    said = answer.json()
    return expected(answer.request.content, tenant=TENANT, event_id=said["event_id"], received_at=said["received_at"])


def log_of(folder: Path) -> list[StoredRecord]:
    async def read() -> list[StoredRecord]:
        reader = open_reader(f"sqlite:///{folder}/data/events.db", settings=AdapterSettings())
        return [record async for record in reader.read()]

    return asyncio.run(read())


def test_an_event_is_answered_with_where_it_is_stored_and_can_be_read_there(
    serve: Callable[..., Service], folder: Path
) -> None:
    service = serve().ready()

    answer = post(service)

    assert answer.status_code == 202
    assert stored(folder)[answer.json()["receipt"]] == as_answered(answer)


def test_an_event_is_there_after_kill_9_right_after_its_answer(serve: Callable[..., Service], folder: Path) -> None:
    service = serve().ready()

    answer = post(service)
    service.kill()

    assert stored(folder)[answer.json()["receipt"]] == as_answered(answer)


def test_every_accepted_event_survives_kill_9_under_load(serve: Callable[..., Service], folder: Path) -> None:
    service = serve().ready()
    with Load(service, demo_key(folder), TENANT, clients=8, pause_s=0) as load:
        for _ in range(4):
            at_least = len(load.accepted()) + 200
            until(lambda at_least=at_least: len(load.accepted()) >= at_least)  # type: ignore[misc]  # a default binds it
            service.kill()
            service.start()
            service.ready()

    assert load.complaints(log_of(folder)) == []
    assert len(load.accepted()) >= 800


def test_sigterm_under_load_leaves_only_true_answers(serve: Callable[..., Service], folder: Path) -> None:
    service = serve(DRAIN_DELAY_S="0.5").ready()
    with Load(service, demo_key(folder), TENANT, clients=8, pause_s=0) as load:
        until(lambda: len(load.accepted()) >= 200)
        code = service.stop()

    assert code == 0
    assert load.tally.keys() <= {202, 503, 0}
    assert load.complaints(log_of(folder)) == []


def test_a_service_that_was_told_to_stop_is_not_ready_and_still_serves(serve: Callable[..., Service]) -> None:
    service = serve(DRAIN_DELAY_S="20").ready()

    service.process.terminate()

    until(lambda: service.status("/health/ready") == 503)
    assert service.status("/health/live") == 200
    assert post(service).status_code == 202


def test_a_second_signal_ends_the_waiting(serve: Callable[..., Service]) -> None:
    service = serve(DRAIN_DELAY_S="3000").ready()
    service.process.terminate()
    until(lambda: service.status("/health/ready") == 503)

    service.process.terminate()

    assert service.process.wait(10) == 0


def test_however_often_it_is_asked_to_stop_it_ends_in_order(serve: Callable[..., Service]) -> None:
    service = serve().ready()

    while service.process.poll() is None:
        service.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            service.process.wait(0.001)

    assert service.process.returncode == 0


@pytest.mark.parametrize("cpu_s", [0.3, 0.6, 0.9])
def test_sigterm_while_it_starts_ends_it(cpu_s: float, serve: Callable[..., Service]) -> None:
    service = serve()
    process = psutil.Process(service.process.pid)
    until(lambda: sum(process.cpu_times()[:2]) >= cpu_s or service.status("/health/live"))

    service.process.terminate()

    assert service.process.wait(10) == 0


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"WORKERS": "four"}, "CS_INGEST_WORKERS: expected an integer, got 'four'"),
        ({"WORKER": "4"}, "did you mean CS_INGEST_WORKERS?"),
        ({"PUBLISHER_URL": ""}, "CS_INGEST_PUBLISHER_URL must be set"),
        ({"KEYS_URL": ""}, "CS_INGEST_KEYS_URL must be set"),
        ({"KEY_PEPPER_FILE": ""}, "CS_INGEST_KEY_PEPPER_FILE must be set"),
        ({"PUBLISHER_URL": "kafak://h/t"}, "did you mean 'kafka'?"),
        ({"PUBLISHER_URL": "sqlite:///data/events.db?partition=3"}, "did you mean 'partitions'?"),
        ({"PUBLISHER_URL": "sqlite:////proc/nowhere/events.db"}, "/proc"),
        ({"LISTEN": "203.0.113.7:8080"}, "this machine does not have that address"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_one_line(variables: Variables, words: str, folder: Path) -> None:
    done = run(folder, "serve", **{"LISTEN": f"127.0.0.1:{free_port()}", **STORES, **variables})

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize("command", ["serve", "dev"])
def test_a_port_that_is_taken_stops_the_start(command: str, serve: Callable[..., Service], folder: Path) -> None:
    first = serve().ready()

    done = run(folder, command, LISTEN=f"127.0.0.1:{first.port}", **(STORES if command == "serve" else {}))

    assert done.returncode == 1
    assert f"port {first.port} is taken" in done.stderr
    assert done.stderr.count("\n") == 1


def test_one_embedded_log_has_one_writing_process(serve: Callable[..., Service], folder: Path) -> None:
    serve().ready()

    done = run(folder, "serve", LISTEN=f"127.0.0.1:{free_port()}", **STORES)

    assert done.returncode == 1
    assert "one writer" in done.stderr


def test_stores_that_are_away_do_not_stop_the_start(serve: Callable[..., Service]) -> None:
    service = serve(KEYS_URL=f"postgresql://u:p@127.0.0.1:{free_port()}/keys", KEYS_STALE_S="0")

    until(lambda: service.status("/health/live") == 200)

    assert service.status("/health/ready") == 503
    answer = post(service)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "KEYS_UNAVAILABLE")
    assert service.stop() == 0


def test_a_log_that_nobody_reads_holds_nothing_up(serve: Callable[..., Service]) -> None:
    unread, written = os.pipe()
    service = serve(stdout=written).ready()
    os.close(written)

    statuses = {post(service).status_code for _ in range(400)}

    os.close(unread)
    assert statuses == {202}


def test_probe_tells_whether_the_service_is_ready(serve: Callable[..., Service], folder: Path) -> None:
    service = serve().ready()
    listen = f"127.0.0.1:{service.port}"

    assert run(folder, "probe", LISTEN=listen).returncode == 0
    service.stop()
    assert run(folder, "probe", LISTEN=listen).returncode == 1


def test_each_request_is_one_json_line_without_the_key(serve: Callable[..., Service], folder: Path) -> None:
    service = serve().ready()
    answer = post(service)
    service.stop()

    lines = [json.loads(line) for line in (folder / "out.txt").read_text().splitlines()]

    [line] = [line for line in lines if line.get("request_id") == answer.headers["x-request-id"]]
    assert (line["http.response.status_code"], line["tenant_id"], line["events.stored"]) == (202, "acme", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["timestamp"])
    assert (folder / "data/demo.key").read_text().strip() not in (folder / "out.txt").read_text()


def test_the_curl_line_of_dev_works_as_it_stands(serve: Callable[..., Service], folder: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    serve(command="dev").ready()
    [line] = until(lambda: re.findall(r"^ +try +(curl .+)$", (folder / "out.txt").read_text(), re.M))

    done = subprocess.run(["sh", "-c", line], cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S)

    assert done.stdout.startswith("HTTP/1.1 202")


def test_the_line_of_dev_that_reads_works_as_it_stands(serve: Callable[..., Service], folder: Path) -> None:
    receipt = post(serve(command="dev").ready()).json()["receipt"]
    [line] = until(lambda: re.findall(r"^ +read +(\S.*?)  +\(", (folder / "out.txt").read_text(), re.M))

    done = subprocess.run(["sh", "-c", line], cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S)

    assert done.stdout.startswith(receipt), done.stderr


def test_a_second_start_of_dev_keeps_key_and_data(serve: Callable[..., Service], folder: Path) -> None:
    key = (folder / "data/demo.key").read_text()
    first = serve(command="dev").ready()
    receipt = post(first).json()["receipt"]
    first.kill()

    second = serve(command="dev").ready()

    assert (folder / "data/demo.key").read_text() == key
    assert post(second).status_code == 202
    assert receipt in run(folder, "tail").stdout  # With nothing set, the stores of dev are read.


def test_the_secrets_of_dev_are_for_their_owner_alone(folder: Path) -> None:
    modes = {name: (folder / "data" / name).stat().st_mode & 0o777 for name in ("demo.key", "pepper")}

    assert modes == {"demo.key": 0o600, "pepper": 0o600}


def test_dev_is_for_this_machine_alone(folder: Path) -> None:
    done = run(folder, "dev", LISTEN="0.0.0.0:8080")

    assert done.returncode == 1
    assert "dev is for this machine alone" in done.stderr


SHAREABLE = "from customersignal_ingest.adapters.outbound.memory import open_publisher as memory\n"


def a_shareable_publisher(folder: Path) -> None:
    """Install a publisher that several processes can have, as a stranger's package would."""
    (folder / "shareable.py").write_text(
        f"{SHAREABLE}\n\ndef open_publisher(url, /, *, settings):\n    return memory('memory:', settings=settings)\n"
    )
    metadata = folder / "shareable-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: shareable\nVersion: 1.0\n")
    entry = "[customersignal_ingest.publishers]\nshareable = shareable:open_publisher\n"
    (metadata / "entry_points.txt").write_text(entry)


@pytest.fixture
def workers(serve: Callable[..., Service], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    a_shareable_publisher(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    service = serve(WORKERS="2", PUBLISHER_URL="shareable:")
    until(lambda: len(ready_workers(service)) == 2)
    children = psutil.Process(service.process.pid).children()
    yield service
    gone = psutil.wait_procs(children, timeout=0)[1]
    for child in gone:
        child.kill()


def fresh_metrics(service: Service) -> str:
    """Ask on a connection of its own, so that any worker may answer."""
    return service.get("/metrics").text


def ready_workers(service: Service) -> set[str]:
    """Return the numbers of the workers that say, through one of them, that they are ready."""
    try:
        text = fresh_metrics(service)
    except httpx.TransportError:
        return set()
    return set(re.findall(r'^cs_ingest_ready\{worker="(\d+)"\} 1.0$', text, re.M))


def counted(service: Service) -> float:
    text = fresh_metrics(service)
    return sum(map(float, re.findall(r'^cs_ingest_events_total\{outcome="stored",worker="\d+"\} (\S+)$', text, re.M)))


def test_the_metrics_of_any_worker_are_those_of_all(workers: Service) -> None:
    statuses = [post(workers).status_code for _ in range(30)]

    assert statuses == [202] * 30
    until(lambda: counted(workers) == 30)


def test_a_worker_that_dies_is_replaced(workers: Service) -> None:
    parent = psutil.Process(workers.process.pid)
    victim = parent.children()[0]

    victim.kill()

    until(lambda: len(set(parent.children()) - {victim}) == 2)
    assert workers.stop() == 0


def test_workers_end_with_their_parent(workers: Service) -> None:
    children = psutil.Process(workers.process.pid).children()

    workers.process.kill()

    assert psutil.wait_procs(children, timeout=10)[1] == []
