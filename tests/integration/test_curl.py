"""Every row of the table of answers, from a real server, asked by curl."""

import gzip
import json
import random
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.integration.servers.service import Service, done, until

# A store of a stranger's that does what the event's type says.
PUBLISHER = """
import asyncio

from customersignal_ingest.domain.outcome import NotStored, Refused, Stored, Unknown

OUTCOMES = {b'"lost"': NotStored("away"), b'"doubtful"': Unknown("no answer"), b'"refused"': Refused("no")}


def open_publisher(url, /, *, settings):
    return Moody()


class Moody:
    async def publish(self, records, /):
        if any(b'"frozen"' in record.value for record in records):
            await asyncio.Event().wait()
        return [self._outcome(record.value) for record in records]

    def _outcome(self, value):
        return next((outcome for word, outcome in OUTCOMES.items() if word in value), Stored("moody", 0, 0))
"""
SETTINGS = {
    "PUBLISHER_URL": "moody:",
    "KEYS_URL": "sqlite:///keys.db",
    "KEY_PEPPER": "pepper",
    "PUBLISH_TIMEOUT_S": "3",
    "BODY_READ_TIMEOUT_S": "1",
    "EVENT_BYTES_MAX": "5000",
    "BATCH_EVENTS_MAX": "5",
    "BODY_BYTES_MAX": "20000",
    "ENCODED_BYTES_MAX": "10000",
    "IN_FLIGHT_EVENTS_MAX": "10",  # Half of it for one tenant.
    "DRAIN_DELAY_S": "0",
}


def event(event_type: str = "stored", **fields: Any) -> dict[str, Any]:
    return {"event_type": event_type, "timestamp": "2026-11-23T10:00:00Z", "properties": {}, **fields}


def batch(*events: Any) -> bytes:
    return json.dumps({"events": events}).encode()


GOOD, BROKEN = event(), {"event_type": "stored"}
ONE, MANY = "/v1/events", "/v1/events/batch"
GZIP = ["-H", "Content-Encoding: gzip"]
NOISE = random.Random(1).randbytes(11_000).hex()

ROWS: dict[str, tuple[str, bytes, list[str], int, str | None]] = {
    "single: stored": (ONE, json.dumps(GOOD).encode(), [], 202, None),
    "batch: every event stored": (MANY, batch(GOOD, GOOD), [], 202, None),
    "batch: compressed": (MANY, gzip.compress(batch(GOOD, GOOD)), GZIP, 202, None),
    "batch: some stored, some not": (MANY, batch(GOOD, BROKEN), [], 207, None),
    "batch: some stored, some unknown": (MANY, batch(GOOD, event("doubtful")), [], 207, None),
    "single: not valid": (ONE, json.dumps(BROKEN).encode(), [], 422, "FIELD_REQUIRED"),
    "batch: no event valid": (MANY, batch(BROKEN, BROKEN), [], 422, None),
    "single: the store does not take it": (ONE, json.dumps(event("refused")).encode(), [], 422, "REFUSED_BY_STORE"),
    "not JSON": (ONE, b"{", [], 400, "MALFORMED_JSON"),
    "not UTF-8": (ONE, b'{"a":"\xff"}', [], 400, "MALFORMED_JSON"),
    "NaN is not JSON": (MANY, b'{"events":[{"properties":{"x":NaN}}]}', [], 400, "MALFORMED_JSON"),
    "an array on the single route": (ONE, b"[]", [], 400, "INVALID_REQUEST"),
    "an event on the batch route": (MANY, json.dumps(GOOD).encode(), [], 400, "INVALID_REQUEST"),
    "an empty batch": (MANY, batch(), [], 400, "INVALID_REQUEST"),
    "no events on the batch route": (MANY, b'{"event":[]}', [], 400, "INVALID_REQUEST"),
    "an ambiguous header": (ONE, b"{}", ["-H", "X-CS-API-Key: another"], 400, "INVALID_REQUEST"),
    "too large an event": (ONE, json.dumps(event(x="x" * 6000)).encode(), [], 413, "EVENT_TOO_LARGE"),
    "too large a body": (MANY, batch(GOOD) + b" " * 20_000, [], 413, "PAYLOAD_TOO_LARGE"),
    "too large when decoded": (MANY, gzip.compress(batch(GOOD) + b" " * 20_000), GZIP, 413, "PAYLOAD_TOO_LARGE"),
    "too large a compressed body": (MANY, gzip.compress(batch(event(x=NOISE))), GZIP, 413, "PAYLOAD_TOO_LARGE"),
    "too many events": (MANY, batch(*[GOOD] * 6), [], 413, "PAYLOAD_TOO_LARGE"),
    "one too large event in a batch": (MANY, batch(GOOD, event(x="x" * 6000)), [], 207, None),
    "media type unknown": (ONE, b"{}", ["-H", "Content-Type: text/plain"], 415, "UNSUPPORTED_MEDIA_TYPE"),
    "content encoding unknown": (ONE, b"{}", ["-H", "Content-Encoding: br"], 415, "UNSUPPORTED_ENCODING"),
    "body not arriving": (ONE, b"{}", ["-H", "Content-Length: 100"], 408, "REQUEST_TIMEOUT"),
    "certainly not stored": (ONE, json.dumps(event("lost")).encode(), [], 503, "NOT_STORED"),
    "batch: certainly not stored": (MANY, batch(event("lost"), BROKEN), [], 503, "NOT_STORED"),
    "outcome unknown": (ONE, json.dumps(event("doubtful")).encode(), [], 504, "OUTCOME_UNKNOWN"),
    "no confirmation within the deadline": (ONE, json.dumps(event("frozen")).encode(), [], 504, "OUTCOME_UNKNOWN"),
    "batch: outcome unknown": (MANY, batch(event("doubtful"), event("lost")), [], 504, "OUTCOME_UNKNOWN"),
    "no such route": ("/v1/nothing", b"{}", [], 404, "NOT_FOUND"),
    "another method": (ONE, b"{}", ["-X", "PUT"], 405, "METHOD_NOT_ALLOWED"),
}
LIMITS = {
    "too large an event": ("event_bytes_max", 5000),
    "too large a body": ("body_bytes_max", 20_000),
    "too large when decoded": ("body_bytes_max", 20_000),
    "too large a compressed body": ("encoded_bytes_max", 10_000),
    "too many events": ("batch_events_max", 5),
}
HEADERS = {
    "media type unknown": ("accept", "application/json"),
    "content encoding unknown": ("accept-encoding", "gzip, zstd"),
    "another method": ("allow", "POST"),
}


