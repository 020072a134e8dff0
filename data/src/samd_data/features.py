"""From rows to the numbers that a network reads.

"signs-v1" gives, in this order, for each sign: its scaled value, then one step per boundary of the NEWS2
chart (``news2.CHARTS``); for each of oxygen and consciousness (labels "all" only) its 0 or 1; then one mask
per input, 1 when it is missing. All constants are fixed and clinical. Nothing is ever taken from a patient's
own mean: the chart is absolute, and the same number must mean the same everywhere.

The scaled value is (value - centre) / scale, clipped to ±4: the centre is the middle of the chart's 0-point
band (SpO2: its lower end), the scale about the distance from there to the first points. A step is 0 on the
normal side of its boundary and 1 beyond it, rising linearly between the two neighbouring values of the
chart (from 90 to 91 beats/min, from 38.0 to 38.1 °C).

A missing input has 0 in its value and steps and 1 in its mask. 0 also is a normal value, so only the mask
tells them apart: train with ``mask_signs``, or a network never learns what the mask means.

Measured on the 11,687 complete stay-hours of the MIMIC-IV demo (``hourly``), labels "five", five folds of
patients, one (32, 16) network of scikit-learn trained on the rows and on a copy with 15 % of the signs
masked; macro-F1 and recall of the class 7 or more:

===============================================  ========  =================  ==================
features                                         size      5 epochs           20 epochs
===============================================  ========  =================  ==================
scaled values and masks                          10        .791, .669         .847, .704
the same with one ramp below and above normal    19        .856, .790         .881, .767
the same with a step per boundary (signs-v1)     30        .983, .942         .995, .985
===============================================  ========  =================  ==================

Sixty epochs take the first two to .867, .710 and .897, .819. That the last comes near 1 is no merit of the
network: these labels are a formula of the same signs, and the steps spell the formula out.
"""

from collections.abc import Iterator
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from samd_data.news2 import CHARTS
from samd_data.reading import COLUMNS, SIGNS

SCALING: Final = {
    "heart_rate": (70.0, 30.0),
    "respiratory_rate": (16.0, 6.0),
    "spo2": (96.0, 3.0),
    "systolic_bp": (125.0, 25.0),
    "temperature": (37.0, 1.0),
}
"""Centre and scale of each sign, in its own unit."""

CLIP: Final = 4.0
"""A scaled value goes no further than this: one wild number must not move a network."""

_KNOWN: Final = ("signs-v1",)


class FeatureSpec(msgspec.Struct, frozen=True):
    """Which features a model reads. ``labels`` "five": the five signs; "all": oxygen and consciousness too.

    Raises ``ValueError`` for a name or a setting that this version does not know: a model of a later version
    must not be fed the features of this one.
    """

    name: str = "signs-v1"
    labels: Literal["five", "all"] = "five"

    def __post_init__(self) -> None:
        if self.name not in _KNOWN:
            raise ValueError(f"feature set {self.name!r} is not known here; known: {', '.join(_KNOWN)}")
        if self.labels not in ("five", "all"):
            raise ValueError(f"labels is {self.labels!r}; it is 'five' or 'all'")

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that are read: the first 5 or all 7 of ``COLUMNS``."""
        return SIGNS if self.labels == "five" else COLUMNS

    @property
    def names(self) -> list[str]:
        """The name of each feature, such as ``heart_rate``, ``heart_rate>90``, ``heart_rate<51``."""
        names: list[str] = []
        for field in self.inputs:
            names.append(field)
            if field in CHARTS:
                names += [f"{field}{sign}{bound:g}" for sign, bound, _ in _steps(field)]
        return names + [f"{field}_missing" for field in self.inputs]

    @property
    def size(self) -> int:
        """The number of features: 30 for "five", 34 for "all"."""
        return len(self.names)


def encode(values: NDArray[np.float64], spec: FeatureSpec) -> NDArray[np.float32]:
    """Encode rows ``float64[N, 7]`` in the order of ``COLUMNS`` as ``float32[N, spec.size]``.

    Every result is finite. Raises ``ValueError`` for another shape or an infinite value.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(COLUMNS):
        raise ValueError(f"values have the shape {values.shape}; expected (N, {len(COLUMNS)}) as in COLUMNS")
    if np.isinf(values).any():
        raise ValueError("values hold an infinite number; a missing value is NaN")
    missing = np.isnan(values)
    features = np.zeros((len(values), spec.size), dtype=np.float32)
    at = 0
    for column, field in enumerate(spec.inputs):
        for feature in _features_of(field, values[:, column]):
            features[:, at] = np.where(missing[:, column], 0.0, feature)
            at += 1
    features[:, at:] = missing[:, : len(spec.inputs)]
    return features


def mask_signs(values: NDArray[np.float64], rate: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A copy of ``values`` (any shape) with each present entry set to NaN with probability ``rate``.

    Labels must be computed before masking. Raises ``ValueError`` when ``rate`` is no probability.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is {rate}; it is a probability, 0 to 1")
    masked = np.array(values, dtype=np.float64)
    masked[rng.random(masked.shape) < rate] = np.nan
    return masked


def _features_of(field: str, values: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    if field not in CHARTS:
        yield values
        return
    centre, scale = SCALING[field]
    yield np.clip((values - centre) / scale, -CLIP, CLIP)
    for sign, bound, width in _steps(field):
        beyond = values - bound if sign == ">" else bound - values
        yield np.clip(beyond, 0.0, width) / width


def _steps(field: str) -> Iterator[tuple[str, float, float]]:
    """Per boundary of the chart: the direction away from normal, the last value this side of it, and the
    distance to the first value beyond it, where the step has reached 1."""
    chart = CHARTS[field]
    normal = chart.points.index(0)
    for index, upper in enumerate(chart.upper):
        last = (upper + 1 if index < normal else upper) / chart.steps
        yield "<" if index < normal else ">", last, 1 / chart.steps
