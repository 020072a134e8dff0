"""The features "history-v1": the signs now, up to six hours of them, and the patient's own baseline.

Two steps, so that signs can be hidden in training. ``History`` takes the hours of a stay one after the other
(``hourly``) and gives for each a row of plain values: the window of the last six hours, the ages, and the
running baseline. ``encode`` turns such rows into what a network reads, in this order:

===================================  ====  ==================================================================
per                                  size  what
===================================  ====  ==================================================================
the hour                             30    "signs-v1" of the values now (``features``)
input and hour, oldest first         30    points of NEWS2, thirds of 3
input and hour, oldest first         30    scaled value
input and hour, oldest first         30    1 where missing
input                                5     age now, as a share of the time for which it stays valid
sign                                 5     lowest scaled value of the window
sign                                 5     highest scaled value of the window
sign                                 5     slope in scaled units per 3 hours, by least squares
sign                                 5     1 where there is no slope: fewer than two measured hours
sign                                 5     the patient's own baseline, scaled
sign                                 5     how far the value now is from it, scaled
sign                                 5     points of NEWS2 of the patient so far, mean, thirds of 3
sign                                 5     1 where there is no baseline: not measured yet in this stay
the window                           5     low end of the total, sevenths: now, lowest, highest, mean, slope
the stay                             1     hours since its first row, as a share of 24, at most 1
===================================  ====  ==================================================================

Sizes are for labels "five", 171 in all; "all" adds oxygen and consciousness to the inputs (213). A baseline
is the mean over the hours of this stay so far in which the sign was measured; it is given as a feature, and
nothing is ever scaled by it. All constants are fixed and clinical. What is missing is 0, and a mask says so;
every feature is finite. Nothing of an hour depends on a later one.
"""

from collections import deque
from functools import cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from samd_data import features as signs
from samd_data.carry import CARRY_SECONDS
from samd_data.features import CLIP, SCALING, FeatureSpec
from samd_data.hourly import HourlyTable
from samd_data.news2 import points_table
from samd_data.reading import COLUMNS, SIGNS

WINDOW: Final = 6
"""Hours, the present one among them."""

SLOPE_HOURS: Final = 3.0
_ALL: Final = len(COLUMNS)
_FIVE: Final = len(SIGNS)
_HOUR: Final = np.timedelta64(1, "h")
_MEASURED: Final = 3600.0 + 1e-6  # as HourlyTable.measured
_FAR: Final = 1e9

ROW_SIZE: Final = 2 * WINDOW * _ALL + 2 * _ALL + 1
"""Columns of a row: values and ages of the window (oldest hour first, seven inputs each), the mean so far of
each input and of its points, hours since the stay's first row."""


class History:
    """The hours of one patient, in order. An hour that does not follow the last one begins a new stay."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        nothing = np.full((2, _ALL), np.nan)
        self._window: deque[NDArray[np.float64]] = deque([nothing] * WINDOW, maxlen=WINDOW)
        self._sums = np.zeros((2, _ALL))  # of values and of points
        self._counts = np.zeros(_ALL)
        self._first: np.datetime64 | None = None
        self._last: np.datetime64 | None = None

    def take(
        self, hour: np.datetime64, values: NDArray[np.float64], ages: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Take over one row of an ``HourlyTable``; its row ``float64[ROW_SIZE]``, NaN = missing.

        Raises ``ValueError`` for an hour that is not later than the last, or what ``points_table`` refuses.
        """
        if self._last is not None:
            if hour <= self._last:
                raise ValueError(f"the hour {hour} does not come after {self._last}")
            if hour != self._last + _HOUR:
                self._begin()
        points = points_table(values[None])[0]
        if self._first is None:
            self._first = hour
        self._last = hour
        self._window.append(np.stack([values, ages]))
        measured = (ages < _MEASURED) & (points >= 0)
        self._sums[:, measured] += np.stack([values, points])[:, measured].clip(-_FAR, _FAR)
        self._counts[measured] += 1
        known = self._counts > 0
        means = np.full((2, _ALL), np.nan)
        means[:, known] = self._sums[:, known] / self._counts[known]
        window = np.stack(self._window, axis=1)
        hours = (hour - self._first) / _HOUR
        return np.concatenate([window.ravel(), means.ravel(), [hours]])


