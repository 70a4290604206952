"""The outermost layer: everything that holds for every request, whatever becomes of it.

One way in and one way out. A request that is ambiguous, unknown or not allowed ends here; every
error becomes an answer here; every answer gets its headers, its log line and its measurement here.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Set
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from customersignal_ingest.adapters.inbound.http import answers
from customersignal_ingest.adapters.inbound.http.access import AccessLog
from customersignal_ingest.adapters.inbound.http.asgi import ASGIApp, Receive, Scope, Send
from customersignal_ingest.adapters.inbound.http.asked import wants_problem
from customersignal_ingest.adapters.inbound.http.cors import Cors
from customersignal_ingest.adapters.inbound.http.exchange import AFTERWARDS, AT_ONCE, Exchange, keep, usable_request_id
from customersignal_ingest.adapters.inbound.http.guard import READ, RawHeaders, read_headers, refuse_ambiguous
from customersignal_ingest.adapters.inbound.http.problem import ClientGone, Code, Problem
from customersignal_ingest.adapters.inbound.http.reply import Reply
from customersignal_ingest.health import Health

UNMATCHED = "unmatched"

_ALWAYS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
_CLOSE = (b"connection", b"close")


App = Callable[[Scope, Receive, Reply], Awaitable[None]]
"""An ASGI app, or one that knows what it sends its answer by."""


class Route(NamedTuple):
    """Who answers for a path, and to which methods."""

    app: App
    methods: Set[str]


class Edge:
    """An ASGI app around the apps that answer for a path each.

    Paths are exact: `/v1/events/` is no path of ours, so that no proxy in front sees another path than we do.
    """

    def __init__(
        self,
        app: ASGIApp,
        /,
        *,
        routes: Mapping[str, Route],
        health: Health,
        access: AccessLog,
        cors: Cors,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`app` is told when the server starts and ends; `clock` is monotonic seconds."""
        self._app, self._routes = app, routes
        self._health, self._access, self._cors, self._clock = health, access, cors, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; anything but HTTP and the server's life is turned away."""
        if scope["type"] != "http":
            return await self._other(scope, receive, send)
        headers, repeated = scope.get(READ) or read_headers(scope["headers"])
        exchange = self._begin(scope, headers)
        reply = Reply(send, exchange, self._of_every_answer)
        try:
            refuse_ambiguous(scope, headers, repeated)
            await self._route(exchange)(scope, receive, reply)
        except Exception as error:  # noqa: BLE001  Whatever it is, it is answered in our shape.
            await self._fail(error, exchange, reply)
        finally:
            # Cancelled or left: there is nobody to answer.
            exchange.status = exchange.status or answers.CLIENT_GONE
            note = partial(self._access.write, exchange, self._clock() - exchange.started)
            scope.get(AFTERWARDS, _now)(note)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000, "reason": "no WebSocket here"})

    def _begin(self, scope: Scope, headers: dict[str, str]) -> Exchange:
        # The path before any decoding: what a proxy in front decided by.
        raw_path = scope.get("raw_path")
        path = scope["path"] if raw_path is None else raw_path.decode("latin-1")
        exchange = Exchange(
            method=scope["method"],
            route=path if path in self._routes else UNMATCHED,
            http1=scope.get("http_version", "1.1") < "2",
            headers=headers,
            request_id=usable_request_id(headers.get("x-request-id")),
            started=self._clock(),
            at_once=scope.get(AT_ONCE),
        )
        keep(exchange, scope)
        return exchange

    def _route(self, exchange: Exchange) -> App:
        """Return who answers; raises `Problem` where nobody does."""
        if preflight := self._cors.preflight(exchange.method, exchange.headers):
            return lambda _scope, _receive, reply: reply.whole(answers.empty(preflight))
        route = self._routes.get(exchange.route)
        if route is None:
            raise Problem(Code.NOT_FOUND)
        if exchange.method not in route.methods:
            raise Problem(Code.METHOD_NOT_ALLOWED, headers={"allow": ", ".join(sorted(route.methods))})
        return route.app

    async def _fail(self, error: Exception, exchange: Exchange, reply: Reply) -> None:
        if reply.gone:
            exchange.status = answers.CLIENT_GONE
            return
        problem = answers.problem_of(error)
        exchange.code = problem.code
        if problem.code is Code.INTERNAL_ERROR:
            self._access.bug(exchange, error)
        if reply.started:
            return  # Half an answer can't be taken back; the server ends the connection.
        await self._refuse(problem, exchange, reply)
        if isinstance(error, ClientGone):
            exchange.status, exchange.code = answers.CLIENT_GONE, None

    async def _refuse(self, problem: Problem, exchange: Exchange, reply: Reply) -> None:
        exchange.close = problem.close
        answer = answers.failed(problem, request_id=exchange.request_id, rfc9457=wants_problem(exchange.headers))
        # The client may leave now, too.
        with suppress(OSError):
            await reply.whole(answer)

    def _of_every_answer(self, exchange: Exchange) -> RawHeaders:
        headers = [(b"x-request-id", exchange.request_id.encode()), *_ALWAYS]
        headers += [(name.encode(), value.encode()) for name, value in self._cors.of_answer(exchange.headers).items()]
        # HTTP/2 has no such header; its server says goodbye by itself.
        if exchange.http1 and (exchange.close or self._health.draining):
            headers.append(_CLOSE)
        return headers


def _now(work: Callable[[], None]) -> None:
    work()
