"""`make audit` and `make sbom`: the real tools, asked about locks that a service of the test's own knows."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HASH = "--hash=sha256:" + "0" * 64
VULNERABLE = {
    "id": "PYSEC-2099-1",
    "modified": "2099-01-01T00:00:00Z",
    "aliases": ["CVE-2099-1"],
    "affected": [
        {
            "package": {"name": "shaky", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}],
            "versions": ["1.0"],
        }
    ],
}


class Osv(BaseHTTPRequestHandler):
    """Knows one vulnerability, of one version of one package."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        shaky = asked["package"]["name"] == "shaky" and asked["version"] == "1.0"
        body = json.dumps({"vulns": [VULNERABLE]} if shaky else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def osv() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Osv)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1/query"
    server.shutdown()
    server.server_close()


def audit(folder: Path, url: str, *locked: str, options: tuple[str, ...] = ()) -> tuple[int, str]:
    """Audit a lock of these packages by the service at this URL; return exit code and output."""
    lock = folder / "lock.txt"
    lock.write_text("".join(f"{package} {HASH}\n" for package in locked))
    command = [sys.executable, "-m", "supply.audit", "--no-index", "--service", "osv", f"--osv-url={url}", *options]
    done = subprocess.run([*command, str(lock)], cwd=ROOT, capture_output=True, text=True, timeout=100)
    return done.returncode, done.stdout + done.stderr


def test_a_locked_version_with_a_known_vulnerability_is_named_and_fails(osv: str, tmp_path: Path) -> None:
    code, said = audit(tmp_path, osv, "shaky==1.0", "sound==2.0")

    assert (code, "shaky 1.0: PYSEC-2099-1 CVE-2099-1 (mended in 1.1)" in said) == (1, True)
    assert "2 packages looked at, 1 with a known vulnerability" in said


def test_a_lock_against_which_nothing_is_known_is_good(osv: str, tmp_path: Path) -> None:
    code, said = audit(tmp_path, osv, "shaky==1.1", "sound==2.0")

    assert (code, said) == (0, "osv: 2 packages looked at, 0 with a known vulnerability\n")


def test_a_vulnerability_that_was_looked_into_can_be_left_out_by_name(osv: str, tmp_path: Path) -> None:
    assert audit(tmp_path, osv, "shaky==1.0", options=("--ignore-vuln=PYSEC-2099-1",))[0] == 0


def test_where_nobody_can_be_asked_nothing_is_called_good(tmp_path: Path) -> None:
    code, said = audit(tmp_path, "http://127.0.0.1:1/v1/query", "sound==2.0")

    assert (code, "NOTHING is known about vulnerabilities" in said) == (2, True)


def test_the_list_of_what_is_inside_is_what_the_lock_says(tmp_path: Path) -> None:
    file = tmp_path / "sbom.json"
    made = subprocess.run(
        ["make", "sbom", f"SBOM={file}", "-o", ".venv/.dev", f"BIN={Path(sys.executable).parent}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        # What was said to the `make` that runs us, `ARGS=...` above all, is not for this one.
        env={name: value for name, value in os.environ.items() if name not in ("ARGS", "MAKEFLAGS", "MAKEOVERRIDES")},
    )

    assert (made.returncode, made.stderr) == (0, "")
    listed = json.loads(file.read_text())
    locked = re.findall(r"^([\w.-]+)(?:\[[^]]+\])?==([^ \\]+)", (ROOT / "requirements.txt").read_text(), re.M)
    assert (listed["bomFormat"], listed["metadata"]["component"]["name"]) == ("CycloneDX", "customersignal-ingest")
    assert {(each["name"], each["version"]) for each in listed["components"]} == set(locked)
    assert [each["name"] for each in listed["components"] if not each["externalReferences"][0]["hashes"]] == []
