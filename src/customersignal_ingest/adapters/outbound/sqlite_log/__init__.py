"""The embedded log: every record is on this machine's disk before it counts as stored.

URL: `sqlite:///path/events.db` (relative), `sqlite:////path/events.db` (absolute). Parameters:
`partitions` (of a new file 8; fixed once the file is made) and `journal` (`wal`, or `truncate`
where the file must be one file at rest: about half as fast, readers can hold it up, and after a
crash it can be read only once a writer was there again).
`Stored` means: the transaction that holds the record was committed with an fsync. It outlives the
process and a loss of power; it does not outlive the disk.
Ordering: by partition, which the key decides as in Kafka; offsets have no gaps. Records of calls
that overlap are committed together, all or none.
Limits: one writing process (a lock on `events.db.lock`), `QUEUE_RECORDS_MAX` and `QUEUE_BYTES_MAX`
waiting records, a local disk. Read it with `sqlite3 events.db 'select * from events_raw'`.
Ping has the writer read the log, and write to it if the last commit failed.
"""

from pathlib import Path
from typing import Any

from customersignal_ingest.adapters.outbound.sqlite_log.log_file import Journal, LogFile
from customersignal_ingest.adapters.outbound.sqlite_log.publisher import SqlitePublisher
from customersignal_ingest.adapters.outbound.sqlite_log.reader import SqliteReader
from customersignal_ingest.domain.errors import ConfigurationError
from customersignal_ingest.registry import AdapterSettings, one_of, url_parameters, whole_number

__all__ = ["SqlitePublisher", "SqliteReader", "open_publisher", "open_reader"]

_PARTITIONS_MAX = 1_000
_BUSY_S_MAX = 2.0


def open_publisher(url: str, /, *, settings: AdapterSettings) -> SqlitePublisher:
    """Make the publisher of this URL; raises `ConfigurationError` for what it does not understand."""
    parameters = _parameters(url)
    log = LogFile(
        _path(url),
        partitions=parameters.get("partitions"),
        journal=Journal(parameters.get("journal", Journal.WAL)),
        busy_timeout_s=min(_BUSY_S_MAX, settings.publish_timeout_s / 3),
    )
    return SqlitePublisher(log, publish_timeout_s=settings.publish_timeout_s)


def open_reader(url: str, /, *, settings: AdapterSettings) -> SqliteReader:
    """Make the reader of this URL, the same as the publisher's; raises `ConfigurationError` as there."""
    _parameters(url)
    return SqliteReader(_path(url))


def _parameters(url: str) -> dict[str, Any]:
    return url_parameters(url, {"partitions": whole_number(1, _PARTITIONS_MAX), "journal": one_of(*Journal)})


def _path(url: str) -> Path:
    start, _, path = url.partition("?")[0].partition(":///")
    if start != "sqlite" or path in ("", ":memory:"):
        raise ConfigurationError("the embedded log is a file: sqlite:///path/events.db")
    return Path(path)
