"""Holds the running service against an OpenAPI document, by default the one that it serves, with Schemathesis."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hostile.stage import Stage

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
PATIENCE_S = 110.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """What came of it: how many requests, whether all went as the document says, and the report."""

    agrees: bool
    requests: int
    report: str


def explore(
    stage: Stage, *options: str, document: dict[str, Any] | None = None, patience_s: float = PATIENCE_S
) -> Explored:
    """Send what the document calls good and bad to each operation, with every check that there is."""
    location = f"{stage.service.url}/schema/openapi.json"
    if document is not None:
        location = str(stage.service.folder / "document.json")
        Path(location).write_text(json.dumps(document))
        options = ("--url", stage.service.url, *options)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(FOLDER / "schemathesis.toml"), "run"]
    environment = {**os.environ, "CS_INGEST_API_KEY": stage.words["key"].decode(), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, location, *options],
        cwd=stage.service.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=patience_s,
    )
    found = re.search(r"(\d+) generated", done.stdout)
    return Explored(
        agrees=done.returncode == 0, requests=int(found[1]) if found else 0, report=done.stdout + done.stderr
    )
