"""Our transports keep the contract of transports: HTTP, one by one and in batches, and lines."""

import io
import json
from collections.abc import Sequence

import pytest

from customersignal_ingest.adapters.inbound.stdin import Answer, send_lines
from customersignal_ingest.domain.errors import Unauthenticated, Unavailable
from customersignal_ingest.domain.outcome import NotStored, Refused, Rejected, Stored
from customersignal_ingest.testing.service import Service
from customersignal_ingest.testing.transport_contract import Told, TransportContract, TransportHarness

OF_KEY: dict[int, Told] = {401: "unauthenticated", 503: "unavailable"}
OF_STATUS: dict[int, Told] = {202: "accepted", 422: "rejected", 503: "not_stored", 504: "unknown"}


class OneByOne:
    def __init__(self) -> None:
        self.service = Service()

    async def send(self, payloads: Sequence[bytes], /, *, api_key: str) -> Sequence[Told]:
        return [await self._send_one(payload, api_key) for payload in payloads]

    async def _send_one(self, payload: bytes, api_key: str) -> Told:
        headers = {"content-type": "application/json", "x-cs-api-key": api_key}
        answer = await self.service.client.post("/v1/events", content=payload, headers=headers)
        code = answer.json().get("error", {}).get("code", "")
        return (OF_KEY if "KEY" in code else OF_STATUS)[answer.status_code]


class InBatches:
    def __init__(self) -> None:
        self.service = Service()

    async def send(self, payloads: Sequence[bytes], /, *, api_key: str) -> Sequence[Told]:
        headers = {
            "content-type": "application/json",
            "x-cs-api-key": api_key,
            "prefer": "return=representation",
        }
        body = b'{"events":[%s]}' % b",".join(payloads)
        answer = await self.service.client.post("/v1/events/batch", content=body, headers=headers)
        said = json.loads(answer.content)
        if "results" not in said:
            return [OF_KEY[answer.status_code]] * len(payloads)
        return [result["status"] for result in said["results"]]


class Lines:
    def __init__(self) -> None:
        self.service = Service()

    async def send(self, payloads: Sequence[bytes], /, *, api_key: str) -> Sequence[Told]:
        await self.service.prepare()
        container, answers = self.service.container, list[Answer]()
        try:
            tenant = await container.authenticate()(api_key)
        except (Unauthenticated, Unavailable) as error:
            return ["unauthenticated" if isinstance(error, Unauthenticated) else "unavailable"] * len(payloads)
        stream = io.BytesIO(b"\n".join(payloads))
        ingest, bytes_max = container.ingest(), 1_000_000
        await send_lines(stream, tenant=tenant, ingest=ingest, line_bytes_max=bytes_max, write=answers.append)
        return [told(answer) for answer in answers]


def told(answer: Answer) -> Told:
    match answer.result.outcome:
        case Stored():
            return "accepted"
        case Rejected() | Refused():
            return "rejected"
        case NotStored():
            return "not_stored"
        case _:
            return "unknown"


class TestHttpOneByOne(TransportContract):
    @pytest.fixture
    async def harness(self) -> TransportHarness:
        return OneByOne()


class TestHttpInBatches(TransportContract):
    @pytest.fixture
    async def harness(self) -> TransportHarness:
        return InBatches()


class TestLines(TransportContract):
    @pytest.fixture
    async def harness(self) -> TransportHarness:
        return Lines()
