"""Bars as SVG, in colours for light pages and dark ones."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.figures import figure

_WIDTH, _NAMES, _BARS = 720, 190, 430
_LINE, _BAR = 26, 18
_OURS, _OTHERS, _TEXT = "#2a7ae2", "#9a9a9a", "#808080"


@dataclass(frozen=True, slots=True)
class Panel:
    """A title and the lengths of its bars by name; the first is ours."""

    title: str
    values: Mapping[str, float]

    @property
    def height(self) -> int:
        """Return its height in pixels."""
        return _LINE * (len(self.values) + 2)


def chart(panels: Sequence[Panel], /) -> str:
    """Return the panels beneath each other; each has a scale of its own."""
    height, parts = 0, list[str]()
    for panel in panels:
        parts += [f'<g transform="translate(0 {height})">', *_panel(panel), "</g>"]
        height += panel.height
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    font = 'font-family="sans-serif" font-size="13"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>', *parts, "</svg>\n"])


def _panel(panel: Panel) -> Iterator[str]:
    longest = max(panel.values.values(), default=0.0) or 1.0
    yield f'<text x="0" y="{_LINE - 8}" fill="{_TEXT}" font-weight="bold">{escape(panel.title)}</text>'
    for number, (name, value) in enumerate(panel.values.items(), start=1):
        y, width = number * _LINE, _BARS * value / longest
        colour = _OTHERS if number > 1 else _OURS
        yield f'<text x="{_NAMES - 10}" y="{y + 14}" fill="{_TEXT}" text-anchor="end">{escape(name)}</text>'
        yield f'<rect x="{_NAMES}" y="{y}" width="{width:.0f}" height="{_BAR}" rx="2" fill="{colour}"/>'
        yield f'<text x="{_NAMES + width + 8:.0f}" y="{y + 14}" fill="{_TEXT}">{figure(value)}</text>'
