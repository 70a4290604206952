"""A client of the service who sends marked events at a low rate and holds every answer against what is stored.

It sends over HTTP, as any client does, and reads back from the store itself, as any consumer does: the
service can't vouch for itself. Events are judged in rounds, by the checker of `cs-ingest verify`.
"""
