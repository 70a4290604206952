"""What makes generated requests true: the two rules that OpenAPI has no words for.

A tenant that is named must be the key's, and an idempotency key must be the same beside and within.
What the document forbids by itself is left as it is.
"""

from typing import Any

import schemathesis

from customersignal_ingest.domain.rules import IDEMPOTENCY_KEY_MAX, TEXT_MAX
from tests.hostile.stage import TENANT


@schemathesis.hook
def before_call(_: Any, case: Any, __: Any) -> None:
    events = case.body.get("events") if isinstance(case.body, dict) and "events" in case.body else [case.body]
    for event in events if isinstance(events, list) else []:
        if isinstance(event, dict):
            _make_true(event, beside=case.headers is not None and "idempotency-key" in _lower(case.headers))


def _make_true(event: dict[str, Any], *, beside: bool) -> None:
    if _is_text(event.get("tenant_id"), TEXT_MAX):
        event["tenant_id"] = TENANT
    if beside and _is_text(event.get("idempotency_key"), IDEMPOTENCY_KEY_MAX):
        del event["idempotency_key"]


def _is_text(value: object, longest: int) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= longest and "\0" not in value


def _lower(headers: Any) -> set[str]:
    return {str(name).lower() for name in headers}
