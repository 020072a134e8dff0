"""NEWS2, the National Early Warning Score of the Royal College of Physicians (2017), and NEWS (2012).

Source: Royal College of Physicians. National Early Warning Score (NEWS) 2: Standardising the assessment of
acute-illness severity in the NHS. London: RCP, 2017. Chart 1 (the scoring system), chart 2 (thresholds and
triggers), chart 4 (response). The tables below are those charts.

=======================  ====  =====  ======  =======  ================  ===========  ============
points                   3     2      1       0        1                 2            3
=======================  ====  =====  ======  =======  ================  ===========  ============
respiration /min         <=8          9-11    12-20                      21-24        >=25
SpO2 %, scale 1          <=91  92-93  94-95   >=96
SpO2 %, scale 2          <=83  84-85  86-87   88-92,   93-94 on oxygen   95-96 on     >=97 on
                                              >=93                       oxygen       oxygen
                                              on air
oxygen                         yes            no
systolic mmHg            <=90  91-100 101-110 111-219                                 >=220
pulse /min               <=40         41-50   51-90    91-110            111-130      >=131
consciousness                                 A                                       C, V, P, U
temperature °C           <=35         35.1-36 36.1-38  38.1-39           >=39.1
=======================  ====  =====  ======  =======  ================  ===========  ============

A value is first rounded to the chart's resolution (whole numbers, temperature to 0.1, halves up), so that
nothing falls between two columns. With inputs missing the score is a range: what is missing is named and
never counted as 0 points.
"""

import math
from bisect import bisect_left
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from samd_data.reading import COLUMNS, SIGNS, Reading

Scale = Literal[1, 2]
Version = Literal["news2", "news"]

BANDS: Final = ("low", "low-medium", "medium", "high")
"""From least to most urgent."""


class Chart(NamedTuple):
    """One row of the chart: ``points[i]`` holds up to and including ``upper[i]``, the last beyond all."""

    upper: tuple[int, ...]  # in steps of the chart's resolution
    points: tuple[int, ...]
    steps: int = 1  # steps per unit: 1 for whole numbers, 10 for tenths


CHARTS: Final = {
    "heart_rate": Chart((40, 50, 90, 110, 130), (3, 1, 0, 1, 2, 3)),
    "respiratory_rate": Chart((8, 11, 20, 24), (3, 1, 0, 2, 3)),
    "spo2": Chart((91, 93, 95), (3, 2, 1, 0)),
    "systolic_bp": Chart((90, 100, 110, 219), (3, 2, 1, 0, 3)),
    "temperature": Chart((350, 360, 380, 390), (3, 1, 0, 1, 2), steps=10),
}
SPO2_SCALE_2_ON_AIR: Final = Chart((83, 85, 87), (3, 2, 1, 0))
SPO2_SCALE_2_ON_OXYGEN: Final = Chart((83, 85, 87, 92, 94, 96), (3, 2, 1, 0, 1, 2, 3))
OXYGEN_POINTS: Final = 2
CONSCIOUSNESS_POINTS: Final = 3

# A value that arrives as float32, or out of °F, sits a hair beside the half that it means: 38.05 is stored as
# 38.0499992. A ten-thousandth of a step is far above that noise and far below what any sensor resolves.
_HAIR: Final = 1e-4


class Score(msgspec.Struct, frozen=True):
    """A NEWS2 score. When all inputs are there, ``low == high == total``.

    ``total``: the score, or None when an input is missing. ``low``, ``high``: the lowest and highest total
    that the missing inputs allow. ``band``: the clinical-risk band of ``low``, which is certain;
    ``band_high`` that of ``high``, which is possible. ``points``: the points of each input that are certain;
    on scale 2 those of a SpO2 of 93 or more are not while the oxygen is unknown. ``missing``: the inputs
    without a value, in the order of ``COLUMNS``.
    """

    total: int | None
    low: int
    high: int
    band: str
    points: dict[str, int]
    missing: list[str]
    band_high: str


