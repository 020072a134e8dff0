"""From the readings of one admission to the rows that it trains on, and the later ones that judge it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from samd_data import deterioration, severity, splits
from samd_data.carry import Carrier
from samd_data.features import FeatureSpec
from samd_data.hourly import hourly
from samd_data.reading import FIELDS, Reading
from samd_data.tasks import DETERIORATION, SEVERITY, rows_of, task_of

TRAIN_SHARE: Final = 0.8
PURGE: Final = timedelta(hours=6)
"""Dropped before and after the cut: values are carried over it, and neighbouring hours are alike."""


@dataclass(frozen=True)
class Rows:
    """``values``: ``float64[N, R]`` as ``features.encode`` reads them (of the signs now ``[N, 7]``, by
    ``COLUMNS``), NaN = missing; ``labels``: ``int32[N]``, below ``classes``. ``totals``: ``int64[N]``, the
    low end of each hour's NEWS2; only of a task that is ranked (deterioration)."""

    values: NDArray[np.float64]
    labels: NDArray[np.int32]
    classes: int = len(severity.CLASSES)
    totals: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self) -> list[int]:
        """How many rows each class has."""
        found: list[int] = np.bincount(self.labels, minlength=self.classes).tolist()
        return found

    def take(self, rows: NDArray[np.int64]) -> "Rows":
        """Some of them."""
        totals = None if self.totals is None else self.totals[rows]
        return Rows(self.values[rows], self.labels[rows], self.classes, totals)


@dataclass(frozen=True)
class Admission:
    """The labelled hours of one admission, cut by time; ``hours`` counts those without a label, too."""

    train: Rows
    holdout: Rows
    hours: int = 0

    def absence(self, rows: Rows) -> str | None:
        """Why there is nothing to do on these of its rows; None when there is something."""
        if len(rows):
            return None
        if not self.hours:
            return "no data"
        if not len(self.train) and not len(self.holdout):
            return f"no labels yet: none of {self.hours} recorded hours can be labelled"
        return f"no data: {self.hours} recorded hours leave none on this side of the cut"


def build(readings: Iterable[Reading], spec: FeatureSpec, task: str = SEVERITY) -> Admission:
    """Hourly rows with their labels by ``spec.labels``; 80 % to train, then six hours purged each side.

    ``readings`` in order of time. Hours that cannot be labelled are left out: an input is missing, or, of
    deterioration, what came later was not measured, or has not come yet. Raises ``ValueError`` for an unknown
    task.
    """
    asked = task_of(task)
    table = hourly(thin(readings))
    labels = asked.labels(table, spec.labels)
    known = np.flatnonzero(labels >= 0).astype(np.int64)
    totals = None
    if task == DETERIORATION:
        totals, _ = deterioration.low_totals(table.values, spec.labels)
    rows = Rows(rows_of(table, spec), labels.astype(np.int32), len(asked.classes), totals).take(known)
    train, holdout = splits.by_time(table.hours[known], TRAIN_SHARE, PURGE)
    return Admission(rows.take(train), rows.take(holdout), len(table.hours))


def thin(readings: Iterable[Reading]) -> Iterator[Reading]:
    """At most two readings a clock hour that give the same hourly rows as all of them do.

    A sensor that speaks every second writes 86,400 readings a day; this keeps the trainer's memory by the
    hour. The first stands for the hour's beginning (it decides where a stay starts), the last holds the
    newest value of each field with its age. ``readings`` in order of time.
    """
    hour: datetime | None = None
    first = last = None
    carrier = Carrier()
    for reading in readings:
        of = reading.observed_at.replace(minute=0, second=0, microsecond=0)
        if of != hour:
            yield from _merged(first, last, carrier)
            hour, first, carrier = of, reading.observed_at, Carrier()
        last = reading.observed_at
        carrier.update(reading)
    yield from _merged(first, last, carrier)


def _merged(first: datetime | None, last: datetime | None, carrier: Carrier) -> Iterator[Reading]:
    if first is None or last is None:
        return
    if first != last:
        yield Reading(observed_at=first)
    merged = Reading(observed_at=last)
    for field in FIELDS:
        latest = carrier.latest(field)
        if latest is not None:
            ages = {**merged.ages, field: (last - latest[0]).total_seconds()}
            merged = msgspec.structs.replace(merged, ages=ages, **{field: latest[1]})
    yield merged
