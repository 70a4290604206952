"""A transport from another package, named by its URL in a setting, is served beside HTTP; nothing here changes."""

import os
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

TRANSPORT = '''
import asyncio
from urllib.parse import urlsplit

from customersignal_ingest.domain.errors import Unauthenticated, Unavailable
from customersignal_ingest.domain.outcome import Stored


def open_transport(url, /, *, entrance):
    return Lines(urlsplit(url).port, entrance)


class Lines:
    """The first line is the API key, every other an event; each is told its receipt."""

    def __init__(self, port, entrance):
        self._port, self._entrance = port, entrance

    def check(self):
        pass

    async def open(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def ended(self):
        await asyncio.Event().wait()

    async def close(self):
        self._server.close()
        return True

    async def _serve(self, reader, writer):
        try:
            tenant = await self._entrance.authenticate((await reader.readline()).decode().strip())
        except (Unauthenticated, Unavailable) as error:
            writer.write(f"{type(error).__name__}\\n".encode())
        else:
            while line := await reader.readline():
                receipt = await self._entrance.ingest(tenant, [line])
                outcome = receipt.results[0].outcome
                told = outcome.receipt if isinstance(outcome, Stored) else type(outcome).__name__
                writer.write(f"{told}\\n".encode())
        await writer.drain()
        writer.close()
'''


def a_package(folder: Path) -> None:
    (folder / "lines_transport.py").write_text(TRANSPORT)
    metadata = folder / "lines_transport-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lines-transport\nVersion: 1.0\n")
    entry = "[customersignal_ingest.transports]\nlines = lines_transport:open_transport\n"
    (metadata / "entry_points.txt").write_text(entry)


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def connected(port: int, process: subprocess.Popen[bytes]) -> socket.socket:
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=30)
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the transport of another package does not listen")


def test_a_strangers_transport_stores_events_and_ends_with_the_service(tmp_path: Path) -> None:
    a_package(tmp_path)
    port = free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "CS_INGEST_TRANSPORTS": f"lines://127.0.0.1:{port}",
        "CS_INGEST_LISTEN": f"127.0.0.1:{free_port()}",
    }
    command = [sys.executable, "-m", "customersignal_ingest", "dev"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            with connected(port, process) as client, client.makefile("rwb") as lines:
                lines.write((tmp_path / "data/demo.key").read_bytes().strip() + b"\n")
                lines.write(b'{"event_type":"a","timestamp":"2026-11-23T10:00:00Z","properties":{}}\n{}\n')
                lines.flush()
                assert lines.readline().startswith(b"events_raw/")
                assert lines.readline() == b"Rejected\n"
        finally:
            process.terminate()
        assert process.wait(30) == 0
