"""The bodies as pydantic models, for OpenAPI alone: the rules themselves are the domain's (adr/0006)."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from customersignal_ingest.adapters.inbound.http.problem import Code
from customersignal_ingest.domain.rules import IDEMPOTENCY_KEY_MAX, TEXT_MAX, is_timestamp


def _moment(text: str) -> str:
    if not is_timestamp(text):
        raise ValueError("not a moment with an offset, from 1970 on")
    return text


_NO_NUL = r"^[^\u0000]*$"
_FROM_1970 = r"^(19[7-9][0-9]|[2-9][0-9]{3})-"

Text = Annotated[str, Field(min_length=1, max_length=TEXT_MAX, pattern=_NO_NUL)]
IdempotencyKey = Annotated[str, Field(min_length=1, max_length=IDEMPOTENCY_KEY_MAX, pattern=_NO_NUL)]
Moment = Annotated[
    str,
    AfterValidator(_moment),
    # As a pattern of its own it would be lost behind the validator.
    Field(min_length=1, max_length=TEXT_MAX, json_schema_extra={"format": "date-time", "pattern": _FROM_1970}),
]


class Event(BaseModel):
    """One event. Any other field is kept, unchanged, under `extra` in the stored record."""

    model_config = ConfigDict(strict=True, extra="allow")

    event_type: Text = Field(description="What happened.")
    timestamp: Moment = Field(description="When it happened: RFC 3339 with Z or an offset, years 1970 to 9999.")
    properties: dict[str, Any] = Field(description="Anything else about it; every number and string is kept as sent.")
    user_id: Text | None = Field(None, description="Events of one user stay in order.")
    session_id: Text | None = Field(None, description="Orders events that have no user_id.")
    idempotency_key: IdempotencyKey | None = Field(
        None, description="The same key sent again gives the same event_id, by which consumers drop duplicates."
    )
    project_id: Text | None = Field(None, description="If the API key is bound to a project, that one.")
    tenant_id: Text | None = Field(None, description="The API key's tenant; another is refused.")


class Batch(BaseModel):
    """Several events, each with a fate of its own; at most `batch_events_max`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    events: list[Event] = Field(min_length=1)


class Error(BaseModel):
    """What went wrong: `code` for programs, `message` for people."""

    code: Code
    message: str
    details: dict[str, str | int] = Field(
        description="`field` is a JSON Pointer to the field at fault; `index` the event in its batch; "
        "`limit` and `value` what was exceeded; `event_id` the id of an event that is not, or not surely, stored."
    )


class Failure(BaseModel):
    """The body of every error."""

    error: Error
    request_id: str


class Problem(BaseModel):
    """The same as RFC 9457 has it, for `Accept: application/problem+json`."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: Code
    details: dict[str, str | int]
    request_id: str


class Accepted(BaseModel):
    """The event is stored."""

    status: Literal["accepted"]
    event_id: str
    received_at: str
    receipt: str = Field(description="Where it is stored: topic/partition/offset.")


class Result(BaseModel):
    """What became of one event of a batch."""

    index: int
    status: Literal["accepted", "rejected", "not_stored", "unknown"]
    event_id: str | None = None
    receipt: str | None = None
    error: Error | None = None


class BatchAccepted(BaseModel):
    """Every event is stored; `results` is there for `Prefer: return=representation`."""

    status: Literal["accepted"]
    accepted: int
    failed: Literal[0]
    results: list[Result] | None = None


class BatchPartial(BaseModel):
    """Some events are stored and some are not; one result per event, in input order."""

    status: Literal["partial"]
    accepted: int
    failed: int
    results: list[Result]


class BatchRejected(BaseModel):
    """No event is stored, and sending them again as they are is useless."""

    status: Literal["rejected"]
    accepted: Literal[0]
    failed: int
    results: list[Result]


class BatchNotStored(Failure):
    """No event is stored; at least one could be, another time."""

    status: Literal["not_stored"]
    accepted: Literal[0]
    failed: int
    results: list[Result]


class BatchUnknown(Failure):
    """No event is stored for certain, and of at least one it is not known."""

    status: Literal["unknown"]
    accepted: Literal[0]
    failed: int
    results: list[Result]


class Limits(BaseModel):
    """Every limit in force, by name; the unit is in the name."""

    model_config = ConfigDict(extra="allow")


class Live(BaseModel):
    """The process can answer."""

    status: Literal["live"]


class ComponentState(BaseModel):
    """The state of one component; `degraded` fails now and is still good enough."""

    state: Literal["ok", "degraded", "fail"]
    reason: str


class Readiness(BaseModel):
    """Whether an event sent now could be stored."""

    status: Literal["ready", "not_ready"]
    draining: bool
    components: dict[str, ComponentState]


MODELS: dict[str, type[BaseModel]] = {
    model.__name__: model
    for model in (
        *(Event, Batch, Accepted, BatchAccepted, BatchPartial, BatchRejected, BatchNotStored, BatchUnknown),
        *(Failure, Problem, Limits, Live, Readiness),
    )
}
"""Every body by the name of its schema."""


def schemas() -> dict[str, Any]:
    """Return the JSON Schemas of all bodies, as the components of an OpenAPI document."""
    _, found = models_json_schema(
        [(model, "validation") for model in MODELS.values()], ref_template="#/components/schemas/{model}"
    )
    schemas: dict[str, Any] = found["$defs"]
    return schemas
