"""The routes about the service itself: limits, health, metrics, and the description of the API."""

from collections.abc import Mapping

from litestar import HttpMethod, Response, get, route
from litestar.handlers import HTTPRouteHandler

from customersignal_ingest.adapters.inbound.http import answers, openapi, page
from customersignal_ingest.adapters.inbound.http.answers import Answer
from customersignal_ingest.health import Health
from customersignal_ingest.metrics import Metrics

# Litestar adds the charset.
_PROMETHEUS_TEXT = "text/plain; version=0.0.4"
_LOOK = [HttpMethod.GET, HttpMethod.HEAD]
# The page has its own style and nothing else: no script, nothing from elsewhere.
_OWN_STYLE_ONLY = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}


def about_routes(
    *, published_limits: Mapping[str, int | float], health: Health, metrics: Metrics
) -> list[HTTPRouteHandler]:
    """Return the handlers of these routes; what never changes is made once, here."""
    limits = answers.facts(published_limits)
    document = openapi.document()
    described = answers.facts(document)
    readable = answers.page(page.render(document).encode(), "text/html", _OWN_STYLE_ONLY)

    @get("/v1/limits", sync_to_thread=False)
    def v1_limits() -> Response[bytes]:
        return _response(limits)

    @route("/health/live", http_method=_LOOK, sync_to_thread=False)
    def live() -> Response[bytes]:
        return _response(answers.live())

    @route("/health/ready", http_method=_LOOK, sync_to_thread=False)
    def ready() -> Response[bytes]:
        return _response(answers.ready(health))

    @get("/metrics", sync_to_thread=False)
    def exposition() -> Response[bytes]:
        return _response(answers.page(metrics.text(), _PROMETHEUS_TEXT))

    @get("/schema/openapi.json", sync_to_thread=False)
    def schema_document() -> Response[bytes]:
        return _response(described)

    @get("/schema", sync_to_thread=False)
    def schema_page() -> Response[bytes]:
        return _response(readable)

    return [v1_limits, live, ready, exposition, schema_document, schema_page]


def _response(answer: Answer) -> Response[bytes]:
    headers = dict(answer.headers)
    return Response(answer.body, status_code=answer.status, media_type=headers.pop("content-type"), headers=headers)
