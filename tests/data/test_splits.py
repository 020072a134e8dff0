"""Splits do not leak."""

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samd_data.splits import by_patient, by_time

HOURS = np.datetime64("2026-01-01T00:00:00") + np.arange(100) * np.timedelta64(1, "h")


def test_a_number_of_rows_is_one_an_hour() -> None:
    for times in (100, HOURS):
        train, test = by_time(times, 0.8, timedelta(hours=6))
        assert (train[0], train[-1], test[0], test[-1]) == (0, 74, 86, 99)
        train, test = by_time(times, 0.8)
        assert (train[-1], test[0], len(train) + len(test)) == (79, 80, 100)
        assert train.dtype == test.dtype == np.int64


@given(
    st.lists(st.integers(0, 400_000), max_size=60).map(sorted),
    st.floats(0.05, 0.95),
    st.integers(0, 12).map(lambda hours: timedelta(hours=hours)),
)
def test_the_sides_are_twice_the_purge_apart(seconds: list[int], fraction: float, purge: timedelta) -> None:
    times = np.array(seconds, dtype="datetime64[s]")
    train, test = by_time(times, fraction, purge)
    if len(train) and len(test):
        apart = (times[test].min() - times[train].max()).astype(int)
        assert apart >= 2 * purge.total_seconds()
        assert apart > 0
    if purge == timedelta(0):
        assert len(train) + len(test) == len(times)


def test_wrong_cuts() -> None:
    for times, fraction, purge in (
        (10, 0.0, 0),
        (10, 1.0, 0),
        (10, 0.5, -1),
        (-1, 0.5, 0),
        (HOURS[::-1], 0.5, 0),
    ):
        with pytest.raises(ValueError, match=r"fraction|purge|rows|out of order"):
            by_time(times, fraction, timedelta(hours=purge))


def test_patients_stay_whole_and_every_row_is_tested_once() -> None:
    patients = [f"p{number % 11}" for number in range(100)]
    folds = by_patient(patients, 5, seed=3)
    assert len(folds) == 5
    tested = np.concatenate([test for _, test in folds])
    assert sorted(tested.tolist()) == list(range(100))
    for train, test in folds:
        assert not {patients[i] for i in train} & {patients[i] for i in test}
        assert len(train) + len(test) == 100
        assert 2 <= len({patients[i] for i in test}) <= 3


def test_the_same_seed_gives_the_same_folds_whatever_the_order_of_rows() -> None:
    patients = np.array([f"p{number % 11}" for number in range(100)])
    first = by_patient(patients, 5, seed=3)
    again = by_patient(patients[::-1], 5, seed=3)
    for (_, a), (_, b) in zip(first, again, strict=True):
        assert set(patients[a]) == set(patients[::-1][b])
    others = by_patient(patients, 5, seed=4)
    assert any(set(patients[a]) != set(patients[b]) for (_, a), (_, b) in zip(first, others, strict=True))
    for folds in (1, 12):
        with pytest.raises(ValueError, match="folds"):
            by_patient(patients, folds, seed=0)
