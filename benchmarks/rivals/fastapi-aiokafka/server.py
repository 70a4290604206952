"""A rival: events over HTTP into Kafka with FastAPI and aiokafka, as a Python team would write it.

Environment: BROKERS (commas between them), TOPIC, API_KEY. It looks the key up by its SHA-256, checks
the body with pydantic, stores one JSON record an event, idempotently, and answers 202 once all in-sync
replicas have it. Run it with `uvicorn server:app --loop uvloop --http httptools --no-access-log`.
"""

import asyncio
import hashlib
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, BaseModel, Field

TOPIC = os.environ["TOPIC"]


class Event(BaseModel):
    """What a client sends."""

    event_type: str = Field(min_length=1, max_length=200)
    timestamp: AwareDatetime
    user_id: str | None = None
    session_id: str | None = None
    idempotency_key: str | None = None
    properties: dict[str, Any]


class Batch(BaseModel):
    """Several of them."""

    events: list[Event]


class StoredEvent(Event):
    """What consumers read."""

    event_id: str
    tenant_id: str
    project_id: str
    received_at: datetime


class Tenant(BaseModel):
    """Whom a key speaks for."""

    tenant_id: str
    project_id: str


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


TENANTS = {digest(os.environ["API_KEY"]): Tenant(tenant_id="acme", project_id="shop")}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.producer = AIOKafkaProducer(bootstrap_servers=os.environ["BROKERS"], acks="all", enable_idempotence=True)
    await app.state.producer.start()
    yield
    await app.state.producer.stop()


app = FastAPI(lifespan=lifespan)


# A call costs less than a dependency, and works out the same.
Key = Annotated[str, Header(alias="X-CS-API-Key")]


def tenant_of(key: str) -> Tenant:
    found = TENANTS.get(digest(key))
    if found is None:
        raise HTTPException(401, "API_KEY_INVALID")
    return found


@app.exception_handler(KafkaError)
async def not_stored(_: Request, __: Exception) -> JSONResponse:
    return JSONResponse({"error": {"code": "NOT_STORED"}}, 503)


def record_of(event: Event, owner: Tenant) -> tuple[str, bytes, bytes]:
    event_id = str(uuid.uuid4())
    stored = StoredEvent.model_construct(
        **event.__dict__,
        event_id=event_id,
        tenant_id=owner.tenant_id,
        project_id=owner.project_id,
        received_at=datetime.now(UTC),
    )
    key = f"{owner.tenant_id}:{event.user_id or event_id}"
    return event_id, key.encode(), stored.model_dump_json(exclude_none=True).encode()


@app.post("/v1/events", status_code=202)
async def single(event: Event, api_key: Key = "") -> JSONResponse:
    event_id, key, value = record_of(event, tenant_of(api_key))
    await app.state.producer.send_and_wait(TOPIC, value, key=key)
    return JSONResponse({"status": "accepted", "event_id": event_id}, 202)


@app.post("/v1/events/batch", status_code=202)
async def batch(batch: Batch, api_key: Key = "") -> JSONResponse:
    owner = tenant_of(api_key)
    records = [record_of(event, owner) for event in batch.events]
    sent = [await app.state.producer.send(TOPIC, value, key=key) for _, key, value in records]
    await asyncio.gather(*sent)
    return JSONResponse({"status": "accepted", "accepted": len(records), "failed": 0}, 202)
