"""Training and test rows that do not leak into each other.

A label that looks six hours ahead reaches over a cut in time, and a value is carried over it; the hours of
one patient resemble each other. So a cut in time is purged on both sides, and a cut by patient keeps each
patient whole.
"""

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

Split = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Indices of the training rows and of the test rows, each ascending."""


def by_time(times: int | NDArray[np.datetime64], fraction: float, purge: timedelta = timedelta(0)) -> Split:
    """Cut one recording in time: the first ``fraction`` of its rows to train, the rest to test.

    ``times``: the time of each row, ascending; or a number of rows, taken as one an hour. ``purge``: this
    long before and after the cut, rows are dropped from both sides, so that a training row and a test row
    are at least twice ``purge`` apart. The cut is at the time of the first test row; rows of the same
    time stay on the same side. Either side may come out empty when the recording is short.

    Raises ``ValueError`` when ``fraction`` is not between 0 and 1, ``purge`` is negative, or the times are
    out of order.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction is {fraction}; it is between 0 and 1, exclusive")
    if purge < timedelta(0):
        raise ValueError(f"purge is {purge}; it is not negative")
    if isinstance(times, (int, np.integer)):
        if times < 0:
            raise ValueError(f"{times} rows; a number of rows is not negative")
        seconds = np.arange(times, dtype=np.float64) * 3600
    else:
        seconds = times.astype("datetime64[us]").astype(np.int64) / 1e6
    if (np.diff(seconds) < 0).any():
        raise ValueError("the times are out of order; sort the rows by time")
    empty = np.zeros(0, dtype=np.int64)
    if not len(seconds):
        return empty, empty
    cut = seconds[min(round(len(seconds) * fraction), len(seconds) - 1)]
    margin = purge.total_seconds()
    train = seconds < cut if not margin else seconds <= cut - margin
    test = seconds >= cut + margin
    return _indices(train), _indices(test)


def by_patient(patients: Sequence[str] | NDArray[np.generic], folds: int, seed: int) -> list[Split]:
    """Cross-validation that keeps each patient on one side.

    ``patients``: the patient of each row. Patients, not rows, are dealt evenly to the folds; every row is in
    exactly one test set. Depends on the set of patients, on ``folds`` and ``seed``, not on the order of rows.

    Raises ``ValueError`` for fewer than 2 folds or fewer patients than folds.
    """
    names, of_row = np.unique(np.asarray(patients), return_inverse=True)
    if not 2 <= folds <= len(names):
        raise ValueError(f"{folds} folds of {len(names)} patients; give at least 2, and a patient for each")
    fold_of = np.empty(len(names), dtype=np.int64)
    fold_of[np.random.default_rng(seed).permutation(len(names))] = np.arange(len(names)) % folds
    fold_of_row = fold_of[of_row]
    return [(_indices(fold_of_row != fold), _indices(fold_of_row == fold)) for fold in range(folds)]


def _indices(chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.flatnonzero(chosen).astype(np.int64)
