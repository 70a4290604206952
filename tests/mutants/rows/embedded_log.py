"""The embedded log."""

from tests.mutants.mutant import Mutant
from tests.mutants.tests import SQLITE, SQLITE_CONTRACT, SQLITE_FAULTS

EMBEDDED_LOG = (
    Mutant(
        name="sqlite-commit-left-out",
        bug="The embedded log answers before it has committed.",
        file="adapters/outbound/sqlite_log/log_file.py",
        old='            connection.execute("COMMIT")\n        except sqlite3.Error as error:\n',
        new='            connection.execute("SELECT 1")\n        except sqlite3.Error as error:\n',
        tests=(f"{SQLITE_CONTRACT}::test_a_stored_record_can_be_read_back_byte_for_byte",),
    ),
    Mutant(
        name="sqlite-not-synced",
        bug="The embedded log does not sync its commits, so that a loss of power takes them.",
        file="adapters/outbound/sqlite_log/log_file.py",
        old="_SYNCHRONOUS = {Journal.WAL: 2, Journal.TRUNCATE: 3}",
        new="_SYNCHRONOUS = {Journal.WAL: 0, Journal.TRUNCATE: 0}",
        tests=(f"{SQLITE}::test_every_commit_is_synced_to_the_disk",),
    ),
    Mutant(
        name="sqlite-receipt-off-by-one",
        bug="The receipt names the place after the record's.",
        file="adapters/outbound/sqlite_log/schema.py",
        old="        places.append(Stored(TOPIC, partition, offset))\n",
        new="        places.append(Stored(TOPIC, partition, offset + 1))\n",
        tests=(f"{SQLITE_CONTRACT}::test_an_outcome_belongs_to_the_record_at_its_position",),
    ),
    Mutant(
        name="sqlite-partition-without-key",
        bug="Records go to partitions in turn, whatever their key.",
        file="adapters/outbound/sqlite_log/schema.py",
        old="        partition = partition_for(record.key, len(next_offsets))\n",
        new="        partition = sum(next_offsets) % len(next_offsets)\n",
        tests=(
            f"{SQLITE}::test_the_partition_is_the_one_of_the_key",
            f"{SQLITE_CONTRACT}::test_records_of_one_key_share_a_partition",
        ),
    ),
    Mutant(
        name="sqlite-deadline-is-not-stored",
        bug="A commit that is under way at the deadline is answered NotStored.",
        file="adapters/outbound/sqlite_log/publisher.py",
        old='call.settle_all(NotStored("deadline") if withdrawn else Unknown("deadline"))',
        new='call.settle_all(NotStored("deadline"))',
        tests=(f"{SQLITE_FAULTS}::test_a_frozen_disk_is_unknown_at_the_deadline",),
    ),
    Mutant(
        name="sqlite-failed-commit-is-not-stored",
        bug="A commit that failed is answered NotStored, though its records can be read.",
        file="adapters/outbound/sqlite_log/log_file.py",
        old="            if self._inodes[0] != file or _holds(connection, places[-1:]):\n",
        new="            if self._inodes[0] != file:\n",
        tests=(f"{SQLITE_FAULTS}::test_a_commit_that_failed_and_can_be_read_is_unknown",),
    ),
    Mutant(
        name="sqlite-close-drops",
        bug="Closing the embedded log throws away what waits to be written.",
        file="adapters/outbound/sqlite_log/writer.py",
        old="            self._taken = self._next_commit()\n",
        new="            self._taken = () if self._stopping else self._next_commit()\n",
        tests=(f"{SQLITE}::test_close_writes_what_waits",),
    ),
    Mutant(
        name="sqlite-deleted-file",
        bug="The embedded log goes on writing to a file that was deleted or moved, and says that it has stored.",
        file="adapters/outbound/sqlite_log/log_file.py",
        old="        if self._has_moved():\n",
        new="        if self._has_moved() and not records:\n",
        tests=(
            f"{SQLITE_FAULTS}::test_a_deleted_file_is_never_stored_to",
            f"{SQLITE_FAULTS}::test_a_deleted_journal_is_never_stored_to",
        ),
    ),
    Mutant(
        name="sqlite-two-writers",
        bug="The lock is shared, so that two processes write to one log.",
        file="adapters/outbound/sqlite_log/place.py",
        old="fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        new="fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        tests=(f"{SQLITE}::test_a_second_publisher_is_refused",),
    ),
    Mutant(
        name="sqlite-answers-of-another-call",
        bug="Of calls that are committed together each gets the first one's receipts.",
        file="adapters/outbound/sqlite_log/writer.py",
        old="        start = end\n",
        new="",
        tests=(f"{SQLITE_CONTRACT}::test_no_two_records_share_a_receipt",),
    ),
    Mutant(
        name="sqlite-withdrawn-is-written",
        bug="A call that is answered NotStored at its deadline stays in the queue, and is written later.",
        file="adapters/outbound/sqlite_log/writer.py",
        old="                self._waiting.remove(call)\n",
        new="                self._waiting.index(call)\n",
        tests=(f"{SQLITE_FAULTS}::test_what_still_waits_at_the_deadline_is_withdrawn",),
    ),
    Mutant(
        name="sqlite-offsets-after-a-restart",
        bug="After a restart a place of each partition is left out, so that readers wait for it.",
        file="adapters/outbound/sqlite_log/schema.py",
        old='SELECT partition, max("offset") + 1 FROM',
        new='SELECT partition, max("offset") + 2 FROM',
        tests=(f"{SQLITE}::test_offsets_go_on_without_a_gap_after_a_restart",),
    ),
)
