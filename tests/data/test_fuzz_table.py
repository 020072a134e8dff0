"""Tables of readings under any input: a reading, a rejection or an error, never another."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest

from samd_data.news2 import CHARTS
from samd_data.reading import Reading
from samd_scripts.fuzzing import json_lines, tables
from samd_scripts.fuzzing.chart import CHART
from samd_scripts.fuzzing.oracle import judge
from samd_scripts.fuzzing.strategies import hold
from samd_scripts.fuzzing.target import Target, Wrong

TABLES = [*tables.TARGETS, *json_lines.TARGETS]


@pytest.mark.parametrize("target", TABLES, ids=lambda target: target.name)
def test_no_input_breaks_the_reader(target: Target) -> None:
    hold(target)


@pytest.mark.parametrize(
    ("target", "place", "fault"),
    [
        ("csv-written", "samd_data.table._FLAGS", {"true": False, "yes": True, "1": True, "false": False}),
        ("csv", "samd_data.table._NUMBER", re.compile(r"[+-]?[\d_]+\.?\d*")),
        ("jsonl-written", "samd_data.table._twice", lambda *_: None),
        ("jsonl", "samd_data.table.LONGEST_AGE_S", float("inf")),
        ("jsonl-written", "samd_data.plausibility.check", lambda *_: None),
    ],
)
def test_a_fault_that_is_planted_is_found(
    target: str, place: str, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checks themselves are checked: the reader is broken in one place."""
    monkeypatch.setattr(place, fault)
    with pytest.raises((Wrong, OverflowError, ValueError)):
        hold(next(one for one in TABLES if one.name == target), examples=2000, smallest=False)


@pytest.mark.parametrize("field", list(CHART))
def test_a_chart_that_is_off_by_one_is_found(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check itself is checked: each bound of the product's chart moved by one step is noticed."""
    chart = CHARTS[field]
    for index, upper in enumerate(chart.upper):
        reading = Reading(observed_at=datetime(2026, 1, 1, tzinfo=UTC), **{field: upper / chart.steps})
        judge(reading)
        moved = (*chart.upper[:index], upper - 1, *chart.upper[index + 1 :])
        with monkeypatch.context() as patch:
            patch.setitem(CHARTS, field, chart._replace(upper=moved))
            with pytest.raises(Wrong, match="a wrong score"):
                judge(reading)
