"""Readings: what they refuse, how they travel, and rows."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import numpy as np
import pytest

from samd_data.reading import COLUMNS, SIGNS, VITALS, Reading, Recording, to_row

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_order_of_the_columns_is_fixed() -> None:
    assert SIGNS == ("heart_rate", "respiratory_rate", "spo2", "systolic_bp", "temperature")
    assert (*SIGNS, "supplemental_oxygen", "consciousness") == COLUMNS
    assert (*SIGNS, "diastolic_bp") == VITALS


def test_a_time_is_kept_in_utc() -> None:
    reading = Reading(observed_at=datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))))
    assert reading.observed_at == NOW
    assert reading.observed_at.tzinfo is UTC


@pytest.mark.parametrize(
    "fields",
    [
        {"observed_at": datetime(2026, 1, 1)},  # noqa: DTZ001
        {"heart_rate": float("nan")},
        {"heart_rate": float("inf")},
        {"heart_rate": True},
        {"heart_rate": "80"},
        {"supplemental_oxygen": 1},
        {"consciousness": "X"},
        {"ages": {"heart_rate": -1}},
        {"ages": {"pulse": 1}},
    ],
)
def test_what_a_reading_refuses(fields: Any) -> None:
    with pytest.raises(ValueError, match=r"time zone|it is|missing value|names|age of"):
        Reading(**{"observed_at": NOW} | fields)


def test_json_round_trip_leaves_out_what_is_missing() -> None:
    reading = Reading(observed_at=NOW, heart_rate=80, consciousness="C", ages={"heart_rate": 60})
    text = msgspec.json.encode(reading)
    assert b"spo2" not in text
    assert msgspec.json.decode(text, type=Reading) == reading
    with pytest.raises(msgspec.ValidationError, match="no time zone"):
        msgspec.json.decode(b'{"observed_at": "2026-01-01T00:00:00"}', type=Reading)


def test_a_row_has_nan_for_missing_and_keeps_a_zero_apart() -> None:
    row = to_row(Reading(observed_at=NOW, spo2=98, supplemental_oxygen=False))
    np.testing.assert_array_equal(row, [np.nan, np.nan, 98, np.nan, np.nan, 0, np.nan])
    for level, code in zip("ACVPU", (0, 1, 1, 1, 1), strict=True):
        assert to_row(Reading(observed_at=NOW, consciousness=level))[6] == code  # type: ignore[arg-type]
    assert np.isnan(to_row(Reading(observed_at=NOW))).all()


def test_a_recording_is_in_order() -> None:
    early, late = Reading(observed_at=NOW), Reading(observed_at=NOW + timedelta(hours=1))
    assert Recording("p", (early, early, late)).patient == "p"
    with pytest.raises(ValueError, match="out of order"):
        Recording("p", (late, early))


def test_present() -> None:
    assert Reading(observed_at=NOW, spo2=98, supplemental_oxygen=False).present() == (
        "spo2",
        "supplemental_oxygen",
    )
