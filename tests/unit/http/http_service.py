"""The whole HTTP transport over memory, and a client small enough to send what no client would."""

import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Any
from urllib.parse import unquote

import anyio

from customersignal_ingest.adapters.inbound.http.app import create_app
from customersignal_ingest.adapters.inbound.http.events import HttpLimits
from customersignal_ingest.adapters.outbound.memory import MemoryPublisher
from customersignal_ingest.domain.errors import KeyProblem, Unauthenticated, Unavailable
from customersignal_ingest.domain.key import Tenant
from customersignal_ingest.domain.rules import Limits
from customersignal_ingest.health import Component, Health
from customersignal_ingest.ingest import ingest
from customersignal_ingest.metrics import Counted, Metrics
from customersignal_ingest.policies import Admission
from customersignal_ingest.testing.faults import FaultyPublisher
from customersignal_ingest.testing.planted import API_KEY, PROPERTY, SESSION_ID, USER_ID
from customersignal_ingest.turns import Turns
from tests.leaks import lines_as_text, watch

KEY = API_KEY
ACME = Tenant(tenant_id="acme", key_id="kAcme")
GLOBEX = Tenant(tenant_id="globex", project_id="web", key_id="kGlobex")
RECEIVED_AT = datetime(2026, 11, 23, 10, 0, 0, 123456, UTC)
JSON = {"content-type": "application/json"}
SAFE = {"x-content-type-options": "nosniff", "cache-control": "no-store"}
"""What every answer says, whatever it is: each test of HTTP holds it against that."""

Headers = Mapping[str, str] | Sequence[tuple[str, str]]


def event(**fields: Any) -> dict[str, Any]:
    """A valid event, with these fields on top of it; what may be secret in it is planted."""
    secret = {"user_id": USER_ID, "session_id": SESSION_ID, "properties": {"is": PROPERTY}}
    return {"event_type": "signed_up", "timestamp": "2026-11-23T10:00:00Z"} | secret | fields


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back; `status` is None when nothing was sent."""

    status: int | None
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        code = self.json["error"]["code"]
        assert isinstance(code, str)
        return code


@dataclass
class Keys:
    """An `Authenticate` over a table; keys in `away` can't be checked."""

    tenants: dict[str | None, Tenant | KeyProblem] = field(
        default_factory=lambda: {
            KEY: ACME,
            "globex": GLOBEX,
            "revoked": KeyProblem.REVOKED,
            "expired": KeyProblem.EXPIRED,
            None: KeyProblem.MISSING,
            "": KeyProblem.MISSING,
        }
    )
    away: bool = False

    async def __call__(self, api_key: str | None, /) -> Tenant:
        found = self.tenants.get(api_key, KeyProblem.INVALID)
        if isinstance(found, Tenant) and self.away:
            raise Unavailable("the database is down at db.internal:5432")
        if isinstance(found, KeyProblem):
            raise Unauthenticated(found)
        return found


@dataclass
class Lines:
    """A log that keeps its lines, as structlog would have them."""

    lines: list[dict[str, Any]] = field(default_factory=list)

    def info(self, event: str, /, **fields: Any) -> None:
        self.lines.append({"event": event, "level": "info", **fields})

    def warning(self, event: str, /, **fields: Any) -> None:
        self.lines.append({"event": event, "level": "warning", **fields})

    def error(self, event: str, /, **fields: Any) -> None:
        self.lines.append({"event": event, "level": "error", **fields})


