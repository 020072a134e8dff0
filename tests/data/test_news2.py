"""NEWS2 at every boundary and half-step of both scales, against the chart written out here once more."""

from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from itertools import product
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from samd_data.news2 import band_of, chart_value, monitoring_hours, points_table, score
from samd_data.reading import CONSCIOUSNESS, Reading, to_row

NOW = datetime(2026, 1, 1, tzinfo=UTC)

# First and last value of the chart, both included, and the points.
WHOLE = {
    "respiratory_rate": [(0, 8, 3), (9, 11, 1), (12, 20, 0), (21, 24, 2), (25, 90, 3)],
    "spo2": [(0, 91, 3), (92, 93, 2), (94, 95, 1), (96, 100, 0)],
    "systolic_bp": [(0, 90, 3), (91, 100, 2), (101, 110, 1), (111, 219, 0), (220, 320, 3)],
    "heart_rate": [(0, 40, 3), (41, 50, 1), (51, 90, 0), (91, 110, 1), (111, 130, 2), (131, 310, 3)],
}
TENTHS = [(200, 350, 3), (351, 360, 1), (361, 380, 0), (381, 390, 1), (391, 460, 2)]
ON_AIR = [(0, 83, 3), (84, 85, 2), (86, 87, 1), (88, 92, 0), (93, 100, 0)]
ON_OXYGEN = [(0, 83, 3), (84, 85, 2), (86, 87, 1), (88, 92, 0), (93, 94, 1), (95, 96, 2), (97, 100, 3)]


def expected(rows: list[tuple[int, int, int]], value: float, places: str = "1") -> int:
    rounded = Decimal(repr(value)).quantize(Decimal(places), ROUND_HALF_UP)
    steps = int(rounded if places == "1" else rounded * 10)
    (points,) = [points for first, last, points in rows if first <= steps <= last]
    return points


def points_of(**fields: Any) -> dict[str, int]:
    scale = fields.pop("spo2_scale", 1)
    return score(Reading(observed_at=NOW, **fields), spo2_scale=scale).points


@pytest.mark.parametrize("field", WHOLE)
def test_every_value_half_and_quarter_of_the_whole_signs(field: str) -> None:
    rows = WHOLE[field]
    for quarter in range(rows[0][0] * 4, rows[-1][1] * 4 + 1):
        value = quarter / 4
        assert points_of(**{field: value}) == {field: expected(rows, value)}, value


def test_every_twentieth_of_a_degree() -> None:
    for step in range(20 * 20, 46 * 20):
        value = float(Decimal(step) / 20)  # 35.05 and its like, as a person writes them
        assert points_of(temperature=value) == {"temperature": expected(TENTHS, value, "0.1")}, value


@pytest.mark.parametrize(
    ("value", "points"),
    [(35.04, 3), (35.05, 1), (36.04, 1), (36.05, 0), (38.04, 0), (38.05, 1), (39.04, 1), (39.05, 2)],
)
def test_a_temperature_is_rounded_halves_up_and_float_noise_does_not_matter(
    value: float, points: int
) -> None:
    assert points_of(temperature=value)["temperature"] == points
    assert points_of(temperature=float(np.float32(value)))["temperature"] == points
    assert points_of(temperature=value - 1e-9)["temperature"] == points


@pytest.mark.parametrize(
    ("value", "points"), [(8.4, 3), (8.5, 1), (11.5, 0), (20.49, 0), (20.5, 2), (24.5, 3)]
)
def test_no_breath_falls_between_two_columns(value: float, points: int) -> None:
    assert points_of(respiratory_rate=value)["respiratory_rate"] == points


@pytest.mark.parametrize(("oxygen", "rows"), [(False, ON_AIR), (True, ON_OXYGEN)])
def test_scale_2_at_every_half(oxygen: bool, rows: list[tuple[int, int, int]]) -> None:
    for half in range(60, 201):
        value = half / 2
        points = points_of(spo2=value, supplemental_oxygen=oxygen, spo2_scale=2)
        assert points == {"spo2": expected(rows, value), "supplemental_oxygen": 2 * oxygen}, value


@pytest.mark.parametrize(("level", "points"), [("A", 0), ("C", 3), ("V", 3), ("P", 3), ("U", 3)])
def test_consciousness(level: str, points: int) -> None:
    assert points_of(consciousness=level) == {"consciousness": points}


def test_chart_value() -> None:
    assert chart_value("temperature", 38.05) == 38.1
    assert chart_value("heart_rate", 90.5) == 91


def test_the_score_of_a_whole_reading_as_json(make: Any) -> None:
    reading = make(heart_rate=112, respiratory_rate=22, spo2=95, supplemental_oxygen=True)
    assert msgspec.json.decode(msgspec.json.encode(score(reading))) == {
        "total": 7,
        "low": 7,
        "high": 7,
        "band": "high",
        "points": {
            "heart_rate": 2,
            "respiratory_rate": 2,
            "spo2": 1,
            "systolic_bp": 0,
            "temperature": 0,
            "supplemental_oxygen": 2,
            "consciousness": 0,
        },
        "missing": [],
        "band_high": "high",
    }


def test_nothing_known_is_the_whole_range_and_not_zero() -> None:
    result = score(Reading(observed_at=NOW))
    assert (result.total, result.low, result.high) == (None, 0, 20)
    assert (result.band, result.band_high) == ("low", "high")
    assert len(result.missing) == 7
    assert result.points == {}


