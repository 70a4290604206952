"""The pytest plugin: the fixture `cs_ingest`, the real service over memory for a developer's own tests."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from customersignal_ingest.testing.service import Service


@pytest.fixture
def cs_ingest() -> "Service":
    """Provide the real service over the memory store, without a socket: see `testing.service.Service`."""
    # Imported here, because every pytest run of the environment loads this plugin.
    from customersignal_ingest.testing.service import Service

    return Service()
