"""One event is followed from its first byte to its answer: it crosses the files that the docs name, and no others."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import customersignal_ingest
from customersignal_ingest.bootstrap import Container, opened
from customersignal_ingest.domain.key import ApiKey, Tenant, digest
from customersignal_ingest.settings import Settings

PACKAGE = Path(customersignal_ingest.__file__).parent
ARCHITECTS = (Path(__file__).parents[2] / "docs/for-architects.md").read_text()
HTTP = "adapters/inbound/http"
KEY = "a key"
EVENT = b'{"event_type":"a","timestamp":"2026-11-23T10:00:00Z","properties":{}}'

pytestmark = pytest.mark.anyio


def named() -> set[str]:
    """The files of the table, the transport as one."""
    table = ARCHITECTS.partition("that one event crosses")[2].partition("| word | is |")[0]
    cells = re.findall(r"^\| (`.+?) \|", table, re.M)
    return {file for cell in cells for file in re.findall(r"`([\w/.]+)`", cell)}


@contextmanager
def followed() -> Iterator[set[str]]:
    """Note the file of every function of ours that is called meanwhile."""
    crossed: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        file = Path(frame.f_code.co_filename)
        if event == "call" and file.is_relative_to(PACKAGE):
            path = str(file.relative_to(PACKAGE))
            crossed.add(HTTP if path.startswith(HTTP) else path)

    sys.setprofile(note)
    try:
        yield crossed
    finally:
        sys.setprofile(None)


async def send(app: Any) -> int:
    headers = {"host": "here", "content-type": "application/json", "x-cs-api-key": KEY}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/events",
        "raw_path": b"/v1/events",
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": EVENT, "more_body": False}

    async def keep(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, keep)
    return int(sent[0]["status"])


async def test_one_event_crosses_the_files_that_the_docs_name_and_no_others() -> None:
    container = Container(Settings(publisher_url="memory:", keys_url="memory:"))
    async with opened(container):
        keys: Any = container.keys()
        await keys.create_tenant("acme")
        key = ApiKey(key_id="k1", tenant=Tenant(tenant_id="acme"))
        await keys.add_key(key, digest(KEY, container.settings().peppers[0]))
        app = container.app()
        assert await send(app) == 202  # From now on the key is known.

        with followed() as crossed:
            status = await send(app)

    assert status == 202
    assert crossed == named()
