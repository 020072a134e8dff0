"""Whether a personal model may assess its patient: what it must show, and against which models.

A patient with too little data keeps the global model. A personal model is used only if it is no worse than
each model that could be used in its place, on the device's own hold-out and on the forgetting grid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

MIN_TRAIN_ROWS: Final = 24
"""A day of labelled hours: with less, a model of one's own is one of a few hours."""
MIN_CLASSES: Final = 2
"""With one class only, a model learns to say that class."""
MIN_HOLDOUT_ROWS: Final = 12
"""With fewer, one row more or less decides."""
URGENT: Final = 2
"""The first class of severity that calls for action (5 or more)."""
MIN_GRID_RECALL: Final = 0.9


@dataclass(frozen=True)
class Evidence:
    """What one model answers: counts ``int64[C, C]`` as ``[true][predicted]`` on the hold-out's rows, on the
    same with signs hidden, and on the forgetting grid."""

    complete: NDArray[np.int64]
    masked: NDArray[np.int64]
    grid: NDArray[np.int64]


@dataclass(frozen=True)
class Verdict:
    """Whether the personal model is used, and why or why not in one sentence that names no reading."""

    adopted: bool
    reason: str


def too_little(train_counts: Sequence[int], holdout_counts: Sequence[int]) -> str | None:
    """Why this patient keeps the global model whatever a personal one would show; None if it may be tried."""
    rows, classes, held = sum(train_counts), sum(count > 0 for count in train_counts), sum(holdout_counts)
    if rows < MIN_TRAIN_ROWS:
        return f"too little data: {rows} labelled hours, {MIN_TRAIN_ROWS} are needed"
    if classes < MIN_CLASSES:
        return f"too little data: all {rows} labelled hours are of one class"
    if held < MIN_HOLDOUT_ROWS:
        return f"too little data: {held} held-out hours, {MIN_HOLDOUT_ROWS} are needed"
    return None


def judge(personal: Evidence, others: Mapping[str, Evidence]) -> Verdict:
    """Compare a personal model with each of the others, by name."""
    recall = urgent_recall(personal.grid)
    if recall is None or recall < MIN_GRID_RECALL:
        shown = "none" if recall is None else f"{recall:.3f}"
        return Verdict(
            False, f"it forgets: recall of 5 or more on the grid {shown}, {MIN_GRID_RECALL} is needed"
        )
    for name, other in others.items():
        if (theirs := urgent_recall(other.grid)) is not None and recall < theirs:
            return Verdict(
                False, f"it forgets: recall of 5 or more on the grid {recall:.3f}, {name} has {theirs:.3f}"
            )
        for hours, mine, its in (
            ("held-out hours", personal.complete, other.complete),
            ("held-out hours with signs hidden", personal.masked, other.masked),
        ):
            for measure, of in (("macro-F1", macro_f1), ("recall of 5 or more", urgent_recall)):
                ours, others_score = of(mine), of(its)
                if ours is not None and others_score is not None and ours < others_score:
                    return Verdict(False, f"{measure} on {hours} {ours:.3f}, {name} has {others_score:.3f}")
    return Verdict(
        True, f"no worse than {' and '.join(others)}; recall of 5 or more on the grid {recall:.3f}"
    )


def urgent_recall(counts: NDArray[np.int64]) -> float | None:
    """Of the rows whose class calls for action, the share answered so; None without such a row."""
    true = int(counts[URGENT:].sum())
    return int(counts[URGENT:, URGENT:].sum()) / true if true else None


def macro_f1(counts: NDArray[np.int64]) -> float | None:
    """The mean F1 of the classes that are present; None without any row."""
    true, answered, hits = counts.sum(axis=1), counts.sum(axis=0), np.diagonal(counts)
    present = true > 0
    if not present.any():
        return None
    return float(np.mean(2 * hits[present] / (true[present] + answered[present])))
