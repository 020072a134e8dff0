"""Scores of a confusion matrix: exact numbers, and scikit-learn as the reference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, f1_score, recall_score

from samd_server.metrics import confusion, scores


def test_exact_numbers() -> None:
    found = scores([[4, 1, 0, 0], [1, 8, 1, 0], [0, 1, 2, 1], [0, 0, 1, 1]])
    assert found.rows == 21
    assert found.accuracy == 15 / 21
    assert found.recall == {"none": 4 / 5, "low": 8 / 10, "medium": 2 / 4, "high": 1 / 2}
    assert found.precision == {"none": 4 / 5, "low": 8 / 10, "medium": 2 / 4, "high": 1 / 2}
    assert found.macro_f1 == pytest.approx((0.8 + 0.8 + 0.5 + 0.5) / 4, abs=1e-15)
    assert found.balanced_accuracy == pytest.approx((0.8 + 0.8 + 0.5 + 0.5) / 4, abs=1e-15)
    assert found.recall_urgent == 5 / 6
    assert found.recall_high == 1 / 2
    assert found.support == {"none": 5, "low": 10, "medium": 4, "high": 2}
    assert found.absent == []


def test_what_is_absent_is_undefined_and_named() -> None:
    found = scores([[3, 0, 0, 0], [1, 5, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert found.absent == ["medium", "high"]
    assert found.recall_urgent is None
    assert found.recall_high is None
    assert found.recall["medium"] is None
    assert found.precision == {"none": 3 / 4, "low": 1.0, "medium": None, "high": 0.0}
    assert found.macro_f1 == pytest.approx((6 / 7 + 10 / 12) / 2, abs=1e-15)
    assert found.balanced_accuracy == pytest.approx((1 + 5 / 7) / 2, abs=1e-15)


def test_always_the_commonest_class_scores_what_it_deserves() -> None:
    found = scores([[0, 10, 0, 0], [0, 70, 0, 0], [0, 15, 0, 0], [0, 5, 0, 0]])
    assert found.accuracy == 0.7
    assert found.balanced_accuracy == 0.25
    assert found.macro_f1 == pytest.approx(140 / 170 / 4, abs=1e-15)
    assert found.recall_urgent == 0.0
    assert found.recall_high == 0.0


def test_no_rows_define_nothing() -> None:
    found = scores(np.zeros((4, 4)))
    assert (found.rows, found.macro_f1, found.balanced_accuracy, found.accuracy) == (0, None, None, None)
    assert found.absent == ["none", "low", "medium", "high"]


@pytest.mark.parametrize(
    "bad", [np.zeros((3, 4)), np.full((4, 4), -1), np.full((4, 4), 0.5), np.full((4, 4), np.nan)]
)
def test_counts_that_are_none_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="counts"):
        scores(bad)


def test_confusion_counts_true_by_predicted() -> None:
    assert confusion([0, 1, 1, 3], [0, 2, 1, 0]).tolist() == [
        [1, 0, 0, 0],
        [0, 1, 1, 0],
        [0, 0, 0, 0],
        [1, 0, 0, 0],
    ]
    with pytest.raises(ValueError, match="0 to 3"):
        confusion([-1], [0])


@given(arrays(np.int64, (4, 4), elements=st.integers(0, 6)))
def test_like_scikit_learn(counts: np.ndarray) -> None:
    found = scores(counts)
    truth = np.repeat(np.repeat(np.arange(4), 4), counts.ravel())
    answer = np.repeat(np.tile(np.arange(4), 4), counts.ravel())
    assert (confusion(truth, answer) == counts).all()
    if not counts.any():
        return
    present = np.unique(truth)
    f1 = f1_score(truth, answer, labels=present, average="macro", zero_division=0)
    recall = recall_score(truth, answer, labels=present, average="macro")
    assert found.macro_f1 == pytest.approx(f1, abs=1e-12)
    assert found.balanced_accuracy == pytest.approx(recall, abs=1e-12)
    assert found.accuracy == pytest.approx(accuracy_score(truth, answer), abs=1e-12)
    if (truth >= 2).any():
        assert found.recall_urgent == pytest.approx(recall_score(truth >= 2, answer >= 2), abs=1e-12)
    else:
        assert found.recall_urgent is None
