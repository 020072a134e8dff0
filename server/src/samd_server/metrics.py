"""Scores of a confusion matrix `counts[true][predicted]`. What is undefined is None, never 0.

Accuracy alone flatters a model that always answers the commonest class, so the scores that count are
macro-F1, balanced accuracy, and the recall of the classes that call for action: 5 or more (class 2 and 3:
urgent response) and 7 or more (class 3: emergency response).
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from samd_data.severity import CLASSES

_URGENT = 2


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """Scores over `rows` rows. `support` counts the true rows of each class, `absent` names those without.

    `macro_f1` and `balanced_accuracy` are means over the classes present. `recall_urgent`: of the rows whose
    class is 2 or 3, the share answered with 2 or 3; `recall_high`: of class 3, the share answered with 3.
    """

    rows: int
    macro_f1: float | None
    balanced_accuracy: float | None
    recall_urgent: float | None
    recall_high: float | None
    accuracy: float | None
    recall: dict[str, float | None]
    precision: dict[str, float | None]
    support: dict[str, int]
    absent: list[str]


def scores(confusion: ArrayLike, classes: Sequence[str] = CLASSES) -> Scores:
    """Raises ValueError for counts that are not a square of whole numbers of 0 or more, one per class."""
    counts = np.asarray(confusion)
    if counts.shape != (len(classes), len(classes)):
        raise ValueError(f"counts of the shape {counts.shape}; there are {len(classes)} classes")
    if not np.isfinite(counts).all() or (counts < 0).any() or (counts != np.floor(counts)).any():
        raise ValueError("counts are whole numbers of 0 or more")
    counts = counts.astype(np.int64)
    hits, true, answered = np.diagonal(counts), counts.sum(axis=1), counts.sum(axis=0)
    present = true > 0
    recall = [_ratio(hit, total) for hit, total in zip(hits, true, strict=True)]
    precision = [_ratio(hit, total) for hit, total in zip(hits, answered, strict=True)]
    # 2·hits / (true + answered): a class that is present but never answered has an F1 of 0, rightly.
    f1 = [_ratio(2 * hits[i], true[i] + answered[i]) for i in range(len(classes)) if present[i]]
    return Scores(
        rows=int(true.sum()),
        macro_f1=_mean(f1),
        balanced_accuracy=_mean(recall),
        recall_urgent=_ratio(counts[_URGENT:, _URGENT:].sum(), true[_URGENT:].sum()),
        recall_high=recall[-1],
        accuracy=_ratio(hits.sum(), true.sum()),
        recall=dict(zip(classes, recall, strict=True)),
        precision=dict(zip(classes, precision, strict=True)),
        support={name: int(total) for name, total in zip(classes, true, strict=True)},
        absent=[name for name, here in zip(classes, present, strict=True) if not here],
    )


def confusion(true: ArrayLike, predicted: ArrayLike, classes: int = len(CLASSES)) -> NDArray[np.int64]:
    """int64[C, C] counts `[true][predicted]` of two int[N]; a class outside 0 to C-1 is a ValueError."""
    truth, answer = np.asarray(true, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    if truth.shape != answer.shape or truth.ndim != 1:
        raise ValueError(f"true {truth.shape} and predicted {answer.shape} are not two rows of N")
    for values in (truth, answer):
        if values.size and not 0 <= values.min() <= values.max() < classes:
            raise ValueError(f"classes are 0 to {classes - 1}")
    return np.bincount(truth * classes + answer, minlength=classes * classes).reshape(classes, classes)


def _ratio(part: np.int64, whole: np.int64) -> float | None:
    return float(part) / float(whole) if whole else None


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None
