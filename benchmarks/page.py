"""The page with the figures, `docs/performance.md`: prose by hand, and between marks what the last run found."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
FOLDER = PAGE.with_suffix("")
CACHE = Path(__file__).parents[1] / ".cache" / "bench"


def replace_block(page: str, name: str, content: str) -> str:
    """Return the page with this block's content replaced; raises `LookupError` where it has no such block."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    replaced, count = re.subn(
        re.escape(begin) + ".*?" + re.escape(end), lambda _: f"{begin}\n{content.strip()}\n\n{end}", page, flags=re.S
    )
    if count != 1:
        raise LookupError(f"the page has {count} blocks of the name {name}")
    return replaced


def write(name: str, content: str, data: Mapping[str, Any], *, chart: str | None = None) -> None:
    """Put the content into the page, and the data and the chart beside it."""
    FOLDER.mkdir(exist_ok=True)
    PAGE.write_text(replace_block(PAGE.read_text(), name, content))
    (FOLDER / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")
    if chart is not None:
        (FOLDER / f"{name}.svg").write_text(chart)
    print(f"written: {PAGE.relative_to(PAGE.parents[1])}")


def today() -> str:
    """Return the date in UTC."""
    return f"{datetime.now(UTC):%Y-%m-%d}"
