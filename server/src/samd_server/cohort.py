"""Rows to learn from and rows to be judged by, out of a data set of recordings that you hold.

Three sets that do not leak into each other: of most patients the first 70 % of the recording to train and
the rest as hold-out, cut by time with six hours purged on both sides (a temperature is carried for twelve);
and the patients left out, of whom nothing is trained.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samd_data import splits
from samd_data.datasets import Dataset, open_dataset
from samd_data.deterioration import low_totals
from samd_data.errors import DataError
from samd_data.features import FeatureSpec
from samd_data.tasks import SEVERITY, rows_of, task_of

TRAIN_FRACTION = 0.7
PURGE = timedelta(hours=6)
FOLDS = 5
"""One patient in this many is left out."""


@dataclass(frozen=True)
class Rows:
    """`values` float64[N, R] as `features.encode` reads them (R is `FeatureSpec.row_size`), NaN = missing;
    `labels` int64[N], 0 to C-1; `totals` int64[N], the low end of the NEWS2 total now."""

    values: NDArray[np.float64]
    labels: NDArray[np.int64]
    totals: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> "Rows":
        """Some of them."""
        return Rows(self.values[rows], self.labels[rows], self.totals[rows])


@dataclass(frozen=True)
class Cohort:
    """What a data set gives. `kind` is the format it came in; patients are counted, never named."""

    kind: str
    patients: int
    patients_unseen: int
    train: Rows
    holdout: Rows
    unseen: Rows


def load(
    path: Path | str, spec: FeatureSpec, *, seed: int = 0, limit: int | None = None, task: str = SEVERITY
) -> Cohort:
    """Open a data set and cut it; `limit` keeps the patients with the most readings.

    Raises DataError when there is no such data, or nothing in it has a label.
    """
    dataset = open_dataset(path)
    names = dataset.patients()[:limit]
    if len(names) < FOLDS:
        unseen_names: Collection[str] = ()
    else:
        _, left_out = splits.by_patient(names, FOLDS, seed)[0]
        unseen_names = {names[index] for index in left_out}
    train, holdout, unseen = [], [], []
    for name in names:
        rows, hours = _hours(dataset, name, spec, task)
        if name in unseen_names:
            unseen.append(_labelled(rows, np.arange(len(rows))))
            continue
        first, rest = splits.by_time(hours, TRAIN_FRACTION, PURGE)
        train.append(_labelled(rows, first))
        holdout.append(_labelled(rows, rest))
    cohort = Cohort(
        kind=dataset.kind,
        patients=len(train),
        patients_unseen=len(unseen),
        train=_joined(train, spec),
        holdout=_joined(holdout, spec),
        unseen=_joined(unseen, spec),
    )
    if not len(cohort.train):
        needed = ", ".join(spec.inputs)
        raise DataError(
            f"{path}: of {len(names)} patients no hour to train on has a label; labels {spec.labels!r} need "
            f"{needed} in the same hour, or carried into it: "
            + ("try --labels five" if spec.labels == "all" else "use longer recordings")
        )
    return cohort


def _hours(dataset: Dataset, name: str, spec: FeatureSpec, task: str) -> tuple[Rows, NDArray[np.datetime64]]:
    """Every hour of a patient in order of time, labelled or not; stays do not look into each other."""
    tables = [table for table in dataset.hourly_tables(name) if len(table)]
    label = task_of(task).labels
    parts = [
        Rows(rows_of(table, spec), label(table, spec.labels), low_totals(table.values, spec.labels)[0])
        for table in tables
    ]
    if not parts:
        return _joined([], spec), np.zeros(0, "datetime64[s]")
    hours = np.concatenate([table.hours for table in tables])
    order = np.argsort(hours, kind="stable")
    return _joined(parts, spec).take(order), hours[order]


def _labelled(rows: Rows, chosen: NDArray[np.int64]) -> Rows:
    return rows.take(chosen[rows.labels[chosen] >= 0])


def _joined(parts: list[Rows], spec: FeatureSpec) -> Rows:
    if not parts:
        return Rows(np.zeros((0, spec.row_size)), np.zeros(0, np.int64), np.zeros(0, np.int64))
    return Rows(
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.totals for part in parts]),
    )
