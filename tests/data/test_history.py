"""History: exact numbers, nothing of the future, and hiding is the same as never having measured."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samd_data import history
from samd_data.features import CLIP, FeatureSpec, encode, hide
from samd_data.hourly import HourlyTable, hourly
from samd_data.reading import COLUMNS, Reading
from samd_data.synthetic import generate

FIVE, ALL = FeatureSpec(name="history-v1"), FeatureSpec(name="history-v1", labels="all")
START = datetime(2026, 1, 1, tzinfo=UTC)


def at(hour: float, **fields: Any) -> Reading:
    return Reading(observed_at=START + timedelta(hours=hour), **fields)


def told(table: HourlyTable, row: int, spec: FeatureSpec = FIVE) -> dict[str, float]:
    features = encode(history.rows(table), spec)
    return dict(zip(spec.names, features[row].tolist(), strict=True))


def test_names_and_sizes() -> None:
    assert (FIVE.size, ALL.size, FIVE.row_size, FeatureSpec().row_size) == (171, 213, 99, 7)
    for spec in (FIVE, ALL):
        assert len(set(spec.names)) == spec.size
        assert encode(np.zeros((0, 99)), spec).shape == (0, spec.size)
    with pytest.raises(ValueError, match=r"expected \(N, 99\)"):
        encode(np.zeros((1, 7)), FIVE)


def test_exact_numbers() -> None:
    """Heart rate 70, 100, 130 in hours 0, 1 and 3, none in hour 2; temperature 39.5 at the start alone."""
    table = hourly(
        [
            at(0.5, heart_rate=70, temperature=39.5),
            at(1.5, heart_rate=100),
            at(3.25, heart_rate=130),
        ],
        start=START,
    )
    seen = told(table, 3)
    assert [seen[f"heart_rate@{hour}h_value"] for hour in range(-5, 1)] == [0, 0, 0, 1, 1, 2]
    assert [seen[f"heart_rate@{hour}h_missing"] for hour in range(-5, 1)] == [1, 1, 0, 0, 0, 0]
    points = [seen[f"heart_rate@{hour}h_points"] for hour in range(-5, 1)]
    assert points == pytest.approx([0, 0, 0, 1 / 3, 1 / 3, 2 / 3])
    assert seen["heart_rate"] == 2.0
    assert seen["heart_rate_age"] == pytest.approx(0.75 / 4)
    assert (seen["heart_rate_lowest"], seen["heart_rate_highest"]) == (0.0, 2.0)
    # Measured at hours 0, 1 and 3 with 0, 1, 2: mean hour 4/3, mean value 1, slope 3 / (14/3) an hour.
    assert seen["heart_rate_slope"] == pytest.approx(3 * 9 / 14)
    assert seen["heart_rate_baseline"] == pytest.approx(1.0)  # (70 + 100 + 130) / 3 = 100
    assert seen["heart_rate_from_baseline"] == pytest.approx(1.0)
    assert seen["heart_rate_mean_points"] == pytest.approx((0 + 1 + 2) / 9)
    # One measured temperature has no slope; it is carried, and is its own baseline.
    assert (seen["temperature_slope"], seen["temperature_slope_missing"]) == (0.0, 1.0)
    assert (seen["temperature"], seen["temperature_baseline"]) == (2.5, 2.5)
    assert seen["temperature_age"] == pytest.approx(3.5 / 13)
    # Totals by hour 2, 3, 3, 4, in sevenths.
    names = ("total", "total_lowest", "total_highest", "total_mean")
    assert [seen[name] * 7 for name in names] == pytest.approx([4, 2, 4, 3])
    assert seen["total_slope"] * 7 == pytest.approx(3 * 0.6)
    assert seen["stay_hours"] == pytest.approx(3 / 24)
    # What was never measured is 0 everywhere, and said to be missing everywhere.
    spo2 = {name: value for name, value in seen.items() if name.startswith("spo2") and value}
    masks = ("spo2_missing", "spo2_slope_missing", "spo2_baseline_missing")
    assert spo2 == dict.fromkeys((*masks, *(f"spo2@{hour}h_missing" for hour in range(-5, 1))), 1.0)


def test_an_hour_of_nothing_has_no_total() -> None:
    table = hourly([at(0.5, heart_rate=135), at(6.5, heart_rate=70)], start=START)
    seen = told(table, 5)  # the heart rate of hour 0 was valid until hour 3
    assert (seen["total"], seen["total_lowest"], seen["total_highest"]) == (0.0, *[pytest.approx(3 / 7)] * 2)
    assert seen["heart_rate_missing"] == 1.0
    assert seen["heart_rate_baseline"] == pytest.approx(65 / 30)
    assert seen["heart_rate_from_baseline"] == 0.0


def test_another_stay_begins_with_nothing() -> None:
    table = hourly([at(0.5, heart_rate=135), at(40.5, heart_rate=70)])
    assert len(table) == 2
    alone = hourly([at(40.5, heart_rate=70)])
    assert np.array_equal(history.rows(table)[1], history.rows(alone)[0], equal_nan=True)


def test_hours_go_forward() -> None:
    made = history.History()
    hour = np.datetime64("2026-01-01T05", "s")
    made.take(hour, np.full(7, np.nan), np.full(7, np.nan))
    with pytest.raises(ValueError, match="does not come after"):
        made.take(hour, np.full(7, np.nan), np.full(7, np.nan))


def test_hour_by_hour_gives_what_the_whole_recording_gives() -> None:
    readings = generate(1, 40, 3)[0].readings
    whole = history.rows(hourly(readings, start=readings[0].observed_at))
    for hours in (1, 7, 20):
        until = readings[0].observed_at + timedelta(hours=hours)
        known = [reading for reading in readings if reading.observed_at < until]
        table = hourly(known, start=readings[0].observed_at, end=until)
        assert np.array_equal(history.rows(table)[-1], whole[hours - 1], equal_nan=True)


@settings(max_examples=40)
@given(st.integers(0, 29), st.integers(0, 1000))
def test_the_features_of_an_hour_know_nothing_of_later_readings(hour: int, seed: int) -> None:
    readings = generate(1, 30, 1)[0].readings
    start = START
    until = start + timedelta(hours=hour + 1)
    rng = np.random.default_rng(seed)
    changed = [
        reading
        if reading.observed_at < until
        else Reading(observed_at=reading.observed_at, heart_rate=float(rng.integers(30, 200)))
        for reading in readings
        if reading.observed_at < until or rng.random() < 0.7
    ]
    end = start + timedelta(hours=30)
    one, two = (encode(history.rows(hourly(r, start=start, end=end)), ALL) for r in (readings, changed))
    assert np.array_equal(one[: hour + 1], two[: hour + 1])


@settings(max_examples=40)
@given(st.integers(0, 2**7 - 1), st.sampled_from([FIVE, ALL]))
def test_hiding_is_the_same_as_never_having_measured(which: int, spec: FeatureSpec) -> None:
    readings = generate(1, 12, 2)[0].readings
    hidden = [bool(which >> column & 1) for column in range(7)]
    gone: dict[str, Any] = dict.fromkeys(
        [field for field, away in zip(COLUMNS, hidden, strict=True) if away], None
    )
    end = START + timedelta(hours=12)
    kept = [
        Reading(**{name: getattr(reading, name) for name in reading.__struct_fields__} | gone)
        for reading in readings
    ]
    complete = encode(history.rows(hourly(readings, start=START, end=end)), spec)
    expected = encode(history.rows(hourly(kept, start=START, end=end)), spec)
    shown = hide(complete, np.tile(hidden, (len(complete), 1)), spec)
    assert np.array_equal(shown, expected)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            *[st.one_of(st.just(np.nan), st.floats(-1e300, 1e300))] * 5,
            *[st.sampled_from([0.0, 1.0, np.nan])] * 2,
        ),
        min_size=1,
        max_size=9,
    )
)
def test_every_feature_is_finite_and_bounded(values: Any) -> None:
    taken = np.array(values, dtype=np.float64)
    ages = np.where(np.isnan(taken), np.nan, 100.0)
    hours = np.datetime64("2026-01-01T00", "s") + np.arange(len(taken)) * np.timedelta64(1, "h")
    features = encode(history.rows(HourlyTable(hours, taken, ages)), ALL)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    assert np.abs(features).max() <= CLIP
