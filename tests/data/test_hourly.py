"""Stay-hours: the definition, and the counts of the real recordings."""

import csv
import gzip
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samd_data.carry import CARRY_SECONDS, Carrier
from samd_data.hourly import hourly
from samd_data.plausibility import check, temperature_celsius
from samd_data.reading import COLUMNS, Reading, to_row
from samd_data.severity import labels

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(hours: float, **fields: Any) -> Reading:
    return Reading(observed_at=START + timedelta(hours=hours), **fields)


def column(table: Any, field: str) -> list[float]:
    return list(table.values[:, COLUMNS.index(field)])


def test_the_last_value_of_the_hour_and_its_age_at_the_end() -> None:
    table = hourly([at(0.25, spo2=98), at(0.75, spo2=95), at(1.5, spo2=96)])
    assert table.hours.dtype == np.dtype("datetime64[s]")
    assert table.hours.tolist() == [datetime(2026, 1, 1, 0), datetime(2026, 1, 1, 1)]  # noqa: DTZ001
    assert column(table, "spo2") == [95, 96]
    assert table.ages[:, 2].tolist() == [900, 1800]
    assert table.measured()[:, 2].all()
    assert not table.measured()[:, 0].any()


@pytest.mark.parametrize(
    ("field", "value", "rows"), [("spo2", 98, 3), ("temperature", 37, 12), ("consciousness", "V", 12)]
)
def test_a_value_is_carried_into_the_hours_after_its_own_and_no_further(
    field: str, value: Any, rows: int
) -> None:
    table = hourly([at(0.5, **{field: value}), *(at(hour + 0.5, heart_rate=80) for hour in range(1, 16))])
    filled = ~np.isnan(column(table, field))
    assert filled.tolist() == [True] * (1 + rows) + [False] * (15 - rows)
    assert table.ages[filled, COLUMNS.index(field)].tolist() == [
        1800.0 + 3600 * hour for hour in range(1 + rows)
    ]
    assert np.isnan(table.ages[~filled, COLUMNS.index(field)]).all()


def test_a_reading_with_ages_is_as_old_as_it_says() -> None:
    table = hourly([at(2.5, spo2=98, ages={"spo2": 2 * 3600}), at(6, heart_rate=80)])
    assert np.isnan(column(table, "spo2")).tolist() == [False, False, True, True, True]
    assert table.ages[0, 2] == 2.5 * 3600
    assert not table.measured()[0, 2]


def test_a_long_gap_is_another_stay_and_a_short_one_is_missing_hours() -> None:
    readings = [at(0, heart_rate=80), at(20, heart_rate=81), at(100, heart_rate=82)]
    table = hourly(readings)
    assert len(table) == 22
    assert np.isnan(column(table, "heart_rate")).sum() == 21 - 5
    assert table.values[-1, 0] == 82
    assert len(hourly(readings, gap=timedelta(hours=200))) == 101


def test_start_and_end_give_exactly_their_hours() -> None:
    readings = [at(-1, spo2=90), at(0.5, heart_rate=80), at(9, heart_rate=90)]
    table = hourly(readings, start=START + timedelta(minutes=15), end=START + timedelta(hours=4, minutes=30))
    assert len(table) == 5
    assert table.hours[0] == np.datetime64("2026-01-01T00:15:00")
    assert np.isnan(column(table, "spo2")).all()
    assert column(table, "heart_rate")[:4] == [80] * 4
    assert np.isnan(column(table, "heart_rate")[4])
    assert len(hourly([], start=START, end=START + timedelta(hours=2))) == 2
    assert len(hourly(readings, start=START)) == 10
    assert len(hourly(readings, end=START + timedelta(hours=2))) == 2
    assert hourly([]).values.shape == (0, 7)


def test_order_does_not_matter() -> None:
    readings = [at(hour / 3, spo2=90 + hour % 9, heart_rate=60 + hour) for hour in range(30)]
    np.testing.assert_array_equal(hourly(readings).values, hourly(readings[::-1]).values)


