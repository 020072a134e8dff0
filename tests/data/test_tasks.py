"""What each task reads and tells, and that an hour taken alone is the hour of the table."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from samd_data import deterioration, history, severity
from samd_data.carry import Carrier
from samd_data.features import FeatureSpec
from samd_data.hourly import hourly, row_of
from samd_data.synthetic import generate
from samd_data.tasks import TASKS, rows_of, task_of


def test_two_tasks_with_their_classes_rows_and_labels() -> None:
    table = hourly(generate(1, 60, 3)[0].readings)
    assert {name: task.classes for name, task in TASKS.items()} == {
        "severity": ("none", "low", "medium", "high"),
        "deterioration": ("stable", "deteriorates"),
    }
    for name, task in TASKS.items():
        spec = FeatureSpec(task.features)
        assert task_of(name) is task
        assert rows_of(table, spec).shape == (len(table), spec.row_size)
    assert (task_of("severity").labels(table, "five") == severity.labels(table.values, "five")).all()
    assert (task_of("deterioration").labels(table, "five") == deterioration.labels(table, "five")).all()
    np.testing.assert_array_equal(rows_of(table, FeatureSpec("history-v1")), history.rows(table))
    with pytest.raises(ValueError, match="task 'sepsis' is not known here; known: severity, deterioration"):
        task_of("sepsis")


def test_an_hour_alone_is_the_hour_of_the_table() -> None:
    readings = generate(1, 40, 11)[0].readings
    table = hourly(readings)
    start = datetime.fromisoformat(f"{table.hours[0]}").replace(tzinfo=UTC)
    carrier, taken = Carrier(), 0
    for number in range(len(table)):
        hour = start + timedelta(hours=number)
        while taken < len(readings) and readings[taken].observed_at < hour + timedelta(hours=1):
            carrier.update(readings[taken])
            taken += 1
        values, ages = row_of(carrier, hour)
        np.testing.assert_array_equal(values, table.values[number])
        np.testing.assert_array_equal(ages, table.ages[number])
