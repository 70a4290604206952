"""A real browser without a window: Chromium of this machine, on pages that the test serves itself."""

import json
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# No window, no first-run page, no calls home; everything about web pages is as it always is.
_OPTIONS = [
    "--headless=new",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Missing(Exception):
    """There is no Chromium here; the message says what to install."""


class Pages:
    """Serves pages on a port of its own, under every name of this machine, and hears what they report."""

    def __init__(self, pages: Mapping[str, str]) -> None:
        self.reports: queue.Queue[Any] = queue.Queue()
        pages_and_reports = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(pages.get(self.path.partition("?")[0]))

            def do_POST(self) -> None:
                pages_and_reports.reports.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self._answer("heard")

            def _answer(self, page: str | None) -> None:
                body = (page or "").encode()
                self.send_response(404 if page is None else 200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Keep quiet: a page's address has what the test gave it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def browsing(url: str, folder: Path) -> Iterator[None]:
    """Have the page open while the block runs."""
    root = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium does not run as root otherwise.
    profile = folder / "profile"
    command = [_program(), *_OPTIONS, *root, f"--user-data-dir={profile}", url]
    with (folder / "browser.txt").open("ab") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait(PATIENCE_S)


def _program() -> str:
    for name in NAMES:
        if found := shutil.which(name):
            return found
    raise Missing("there is no Chromium: install it (Debian: apt install chromium)")
