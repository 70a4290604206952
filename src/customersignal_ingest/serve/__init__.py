"""The service as a process: one server, or a parent with several of them on one port."""

from customersignal_ingest.serve.server import Started, run
from customersignal_ingest.serve.workers import MISCONFIGURED, Worker, run_workers

__all__ = ["MISCONFIGURED", "Started", "Worker", "run", "run_workers"]
