"""Severity: four classes of the NEWS2 total, and the labels that a model learns.

The classes follow the thresholds of the score (RCP 2017, chart 2): 0, 1-4, 5-6 (urgent response),
7 or more (emergency response).
"""

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from samd_data.news2 import points_table
from samd_data.reading import SIGNS

CLASSES: Final = ("none", "low", "medium", "high")
"""Totals 0, 1-4, 5-6, and 7 or more."""

Setting = Literal["five", "all"]
_FIRST_TOTALS: Final = (1, 5, 7)


def severity_of(total: int) -> int:
    """The class of a total, as an index into ``CLASSES``. Raises ``ValueError`` for a total outside 0-20."""
    if not 0 <= total <= 20:
        raise ValueError(f"a NEWS2 total is 0 to 20, not {total}")
    return sum(total >= first for first in _FIRST_TOTALS)


def labels(values: NDArray[np.float64], setting: Setting) -> NDArray[np.int64]:
    """The class of each row of ``float64[N, 7]`` as ``int64[N]``; -1 is unlabelled. SpO2 by scale 1.

    "five": the sum over the five signs that sensors measure; -1 when any of them is missing. It is the low
    end of the whole score: oxygen and consciousness can only add.

    "all": the whole score; -1 when any of the seven inputs is missing. A recording that never tells oxygen
    or consciousness gives no label here: to label it as if it said "alert, on air" would fill in the very
    answer that is missing, and to label only rows whose class is certain anyway would pick the sickest.
    """
    if setting not in ("five", "all"):
        raise ValueError(f"setting is {setting!r}; it is 'five' or 'all'")
    points = points_table(values, spo2_scale=1)
    if setting == "five":
        points = points[:, : len(SIGNS)]
    known = (points >= 0).all(axis=1)
    classes = np.searchsorted(_FIRST_TOTALS, points.sum(axis=1, dtype=np.int64), side="right")
    return np.where(known, classes, -1).astype(np.int64)
