"""A real PostgreSQL for tests, without Docker: initdb and postgres of this machine, in a folder of its own."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import psutil

from tests.integration.servers import engine

IMAGE = "postgres:18"
USER, PASSWORD = "cs", "p@ss/w:rd%"  # Whoever forgets to escape a password finds out here.
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0


class Missing(Exception):
    """There is no PostgreSQL for the tests here; the message says what to install."""


class Postgres:
    """A PostgreSQL that tests may use: each test makes a database of its own in it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._numbers = count()

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        psql(self.url, f"CREATE DATABASE {name}")
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))


class Server(Postgres):
    """A PostgreSQL that a test may kill and freeze as well."""

    def start(self) -> None:
        """Start, where it stood before, and return when it answers."""
        raise NotImplementedError

    def kill(self) -> None:
        """End all of its processes at once."""
        raise NotImplementedError

    def freeze(self) -> None:
        """Stop all of its processes where they are; connections stay open."""
        raise NotImplementedError

    def thaw(self) -> None:
        """Let all of its processes go on."""
        raise NotImplementedError

    def freeze_sessions(self, url: str) -> None:
        """Stop the processes that serve connections to this database now; new connections are served."""
        pids = psql(url, "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'cs-ingest%'").split()
        self._stop(pids)

    def heal(self) -> None:
        """Whatever was done to it: it answers again."""
        raise NotImplementedError

    def _stop(self, pids: list[str]) -> None:
        raise NotImplementedError


def psql(url: str, sql: str) -> str:
    """Run SQL by PostgreSQL's own client, and return what it prints, values alone."""
    command = [_program("psql"), "-X", "-At", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=START_TIMEOUT_S).stdout.strip()


@contextmanager
def running() -> Iterator[Postgres]:
    """Yield the server that `CS_INGEST_TEST_POSTGRES` names, or this machine's own, or a container."""
    if given := os.environ.get("CS_INGEST_TEST_POSTGRES"):
        yield Postgres(given)
    elif _found("initdb"):
        with _local() as local:
            yield local
    else:
        with _container() as container:
            yield container


class _Local(Server):
    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(f"postgresql://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/postgres")
        self._folder = folder
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        # What fsync protects from, a loss of power, is not among these tests.
        options = {"listen_addresses": "127.0.0.1", "port": self._port, "unix_socket_directories": "", "fsync": "off"}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_program("postgres"), "-D", self._folder / "data", *(f"--{k}={v}" for k, v in options.items())],
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in a terminal is for pytest, which ends the server in turn.
                **_unprivileged(),
            )
        _wait_until(self._answers, START_TIMEOUT_S, lambda: (self._folder / "log").read_text()[-2000:])

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(STOP_TIMEOUT_S)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def heal(self) -> None:
        if self._process is None or self._process.poll() is not None:
            self.start()
        self.thaw()

    def _stop(self, pids: list[str]) -> None:
        for pid in pids:
            os.kill(int(pid), signal.SIGSTOP)

    def stop(self) -> None:
        """End it in good order, or else at once."""
        if self._process is None or self._process.poll() is not None:
            return
        self.thaw()
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError("PostgreSQL ended: " + (self._folder / "log").read_text()[-2000:])
        command = [_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self._port), "-t", "1"]
        return subprocess.run(command, check=False, timeout=START_TIMEOUT_S).returncode == 0

    def _signal(self, number: signal.Signals) -> None:
        """Signal the parent first, which could otherwise start further children or miss lost ones."""
        if self._process is None or self._process.poll() is not None:
            return
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self._process.pid)
            parent.send_signal(number)
            for child in parent.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.send_signal(number)


@contextmanager
def _local() -> Iterator[_Local]:
    # Not pytest's tmp_path, into which the user `postgres` may not look.
    folder = Path(tempfile.mkdtemp(prefix="cs-ingest-postgres-"))
    try:
        _initialise(folder)
        server = _Local(folder, _free_port())
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def _initialise(folder: Path) -> None:
    secret = folder / "secret"
    secret.write_text(PASSWORD)
    if "user" in _unprivileged():
        for path in (folder, secret):
            shutil.chown(path, user=_unprivileged()["user"])
    command = [_program("initdb"), "-D", folder / "data", "-U", USER, "-A", "scram-sha-256", "--pwfile", secret]
    subprocess.run(
        [*command, "-E", "UTF8", "--locale=C", "--no-sync"],
        check=True,
        capture_output=True,
        timeout=START_TIMEOUT_S,
        cwd=folder,
        **_unprivileged(),
    )


def _unprivileged() -> dict[str, Any]:
    """PostgreSQL refuses to run as root: the user that its packages make runs it then."""
    return {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}


def _found(program: str) -> str | None:
    """Return the path of a program of PostgreSQL's; Debian keeps most of them off the PATH."""
    newest_first = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))
    return shutil.which(program) or shutil.which(program, path=os.pathsep.join(map(str, newest_first)))


def _program(program: str) -> str:
    found = _found(program)
    if found is None:
        raise Missing(f"{program} is missing: install PostgreSQL (Debian: apt-get install postgresql)")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until(condition: Callable[[], bool], timeout_s: float, explain: Callable[[], str]) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(explain())
        time.sleep(0.05)


class _Container(Server):
    """The same by a Docker engine; psql comes from this machine."""

    def __init__(self, url: str, container: Any) -> None:
        super().__init__(url)
        self._container = container

    def start(self) -> None:
        self._container.start()
        _wait_until(self._answers, START_TIMEOUT_S, lambda: "the container of PostgreSQL does not answer")

    def kill(self) -> None:
        self._container.kill()

    def freeze(self) -> None:
        self._container.pause()

    def thaw(self) -> None:
        self._container.unpause()

    def heal(self) -> None:
        self._container.reload()
        if self._container.status == "paused":
            self.thaw()
        elif self._container.status != "running":
            self.start()
        self._container.exec_run(["sh", "-c", "kill -CONT -1"])

    def _stop(self, pids: list[str]) -> None:
        self._container.exec_run(["kill", "-STOP", *pids])

    def _answers(self) -> bool:
        try:
            return psql(self.url, "SELECT 1") == "1"
        except subprocess.CalledProcessError:
            return False


@contextmanager
def _container() -> Iterator[_Container]:
    if not engine.answers():
        needs = "PostgreSQL (Debian: apt-get install postgresql), or a Docker engine, or CS_INGEST_TEST_POSTGRES=url"
        raise Missing(f"no PostgreSQL to test with: install {needs}")
    from testcontainers.community.postgres import PostgresContainer

    port = _free_port()  # A fixed one, so that it is the same after a restart.
    container = PostgresContainer(IMAGE, username=USER, password=PASSWORD, dbname="postgres", driver=None)
    with container.with_bind_ports(5432, port):
        url = f"postgresql://{USER}:{quote(PASSWORD, safe='')}@{container.get_container_host_ip()}:{port}/postgres"
        yield _Container(url, container.get_wrapped_container())
