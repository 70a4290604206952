"""The key store in memory."""

import pytest

from customersignal_ingest.adapters.outbound.memory import MemoryKeys
from customersignal_ingest.ports import Resource
from customersignal_ingest.testing.key_contract import KeyHarness, KeyRepositoryContract


class MemoryHarness:
    def __init__(self) -> None:
        self.keys = MemoryKeys()
        self.life: Resource | None = self.keys

    async def everything_kept(self) -> str:
        return repr(vars(self.keys))


class TestMemoryKeys(KeyRepositoryContract):
    @pytest.fixture
    def harness(self) -> KeyHarness:
        return MemoryHarness()
