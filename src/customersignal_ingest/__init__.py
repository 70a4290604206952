"""CustomerSignal Ingest: events taken in, stored durably, and answered truthfully.

The names here are public. Each is imported when it is first used, so that what a program does not
use costs it nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from customersignal_ingest.version import __version__

if TYPE_CHECKING:
    from customersignal_ingest.bootstrap import Container, opened
    from customersignal_ingest.domain.errors import ConfigurationError, IngestError, Unauthenticated, Unavailable
    from customersignal_ingest.domain.event import Record
    from customersignal_ingest.domain.key import Tenant
    from customersignal_ingest.domain.outcome import NotStored, Receipt, Refused, Rejected, Result, Stored, Unknown
    from customersignal_ingest.domain.rules import Limits
    from customersignal_ingest.ingest import authenticate
    from customersignal_ingest.settings import Settings

__all__ = [
    "ConfigurationError",
    "Container",
    "IngestError",
    "Limits",
    "NotStored",
    "Receipt",
    "Record",
    "Refused",
    "Rejected",
    "Result",
    "Settings",
    "Stored",
    "Tenant",
    "Unauthenticated",
    "Unavailable",
    "Unknown",
    "__version__",
    "authenticate",
    "opened",
]

_MODULES = {
    "bootstrap": ("Container", "opened"),
    "domain.errors": ("ConfigurationError", "IngestError", "Unauthenticated", "Unavailable"),
    "domain.event": ("Record",),
    "domain.key": ("Tenant",),
    "domain.outcome": ("NotStored", "Receipt", "Refused", "Rejected", "Result", "Stored", "Unknown"),
    "domain.rules": ("Limits",),
    "ingest": ("authenticate",),
    "settings": ("Settings",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