class Service:
    """The app and everything that it was given."""

    def __init__(
        self,
        *plan: str,
        limits: HttpLimits | None = None,
        admission: Admission | None = None,
        cors_origins: tuple[str, ...] = (),
        body_read_timeout_s: float = 5.0,
    ) -> None:
        self.memory = MemoryPublisher(partitions=1)
        self.publisher = FaultyPublisher(self.memory, plan)
        self.limits = limits or HttpLimits(body_read_timeout_s=body_read_timeout_s)
        self.admission = admission or Admission(events_max=20_000, bytes_max=64 << 20, tenant_share=0.5)
        self.held: list[int] = []  # Events in flight, at each part of each answer.
        self.keys = Keys()
        self.log = Lines()
        self.metrics = Metrics(version="1", publisher="memory")
        watch("the log", lambda: lines_as_text(self.log.lines))
        watch("the metrics", lambda: self.metrics.text().decode())
        self.health = Health([Component(name="publisher", ping=self.memory.ping)], clock=lambda: 0.0)
        ids = count()
        core = partial(
            ingest,
            publisher=self.publisher,
            now=lambda: RECEIVED_AT,
            new_id=lambda _: f"id-{next(ids)}",
            limits=Limits(event_bytes_max=self.limits.event_bytes_max),
            turn=Turns(),
        )
        self.app = create_app(
            ingest=Counted(core, self.metrics),
            authenticate=self.keys,
            admission=self.admission,
            limits=self.limits,
            published_limits={"event_bytes_max": 900_000, "publish_timeout_s": 15.0},
            health=self.health,
            metrics=self.metrics,
            log=self.log,
            cors_origins=cors_origins,
        )

    @property
    def values(self) -> list[Any]:
        """The stored values, in the order of the log."""
        return [json.loads(record.value) for record in self.memory.stored]

    async def post(self, body: object, path: str = "/v1/events", *, headers: Headers = (), **more: Any) -> Reply:
        """Send an event, a batch or raw bytes with the key of `acme`."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {**JSON, "x-cs-api-key": KEY, "content-length": str(len(raw)), **dict(headers)}
        return await self.send("POST", path, list(sent.items()), [raw], **more)

    async def batch(self, events: object, **more: Any) -> Reply:
        """Send a batch of these events."""
        return await self.post({"events": events}, "/v1/events/batch", **more)

    async def get(self, path: str, **headers: str) -> Reply:
        return await self.send("GET", path, [(name.replace("_", "-"), value) for name, value in headers.items()])

    async def send(
        self,
        method: str,
        path: str,
        headers: Iterable[tuple[str, str]] = (),
        chunks: Sequence[bytes] = (b"",),
        *,
        then: str = "end",
        hosts: Sequence[str] = ("ingest.test",),
        query: bytes = b"",
        http_version: str = "1.1",
    ) -> Reply:
        """Send exactly this. After the last chunk the body ends, stalls or the client leaves, as `then` says."""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": http_version,
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query,
            "root_path": "",
            "headers": [
                *((b"host", host.encode()) for host in hosts),
                *((name.lower().encode(), value.encode("latin-1")) for name, value in headers),
            ],
        }
        sent: list[Any] = []
        messages = _body(chunks, then)

        async def receive() -> Any:
            if not messages:
                await anyio.sleep_forever()
            return messages.popleft()

        async def keep(message: Any) -> None:
            self.held.append(self.admission.events)
            sent.append(message)

        with anyio.fail_after(20):
            await self.app(scope, receive, keep)
        return _reply(sent)


def _body(chunks: Sequence[bytes], then: str) -> deque[Any]:
    messages: deque[Any] = deque({"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks)
    if then == "end":
        messages[-1]["more_body"] = False
    if then == "leave":
        messages.append({"type": "http.disconnect"})
    return messages


def _reply(sent: list[Any]) -> Reply:
    if not sent:
        return Reply(status=None, headers={}, body=b"")
    start, *bodies = sent
    names = [name.decode() for name, _ in start["headers"]]
    assert len(names) == len(set(names)), f"a header is there twice: {names}"
    assert not any(body.get("more_body") for body in bodies[-1:])
    headers = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
    assert headers.items() >= SAFE.items(), f"status {start['status']} without its safe headers"
    assert headers["x-request-id"]
    return Reply(status=start["status"], headers=headers, body=b"".join(body.get("body", b"") for body in bodies))
