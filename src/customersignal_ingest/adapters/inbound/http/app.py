"""HTTP: what is about the service by Litestar, events without it, both within an edge of our own."""

from collections.abc import Mapping
from typing import Any, NoReturn, cast

from litestar import Litestar, Request
from litestar.routes import HTTPRoute

from customersignal_ingest.adapters.inbound.http.about import about_routes
from customersignal_ingest.adapters.inbound.http.access import AccessLog, Log
from customersignal_ingest.adapters.inbound.http.asgi import ASGIApp
from customersignal_ingest.adapters.inbound.http.cors import Cors
from customersignal_ingest.adapters.inbound.http.edge import Edge, Route
from customersignal_ingest.adapters.inbound.http.events import BATCH, SINGLE, EventRoutes, HttpLimits
from customersignal_ingest.health import Health
from customersignal_ingest.ingest import Authenticate, Ingest
from customersignal_ingest.metrics import Metrics
from customersignal_ingest.policies import Admission


def create_app(
    *,
    ingest: Ingest,
    authenticate: Authenticate,
    admission: Admission,
    limits: HttpLimits,
    published_limits: Mapping[str, int | float],
    health: Health,
    metrics: Metrics,
    log: Log,
    cors_origins: tuple[str, ...] = (),
) -> ASGIApp:
    """Return the ASGI app with all routes; it opens and closes nothing.

    `published_limits` is what `/v1/limits` says: values by name, the unit in the name.
    `cors_origins` are the exact origins of web pages that may call it.
    """
    events = EventRoutes(ingest=ingest, authenticate=authenticate, admission=admission, limits=limits)
    about = Litestar(
        about_routes(published_limits=published_limits, health=health, metrics=metrics),
        exception_handlers={Exception: _leave_to_the_edge},
        openapi_config=None,
        logging_config=None,
    )
    # Litestar's type of a scope is exact, a server's is not.
    app = cast("ASGIApp", about)
    routes = {path: Route(app, methods) for path, methods in methods_of(about).items()}
    # The edge has found the path already: to have it found again costs an event eight microseconds (adr/0017).
    routes |= {SINGLE: Route(events.single, {"POST"}), BATCH: Route(events.batch, {"POST"})}
    access = AccessLog(log=log, metrics=metrics)
    return Edge(app, routes=routes, health=health, access=access, cors=Cors(cors_origins))


def methods_of(app: Litestar) -> dict[str, set[str]]:
    """Return the methods of each path. `OPTIONS` is what Litestar adds by itself; nobody asked for it."""
    return {
        route.path: {str(method) for method in route.methods} - {"OPTIONS"}
        for route in app.routes
        if isinstance(route, HTTPRoute)
    }


def _leave_to_the_edge(_: Request[Any, Any, Any], error: Exception) -> NoReturn:
    """All errors are answered in one place, the framework's own included."""
    raise error
