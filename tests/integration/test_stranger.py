"""A publisher from another package, found by its URL scheme, passes the shipped contract; nothing here changes."""

import os
import subprocess
import sys
from pathlib import Path

PUBLISHER = """
from customersignal_ingest.domain.outcome import NotStored, Stored
from customersignal_ingest.domain.partition import partition_for
from customersignal_ingest.domain.event import StoredRecord


def open_publisher(url, /, *, settings):
    return ShelfPublisher()


class ShelfPublisher:
    def __init__(self):
        self.shelf = []

    async def publish(self, records, /):
        return [self._put(record) for record in records]

    def _put(self, record):
        partition = partition_for(record.key, 4)
        offset = sum(r.partition == partition for r in self.shelf)
        self.shelf.append(StoredRecord(topic="shelf", partition=partition, offset=offset, key=record.key,
            value=record.value, headers=record.headers, timestamp_ms=record.timestamp_ms))
        return Stored("shelf", partition, offset)
"""

TESTS = """
import pytest

from customersignal_ingest.registry import AdapterSettings, open_url
from customersignal_ingest.testing.contracts import EventPublisherContract


class Harness:
    life = None
    unopened = None

    def __init__(self):
        self.publisher = open_url("publishers", "shelf:", settings=AdapterSettings())

    async def stored(self):
        return self.publisher.shelf


class TestShelf(EventPublisherContract):
    @pytest.fixture
    async def harness(self):
        yield Harness()
"""


def a_package(folder: Path) -> None:
    """Lay out what `pip install` would have left behind: a module, and metadata with an entry point."""
    (folder / "shelf_publisher.py").write_text(PUBLISHER)
    (folder / "test_shelf.py").write_text(TESTS)
    metadata = folder / "shelf_publisher-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf-publisher\nVersion: 1.0\n")
    entry = "[customersignal_ingest.publishers]\nshelf = shelf_publisher:open_publisher\n"
    (metadata / "entry_points.txt").write_text(entry)


def run_contract(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shelf.py"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_a_strangers_publisher_of_twenty_lines_passes_the_contract(tmp_path: Path) -> None:
    a_package(tmp_path)

    run = run_contract(tmp_path)

    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout


def test_a_strangers_publisher_that_answers_too_early_is_caught(tmp_path: Path) -> None:
    a_package(tmp_path)
    module = tmp_path / "shelf_publisher.py"
    module.write_text(module.read_text().replace("        self.shelf.append(StoredRecord", "        (StoredRecord"))

    run = run_contract(tmp_path)

    assert run.returncode == 1, run.stdout + run.stderr
    assert "test_a_stored_record_can_be_read_back_byte_for_byte" in run.stdout
