"""The forgetting grid: readings over the whole physiological range, labelled by the chart.

A patient who was never in danger teaches a model nothing of danger, and a model that learns from this patient
alone may forget it. So a personal model is asked about readings that the patient never had. They are drawn
from a fixed seed, the same on every device, so that two models are asked the same.
"""

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from samd_data import severity
from samd_data.news2 import CHARTS
from samd_data.reading import COLUMNS, SIGNS
from samd_edge.trainer.rows import Rows

RANGE: Final = {
    "heart_rate": (25.0, 200.0),
    "respiratory_rate": (4.0, 45.0),
    "spo2": (70.0, 100.0),
    "systolic_bp": (60.0, 250.0),
    "temperature": (33.0, 42.0),
}
"""What monitors show of living patients; beyond it, the outermost column of the chart goes on."""

SIZE: Final = 2048
NORMAL: Final = 0.5
"""The chance of each sign to be normal: drawn evenly over the columns, nearly every total would be 7 or
more."""

JUDGE_SEED: Final = 20170
REHEARSE_SEED: Final = 20171
"""Other readings than those that judge: a model must not learn its examination by heart."""


def grid(labels: Literal["five", "all"], size: int = SIZE, seed: int = JUDGE_SEED) -> Rows:
    """``size`` complete readings as rows with their severity; ``labels`` as in ``FeatureSpec``.

    Each sign is in its normal column or, as often, in any other one; within a column every value of the
    chart's resolution is as likely. Oxygen and impaired consciousness (labels "all"): one in two.
    """
    rng = np.random.default_rng(seed)
    values = np.full((size, len(COLUMNS)), np.nan)
    for column, field in enumerate(SIGNS):
        values[:, column] = _draw(field, size, rng)
    if labels == "all":
        values[:, len(SIGNS) :] = rng.integers(0, 2, (size, len(COLUMNS) - len(SIGNS)))
    return Rows(values, severity.labels(values, labels).astype(np.int32))


def _draw(field: str, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    chart, (lowest, highest) = CHARTS[field], RANGE[field]
    # in whole steps of the chart, so that both ends of a column are values of it
    first = np.array([round(lowest * chart.steps), *(upper + 1 for upper in chart.upper)])
    last = np.array([*chart.upper, round(highest * chart.steps)])
    normal = chart.points.index(0)
    others = np.array([column for column in range(len(first)) if column != normal])
    of = np.where(rng.random(size) < NORMAL, normal, rng.choice(others, size))
    drawn: NDArray[np.float64] = rng.integers(first[of], last[of] + 1) / chart.steps
    return drawn
