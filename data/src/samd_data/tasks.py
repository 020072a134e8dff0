"""What a model can be asked: the classes that it tells, the rows that it reads, the labels that it learns.

=================  =========================================  =========================================
task               classes                                    asked of
=================  =========================================  =========================================
``severity``       none, low, medium, high (``severity``)     the values now, with every reading
``deterioration``  stable, deteriorates (``deterioration``)   the last six hours, at each full hour
=================  =========================================  =========================================
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from samd_data import deterioration, severity
from samd_data.features import FeatureSpec
from samd_data.hourly import HourlyTable
from samd_data.reading import COLUMNS
from samd_data.severity import Setting


class Task(NamedTuple):
    """One question. ``features``: the set that a new network reads. ``labels``: ``int64[N]`` of an hourly
    table, negative where an hour has none."""

    name: str
    classes: tuple[str, ...]
    features: str
    labels: Callable[[HourlyTable, Setting], NDArray[np.int64]]


SEVERITY: Final = "severity"
DETERIORATION: Final = "deterioration"

TASKS: Final = {
    SEVERITY: Task(
        SEVERITY,
        severity.CLASSES,
        "signs-v1",
        lambda table, setting: severity.labels(table.values, setting),
    ),
    DETERIORATION: Task(DETERIORATION, deterioration.CLASSES, "history-v1", deterioration.labels),
}


def task_of(name: str) -> Task:
    """The task of this name. Raises ``ValueError`` for one that this version does not know."""
    if name not in TASKS:
        raise ValueError(f"task {name!r} is not known here; known: {', '.join(TASKS)}")
    return TASKS[name]


def rows_of(table: HourlyTable, spec: FeatureSpec) -> NDArray[np.float64]:
    """What ``features.encode`` reads of each hour of ``table``: ``float64[N, spec.row_size]``."""
    if spec.row_size == len(COLUMNS):
        return table.values
    from samd_data import history

    return history.rows(table)
