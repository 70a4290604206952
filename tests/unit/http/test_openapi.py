"""The description of the API agrees with the API."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest
from http_service import ACME, KEY, Service, event
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from customersignal_ingest.adapters.inbound.http import openapi, schema
from customersignal_ingest.adapters.inbound.http.answers import CODES
from customersignal_ingest.adapters.inbound.http.problem import Code
from customersignal_ingest.domain.errors import KeyProblem
from customersignal_ingest.domain.event import IngestEvent
from customersignal_ingest.domain.outcome import Reason
from customersignal_ingest.domain.rules import Limits, parse_event

DOCUMENT = openapi.document()


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def contents(part: Any) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """Every example in a part of the document, with the schema that it must fit and its name."""
    if isinstance(part, dict):
        for name, example in part.get("examples", {}).items() if "schema" in part else ():
            yield part["schema"], name, example["value"]
        for value in part.values():
            yield from contents(value)


def models(of: dict[str, Any]) -> list[type[Any]]:
    refs = [each["$ref"] for each in of.get("anyOf", [of])]
    return [schema.MODELS[ref.removeprefix("#/components/schemas/")] for ref in refs]


def fits(model: type[Any], value: object) -> bool:
    try:
        model.model_validate_json(json.dumps(value), extra=None if model.model_config else "forbid")
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("of", "name", "value"),
    [pytest.param(*found, id=f"{found[1]}-{n}") for n, found in enumerate(contents(DOCUMENT))],
)
def test_every_example_fits_its_schema(of: dict[str, Any], name: str, value: object) -> None:
    assert any(fits(model, value) for model in models(of))


def test_every_reference_leads_somewhere() -> None:
    def follow(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            yield from [part["$ref"]] if "$ref" in part else []
            for value in part.values():
                yield from follow(value)
        elif isinstance(part, list):
            for value in part:
                yield from follow(value)

    for ref in follow(DOCUMENT):
        found = DOCUMENT
        for step in ref.removeprefix("#/").split("/"):
            found = found[step]


@pytest.mark.parametrize("code", Code)
def test_every_code_has_a_status_a_meaning_and_an_example(code: Code) -> None:
    examples = [value for _, name, value in contents(DOCUMENT) if name == code]

    assert CODES[code].text
    assert examples
    assert all(code in (value.get("code"), value.get("error", {}).get("code")) for value in examples)


def test_every_reason_and_key_problem_of_the_core_is_a_code() -> None:
    assert {*Reason, *KeyProblem} <= set(Code)


def test_every_status_of_an_operation_has_an_example() -> None:
    for path, method, operation in operations():
        for status, answer in operation["responses"].items():
            json_content = answer.get("content", {}).get("application/json")
            assert method == "head" or path.startswith(("/metrics", "/schema")) or json_content["examples"], status


@pytest.mark.parametrize(
    ("path", "statuses"),
    [
        ("/v1/events", {202, 400, 401, 408, 413, 415, 422, 431, 500, 503, 504}),
        ("/v1/events/batch", {202, 207, 400, 401, 408, 413, 415, 422, 431, 500, 503, 504}),
    ],
)
def test_the_event_routes_describe_every_status_that_they_can_have(path: str, statuses: set[int]) -> None:
    assert {int(status) for status in DOCUMENT["paths"][path]["post"]["responses"]} == statuses


def test_the_event_routes_need_a_key_and_nothing_else_does() -> None:
    needs_key = {path for path, _, operation in operations() if operation["security"]}

    assert needs_key == {"/v1/events", "/v1/events/batch"}
    assert DOCUMENT["components"]["securitySchemes"]["apiKey"]["name"] == "X-CS-API-Key"


def test_operation_ids_are_unique() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]

    assert len(names) == len(set(names))


def test_the_document_has_every_rule_of_a_moment_that_it_has_words_for() -> None:
    timestamp = DOCUMENT["components"]["schemas"]["Event"]["properties"]["timestamp"]

    assert (timestamp["format"], timestamp["minLength"], timestamp["maxLength"]) == ("date-time", 1, 200)
    assert [
        year for year in ("1969", "1970", "1999", "2000", "9999") if re.search(timestamp["pattern"], f"{year}-")
    ] == [*("1970", "1999", "2000", "9999")]


def test_no_header_is_promised_to_be_refused_that_is_only_replaced() -> None:
    parameters = {each["name"]: each["schema"] for each in DOCUMENT["paths"]["/v1/events"]["post"]["parameters"]}

    assert parameters["X-Request-Id"] == {"type": "string"}
    assert parameters["Idempotency-Key"]["maxLength"] == 128
    assert "Content-Encoding" not in parameters


@pytest.mark.anyio
async def test_the_document_describes_the_routes_that_there_are_and_no_other(service: Service) -> None:
    for path, methods in DOCUMENT["paths"].items():
        refused = await service.send("BREW", path)
        assert refused.headers["allow"] == ", ".join(sorted(method.upper() for method in methods))


@pytest.mark.anyio
async def test_the_document_is_served(service: Service) -> None:
    reply = await service.get("/schema/openapi.json")

    assert reply.headers["content-type"] == "application/json"
    assert reply.json == json.loads(json.dumps(DOCUMENT))
    assert reply.json["openapi"].startswith("3.1")


class Page(HTMLParser):
    """What of a page would be loaded or run, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.anchors: set[str] = set()
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.outside += [tag] if tag in ("script", "link", "img", "iframe") else []
        self.outside += [value for value in (found.get("src"), found.get("href")) if value and "//" in value]
        self.anchors.add(found.get("id") or "")
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.anyio
async def test_the_page_works_without_internet_and_has_an_anchor_for_every_code(service: Service) -> None:
    reply = await service.get("/schema")
    page = Page(reply.body.decode())

    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert page.outside == []
    assert set(Code) <= page.anchors
    assert page.open == []


