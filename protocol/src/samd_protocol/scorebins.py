"""Scores by bin: what a device tells of its hold-out, so that a ranking can be judged without a reading.

A probability p falls into one of 256 bins of equal width in log p/(1 - p), from -6 to 6; what lies beyond is
in the first or the last. Per bin: how many rows of each truth, and the sum of their probabilities.
"""

from typing import Annotated, Final

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS: Final = 256
RULE_BINS: Final = 21
"""One per NEWS2 total, 0 to 20."""

_REACH: Final = 6.0
_LEAST: Final = 1e-9

Count = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]


class ScoreBins(msgspec.Struct, frozen=True, kw_only=True):
    """Rows by score: ``negatives`` and ``positives`` per bin, ``sums`` of their probabilities.

    ``rule_negatives`` and ``rule_positives``: the same rows by the low end of their NEWS2 total (0 to 20),
    which is what a model has to beat.
    """

    negatives: list[Count]
    positives: list[Count]
    sums: list[float]
    rule_negatives: list[Count]
    rule_positives: list[Count]


def bins_of(probabilities: ArrayLike, labels: ArrayLike, totals: ArrayLike) -> ScoreBins:
    """Count rows: probabilities of the second class ``float[N]``, labels 0 or 1, NEWS2 totals 0 to 20.

    Raises ValueError for shapes that differ, or values outside these.
    """
    given = np.asarray(probabilities, dtype=np.float64)
    truth, rule = np.asarray(labels), np.asarray(totals, dtype=np.int64)
    if given.ndim != 1 or not given.shape == truth.shape == rule.shape:
        raise ValueError(f"shapes {given.shape}, {truth.shape} and {rule.shape}; they are the same N")
    if not ((given >= 0) & (given <= 1)).all() or not np.isin(truth, (0, 1)).all():
        raise ValueError("a score is a probability and its label 0 or 1")
    if len(rule) and not 0 <= rule.min() <= rule.max() < RULE_BINS:
        raise ValueError("a NEWS2 total is 0 to 20")
    at, positive = bin_numbers(given), truth == 1
    return ScoreBins(
        negatives=_counted(at[~positive], BINS),
        positives=_counted(at[positive], BINS),
        sums=np.bincount(at, weights=given, minlength=BINS).tolist(),
        rule_negatives=_counted(rule[~positive], RULE_BINS),
        rule_positives=_counted(rule[positive], RULE_BINS),
    )


def bin_numbers(probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of each probability: ``int64[N]``, 0 to 255."""
    held = probabilities.clip(_LEAST, 1 - _LEAST)
    logits = np.log(held / (1 - held))
    numbers = np.floor((logits + _REACH) * (BINS / (2 * _REACH)))
    held_in: NDArray[np.int64] = numbers.clip(0, BINS - 1).astype(np.int64)
    return held_in


def problem(bins: ScoreBins, rows: tuple[int, int]) -> str | None:
    """Why the bins of another program cannot be those of so many negatives and positives, or None."""
    if not len(bins.negatives) == len(bins.positives) == len(bins.sums) == BINS:
        return "malformed report"
    if not len(bins.rule_negatives) == len(bins.rule_positives) == RULE_BINS:
        return "malformed report"
    for negatives, positives in (
        (bins.negatives, bins.positives),
        (bins.rule_negatives, bins.rule_positives),
    ):
        if (sum(negatives), sum(positives)) != rows:
            return "counts do not add up"
    for negative, positive, total in zip(bins.negatives, bins.positives, bins.sums, strict=True):
        if not 0 <= total <= negative + positive + 1e-6:  # NaN is refused, too
            return "impossible score"
    return None


def _counted(at: NDArray[np.int64], size: int) -> list[int]:
    counts: list[int] = np.bincount(at, minlength=size).tolist()
    return counts