def test_wrong_arguments() -> None:
    for arguments in (
        {"start": datetime(2026, 1, 1)},  # noqa: DTZ001
        {"start": START, "end": START},
        {"gap": timedelta(minutes=5)},
    ):
        with pytest.raises(ValueError, match=r"time zone|not after|an hour or more"):
            hourly([], **arguments)


@given(
    st.lists(
        st.tuples(st.integers(0, 40 * 60), st.sampled_from(["spo2", "temperature"])), min_size=1, max_size=12
    )
)
def test_a_row_is_the_hour_itself_or_what_a_carrier_held_when_it_began(events: list[tuple[int, str]]) -> None:
    readings = [at(minute / 60, **{field: 36.0 + index}) for index, (minute, field) in enumerate(events)]
    table = hourly(readings, gap=timedelta(hours=100))
    for hour, row in zip(table.hours.tolist(), table.values, strict=True):
        begin = hour.replace(tzinfo=UTC)
        end = begin + timedelta(hours=1)
        carrier = Carrier()
        ordered = sorted(readings, key=lambda reading: reading.observed_at)
        for reading in ordered:
            if reading.observed_at < begin:
                carrier.update(reading)
        expected = to_row(carrier.snapshot(begin))
        for reading in ordered:
            if begin <= reading.observed_at < end:
                new = to_row(reading)
                expected = np.where(np.isnan(new), expected, new)
        np.testing.assert_array_equal(row, expected)


ITEMS = {
    220045: "heart_rate",
    220210: "respiratory_rate",
    220277: "spo2",
    220050: "systolic_bp",
    220179: "systolic_bp",
    223761: "temperature",
    223762: "temperature",
}


def test_the_counts_of_the_icu_demo(icu_folder: Path) -> None:
    """Read here by hand, stay by stay, to check the reader of the data set as well."""
    events: dict[str, dict[str, list[tuple[int, str, float]]]] = defaultdict(lambda: defaultdict(list))
    with gzip.open(icu_folder / "icu/chartevents.csv.gz", "rt", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            field = ITEMS.get(int(row["itemid"]))
            if field is None:
                continue
            value = float(row["valuenum"])
            if row["itemid"] == "223761":
                value = temperature_celsius(value, "F")
            if check(field, value) is None:
                cuff = int(row["itemid"] == "220179")
                events[row["stay_id"]][row["charttime"]].append((cuff, field, value))

    hours = four = five = 0
    classes = np.zeros(4, dtype=np.int64)
    complete: dict[str, int] = defaultdict(int)
    every: dict[str, set[int]] = defaultdict(set)
    with (icu_folder / "icu/icustays.csv").open(encoding="utf-8") as file:
        for stay in csv.DictReader(file):
            readings = [
                Reading(observed_at=utc(time), **{field: value for _, field, value in sorted(values)})  # type: ignore[arg-type]
                for time, values in events[stay["stay_id"]].items()
            ]
            table = hourly(readings, start=utc(stay["intime"]), end=utc(stay["outtime"]))
            hours += len(table)
            four += table.measured()[:, :4].all(axis=1).sum()
            five += table.measured()[:, :5].all(axis=1).sum()
            known = labels(table.values, "five")
            known = known[known >= 0]
            classes += np.bincount(known, minlength=4)
            complete[stay["subject_id"]] += len(known)
            every[stay["subject_id"]] |= set(known.tolist())
    assert (hours, four, five) == (12_428, 10_996, 3_301)
    assert (len(complete), sum(complete.values())) == (100, 11_687)
    assert sum(number >= 10 for number in complete.values()) == 97
    np.testing.assert_allclose(classes / classes.sum() * 100, [13.1, 63.8, 16.8, 6.3], atol=0.05)
    assert sum(len(each) == 4 for each in every.values()) == 40
    assert sum(3 in each for each in every.values()) == 55
    assert set(CARRY_SECONDS.values()) == {3 * 3600.0, 12 * 3600.0}


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
