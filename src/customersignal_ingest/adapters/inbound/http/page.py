"""The description of the API as one page of HTML: no script, and nothing from elsewhere."""

import json
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from customersignal_ingest.adapters.inbound.http.answers import CODES

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2024 }
code, pre { font: 14px/1.4 ui-monospace, monospace; background: #f3f4f6; border-radius: 4px }
code { padding: 0 .25em } pre { padding: .75rem; overflow-x: auto } summary { cursor: pointer }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .3rem .6rem; vertical-align: top }
th, td { border-bottom: 1px solid #d9dde2 } h2 { margin-top: 2.5rem } :target { background: #fff3c4 }
@media (prefers-color-scheme: dark) { body { background: #16191d; color: #e6e8ea }
code, pre { background: #24292f } th, td { border-color: #3a4048 } a { color: #8ab4f8 }
:target { background: #4d4210 } }
"""


def render(document: Mapping[str, Any], /) -> str:
    """Return the page that shows this OpenAPI document."""
    info = document["info"]
    operations = (
        _operation(path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])}</p>"
        '<p>The same for programs: <a href="/schema/openapi.json">OpenAPI 3.1</a>. '
        'Limits in force: <a href="/v1/limits">/v1/limits</a>.</p>'
        f"{_first_request()}{''.join(operations)}{_event(document)}{_codes()}</body></html>"
    )


def _first_request() -> str:
    command = (
        'curl -i http://127.0.0.1:8080/v1/events -H "X-CS-API-Key: $KEY" -H "Content-Type: application/json" \\\n'
        '  -d \'{"event_type":"signed_up","timestamp":"2026-11-23T10:00:00Z","properties":{"plan":"pro"}}\''
    )
    return f"<h2>A first request</h2><pre>{escape(command)}</pre>"


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    parameters = [
        (f"<code>{escape(p['name'])}</code>", escape(p["description"])) for p in operation.get("parameters", ())
    ]
    answers = "".join(_answer(status, answer) for status, answer in operation["responses"].items())
    return (
        f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation['summary'])}. "
        f"{escape(operation.get('description', ''))}</p>{_table(('header', ''), parameters)}"
        f"{_examples(operation.get('requestBody', {}))}{answers}"
    )


def _answer(status: str, answer: Mapping[str, Any]) -> str:
    return (
        f"<details><summary><code>{escape(status)}</code> {escape(answer['description'])}</summary>"
        f"{_examples(answer)}</details>"
    )


def _examples(holder: Mapping[str, Any]) -> str:
    examples = holder.get("content", {}).get("application/json", {}).get("examples", {})
    return "".join(
        f"<p>{escape(name)}</p><pre>{escape(json.dumps(example['value'], indent=2))}</pre>"
        for name, example in examples.items()
    )


def _event(document: Mapping[str, Any]) -> str:
    event = document["components"]["schemas"]["Event"]
    rows = [
        (f"<code>{escape(name)}</code>", "yes" if name in event["required"] else "no", escape(field["description"]))
        for name, field in event["properties"].items()
    ]
    heading = f"<h2>The event</h2><p>{escape(event['description'])}</p>"
    return heading + _table(("field", "required", ""), rows)


def _codes() -> str:
    rows = [
        (f'<code id="{code}">{code}</code>', str(meaning.status), escape(meaning.text))
        for code, meaning in CODES.items()
    ]
    return "<h2>Codes</h2>" + _table(("code", "status", "meaning"), rows)


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    if not lines:
        return ""
    head = "".join(f"<th>{name}</th>" for name in heads)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