def rows(table: HourlyTable) -> NDArray[np.float64]:
    """The row of each hour of ``table``: ``float64[N, ROW_SIZE]``. Raises ``ValueError`` as ``take`` does."""
    history = History()
    made = np.empty((len(table), ROW_SIZE))
    for number, hour in enumerate(table.hours):
        made[number] = history.take(hour, table.values[number], table.ages[number])
    return made


def encode(values: NDArray[np.float64], spec: FeatureSpec) -> NDArray[np.float32]:
    """Encode ``float64[N, ROW_SIZE]`` as ``float32[N, spec.size]``, every number finite.

    Raises ``ValueError`` for another shape or an infinite value.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != ROW_SIZE:
        raise ValueError(f"history rows have the shape {values.shape}; expected (N, {ROW_SIZE})")
    if np.isinf(values).any():
        raise ValueError("values hold an infinite number; a missing value is NaN")
    inputs = len(spec.inputs)
    window, ages, means, mean_points, hours = _parts(values)
    now = signs.encode(window[:, -1], _signs(spec))
    points = points_table(window.reshape(-1, _ALL)).reshape(window.shape)[..., :inputs]
    missing = np.isnan(window[..., :inputs])
    scaled = _scale(window)[..., :inputs]
    five = scaled[..., :_FIVE]
    measured = (ages[..., :_FIVE] < _MEASURED) & ~np.isnan(five)
    slopes, has_slope = _slopes(five, measured)
    baseline = _scale(means)[:, :_FIVE]
    limits = np.array([CARRY_SECONDS[field] + 3600.0 for field in spec.inputs])  # to the end of its hour
    shown = np.maximum(points, 0) / 3.0
    parts = [
        now,
        _by_input(shown),
        _by_input(scaled),
        _by_input(missing),
        (ages[:, -1, :inputs] / limits).clip(0.0, 1.0),
        np.where(np.isnan(five), np.inf, five).min(axis=1),
        np.where(np.isnan(five), -np.inf, five).max(axis=1),
        slopes,
        ~has_slope,
        baseline,
        (five[:, -1] - baseline).clip(-CLIP, CLIP),
        mean_points[:, :_FIVE] / 3.0,
        np.isnan(mean_points[:, :_FIVE]),
        _totals(shown, missing),
        (hours / 24.0).clip(0.0, 1.0),
    ]
    encoded = np.concatenate(parts, axis=1, dtype=np.float64)
    encoded[~np.isfinite(encoded)] = 0.0
    return encoded.astype(np.float32)


def hide(encoded: NDArray[np.float32], hidden: NDArray[np.bool_], spec: FeatureSpec) -> NDArray[np.float32]:
    """What ``encode`` would give had the ``hidden`` inputs (``bool[N, 7]``) never been measured; a new array.

    Nothing needs the plain values again: the totals are the sums of the points that are among the features.
    """
    layout = _layout(len(spec.inputs), _signs(spec).size)
    shown = encoded.copy()
    if not hidden.any():
        return shown
    now = layout.now
    shown[:, :now] = signs.hide(encoded[:, :now], hidden, _signs(spec))
    for column in range(len(spec.inputs)):
        rows_of = np.flatnonzero(hidden[:, column])
        shown[np.ix_(rows_of, layout.zero[column])] = 0.0
        shown[np.ix_(rows_of, layout.one[column])] = 1.0
    touched = hidden[:, : len(spec.inputs)].any(axis=1)
    per_hour = len(spec.inputs) * WINDOW
    points = shown[touched, now : now + per_hour].astype(np.float64)
    points = np.rint(points * 3.0) / 3.0  # whole points again: thirds are not exact in float32
    missing = shown[touched, now + 2 * per_hour : now + 3 * per_hour] > 0.5
    shape = (-1, len(spec.inputs), WINDOW)
    shown[touched, layout.totals : layout.totals + 5] = _totals(
        points.reshape(shape).transpose(0, 2, 1), missing.reshape(shape).transpose(0, 2, 1)
    )
    return shown


def names(spec: FeatureSpec) -> list[str]:
    """The name of each feature, in order."""
    per_hour = [
        f"{field}@{hour - WINDOW + 1}h" for field in spec.inputs for hour in range(WINDOW)
    ]  # heart_rate@-5h to heart_rate@0h
    made = list(_signs(spec).names)
    for what in ("points", "value", "missing"):
        made += [f"{name}_{what}" for name in per_hour]
    made += [f"{field}_age" for field in spec.inputs]
    for what in (
        "lowest",
        "highest",
        "slope",
        "slope_missing",
        "baseline",
        "from_baseline",
        "mean_points",
        "baseline_missing",
    ):
        made += [f"{field}_{what}" for field in SIGNS]
    return [*made, "total", "total_lowest", "total_highest", "total_mean", "total_slope", "stay_hours"]


def size(spec: FeatureSpec) -> int:
    """The number of features: 171 for "five", 213 for "all"."""
    inputs = len(spec.inputs)
    return _layout(inputs, _signs(spec).size).totals + 6


class _Layout(NamedTuple):
    now: int  # features of the present hour
    zero: list[NDArray[np.intp]]  # per input, what is 0 when it is hidden
    one: list[NDArray[np.intp]]  # per input, what is 1
    totals: int  # where the five numbers of the total begin


@cache
def _layout(inputs: int, now: int) -> _Layout:
    zero: list[list[int]] = [[] for _ in range(inputs)]
    one: list[list[int]] = [[] for _ in range(inputs)]
    start = now
    for into in (zero, zero, one):
        for column in range(inputs):
            into[column] += range(start + column * WINDOW, start + (column + 1) * WINDOW)
        start += inputs * WINDOW
    for width, into in (
        (inputs, zero),
        *[(_FIVE, zero)] * 3,
        (_FIVE, one),
        *[(_FIVE, zero)] * 3,
        (_FIVE, one),
    ):
        for column in range(width):
            into[column].append(start + column)
        start += width
    return _Layout(
        now,
        [np.array(columns, dtype=np.intp) for columns in zero],
        [np.array(columns, dtype=np.intp) for columns in one],
        start,
    )


def _signs(spec: FeatureSpec) -> FeatureSpec:
    return FeatureSpec(labels=spec.labels)


def _parts(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Window [N, 6, 7], ages [N, 6, 7], means [N, 7], means of points [N, 7], hours [N, 1]."""
    each = WINDOW * _ALL
    window = values[:, :each].reshape(-1, WINDOW, _ALL)
    ages = values[:, each : 2 * each].reshape(-1, WINDOW, _ALL)
    means = values[:, 2 * each : 2 * each + _ALL]
    return window, ages, means, values[:, 2 * each + _ALL : 2 * each + 2 * _ALL], values[:, -1:]