@pytest.fixture(scope="module")
def key(service: Service) -> str:
    secret = done(service.folder, "keys", "create", "--tenant", "acme", **SETTINGS)[0]["secret"]
    assert isinstance(secret, str)
    return secret


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("curl")
    a_package(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        for command in (["migrate"], ["tenants", "create", "acme"]):
            done(folder, *command, **SETTINGS)
        service = Service(folder, SETTINGS).ready()
        yield service
        service.process.terminate()
        assert service.process.wait(30) == 0


def a_package(folder: Path) -> None:
    (folder / "moody.py").write_text(PUBLISHER)
    metadata = folder / "moody-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: moody\nVersion: 1.0\n")
    entry = "[customersignal_ingest.publishers]\nmoody = moody:open_publisher\n"
    (metadata / "entry_points.txt").write_text(entry)


def now() -> str:
    return datetime.now(UTC).isoformat()


def curl(service: Service, path: str, body: bytes, *arguments: str) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Return status, headers and body of the answer."""
    json_type = [] if any("Content-Type" in each for each in arguments) else ["-H", "Content-Type: application/json"]
    command = ["curl", "-sS", "-i", "--max-time", "20", "--data-binary", "@-", *json_type, *arguments]
    answered = subprocess.run([*command, service.url + path], input=body, capture_output=True, timeout=30, check=True)
    head, _, text = answered.stdout.decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split()[1]), headers, json.loads(text)


@pytest.mark.parametrize("row", ROWS)
def test_the_answer_is_the_tables(service: Service, key: str, row: str) -> None:
    path, body, arguments, status, code = ROWS[row]

    found, headers, answer = curl(service, path, body, "-H", f"X-CS-API-Key: {key}", *arguments)

    assert (found, answer.get("error", {}).get("code")) == (status, code)
    assert ("retry-after" in headers) == (status in (503, 504))
    assert headers["x-request-id"] == answer.get("request_id", headers["x-request-id"])


def test_every_413_of_a_request_is_held_against_the_limit_that_it_names() -> None:
    assert LIMITS.keys() == {row for row, (_, _, _, status, _) in ROWS.items() if status == 413}


@pytest.mark.parametrize("row", LIMITS)
def test_what_is_too_large_is_told_the_limit_and_its_value(service: Service, key: str, row: str) -> None:
    path, body, arguments, _, _ = ROWS[row]

    _, _, answer = curl(service, path, body, "-H", f"X-CS-API-Key: {key}", *arguments)

    details = answer["error"]["details"]
    assert (details["limit"], details["value"]) == LIMITS[row]


@pytest.mark.parametrize("row", HEADERS)
def test_what_would_be_taken_is_told(service: Service, key: str, row: str) -> None:
    path, body, arguments, _, _ = ROWS[row]

    _, headers, _ = curl(service, path, body, "-H", f"X-CS-API-Key: {key}", *arguments)

    name, value = HEADERS[row]
    assert headers[name] == value


def test_a_broken_event_of_a_batch_has_its_pointer_and_its_place(service: Service, key: str) -> None:
    _, _, answer = curl(service, MANY, batch(GOOD, BROKEN, GOOD), "-H", f"X-CS-API-Key: {key}")

    assert (answer["status"], answer["accepted"], answer["failed"]) == ("partial", 2, 1)
    assert [result["status"] for result in answer["results"]] == ["accepted", "rejected", "accepted"]
    assert answer["results"][1]["error"]["details"] == {"field": "/timestamp", "index": 1}


def test_when_too_much_is_in_flight_the_answer_is_not_stored_and_comes_at_once(service: Service, key: str) -> None:
    frozen = ["-d", batch(*[event("frozen")] * 5).decode(), "-H", "Content-Type: application/json"]
    command = ["curl", "-s", service.url + MANY, "-H", f"X-CS-API-Key: {key}", *frozen]
    waiting = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    until(lambda: "cs_ingest_in_flight_events 5.0" in service.get("/metrics").text)

    began = time.monotonic()
    status, headers, answer = curl(service, ONE, json.dumps(GOOD).encode(), "-H", f"X-CS-API-Key: {key}")
    took_s = time.monotonic() - began

    assert (status, answer["error"]["code"]) == (503, "NOT_STORED")
    assert "retry-after" in headers
    assert took_s < 1
    assert waiting.wait(30) == 0


def test_each_case_of_a_key_has_its_code(service: Service) -> None:
    revoked = done(service.folder, "keys", "create", "--tenant", "acme", **SETTINGS)[0]
    expired = done(service.folder, "keys", "create", "--tenant", "acme", "--expires-in", "1s", **SETTINGS)[0]
    done(service.folder, "keys", "revoke", revoked["key_id"], **SETTINGS)
    until(lambda: expired["expires_at"] < now())

    answers = [curl(service, ONE, b"{", "-H", f"X-CS-API-Key: {made['secret']}") for made in (revoked, expired)]

    assert [(status, answer["error"]["code"]) for status, _, answer in answers] == [
        (401, "API_KEY_REVOKED"),
        (401, "API_KEY_EXPIRED"),
    ]
    assert all("www-authenticate" in headers for _, headers, _ in answers)


def test_a_key_that_can_not_be_checked_now_is_503_while_a_known_one_works(service: Service, key: str) -> None:
    known = ["-H", f"X-CS-API-Key: {key}"]
    assert curl(service, ONE, json.dumps(GOOD).encode(), *known)[0] == 202
    with closing(sqlite3.connect(service.folder / "keys.db", isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")

        status, headers, answer = curl(service, ONE, b"{", "-H", "X-CS-API-Key: cs_live_new")
        still = curl(service, ONE, json.dumps(GOOD).encode(), *known)[0]

    assert (status, answer["error"]["code"]) == (503, "KEYS_UNAVAILABLE")
    assert "retry-after" in headers
    assert still == 202


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/v1/limits", "/metrics", "/schema"])
def test_what_is_about_the_service_needs_no_key(service: Service, path: str) -> None:
    assert service.get(path).status_code == 200


def test_a_key_is_asked_for_before_all_else(service: Service, key: str) -> None:
    missing = curl(service, ONE, b"{")
    unknown = curl(service, ONE, b"{", "-H", "X-CS-API-Key: nobody's")
    bearer = curl(service, ONE, json.dumps(GOOD).encode(), "-H", f"Authorization: Bearer {key}")

    assert [(status, answer["error"]["code"]) for status, _, answer in (missing, unknown)] == [
        (401, "API_KEY_MISSING"),
        (401, "API_KEY_INVALID"),
    ]
    assert "www-authenticate" in missing[1]
    assert bearer[0] == 202


def test_a_batch_lists_all_its_results_when_asked(service: Service, key: str) -> None:
    asked = ["-H", f"X-CS-API-Key: {key}", "-H", "Prefer: return=representation"]

    _, headers, answer = curl(service, MANY, batch(GOOD, GOOD), *asked)

    assert [result["index"] for result in answer["results"]] == [0, 1]
    assert headers["preference-applied"] == "return=representation"
