"""What a transport gets of the inside: all that it needs to let events in, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from customersignal_ingest.health import Health
from customersignal_ingest.ingest import Authenticate, Ingest
from customersignal_ingest.metrics import Metrics
from customersignal_ingest.policies import Admission


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrance:
    """The inside, as a transport sees it. For one event loop.

    A transport first has `authenticate` turn an API key into a tenant, then takes a lease from
    `admission` for what it reads, then hands payloads to `ingest` and tells each result.
    `limits` has every limit in force by its public name, the unit in the name; `log` is a structlog
    logger. `health.draining` says that this process is about to end.
    """

    ingest: Ingest
    authenticate: Authenticate
    admission: Admission
    limits: Mapping[str, int | float]
    health: Health
    metrics: Metrics
    log: Any
