"""What was seen of each fault: a line of JSON in a file, and a row of the table at the end of a run."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parents[2] / ".cache" / "faults"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One fault of one run. Times are seconds; a bound of `None` is none."""

    fault: str
    name: str
    seed: int
    fired: str
    sent: int
    accepted: int
    unknown: int
    refused: int
    lost: int
    twice: int
    gap_s: float
    gap_bound_s: float | None
    recovery_s: float | None
    recovery_bound_s: float | None
    took_s: float
    complaints: Sequence[str]


@dataclass(slots=True)
class Results:
    """The rows of this run, as they come in."""

    path: Path = field(default_factory=lambda: FOLDER / f"{time.strftime('%Y%m%d-%H%M%S')}.jsonl")
    rows: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> None:
        self.rows.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")


RESULTS = Results()

_HEAD = (
    "fault",
    "fired",
    "sent",
    "accepted",
    "unknown",
    "refused",
    "lost",
    "twice",
    "gap",
    "bound",
    "recovery",
    "bound",
)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table in Markdown."""
    cells = [[*_HEAD], ["---"] * len(_HEAD), *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEAD))]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    )


def _cells(row: Row) -> list[str]:
    counts = (row.sent, row.accepted, row.unknown, row.refused, row.lost, row.twice)
    times = (row.gap_s, row.gap_bound_s, row.recovery_s, row.recovery_bound_s)
    marked = f"{row.fault} {row.name}" + (" FAILED" if row.complaints else "")
    return [marked, row.fired, *map(str, counts), *("none" if each is None else f"{each:.1f} s" for each in times)]