@pytest.mark.parametrize("spo2", [90, 93, 94, 95, 96, 97, 100])
def test_scale_2_with_the_oxygen_unknown(make: Any, spo2: int) -> None:
    result = score(make(spo2=spo2, supplemental_oxygen=None), spo2_scale=2)
    on_oxygen = expected(ON_OXYGEN, spo2)
    assert (result.low, result.high) == (0, 2 + on_oxygen)
    assert ("spo2" in result.points) == (spo2 < 93)
    assert result.missing == ["supplemental_oxygen"]
    assert result.band_high == ("medium" if on_oxygen == 3 else "low")


def test_missing_oxygen_alone_can_raise_a_total_by_two_and_no_more(make: Any) -> None:
    result = score(make(supplemental_oxygen=None))
    assert (result.total, result.low, result.high, result.band_high) == (None, 0, 2, "low")


readings = st.builds(
    Reading,
    observed_at=st.just(NOW),
    heart_rate=st.none() | st.floats(15, 300),
    respiratory_rate=st.none() | st.floats(1, 80),
    spo2=st.none() | st.floats(30, 100) | st.integers(80, 100),
    systolic_bp=st.none() | st.floats(30, 300),
    temperature=st.none() | st.floats(25, 45) | st.integers(6900, 7900).map(lambda n: n / 200),
    supplemental_oxygen=st.none() | st.booleans(),
    consciousness=st.none() | st.sampled_from(CONSCIOUSNESS),
)

# One value for each number of points that an input can have.
COMPLETIONS = {
    "heart_rate": (70, 100, 120, 140),
    "respiratory_rate": (16, 10, 22, 30),
    "spo2": (98, 90, 86, 84, 80, 93, 95, 94),
    "systolic_bp": (120, 105, 95, 80),
    "temperature": (37.0, 36.0, 39.5, 34.0),
    "supplemental_oxygen": (False, True),
    "consciousness": ("A", "V"),
}


@settings(max_examples=200)
@given(readings, st.sampled_from([1, 2]), st.sampled_from(["news2", "news"]))
def test_the_range_is_exactly_what_completing_the_reading_can_give(
    reading: Reading, scale: Any, version: Any
) -> None:
    if version == "news":
        scale = 1
    result = score(reading, spo2_scale=scale, version=version)
    if len(result.missing) > 3:  # the number of completions grows fast
        assert result.low <= result.high <= 20
        return
    totals = []
    bands = []
    for values in product(*(COMPLETIONS[field] for field in result.missing)):
        whole = msgspec.structs.replace(reading, **dict(zip(result.missing, values, strict=True)))
        completed = score(whole, spo2_scale=scale, version=version)
        assert completed.total is not None
        totals.append(completed.total)
        bands.append(completed.band)
    assert (result.low, result.high) == (min(totals), max(totals))
    order = ["low", "low-medium", "medium", "high"]
    assert result.band == min(bands, key=order.index)
    assert result.band_high == max(bands, key=order.index)
    assert (result.total is None) == bool(result.missing)


@settings(max_examples=300)
@given(st.lists(readings, max_size=8), st.sampled_from([1, 2]))
@example([Reading(observed_at=NOW, spo2=93)], 2)
def test_the_table_agrees_with_the_score_on_every_row(rows: list[Reading], scale: Any) -> None:
    values = np.array([to_row(reading) for reading in rows]).reshape(-1, 7)
    table = points_table(values, spo2_scale=scale)
    assert table.dtype == np.int8
    columns = list(COMPLETIONS)
    for reading, points in zip(rows, table, strict=True):
        known = {field: int(value) for field, value in zip(columns, points, strict=True) if value >= 0}
        assert known == score(reading, spo2_scale=scale).points


def test_news_of_2012_scores_new_confusion_as_awake(make: Any) -> None:
    assert score(make(consciousness="C"), version="news").total == 0
    assert score(make(consciousness="C")).total == 3
    assert score(make(consciousness="V"), version="news").total == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"spo2_scale": 3}, "it is 1 or 2"),
        ({"version": "mews"}, "it is 'news2' or 'news'"),
        ({"version": "news", "spo2_scale": 2}, "has no SpO2 scale 2"),
    ],
)
def test_wrong_arguments(make: Any, fields: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(make(), **fields)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 5)), "shape"),
        (np.zeros(7), "shape"),
        (np.full((1, 7), np.inf), "infinite"),
        (np.array([[70, 16, 98, 120, 37, 0.5, 0]]), "0, 1 or NaN"),
        (np.array([[70, 16, 98, 120, 37, 0, 3]]), "0, 1 or NaN"),
    ],
)
def test_a_wrong_table_raises(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        points_table(values)


def test_bands_and_monitoring() -> None:
    cases = [
        (0, False, "low", 12.0),
        (4, False, "low", 6.0),
        (3, True, "low-medium", 1.0),
        (5, False, "medium", 1.0),
        (6, True, "medium", 1.0),
        (7, False, "high", 0.0),
        (20, True, "high", 0.0),
    ]
    for total, has_three, band, hours in cases:
        assert band_of(total, has_three=has_three) == band
        assert monitoring_hours(total, band) == hours
    with pytest.raises(ValueError, match="one of low"):
        monitoring_hours(0, "green")
