"""What is made of measurements: medians, ratios, tables. Nothing here measures anything."""

import statistics
from collections.abc import Iterable, Sequence

Row = Sequence[object]


def median(values: Iterable[float]) -> float:
    """Return the middle one; NaN if there is none."""
    listed = list(values)
    return statistics.median(listed) if listed else float("nan")


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the ratios round by round: what slows a whole round down is in both figures of it."""
    return median(mine / other for mine, other in zip(ours, theirs, strict=True) if other)


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Return how much `ys` grow for each one of `xs`, by least squares."""
    return statistics.linear_regression(xs, ys).slope


def figure(value: object) -> str:
    """Return a number with three figures that count, thousands apart; a dash for none."""
    if not isinstance(value, int | float):
        return str(value)
    if value != value or abs(value) == float("inf"):
        return "-"
    if abs(value) >= 1000:
        return f"{round(value, 2 - len(str(int(abs(value)))) + 1):,.0f}".replace(",", " ")
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def markdown(head: Sequence[str], rows: Iterable[Row]) -> str:
    """Return a Markdown table; all columns but the first are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *[[figure(cell) for cell in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def text(head: Sequence[str], rows: Iterable[Row]) -> str:
    """Return the same for a terminal: columns beneath each other."""
    lines = [list(head), *[[figure(cell) for cell in row] for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "".join(_line(line, widths) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = [
        cell.rjust(width) if column else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join([first, *others]).rstrip() + "\n"
