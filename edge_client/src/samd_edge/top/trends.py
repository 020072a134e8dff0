"""A trend as rows of characters: one column for a stretch of time, empty where nothing was measured.

Of each stretch the value with the most points is drawn, the later one of equals, so that nothing bad hides
between two columns. The scale of a sign is fixed and only widens: a quiet line looks quiet.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from samd_data.news2 import CHARTS, points_table
from samd_data.reading import COLUMNS

SCALES: Final = {
    "heart_rate": (40.0, 130.0),
    "respiratory_rate": (8.0, 30.0),
    "spo2": (85.0, 100.0),
    "systolic_bp": (80.0, 180.0),
    "diastolic_bp": (40.0, 110.0),
    "temperature": (35.0, 40.0),
}
_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_SHADE: Final = "░"

Span = tuple[str, str]
Line = list[Span]


def points_of(field: str, values: Sequence[float], spo2_scale: int) -> list[int]:
    """The points of each value by itself; -1 where they hang on the oxygen of that time, or on nothing."""
    if field not in CHARTS or not values:
        return [-1] * len(values)
    rows = np.full((len(values), len(COLUMNS)), np.nan)
    column = COLUMNS.index(field)
    rows[:, column] = values
    found: list[int] = points_table(rows, spo2_scale=2 if spo2_scale == 2 else 1)[:, column].tolist()
    return found


def sign_rows(
    field: str,
    trend: Sequence[tuple[float, float]],
    *,
    seconds: float,
    width: int,
    height: int = 1,
    spo2_scale: int = 1,
) -> list[Line]:
    """The trend of a sign over the last ``seconds``, ``height`` rows, oldest on the left."""
    columns: list[tuple[float, int] | None] = [None] * width
    ranks = points_of(field, [value for _, value in trend], spo2_scale)
    for (before, value), rank in zip(trend, ranks, strict=True):
        column = _column(before, seconds, width)
        if column is None:
            continue
        held = columns[column]
        if held is None or rank >= held[1]:
            columns[column] = (value, rank)
    low, high = SCALES.get(field, (0.0, 1.0))
    present = [column[0] for column in columns if column is not None]
    low, high = min([low, *present]), max([high, *present])
    bars: list[tuple[float, str] | None] = [
        None if column is None else ((column[0] - low) / (high - low), _style(column[1]))
        for column in columns
    ]
    return _bars(bars, height)


def score_rows(
    trend: Sequence[tuple[float, int, int, int]], *, seconds: float, width: int, height: int = 1
) -> list[Line]:
    """The score over the last ``seconds``: the certain end as bars, coloured by the class (not where that is
    none and may be worse); above it, where there are rows for it, the possible end shaded. A score stands
    until the next one."""
    columns: list[tuple[int, int, int] | None] = [None] * width
    reached = -1
    last: tuple[int, int, int] | None = None
    for before, low, high, severity in trend:
        column = _column(before, seconds, width)
        if column is None:
            if before > seconds:
                last, reached = (low, high, severity), -1
            continue
        for between in range(reached + 1, column):
            columns[between] = last
        here = (low, high, severity)
        drawn = columns[column] if column == reached else None
        columns[column] = here if drawn is None or low >= drawn[0] else drawn
        last, reached = here, column
    for after in range(reached + 1, width):
        columns[after] = last
    top = 20.0 if height > 1 else 12.0
    bars: list[tuple[float, str] | None] = [
        None if column is None else (min(1.0, column[0] / top), _class_style(column)) for column in columns
    ]
    rows = _bars(bars, height)
    if height == 1 or not width:
        return rows
    for row, line in enumerate(rows):
        floor = (height - row - 1) / height
        for place, shown in enumerate(columns):
            if shown is not None and line[place][0] == " " and shown[1] / top > floor:
                line[place] = (_SHADE, "dim")
    return rows


def _column(before: float, seconds: float, width: int) -> int | None:
    """The column of a moment; None when it lies outside, or when there is no room at all."""
    if width < 1 or not 0 <= before <= seconds:
        return None
    return min(width - 1, int((seconds - before) / seconds * width))


def _style(rank: int) -> str:
    return "trend" if rank < 0 else f"trend-{rank}"


def _class_style(score: tuple[int, int, int]) -> str:
    low, high, severity = score
    return "trend" if severity == 0 and high > low else f"trend-{severity}"


def _bars(bars: Sequence[tuple[float, str] | None], height: int) -> list[Line]:
    rows: list[Line] = []
    for row in range(height):
        line: Line = []
        below = (height - row - 1) * len(_BLOCKS)
        for bar in bars:
            if bar is None:
                line.append((" ", ""))
                continue
            share, style = bar
            eighths = 1 + round(share * (height * len(_BLOCKS) - 1)) - below
            line.append((" " if eighths <= 0 else _BLOCKS[min(eighths, len(_BLOCKS)) - 1], style))
        rows.append(line)
    return rows
