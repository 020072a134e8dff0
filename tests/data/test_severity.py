"""Classes and labels."""

import numpy as np
import pytest
from numpy.typing import NDArray

from samd_data.severity import CLASSES, labels, severity_of

NORMAL = [70, 16, 98, 120, 37.0, 0, 0]


def test_classes() -> None:
    assert CLASSES == ("none", "low", "medium", "high")
    assert [severity_of(total) for total in range(21)] == [0, 1, 1, 1, 1, 2, 2] + [3] * 14
    for total in (-1, 21):
        with pytest.raises(ValueError, match="0 to 20"):
            severity_of(total)


def rows(*changes: dict[int, float]) -> NDArray[np.float64]:
    values = np.array([NORMAL] * len(changes))
    for row, change in enumerate(changes):
        for column, value in change.items():
            values[row, column] = value
    return values


def test_five_signs_do_not_look_at_oxygen_and_consciousness() -> None:
    values = rows(
        {}, {5: np.nan, 6: np.nan}, {5: 1, 6: 1}, {0: 100}, {0: 131, 1: 22}, {0: 131, 1: 25, 4: 38.5}
    )
    assert labels(values, "five").tolist() == [0, 0, 0, 1, 2, 3]


@pytest.mark.parametrize("column", range(7))
def test_a_missing_input_is_no_label(column: int) -> None:
    values = rows({column: np.nan})
    assert labels(values, "five").tolist() == [-1 if column < 5 else 0]
    assert labels(values, "all").tolist() == [-1]


def test_all_inputs() -> None:
    values = rows({}, {5: 1}, {5: 1, 6: 1}, {5: 1, 6: 1, 0: 120})
    assert labels(values, "all").tolist() == [0, 1, 2, 3]
    assert labels(values, "all").dtype == np.int64
    assert labels(np.zeros((0, 7)), "all").shape == (0,)
    with pytest.raises(ValueError, match="'five' or 'all'"):
        labels(values, "six")  # type: ignore[arg-type]
