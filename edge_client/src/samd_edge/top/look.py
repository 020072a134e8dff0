"""What the names of styles look like in the dark and in the light, and the widget that draws a part.

Chips (points, classes) carry their own ink and ground, in the colours of the chart: they look alike in both.
"""

from collections.abc import Callable
from typing import Final

from textual.content import Content
from textual.geometry import Size
from textual.theme import Theme
from textual.widget import Widget

from samd_edge.top.trends import Line

_STYLES: Final = {
    "points-0": "",
    "points-1": "#1b1b1b on #ffe066",
    "points-2": "#1b1b1b on #ffa94d",
    "points-3": "bold #ffffff on #c92a2a",
    "severity-0": "#1b1b1b on #b2f2bb",
    "severity-1": "#1b1b1b on #ffe066",
    "severity-2": "#1b1b1b on #ffa94d",
    "severity-3": "bold #ffffff on #c92a2a",
    "trend": "$faint",
    "trend-0": "$trend-0",
    "trend-1": "$trend-1",
    "trend-2": "$trend-2",
    "trend-3": "$trend-3",
    "good": "$trend-0",
    "warn": "bold $trend-2",
    "bad": "bold $trend-3",
    "unknown": "italic $faint",
    "dim": "$faint",
    "bold": "bold",
    "": "",
}
_GREYED: Final = "$grey"

DARK: Final = Theme(
    name="samd-dark",
    primary="#74c0fc",
    foreground="#e9ecef",
    background="#101418",
    surface="#161b22",
    panel="#1d242d",
    dark=True,
    variables={
        "trend-0": "#8ce99a",
        "trend-1": "#ffe066",
        "trend-2": "#ffa94d",
        "trend-3": "#ff8787",
        "faint": "#9aa5b1",
        "grey": "#6b7682",
    },
)
LIGHT: Final = Theme(
    name="samd-light",
    primary="#1864ab",
    foreground="#15191d",
    background="#ffffff",
    surface="#f6f8fa",
    panel="#e9ecef",
    dark=False,
    variables={
        "trend-0": "#2b8a3e",
        "trend-1": "#8a6d00",
        "trend-2": "#c2410c",
        "trend-3": "#c92a2a",
        "faint": "#59636e",
        "grey": "#8a939c",
    },
)


class Panel(Widget):
    """One part of the picture; as high as its lines."""

    def __init__(self, draw: Callable[[int], list[Line]], *, name: str) -> None:
        super().__init__(id=name)
        self._draw = draw
        self.greyed = False

    def render(self) -> Content:
        lines = self._draw(self.size.width)
        return Content("\n").join(Content.assemble(*self._spans(line)) for line in lines)

    def _spans(self, line: Line) -> list[tuple[str, str]]:
        # Neighbours of one style become one span: a trend has a span for each column.
        joined: list[tuple[str, str]] = []
        for text, name in line:
            style = _GREYED if self.greyed else _STYLES[name]
            if joined and joined[-1][1] == style:
                joined[-1] = (joined[-1][0] + text, style)
            else:
                joined.append((text, style))
        return joined

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._draw(width))