@pytest.mark.anyio
async def test_the_examples_of_requests_are_accepted(service: Service) -> None:
    for path in ("/v1/events", "/v1/events/batch"):
        examples = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"]
        for example in examples.values():
            assert (await service.post(example["value"], path, headers={"x-cs-api-key": KEY})).status == 202


TEXTS = st.sampled_from(["a", "", "a" * 200, "a" * 201, "ß水😀", "a\0b", " ", "a" * 128, "a" * 129])
VALUES = st.one_of(TEXTS, st.none(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
VALUES |= st.lists(st.integers(), max_size=2) | st.dictionaries(st.sampled_from("ab"), st.integers(), max_size=2)
MOMENTS = st.sampled_from(
    ["2026-11-23T10:00:00Z", "2026-11-23", "1969-12-31T23:59:59Z", "9999-12-31T23:59:60+01:00", "2026-13-01T00:00:00Z"]
)
FIELDS = dict.fromkeys(("user_id", "session_id", "idempotency_key", "project_id", "whatever"), VALUES)


@settings(max_examples=500, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "event_type": TEXTS | VALUES,
            "timestamp": MOMENTS | VALUES,
            "properties": st.just({}) | VALUES,
            "tenant_id": st.sampled_from(["acme", None, 5, "", []]),
            **FIELDS,
        },
    ),
    st.booleans(),
)
def test_the_model_of_an_event_agrees_with_the_rules(fields: dict[str, Any], complete: bool) -> None:
    sent = event() | fields if complete else fields
    now = datetime(2026, 11, 23, tzinfo=UTC)

    parsed = parse_event(
        json.dumps(sent).encode(), tenant=ACME, received_at=now, new_id=lambda _: "id", limits=Limits()
    )

    assert isinstance(parsed, IngestEvent) == fits(schema.Event, sent) or holds_nul(sent)


def holds_nul(sent: dict[str, Any]) -> bool:
    """In a field that the model does not know, a NUL is for the rules alone to find."""
    return "\0" in str(sent.get("whatever"))
