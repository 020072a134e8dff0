"""Tables of readings under any input: a reading, a rejection or an error, never another."""

from datetime import UTC, datetime

import pytest

from samd_data.news2 import CHARTS
from samd_data.reading import Reading
from samd_scripts.fuzzing import tables
from samd_scripts.fuzzing.chart import CHART
from samd_scripts.fuzzing.oracle import judge
from samd_scripts.fuzzing.strategies import hold
from samd_scripts.fuzzing.target import Target, Wrong


@pytest.mark.parametrize("target", tables.TARGETS, ids=lambda target: target.name)
def test_no_input_breaks_the_reader(target: Target) -> None:
    hold(target)


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
