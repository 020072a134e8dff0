"""From rows to the numbers that a network reads.

There are two sets: "signs-v1", the values of one moment, described here, and "history-v1", which adds the
hours before and the patient's own baseline (``history``).

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
the same with a step per boundary (signs-v1)     30        .979, .915         .994, .989
===============================================  ========  =================  ==================

Sixty epochs take the first two to .867, .710 and .897, .819. That the last comes near 1 is no merit of the
network: these labels are a formula of the same signs, and the steps spell the formula out.
"""

from functools import cache
from typing import Final, Literal, NamedTuple

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

_FAR: Final = 1e9  # beyond any value and short of overflow
_HISTORY: Final = "history-v1"  # its module builds on this one, and is imported only where it is needed
_KNOWN: Final = ("signs-v1", _HISTORY)


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
        if self.name == _HISTORY:
            from samd_data import history

            return history.names(self)
        return [*_layout(self.inputs).names, *(f"{field}_missing" for field in self.inputs)]

    @property
    def size(self) -> int:
        """The number of features: 30 for "five", 34 for "all"; of "history-v1" 171 and 213."""
        if self.name == _HISTORY:
            from samd_data import history

            return history.size(self)
        return len(_layout(self.inputs).names) + len(self.inputs)

    @property
    def row_size(self) -> int:
        """The columns of a row before it is encoded: 7, or those of ``history.rows``."""
        if self.name == _HISTORY:
            from samd_data import history

            return history.ROW_SIZE
        return len(COLUMNS)


def encode(values: NDArray[np.float64], spec: FeatureSpec) -> NDArray[np.float32]:
    """Encode rows ``float64[N, 7]`` in the order of ``COLUMNS`` as ``float32[N, spec.size]``.

    For "history-v1" the rows are those of ``history.rows``, ``float64[N, spec.row_size]``. Every result is
    finite. Raises ``ValueError`` for another shape or an infinite value.
    """
    if spec.name == _HISTORY:
        from samd_data import history

        return history.encode(values, spec)
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(COLUMNS):
        raise ValueError(f"values have the shape {values.shape}; expected (N, {len(COLUMNS)}) as in COLUMNS")
    if np.isinf(values).any():
        raise ValueError("values hold an infinite number; a missing value is NaN")
    layout = _layout(spec.inputs)
    read = values[:, layout.columns].clip(-_FAR, _FAR)
    features = ((read - layout.offsets) / layout.divisors).clip(layout.lows, layout.highs)
    features[np.isnan(features)] = 0.0
    return np.concatenate([features, np.isnan(values[:, : len(spec.inputs)])], axis=1, dtype=np.float32)


def mask_signs(values: NDArray[np.float64], rate: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A copy of ``values`` (any shape) with each present entry set to NaN with probability ``rate``.

    Labels must be computed before masking. Raises ``ValueError`` when ``rate`` is no probability.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is {rate}; it is a probability, 0 to 1")
    masked = np.array(values, dtype=np.float64)
    masked[rng.random(masked.shape) < rate] = np.nan
    return masked


def hide(features: NDArray[np.float32], hidden: NDArray[np.bool_], spec: FeatureSpec) -> NDArray[np.float32]:
    """What ``encode`` would give for the same rows with the ``hidden`` inputs missing; a new array.

    ``features``: ``float32[N, spec.size]`` from ``encode``; ``hidden``: ``bool[N, 7]`` in the order of
    ``COLUMNS``. For training, where the same rows are needed once an epoch with other signs hidden. Of
    "history-v1" an input is hidden in every hour, as if this patient had no such sensor.
    """
    if spec.name == _HISTORY:
        from samd_data import history

        return history.hide(features, hidden, spec)
    inputs = len(spec.inputs)
    width = features.shape[1] - inputs
    shown = features.copy()
    shown[:, :width][hidden[:, _layout(spec.inputs).columns]] = 0.0
    shown[:, width:][hidden[:, :inputs]] = 1.0
    return shown


class _Layout(NamedTuple):
    """One entry per feature that is not a mask: clip((value - offset) / divisor, low, high)."""

    names: tuple[str, ...]
    columns: NDArray[np.intp]
    offsets: NDArray[np.float64]
    divisors: NDArray[np.float64]
    lows: NDArray[np.float64]
    highs: NDArray[np.float64]


@cache  # the same few arrays for every reading
def _layout(inputs: tuple[str, ...]) -> _Layout:
    rows: list[tuple[str, int, float, float, float, float]] = []
    for column, field in enumerate(inputs):
        if field not in CHARTS:
            rows.append((field, column, 0.0, 1.0, 0.0, 1.0))
            continue
        rows.append((field, column, *SCALING[field], -CLIP, CLIP))
        chart = CHARTS[field]
        normal = chart.points.index(0)
        for index, upper in enumerate(chart.upper):
            # The last value this side of the boundary; one step of the chart further the feature is 1.
            last = (upper + 1 if index < normal else upper) / chart.steps
            sign, divisor = ("<", -1 / chart.steps) if index < normal else (">", 1 / chart.steps)
            rows.append((f"{field}{sign}{last:g}", column, last, divisor, 0.0, 1.0))
    names, columns, offsets, divisors, lows, highs = zip(*rows, strict=True)
    return _Layout(
        names,
        np.array(columns, dtype=np.intp),
        np.array(offsets),
        np.array(divisors),
        np.array(lows),
        np.array(highs),
    )