def score(reading: Reading, *, spo2_scale: Scale = 1, version: Version = "news2") -> Score:
    """Score one reading.

    ``spo2_scale`` 2 is for patients with hypercapnic respiratory failure, by prescription only.
    ``version`` "news" is the score of 2012: it has no scale 2, and its consciousness is AVPU. New confusion
    came with NEWS2; on the older chart such a patient is awake, so C scores as A.

    The range is tight: inputs that decide together (SpO2 and oxygen on scale 2) are tried together.

    Raises ``ValueError`` for another scale or version, and for scale 2 with "news".
    """
    _check_scale(spo2_scale)
    if version not in ("news2", "news"):
        raise ValueError(f"version is {version!r}; it is 'news2' or 'news'")
    if version == "news" and spo2_scale == 2:
        raise ValueError("NEWS of 2012 has no SpO2 scale 2; use version 'news2'")

    points: dict[str, int] = {}
    missing: list[str] = []
    low = high = 0
    high_has_three = False

    for field in SIGNS:
        value: float | None = getattr(reading, field)
        if field == "spo2" and spo2_scale == 2:
            continue
        if value is None:
            missing.append(field)
            high += 3
            high_has_three = True
        else:
            points[field] = _look_up(CHARTS[field], value)

    oxygen = reading.supplemental_oxygen
    if oxygen is not None:
        points["supplemental_oxygen"] = OXYGEN_POINTS if oxygen else 0
    else:
        missing.append("supplemental_oxygen")
    if spo2_scale == 1:
        if oxygen is None:
            high += OXYGEN_POINTS
    elif reading.spo2 is None:
        missing.append("spo2")
        high += 3 + (OXYGEN_POINTS if oxygen is None else 0)
        high_has_three = True
    else:
        on_air = _look_up(SPO2_SCALE_2_ON_AIR, reading.spo2)
        on_oxygen = _look_up(SPO2_SCALE_2_ON_OXYGEN, reading.spo2)
        if oxygen is not None:
            points["spo2"] = on_oxygen if oxygen else on_air
        elif on_air == on_oxygen:
            points["spo2"] = on_air
            high += OXYGEN_POINTS
        else:  # 93 or more: free of points on air, not on oxygen
            low += on_air
            high += OXYGEN_POINTS + on_oxygen
            high_has_three |= on_oxygen == 3

    if reading.consciousness is None:
        missing.append("consciousness")
        high += CONSCIOUSNESS_POINTS
        high_has_three = True
    else:
        unimpaired = ("A",) if version == "news2" else ("A", "C")
        points["consciousness"] = 0 if reading.consciousness in unimpaired else CONSCIOUSNESS_POINTS

    certain = sum(points.values())
    low += certain
    high += certain
    has_three = 3 in points.values()
    return Score(
        total=None if missing else low,
        low=low,
        high=high,
        band=band_of(low, has_three=has_three),
        points={field: points[field] for field in COLUMNS if field in points},
        missing=[field for field in COLUMNS if field in missing],
        band_high=band_of(high, has_three=has_three or high_has_three),
    )


def band_of(total: int, *, has_three: bool) -> str:
    """The band of a total; ``has_three`` tells whether any single input scores 3 (chart 2)."""
    if total >= 7:
        return "high"
    if total >= 5:
        return "medium"
    return "low-medium" if has_three else "low"


def monitoring_hours(total: int, band: str) -> float:
    """The longest interval between two sets of observations, in hours (chart 4); 0.0 means continuously.

    At least every 12 h at 0, every 4 to 6 h at 1-4 (6 here), hourly at low-medium and medium.
    """
    if band not in BANDS:
        raise ValueError(f"band is {band!r}; it is one of {', '.join(BANDS)}")
    if band == "high":
        return 0.0
    if band in ("medium", "low-medium"):
        return 1.0
    return 12.0 if total == 0 else 6.0


def points_table(values: NDArray[np.float64], *, spo2_scale: Scale = 1) -> NDArray[np.int8]:
    """The points of many rows: ``float64[N, 7]`` in the order of ``COLUMNS`` to ``int8[N, 7]``.

    -1 where the points are not known: the value is missing, or, on scale 2, SpO2 is 93 or more while the
    oxygen is missing. Agrees with ``score`` on every row.

    Raises ``ValueError`` for another shape or scale, an infinite value, or an oxygen or consciousness that
    is neither 0, 1 nor NaN.
    """
    _check_scale(spo2_scale)
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(COLUMNS):
        raise ValueError(f"values have the shape {values.shape}; expected (N, {len(COLUMNS)}) as in COLUMNS")
    if np.isinf(values).any():
        raise ValueError("values hold an infinite number; a missing value is NaN")
    flags = values[:, 5:]
    if not (np.isnan(flags) | (flags == 0) | (flags == 1)).all():
        raise ValueError("supplemental_oxygen and consciousness are 0, 1 or NaN in a row")

    missing = np.isnan(values)
    table = np.zeros(values.shape, dtype=np.int8)
    for column, field in enumerate(SIGNS):
        table[:, column] = _look_up_all(CHARTS[field], values[:, column])
    table[:, 5] = (flags[:, 0] == 1) * OXYGEN_POINTS
    table[:, 6] = (flags[:, 1] == 1) * CONSCIOUSNESS_POINTS
    if spo2_scale == 2:
        on_air = _look_up_all(SPO2_SCALE_2_ON_AIR, values[:, 2])
        on_oxygen = _look_up_all(SPO2_SCALE_2_ON_OXYGEN, values[:, 2])
        table[:, 2] = np.where(flags[:, 0] == 1, on_oxygen, on_air)
        missing[:, 2] |= np.isnan(flags[:, 0]) & (on_air != on_oxygen)
    table[missing] = -1
    return table


def chart_value(field: str, value: float) -> float:
    """``value`` as the chart prints it: a whole number, temperature to 0.1, halves up."""
    chart = CHARTS[field]
    return _steps(chart, value) / chart.steps


def _steps(chart: Chart, value: float) -> int:
    return math.floor(value * chart.steps + 0.5 + _HAIR)


def _look_up(chart: Chart, value: float) -> int:
    return chart.points[bisect_left(chart.upper, _steps(chart, value))]


def _look_up_all(chart: Chart, values: NDArray[np.float64]) -> NDArray[np.int8]:
    steps = np.floor(values * chart.steps + 0.5 + _HAIR)
    bands = np.searchsorted(np.asarray(chart.upper, dtype=np.float64), steps, side="left")
    bands = np.minimum(bands, len(chart.upper))  # NaN sorts behind everything
    points: NDArray[np.int8] = np.asarray(chart.points, dtype=np.int8)[bands]
    return points


def _check_scale(spo2_scale: int) -> None:
    if spo2_scale not in (1, 2):
        raise ValueError(f"spo2_scale is {spo2_scale!r}; it is 1 or 2")
