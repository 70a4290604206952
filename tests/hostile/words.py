"""The words by which rows of the corpus speak of keys and of what is planted."""

KEYS = ("key", "other", "bound", "revoked", "expired", "unknown")
SECRET = "s3cr3t-pl4nted"
"""Stands in keys, values and paths; nothing that the service says or writes may have it."""
PRIVATE = "pr1v4te-n4me"
"""Stands in the names of fields, which an answer may point to; no log and no metric may have it."""
