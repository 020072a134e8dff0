"""Deterioration: labelled by later readings alone, and silence is no negative."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samd_data.datasets import open_dataset
from samd_data.deterioration import CENSORED, NOT_ASKED, asked, labels, low_totals
from samd_data.hourly import HourlyTable, hourly
from samd_data.reading import Reading

SICK = {"heart_rate": 135.0, "respiratory_rate": 30.0, "spo2": 91.0}  # 3 + 3 + 3
Make = Callable[..., Reading]


def stay(make: Make, hours: dict[int, dict[str, Any]], last: int) -> HourlyTable:
    """A reading in the middle of each hour named, normal but for what is given; rows up to hour `last`."""
    start = make().observed_at
    readings = [
        make(observed_at=start + timedelta(hours=hour, minutes=30), **fields)
        for hour, fields in hours.items()
    ]
    return hourly(readings, start=start, end=start + timedelta(hours=last + 1))


def test_a_stay_worked_out_by_hand(make: Make) -> None:
    """Hourly readings, 7 reached in hours 8 and 9 of 0 to 17."""
    table = stay(make, {hour: SICK if hour in (8, 9) else {} for hour in range(18)}, 17)
    # The last third of hour 12 is hours 17 and 18, and 17 is scored; that of hour 13 is 18 and 19.
    expected = [0] * 2 + [1] * 6 + [NOT_ASKED] * 2 + [0] * 3 + [CENSORED] * 5
    assert labels(table, "five").tolist() == expected
    assert labels(table, "all").tolist() == expected


def test_silence_is_no_negative(make: Make) -> None:
    """After hour 0 one reading a third is enough, and one third without is too little."""
    for hours, expected in (
        ((0, 1, 3, 5), 0),
        ((0, 2, 4, 6), 0),
        ((0, 1, 2, 3, 4), CENSORED),  # nothing in the last third; hour 5 is complete by carrying alone
        ((0, 1, 2, 5, 6), CENSORED),
        ((0, 3, 4, 5, 6), CENSORED),
        ((0,), CENSORED),
    ):
        table = stay(make, {hour: {} for hour in hours}, 8)
        assert labels(table, "five")[0] == expected, hours


def test_seven_within_the_horizon_is_enough_for_a_positive(make: Make) -> None:
    table = stay(make, {0: {}, 6: SICK}, 6)
    assert labels(table, "five")[0] == 1
    table = stay(make, {0: {}, 7: SICK}, 7)
    assert labels(table, "five").tolist()[:2] == [CENSORED, 1]


def test_a_missing_input_cannot_be_scored_but_can_be_enough(make: Make) -> None:
    """Without temperature no hour is scored; 9 points of the other signs are 7 or more all the same."""
    known = {hour: {"temperature": None} for hour in range(8)}
    assert labels(stay(make, known, 7), "five").tolist()[:2] == [CENSORED, CENSORED]
    known[3] = SICK | {"temperature": None}
    assert labels(stay(make, known, 7), "five").tolist()[:4] == [1, 1, 1, NOT_ASKED]


def test_oxygen_and_consciousness_count_for_all_and_not_for_five(make: Make) -> None:
    worse = {"consciousness": "V", "heart_rate": 115.0, "supplemental_oxygen": True}  # 3 + 2 + 2
    table = stay(make, {hour: worse if hour == 2 else {} for hour in range(8)}, 7)
    assert labels(table, "all").tolist()[:3] == [1, 1, NOT_ASKED]
    assert labels(table, "five").tolist()[:4] == [0, 0, 0, CENSORED]


def test_nothing_is_asked_of_nothing(make: Make) -> None:
    table = stay(make, {5: {}}, 6)
    assert labels(table, "five").tolist() == [NOT_ASKED] * 5 + [CENSORED] * 2
    assert labels(hourly([]), "five").tolist() == []
    low, complete = low_totals(table.values, "five")
    assert (low.tolist(), complete.tolist()) == ([0] * 7, [False] * 5 + [True] * 2)
    assert asked(table.values, "five").tolist() == [False] * 5 + [True] * 2


def test_hours_out_of_order_are_refused(make: Make) -> None:
    table = stay(make, {0: {}, 1: {}}, 1)
    with pytest.raises(ValueError, match="ascending by whole hours"):
        labels(HourlyTable(table.hours[::-1], table.values, table.ages), "five")
    with pytest.raises(ValueError, match="setting"):
        labels(table, "six")  # type: ignore[arg-type]


@given(st.lists(st.sampled_from(["", "normal", "sick"]), min_size=8, max_size=30), st.data())
def test_taking_readings_away_never_makes_a_negative(hours: list[str], data: st.DataObject) -> None:
    def table(said: list[str]) -> HourlyTable:
        readings = {hour: SICK if what == "sick" else {} for hour, what in enumerate(said) if what}
        return stay(_make, readings, len(said) - 1)

    before = labels(table(hours), "five")
    silenced = data.draw(st.integers(1, len(hours) - 1))
    # From one hour on nobody measures any more: what was not negative cannot become so.
    after = labels(table([*hours[:silenced], *[""] * (len(hours) - silenced)]), "five")
    earlier = slice(0, silenced)
    assert not ((after[earlier] == 0) & (before[earlier] != 0) & (before[earlier] != 1)).any()
    # Of what was positive, only a horizon that is covered before the silence may be called negative.
    assert not (after[max(0, silenced - 4) :] == 0).any()


def _make(**fields: Any) -> Reading:
    normal: dict[str, Any] = {
        "observed_at": datetime(2026, 1, 1, tzinfo=UTC),
        "heart_rate": 70,
        "respiratory_rate": 16,
        "spo2": 98,
        "systolic_bp": 120,
        "temperature": 37.0,
    }
    return Reading(**normal | fields)


def test_the_icu_demo(icu_folder: Path) -> None:
    dataset = open_dataset(icu_folder)
    found = [
        labels(table, "five") for patient in dataset.patients() for table in dataset.hourly_tables(patient)
    ]
    values, counts = np.unique(np.concatenate(found), return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {-2: 843, -1: 1344, 0: 8656, 1: 1585}
