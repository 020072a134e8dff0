"""Values stay valid for their time, and no longer."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from samd_data.carry import AHEAD_SECONDS, CARRY_SECONDS, Carrier
from samd_data.reading import COLUMNS, FIELDS, Reading

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WHOLE: dict[str, Any] = {
    "heart_rate": 80,
    "respiratory_rate": 16,
    "spo2": 98,
    "systolic_bp": 120,
    "diastolic_bp": 70,
    "temperature": 37,
    "supplemental_oxygen": False,
    "consciousness": "A",
}


def after(**duration: float) -> datetime:
    return NOW + timedelta(**duration)


def carrier_of(*readings: Reading) -> Carrier:
    carrier = Carrier()
    for reading in readings:
        carrier.update(reading)
    return carrier


def test_limits() -> None:
    assert set(CARRY_SECONDS) == set(FIELDS)
    assert CARRY_SECONDS["spo2"] == 3 * 3600
    assert CARRY_SECONDS["temperature"] == 12 * 3600


@pytest.mark.parametrize("field", FIELDS)
def test_a_value_is_valid_up_to_its_limit_and_stale_a_moment_later(field: str) -> None:
    carrier = carrier_of(Reading(observed_at=NOW, **{field: WHOLE[field]}))
    at = NOW + timedelta(seconds=CARRY_SECONDS[field])
    snapshot = carrier.snapshot(at)
    assert getattr(snapshot, field) == WHOLE[field]
    assert snapshot.ages == {field: CARRY_SECONDS[field]}
    assert field not in carrier.stale(at)

    late = at + timedelta(microseconds=1)
    assert carrier.snapshot(late) == Reading(observed_at=late)
    assert carrier.stale(late) == ((field,) if field in COLUMNS else ())
    assert field not in carrier.missing(late)


def test_nothing_yet_is_missing_and_not_stale() -> None:
    carrier = Carrier()
    assert carrier.missing(NOW) == COLUMNS
    assert carrier.stale(NOW) == ()
    assert carrier.snapshot(NOW) == Reading(observed_at=NOW)


def test_an_older_reading_that_comes_late_replaces_nothing_newer() -> None:
    carrier = carrier_of(
        Reading(observed_at=after(hours=1), spo2=90),
        Reading(observed_at=NOW, spo2=99, heart_rate=80),
    )
    snapshot = carrier.snapshot(after(hours=1))
    assert (snapshot.spo2, snapshot.heart_rate) == (90, 80)
    assert snapshot.ages == {"spo2": 0.0, "heart_rate": 3600.0}


def test_the_same_time_replaces_so_that_a_correction_counts() -> None:
    carrier = carrier_of(Reading(observed_at=NOW, spo2=79), Reading(observed_at=NOW, spo2=97))
    assert carrier.snapshot(NOW).spo2 == 97


def test_the_ages_of_a_reading_count() -> None:
    old = Reading(observed_at=after(hours=2), spo2=99, ages={"spo2": 7200})
    carrier = carrier_of(Reading(observed_at=after(hours=1), spo2=90), old)
    assert carrier.snapshot(after(hours=2)).spo2 == 90
    carrier = carrier_of(old)
    assert carrier.snapshot(after(hours=3)).ages == {"spo2": 10800.0}
    assert carrier.snapshot(after(hours=3, seconds=1)).spo2 is None


def test_a_missing_value_erases_nothing_and_false_is_a_value() -> None:
    carrier = carrier_of(Reading(observed_at=NOW, **WHOLE), Reading(observed_at=after(hours=1)))
    snapshot = carrier.snapshot(after(hours=1))
    assert snapshot.supplemental_oxygen is False
    assert carrier.missing(after(hours=1)) == ()


def test_the_future_is_not_known() -> None:
    carrier = carrier_of(Reading(observed_at=after(hours=1), spo2=90))
    assert carrier.snapshot(NOW).spo2 is None
    assert "spo2" in carrier.missing(NOW)
    near = after(hours=1, seconds=-AHEAD_SECONDS)
    assert carrier.snapshot(near).ages == {"spo2": 0.0}
    assert "spo2" not in carrier.missing(near)


def test_a_snapshot_can_be_fed_back_without_getting_younger() -> None:
    carrier = carrier_of(Reading(observed_at=NOW, **WHOLE))
    again = carrier_of(carrier.snapshot(after(hours=2)))
    assert again.snapshot(after(hours=3)) == carrier.snapshot(after(hours=3))
    assert again.latest("spo2") == (NOW, 98)
    assert again.snapshot(after(hours=3, seconds=1)).spo2 is None
