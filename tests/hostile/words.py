"""The words by which rows of the corpus speak of keys and of what is planted."""

from customersignal_ingest.testing.planted import MARK

KEYS = ("key", "other", "bound", "revoked", "expired", "unknown")
SECRET = f"s3cr3t-{MARK}"
"""Stands in keys, values and paths; nothing that the service says or writes may have it."""
PRIVATE = f"pr1v4te-{MARK}"
"""Stands in the names of fields, which an answer may point to; no log and no metric may have it."""
