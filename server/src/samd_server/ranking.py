"""How well a probability of two classes ranks and means what it says, from rows or from scores by bin.

What is undefined is None, never 0. Equal scores are ties: half a win each for the AUROC, one step for the
average precision. By bin the calibration error takes a bin as one row of its mean probability.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from samd_protocol.scorebins import ScoreBins

_STRETCHES: Final = 10


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """Over ``rows`` hours with ``positives`` cases. ``calibration_error``: the mean distance between
    probability and share over ten stretches of equal width, weighted by rows. ``rule_...``: the low end of
    the NEWS2 total as the score, on the same rows."""

    rows: int
    positives: int
    auroc: float | None
    average_precision: float | None
    calibration_error: float | None
    mean_probability: float | None
    rule_auroc: float | None
    rule_average_precision: float | None


def of_rows(probabilities: ArrayLike, labels: ArrayLike, totals: ArrayLike) -> Ranking:
    """Of ``float[N]`` probabilities of class 1, labels 0 or 1, and NEWS2 totals."""
    given, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    values, at = np.unique(given, return_inverse=True)
    sums = np.bincount(at, weights=given, minlength=len(values)).astype(np.float64)
    return _ranking(_by_score(given, truth), _by_score(np.asarray(totals), truth), values, sums)


def of_bins(parts: Sequence[ScoreBins]) -> Ranking:
    """Of the bins of several devices, summed."""
    score = np.zeros((2, 0), dtype=np.int64)
    rule, sums = score, np.zeros(0)
    if parts:
        score = np.sum([[part.negatives, part.positives] for part in parts], axis=0, dtype=np.int64)
        rule = np.sum([[part.rule_negatives, part.rule_positives] for part in parts], axis=0, dtype=np.int64)
        sums = np.sum([part.sums for part in parts], axis=0, dtype=np.float64)
    rows = score.sum(axis=0)
    return _ranking(score, rule, sums / np.maximum(rows, 1), sums)


def auroc(counts: NDArray[np.int64]) -> float | None:
    """The chance that a case scores above another, of ``int64[2, B]`` (no case, case) by ascending score."""
    negatives, positives = counts
    if not negatives.sum() or not positives.sum():
        return None
    below = np.cumsum(negatives) - negatives
    wins = (positives * (below + negatives / 2)).sum()
    return float(wins / (int(negatives.sum()) * int(positives.sum())))


def average_precision(counts: NDArray[np.int64]) -> float | None:
    """The mean precision over the recalls at which it changes, of ``int64[2, B]`` by ascending score."""
    positives = counts[1, ::-1]
    if not positives.sum():
        return None
    rows = np.cumsum(counts.sum(axis=0)[::-1])
    precision = np.cumsum(positives) / np.maximum(rows, 1)
    return float((precision * positives).sum() / positives.sum())


def _by_score(scores: NDArray[np.float64], truth: NDArray[np.int64]) -> NDArray[np.int64]:
    values, at = np.unique(scores, return_inverse=True)
    size = len(values)
    return np.bincount(truth * size + at, minlength=2 * size).reshape(2, size).astype(np.int64)


def _ranking(
    score: NDArray[np.int64], rule: NDArray[np.int64], means: NDArray[np.float64], sums: NDArray[np.float64]
) -> Ranking:
    rows = score.sum(axis=0)
    total = int(rows.sum())
    error = None
    if total:
        stretch = np.minimum((means * _STRETCHES).astype(np.int64), _STRETCHES - 1)
        said = np.bincount(stretch, weights=sums, minlength=_STRETCHES)
        were = np.bincount(stretch, weights=score[1], minlength=_STRETCHES)
        error = float(np.abs(said - were).sum() / total)
    return Ranking(
        rows=total,
        positives=int(score[1].sum()),
        auroc=auroc(score),
        average_precision=average_precision(score),
        calibration_error=error,
        mean_probability=float(sums.sum() / total) if total else None,
        rule_auroc=auroc(rule),
        rule_average_precision=average_precision(rule),
    )
