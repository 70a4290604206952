"""Clients in a process of their own, who write down what they are about to send before they send it.

    python -m tests.faults.load < plan

The first line of standard input is a `Plan` as JSON. The clients send until standard input ends, wait
for their last answers, and the process ends with 0. All of them write one journal.
"""

import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import count
from urllib.parse import urlsplit

from customersignal_ingest.proof.journal import Journal

_Kept = tuple[float, asyncio.StreamReader, asyncio.StreamWriter]
SINGLE, BATCH = "/v1/events", "/v1/events/batch"
BATCH_EVENTS = 40
OPEN_LOOP_MAX = 400
OPEN_LOOP_USERS = 20
RETRY_S = 0.25
IDLE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Who sends what, for one tenant.

    - `waiting`: clients who send one event after the other, each one user, `pause_s` apart.
    - `per_s`: events a second from clients who wait for nobody.
    - `batches`: clients who send one batch after the other.
    - `retrying`: clients who send each event, with its idempotency key, until it is accepted.
    - `wrong`: clients whose events must never be accepted.
    """

    url: str
    journal: str
    tenant_id: str
    key: str
    name: str = "c"
    waiting: int = 6
    per_s: float = 20.0
    batches: int = 1
    retrying: int = 2
    wrong: int = 1
    pause_s: float = 0.03
    patience_s: float = 30.0
    note: str = ""

    def line(self) -> str:
        """Return the plan as the line that the process reads."""
        return json.dumps(asdict(self)) + "\n"


class Clients:
    """Everybody of a plan, over one pool of connections."""

    def __init__(self, plan: Plan, journal: Journal, http: "Http") -> None:
        self._plan, self._journal, self._http = plan, journal, http
        self._over = asyncio.Event()
        self._numbers = count()

    def end(self) -> None:
        """Let everybody have the last answer, and begin nothing more."""
        self._over.set()

    async def run(self) -> None:
        plan = self._plan
        kinds: list[tuple[int, str, Callable[[str], Awaitable[object]]]] = [
            (plan.waiting, "waiting", self._one),
            (plan.batches, "batch", self._batch),
            (plan.retrying, "retrying", self._until_accepted),
            (plan.wrong, "wrong", self._wrong),
        ]
        async with asyncio.TaskGroup() as everybody:
            for number, kind, send in kinds:
                for each in range(number):
                    everybody.create_task(self._again_and_again(send, f"{plan.name}-{kind}-{each}"))
            if plan.per_s:
                everybody.create_task(self._open_loop(f"{plan.name}-open"))

    async def _again_and_again(self, send: Callable[[str], Awaitable[object]], user_id: str) -> None:
        while not self._over.is_set():
            await send(user_id)
            await self._pause(self._plan.pause_s)

    async def _open_loop(self, user_id: str) -> None:
        """Begin requests at their times, whatever became of the earlier ones."""
        now = asyncio.get_running_loop().time
        began, out = now(), set[asyncio.Task[object]]()
        for number in count(1):
            await self._pause(began + number / self._plan.per_s - now())
            if self._over.is_set():
                break
            if len(out) < OPEN_LOOP_MAX:
                task = asyncio.create_task(self._one(f"{user_id}-{number % OPEN_LOOP_USERS}"))
                out.add(task)
                task.add_done_callback(out.discard)
        if out:
            await asyncio.wait(out)

    async def _one(self, user_id: str) -> int:
        return await self._send(user_id, [self._event(user_id)])

    async def _batch(self, user_id: str) -> None:
        await self._send(user_id, [self._event(f"{user_id}-{n % 3}") for n in range(BATCH_EVENTS)], batch=True)
        await self._pause(0.2)

    async def _until_accepted(self, user_id: str) -> None:
        event = self._event(user_id, idempotency_key=f"{user_id}-{next(self._numbers)}")
        while await self._send(user_id, [event]) != 202 and not self._over.is_set():
            await self._pause(RETRY_S)

    async def _wrong(self, user_id: str) -> None:
        event = self._event(user_id)
        del event["timestamp"]
        await self._send(user_id, [event])
        await self._pause(0.3)

    def _event(self, user_id: str, **more: object) -> dict[str, object]:
        properties = {"n": next(self._numbers), "note": self._plan.note}
        fixed = {"event_type": "load", "timestamp": "2026-11-23T10:00:00Z", "user_id": user_id}
        return {**fixed, **more, "properties": properties}

    async def _send(self, client: str, events: list[dict[str, object]], *, batch: bool = False) -> int:
        """Send one request; return its status, 0 where no answer came, after a pause: nobody may listen."""
        payloads = [json.dumps(event).encode() for event in events]
        body = b'{"events":[%s]}' % b",".join(payloads) if batch else payloads[0]
        attempt = self._journal.sent(payloads, tenant_id=self._plan.tenant_id)
        try:
            async with asyncio.timeout(self._plan.patience_s):
                status, answer = await self._http.post(client, BATCH if batch else SINGLE, body)
        except (OSError, EOFError, TimeoutError):  # Who knows whether it was stored: the journal has no answer.
            await self._pause(RETRY_S)
            return 0
        self._journal.answered(attempt, status, answer)
        return status

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._over.wait()


class Http:
    """As much of an HTTP client as this takes, and cheap. Each client keeps connections of its own."""

    def __init__(self, plan: Plan) -> None:
        address = urlsplit(plan.url)
        self._address = (address.hostname, address.port)
        self._idle: defaultdict[str, list[_Kept]] = defaultdict(list)
        self._head = (
            f"POST %s HTTP/1.1\r\nHost: {address.netloc}\r\nX-CS-API-Key: {plan.key}\r\n"
            "Content-Type: application/json\r\nPrefer: return=representation\r\nContent-Length: %d\r\n\r\n"
        )

    async def post(self, client: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Return status and body of the answer; raises `OSError` or `EOFError` where there is none."""
        reader, writer = self._kept(client) or await asyncio.open_connection(*self._address)
        try:
            writer.write((self._head % (path, len(body))).encode() + body)
            first, *fields = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
            named = dict(field.split(": ", 1) for field in fields if field)
            answer = await reader.readexactly(int(named["content-length"]))
        except BaseException:
            writer.close()
            raise
        if named.get("connection") == "close":
            writer.close()
        else:
            self._idle[client].append((asyncio.get_running_loop().time(), reader, writer))
        return int(first.split()[1]), answer

    def _kept(self, client: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """Return a connection that the server has not closed, and is not about to close for want of requests."""
        while self._idle[client]:
            since_s, reader, writer = self._idle[client].pop()
            if not reader.at_eof() and asyncio.get_running_loop().time() - since_s < IDLE_S:
                return reader, writer
            writer.close()
        return None


async def main() -> None:
    """Do what the plan on standard input says, until that ends."""
    plan = Plan(**json.loads(sys.stdin.readline()))
    with Journal(plan.journal) as journal:
        clients = Clients(plan, journal, Http(plan))
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), clients.end)
        await clients.run()


if __name__ == "__main__":
    asyncio.run(main())
