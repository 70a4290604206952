"""One line in the log and one measurement for each request: facts about it, never what it holds."""

from typing import Any, Protocol

from customersignal_ingest.adapters.inbound.http import answers
from customersignal_ingest.adapters.inbound.http.asked import traceparent_of
from customersignal_ingest.adapters.inbound.http.exchange import Exchange
from customersignal_ingest.domain.key import Tenant
from customersignal_ingest.domain.outcome import NotStored, Outcome, Receipt, Refused, Rejected, Stored, Unknown
from customersignal_ingest.metrics import Metrics

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
USER_AGENT_MAX = 200

_NONE: dict[type[Outcome] | type[Rejected], int] = {}


class Log(Protocol):
    """The part of a structlog logger that is used here."""

    def info(self, event: str, /, **fields: Any) -> Any:
        """Log what is as it should be."""
        ...

    def warning(self, event: str, /, **fields: Any) -> Any:
        """Log what an operator may want to look at."""
        ...

    def error(self, event: str, /, **fields: Any) -> Any:
        """Log what must not happen."""
        ...


class AccessLog:
    """Writes down what became of each request, in the log and in the metrics."""

    def __init__(self, *, log: Log, metrics: Metrics) -> None:
        """Take where to write."""
        self._log = log
        self._seconds = metrics.request_seconds
        self._series: dict[tuple[str, str, int], Any] = {}

    def bug(self, exchange: Exchange, error: Exception) -> None:
        """Write down an error that nobody expected, with its traceback."""
        self._log.error("unexpected error", request_id=exchange.request_id, exc_info=error)

    def write(self, exchange: Exchange, duration_s: float) -> None:
        """Write down one request that is over."""
        method = exchange.method if exchange.method in METHODS else "OTHER"
        series = self._series.get((method, exchange.route, exchange.status))
        if series is None:  # Looking up the labels costs more than the observation.
            series = self._seconds.labels(method, exchange.route, exchange.status)
            self._series[method, exchange.route, exchange.status] = series
        series.observe(duration_s)
        log = self._log.warning if exchange.status >= answers.SERVER_ERRORS else self._log.info
        fields = _fields(exchange, method)
        fields["duration_s"] = round(duration_s, 6)
        log("request", **fields)


def _fields(exchange: Exchange, method: str) -> dict[str, object]:
    fields: dict[str, object] = {
        "http.request.method": method,
        "request_id": exchange.request_id,
        "http.route": exchange.route,
        "http.response.status_code": exchange.status,
        "http.request.body.size": exchange.size_bytes,
        "user_agent.original": exchange.headers.get("user-agent", "")[:USER_AGENT_MAX],
    }
    if exchange.code is not None:
        fields["error.type"] = exchange.code.value
    if exchange.tenant is not None:
        _add_events(fields, exchange.tenant, exchange.receipt)
        if traceparent := traceparent_of(exchange.headers):
            fields["trace_id"] = traceparent.split("-")[1]
    return fields


def _add_events(fields: dict[str, object], tenant: Tenant, receipt: Receipt | None) -> None:
    number = _NONE.get if receipt is None else receipt.tally.get
    fields["tenant_id"] = tenant.tenant_id
    fields["key_id"] = tenant.key_id
    fields["events.stored"] = number(Stored, 0)
    fields["events.rejected"] = number(Rejected, 0)
    fields["events.refused"] = number(Refused, 0)
    fields["events.not_stored"] = number(NotStored, 0)
    fields["events.unknown"] = number(Unknown, 0)
    if tenant.project_id is not None:
        fields["project_id"] = tenant.project_id
    if receipt is not None and receipt.tally[Stored] < len(receipt.results) and (reason := _first_reason(receipt)):
        fields["error.reason"] = reason


def _first_reason(receipt: Receipt) -> str | None:
    for result in receipt.results:
        match result.outcome:
            case Refused(reason) | NotStored(reason) | Unknown(reason):
                return reason[: answers.REASON_MAX]
    return None
