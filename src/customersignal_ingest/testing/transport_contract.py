"""What every transport must do, as tests. Subclass the contract, provide `harness`, and run pytest.

The harness sends payloads through the transport as its client would, and says what that client was
told. Needs pytest and anyio; `testing.service.Service` gives the inside, with scripted faults.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import pytest

from customersignal_ingest.testing.service import Service

Told = Literal["accepted", "rejected", "not_stored", "unknown", "unauthenticated", "unavailable"]
"""What a client can be told of one payload. The last two are of the key, and go for every payload."""


class TransportHarness(Protocol):
    """A transport that lets payloads in to `service`, and its client."""

    @property
    def service(self) -> Service:
        """The inside: what was stored, and faults to script."""
        ...

    async def send(self, payloads: Sequence[bytes], /, *, api_key: str) -> Sequence[Told]:
        """Send the payloads together, as far as the transport can, and return what was told of each, in order."""
        ...


def a_payload(n: int, /) -> bytes:
    """Return the nth example of a good payload."""
    return b'{"event_type":"ordered","timestamp":"2026-11-23T10:00:00Z","user_id":"ann","properties":{"n":%d}}' % n


BROKEN = b'{"event_type":"ordered","properties":{}}'


class TransportContract:
    """What every transport must do. Subclass it and provide `harness`."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture(scope="session")
    @staticmethod
    def anyio_backend() -> str:
        """Transports run on asyncio."""
        return "asyncio"

    @pytest.fixture
    async def harness(self) -> TransportHarness:
        """Provide a transport over a service of its own. Override this."""
        raise NotImplementedError

    async def test_what_is_accepted_is_stored(self, harness: TransportHarness) -> None:
        """Every payload, in order, once, with its bytes."""
        told = await _send(harness, [a_payload(n) for n in range(20)])

        assert told == ["accepted"] * 20
        assert [event.properties["n"] for event in harness.service.stored] == list(range(20))

    async def test_a_broken_payload_costs_no_other(self, harness: TransportHarness) -> None:
        """Each has a fate of its own."""
        told = await _send(harness, [a_payload(0), BROKEN, a_payload(2)])

        assert told == ["accepted", "rejected", "accepted"]
        assert [event.properties["n"] for event in harness.service.stored] == [0, 2]

    @pytest.mark.parametrize(
        ("fault", "answer", "stored"),
        [("lost", "not_stored", 0), ("ack_lost", "unknown", 1), ("refused", "rejected", 0), ("raises", "unknown", 1)],
    )
    async def test_no_outcome_is_told_as_another(
        self, harness: TransportHarness, fault: str, answer: Told, stored: int
    ) -> None:
        """Only what is stored for certain is accepted; what may be stored is never said not to be."""
        harness.service.faults(fault)

        assert await _send(harness, [a_payload(0)]) == [answer]
        assert len(harness.service.stored) == stored

    async def test_a_key_that_opens_nothing_stores_nothing(self, harness: TransportHarness) -> None:
        """It is a "no", not a "not now"."""
        told = await harness.send([a_payload(0)], api_key="nobody's")

        assert list(told) == ["unauthenticated"]
        assert list(harness.service.stored) == []

    async def test_a_key_that_can_not_be_checked_is_not_refused(self, harness: TransportHarness) -> None:
        """It is a "not now", not a "no"."""
        harness.service.lose_keys()

        told = await harness.send([a_payload(0)], api_key=harness.service.api_key)

        assert list(told) == ["unavailable"]
        assert list(harness.service.stored) == []

    async def test_nothing_stays_in_flight(self, harness: TransportHarness) -> None:
        """What was leased is given back with the answer, whatever the answer was."""
        harness.service.faults("ok", "lost", "raises")
        for payload in (a_payload(0), a_payload(1), a_payload(2), BROKEN):
            await _send(harness, [payload])

        admission = harness.service.container.admission()
        assert (admission.events, admission.bytes) == (0, 0)


async def _send(harness: TransportHarness, payloads: Sequence[bytes]) -> list[Told]:
    return list(await harness.send(payloads, api_key=harness.service.api_key))