def _scale(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scaled values, NaN kept; oxygen and consciousness stay 0 or 1."""
    scaled = values.clip(-_FAR, _FAR)
    for column, field in enumerate(SIGNS):
        centre, scale = SCALING[field]
        scaled[..., column] = ((scaled[..., column] - centre) / scale).clip(-CLIP, CLIP)
    return scaled


def _by_input(window: NDArray[np.generic]) -> NDArray[np.generic]:
    """[N, 6, I] as [N, I * 6]: the hours of one input side by side."""
    return window.transpose(0, 2, 1).reshape(len(window), WINDOW * window.shape[2])


def _slopes(
    values: NDArray[np.float64], known: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Least squares over what is ``known`` of [N, 6, S]: slopes [N, S], and where there is one."""
    hours = np.arange(WINDOW, dtype=np.float64)[None, :, None]
    count = known.sum(axis=1)
    enough = count >= 2
    divisor = np.maximum(count, 1)
    filled = np.where(known, values, 0.0)
    mean_hour = (known * hours).sum(axis=1) / divisor
    mean_value = filled.sum(axis=1) / divisor
    away = np.where(known, hours - mean_hour[:, None], 0.0)
    spread = (away * away).sum(axis=1)
    risen = (away * (filled - mean_value[:, None])).sum(axis=1)
    slopes = SLOPE_HOURS * risen / np.where(enough, spread, 1.0)
    return np.where(enough, slopes, 0.0).clip(-CLIP, CLIP), enough


def _totals(points: NDArray[np.float64], missing: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The low end of the total over the window, from thirds of points [N, 6, I]: [N, 5].

    Hours of which no input is known have no total, and take no part in lowest, highest, mean and slope.
    """
    totals = points.sum(axis=2) * (3.0 / 7.0)
    known = ~missing.all(axis=2)
    slopes, _ = _slopes(totals[..., None], known[..., None])
    lowest = np.where(known, totals, np.inf).min(axis=1)
    highest = np.where(known, totals, -np.inf).max(axis=1)
    mean = totals.sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    summary = np.stack([totals[:, -1], lowest, highest, mean, slopes[:, 0]], axis=1)
    return np.where(np.isfinite(summary), summary, 0.0)
