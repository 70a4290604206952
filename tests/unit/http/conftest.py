"""The service that most tests of HTTP use."""

import pytest
from http_service import Service


@pytest.fixture
def service() -> Service:
    return Service()
