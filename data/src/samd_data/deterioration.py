"""Deterioration: does NEWS2 reach 7 within the next 6 hours? Asked at each full hour, labelled in hindsight.

The question of a row is asked at its end, with what is valid then; the horizon is the six rows after it.
Labels come from the patient's own later readings:

* not asked where the certain low end of the score is 7 already, or where no input is known;
* positive once the low end reaches 7 within the horizon, however much of it is still to come;
* negative only if each third of the horizon (two hours) holds a scored hour: every input valid and at least
  one of them measured in that hour. A value that is merely carried forward says nothing of what came later:
  silence is no negative;
* else censored: too little was measured, or too little time has passed.

Measured on the 12,428 stay-hours of the MIMIC-IV demo (``hourly``), labels "five": 1,585 positive, 8,656
negative, 1,344 censored, 843 not asked. Of the answered hours the low end itself, as a score, has an AUROC of
.759 and an average precision of .334 (.764 and .330 of the 10,095 that are complete).
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from samd_data.hourly import HourlyTable
from samd_data.news2 import points_table
from samd_data.reading import COLUMNS, SIGNS
from samd_data.severity import Setting

CLASSES: Final = ("stable", "deteriorates")
"""What the labels 0 and 1 mean."""

THRESHOLD: Final = 7
"""Of the NEWS2 total: the emergency response (RCP 2017, chart 2)."""

HORIZON_HOURS: Final = 6
THIRDS: Final = 3

CENSORED: Final = -1
NOT_ASKED: Final = -2

_HOUR: Final = np.timedelta64(1, "h")


def low_totals(values: NDArray[np.float64], setting: Setting) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The certain low end of the total of each row of ``float64[N, 7]``, and whether every input is known.

    "five" reads the five signs, "all" oxygen and consciousness too; SpO2 by scale 1. A missing input adds
    nothing to the low end, which is the least that the patient can score. Raises ``ValueError`` for another
    setting, and what ``news2.points_table`` refuses.
    """
    if setting not in ("five", "all"):
        raise ValueError(f"setting is {setting!r}; it is 'five' or 'all'")
    points = points_table(values, spo2_scale=1)[:, : _inputs(setting)]
    return np.maximum(points, 0).sum(axis=1, dtype=np.int64), (points >= 0).all(axis=1)


def asked(values: NDArray[np.float64], setting: Setting) -> NDArray[np.bool_]:
    """Whether the question is put at the end of each row: below 7, and something that is read is known."""
    low, _ = low_totals(values, setting)
    known: NDArray[np.bool_] = ~np.isnan(values[:, : _inputs(setting)]).all(axis=1)
    return known & (low < THRESHOLD)


def labels(table: HourlyTable, setting: Setting) -> NDArray[np.int64]:
    """``int64[N]``: 1 positive, 0 negative, ``CENSORED`` or ``NOT_ASKED``; one row per hour of ``table``.

    Hours are matched by their time: beyond a gap lies silence, not a neighbour. Raises ``ValueError`` for
    hours that are not ascending by whole hours.
    """
    hours = table.hours
    steps = np.diff(hours)
    if (steps < _HOUR).any() or (steps % _HOUR != np.timedelta64(0, "s")).any():
        raise ValueError("the hours are not ascending by whole hours; give one table of samd_data.hourly")
    low, complete = low_totals(table.values, setting)
    scored = complete & table.measured()[:, : _inputs(setting)].any(axis=1)
    reached = low >= THRESHOLD
    positive = np.zeros(len(hours), dtype=np.bool_)
    covered = np.zeros((len(hours), THIRDS), dtype=np.bool_)
    for ahead in range(1, HORIZON_HOURS + 1):
        wanted = hours + ahead * _HOUR
        at = np.searchsorted(hours[:-1], wanted)  # the last row stands for "beyond": its hour is no match
        found = hours[at] == wanted
        positive |= found & reached[at]
        covered[:, (ahead - 1) * THIRDS // HORIZON_HOURS] |= found & scored[at]
    answers = np.where(positive, 1, np.where(covered.all(axis=1), 0, CENSORED)).astype(np.int64)
    answers[~asked(table.values, setting)] = NOT_ASKED
    return answers


def _inputs(setting: Setting) -> int:
    return len(SIGNS) if setting == "five" else len(COLUMNS)
