"""The view as one page of plain text: for a pipe, a log, a terminal without Textual."""

from datetime import tzinfo

from samd_edge.top import panels, words
from samd_edge.view import View


def page(view: View, *, width: int, hours: float, stale: str = "", zone: tzinfo | None = None) -> str:
    """All parts below each other. ``stale``: why the view is not of now; it stands first and last."""
    warning = [f"*** NOT OF NOW: {stale} ***"] if stale else []
    word, _, said = words.severity(view)
    news2 = view.news2
    missing = "" if news2 is None or news2.total is not None else " (inputs are missing: lowest to highest)"
    parts = [
        warning,
        panels.plain(panels.head(view, width, zone)),
        [""],
        [f"NEWS2 {words.score(view)}{missing}", f"severity {word} ({said})"],
        panels.plain(panels.situation(view, width)),
        panels.plain(panels.advice(view, width)),
        [""],
        panels.plain(panels.table(view, width, hours=hours)),
        [""],
        panels.plain(panels.model(view, width, one_line=False)),
        panels.plain(panels.notes(view, width)),
        [""],
        panels.plain(panels.system(view, width)),
        warning,
    ]
    return "\n".join(line for part in parts for line in part) + "\n"
