"""Scores with numpy alone, and the intervals around them. What is undefined is NaN, never 0."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

T_975 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 8: 2.365, 10: 2.262}
"""Student's t, 97.5 %, by the number of seeds."""


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """The chance that a positive scores above a negative, ties counted half."""
    truth, given = np.asarray(labels) == 1, np.asarray(scores, dtype=np.float64)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return float("nan")
    values, at = np.unique(given, return_inverse=True)
    counts = np.bincount(at, minlength=len(values))
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return float((ranks[at][truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """The mean precision over the recalls at which it changes, equal scores taken together."""
    truth, given = np.asarray(labels) == 1, np.asarray(scores, dtype=np.float64)
    if not truth.any():
        return float("nan")
    order = np.argsort(-given, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(given[order])), len(order) - 1)
    hits = np.cumsum(truth[order])[ends]
    precision = hits / (ends + 1)
    return float((np.diff(hits, prepend=0) * precision).sum() / truth.sum())


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Mean and 95 % interval by Student's t of one value per seed; NaN seeds make it undefined."""
    given = np.asarray(values, dtype=np.float64)
    spread = float(given.std(ddof=1)) * T_975[len(given)] / np.sqrt(len(given)) if len(given) > 1 else np.nan
    mean = float(given.mean())
    return {"mean": mean, "low": mean - spread, "high": mean + spread, "seeds": given.tolist()}


def over_patients(
    difference: Callable[[NDArray[np.int64]], float],
    patients: NDArray[Any],
    draws: int,
    seed: int,
) -> list[float]:
    """`difference` of the rows of patients drawn with replacement; undefined ones are left out."""
    names, at = np.unique(patients, return_inverse=True)
    rows = [np.flatnonzero(at == number) for number in range(len(names))]
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        chosen = rng.integers(0, len(names), len(names))
        value = difference(np.concatenate([rows[number] for number in chosen]))
        if np.isfinite(value):
            found.append(value)
    return found


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean and the middle 95 % of draws."""
    low, high = np.quantile(values, [0.025, 0.975])
    return {"mean": float(np.mean(values)), "low": float(low), "high": float(high)}
