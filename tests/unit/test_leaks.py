"""The search for planted secrets is alive: tests that leak on purpose fail, in one process and in several."""

import subprocess
import sys
from pathlib import Path

import pytest

from customersignal_ingest.testing.planted import MARK, leaked

ROOT = Path(__file__).parents[2]

LEAKING = """
import base64, logging, sys, warnings
import pytest, structlog
from customersignal_ingest.metrics import Metrics
from customersignal_ingest.testing.planted import API_KEY, IDEMPOTENCY_KEY, PEPPER, PROPERTY, USER_ID
from tests.leaks import also_secret, lines_as_text, watch

def test_leaks_on_standard_output(): print(f"key={API_KEY}")
def test_leaks_on_standard_error(): print({"user": USER_ID}, file=sys.stderr)
def test_leaks_in_a_library_s_log(): logging.getLogger("aiokafka").warning("sent %s", PROPERTY)
def test_leaks_in_our_log(): structlog.get_logger().error("unexpected error", idempotency_key=IDEMPOTENCY_KEY)
def test_leaks_in_a_traceback(): structlog.get_logger().error("unexpected error", exc_info=ValueError(PROPERTY))
def test_leaks_in_base64(): print(base64.b64encode(b"acme:" + USER_ID.encode()).decode())
def test_leaks_in_hexadecimal(): print(PEPPER.encode().hex())
def test_leaks_what_only_this_test_knows(): also_secret("the-real-key"); print("the-real-key")

def test_leaks_in_kept_lines():
    watch("the log", lambda: lines_as_text([{"event": "request", "exc_info": KeyError(USER_ID)}]))

def test_leaks_in_metrics():
    metrics = Metrics(version="1", publisher="memory")
    metrics.publisher_restarts.labels(USER_ID).inc()
    watch("the metrics", lambda: metrics.text().decode())

@pytest.fixture
def leaky():
    yield
    print(API_KEY)

def test_leaks_when_it_is_over(leaky): pass
def test_is_clean():
    print("request", "tenant acme", "key kAcme")
    watch("the log", lambda: lines_as_text([{"event": "request", "tenant_id": "acme"}]))
"""


@pytest.mark.parametrize("parallel", [[], ["-n", "2"]], ids=["one process", "several"])
def test_every_test_that_leaks_fails_and_no_other(parallel: list[str], tmp_path: Path) -> None:
    (tmp_path / "test_leaking.py").write_text(LEAKING)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.leaks", "-q", "-rA", *parallel, str(tmp_path)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)

    lines = done.stdout.splitlines()
    leaking = {line.partition("::")[2].split()[0] for line in lines if line.startswith(("ERROR ", "FAILED "))}
    wanted = {line.split()[1].partition("(")[0] for line in LEAKING.splitlines() if line.startswith("def test_leaks")}
    assert (done.returncode, leaking, len(wanted)) == (1, wanted, 11)


@pytest.mark.parametrize("before", ["", "x", "xx", "xxx"])
def test_a_secret_is_found_wherever_it_stands_in_what_is_encoded(before: str) -> None:
    import base64

    text = f"{before}{MARK} and more".encode()

    assert leaked(base64.b64encode(text).decode())
    assert leaked(text.hex())


def test_what_is_clean_is_not_found() -> None:
    assert leaked("planted\nSecret\nkAcme") == []
