"""The test kit: contracts that adapters must pass, publishers with faults, strategies. Extra: `[testing]`."""

import pytest

# pytest explains a failing assert only in modules that it was told of before their import.
pytest.register_assert_rewrite(
    "customersignal_ingest.testing.contracts",
    "customersignal_ingest.testing.key_contract",
    "customersignal_ingest.testing.transport_contract",
)
