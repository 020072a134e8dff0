"""From a network's scores to probabilities that mean what they say, and to a set that says how sure they are.

``fit`` takes the answers on a hold-out that the network did not learn from:

* too few cases (of the rarer class fewer than 10 hours): nothing is changed, for a correction that was
  guessed from a handful is worse than none;
* from 10: one temperature (Guo et al., 2017, arXiv:1706.04599), the least negative log-likelihood;
* two classes, from 200 of each and 1,000 in all: isotonic regression (Zadrozny and Elkan, 2002), by pooling
  adjacent violators, linear between its points. Below a thousand it overfits (Niculescu-Mizil and Caruana,
  2005).

The set holds each class whose score is not among the least likely tenth of the scores that its own cases had
on the hold-out (split conformal prediction, one threshold per class: Vovk, 2012, arXiv:1209.2673). With too
few cases of a class to tell a tenth (fewer than 9) the class is always in: unknown is never fine. For rows
drawn like those of the hold-out a set misses the truth at most one time in ten; hours of one patient are not
drawn so, and what it comes to is measured (``docs/models.md``), not promised.
"""

import math
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

TEMPERATURE_CASES: Final = 10
ISOTONIC_CASES: Final = 200
ISOTONIC_ROWS: Final = 1000
ALPHA: Final = 0.1
"""How often a set may miss the truth."""

COLDEST: Final = 0.1
HOTTEST: Final = 10.0
"""Temperatures that are allowed: a hold-out without an error asks for 0, which makes certainties."""

_LEAST: Final = 1e-7  # a probability of 0 has no logarithm

Kind = Literal["none", "temperature", "isotonic"]


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What ``fit`` found; all of it plain numbers, to be kept as JSON.

    ``kind``, with its ``temperature`` or the points ``scores`` and ``probabilities`` of the isotonic line.
    ``thresholds``: per class the lowest score with which it is in the set. ``cases``: rows of each class.

    Raises ``ValueError`` (``msgspec.ValidationError`` while decoding) for numbers that cannot be used.
    """

    kind: Kind = "none"
    temperature: float = 1.0
    scores: list[float] = msgspec.field(default_factory=list)
    probabilities: list[float] = msgspec.field(default_factory=list)
    thresholds: list[float]
    cases: list[int]

    def __post_init__(self) -> None:
        if not COLDEST <= self.temperature <= HOTTEST:
            raise ValueError(f"temperature is {self.temperature}; it is {COLDEST} to {HOTTEST}")
        if len(self.thresholds) != len(self.cases) or len(self.cases) < 2:
            raise ValueError("there is one threshold and one number of cases per class, of two or more")
        if not all(0 <= threshold <= 1 for threshold in self.thresholds):
            raise ValueError("a threshold is a probability, 0 to 1")
        for line in (self.scores, self.probabilities):
            if any(not 0 <= value <= 1 for value in line) or line != sorted(line):
                raise ValueError("the isotonic line rises, from 0 at the least to 1 at the most")
        if len(self.scores) != len(self.probabilities) or (self.kind == "isotonic") != bool(self.scores):
            raise ValueError("an isotonic line has as many scores as probabilities, other kinds have none")


def fit(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> Calibration:
    """Calibrate ``float[N, C]`` (rows sum to 1) against ``int[N]``, 0 to C - 1; N may be 0.

    Raises ``ValueError`` for other shapes, scores that are no probabilities, or labels outside the classes.
    """
    given = _checked(probabilities)
    truth = np.asarray(labels)
    classes = given.shape[1]
    if truth.shape != (len(given),) or (len(truth) and not 0 <= truth.min() <= truth.max() < classes):
        raise ValueError(f"labels have the shape {truth.shape}; expected {len(given)} of 0 to {classes - 1}")
    cases = np.bincount(truth, minlength=classes)
    thresholds = [_threshold(given[truth == label, label]) for label in range(classes)]
    found = Calibration(thresholds=thresholds, cases=cases.tolist())
    kind = choose(found.cases)
    if kind == "isotonic":
        scores, steps = isotonic(given[:, 1], truth)
        return msgspec.structs.replace(found, kind=kind, scores=scores.tolist(), probabilities=steps.tolist())
    if kind == "temperature":
        return msgspec.structs.replace(found, kind=kind, temperature=temperature(given, truth))
    return found


def choose(cases: Sequence[int]) -> Kind:
    """The kind for these numbers of rows per class. A class without a case does not count; two must have."""
    present = [count for count in cases if count]
    if len(present) < 2 or min(present) < TEMPERATURE_CASES:
        return "none"
    if len(cases) == 2 and min(present) >= ISOTONIC_CASES and sum(cases) >= ISOTONIC_ROWS:
        return "isotonic"
    return "temperature"


def apply(calibration: Calibration, probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Calibrated ``float64[N, C]``; rows sum to 1. Raises ``ValueError`` for another number of classes."""
    given = _checked(probabilities, len(calibration.cases))
    if calibration.kind == "isotonic":
        positive = np.interp(given[:, 1], calibration.scores, calibration.probabilities)
        return np.stack([1.0 - positive, positive], axis=1)
    if calibration.kind == "temperature":
        return _softmax(_log(given) / calibration.temperature)
    return given


def sets(calibration: Calibration, probabilities: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """``bool[N, C]``: the classes that cannot be ruled out. Takes the scores before calibration.

    An empty set says that the row is unlike any of the hold-out.
    """
    given = _checked(probabilities, len(calibration.cases))
    return np.asarray(given >= np.asarray(calibration.thresholds), dtype=np.bool_)


def temperature(probabilities: NDArray[np.float64], labels: NDArray[np.integer[Any]]) -> float:
    """The T of least mean -log softmax(log p / T), by bisection of its slope in 1/T, which only rises."""
    logs = _log(probabilities)
    chosen = logs[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        return float(((_softmax(logs * inverse) * logs).sum(axis=1) - chosen).mean())

    low, high = 1.0 / HOTTEST, 1.0 / COLDEST
    if slope(low) >= 0:
        return HOTTEST
    if slope(high) <= 0:
        return COLDEST
    while high - low > 1e-10:
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 2.0 / (low + high)


def isotonic(
    scores: NDArray[np.float64], labels: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The rising line of least squares through ``labels`` (0 or 1): its scores, ascending, and its values.

    Equal scores are one point. Inner points of a level stretch are left out, since the line between its ends
    is the same.
    """
    points, of_row = np.unique(scores, return_inverse=True)
    weights = np.bincount(of_row).astype(np.float64)
    means = np.bincount(of_row, weights=labels) / weights
    blocks: list[tuple[float, float, int]] = []  # mean, weight, points
    for mean, weight in zip(means.tolist(), weights.tolist(), strict=True):
        blocks.append((mean, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (mean_1, weight_1, count_1), (mean_2, weight_2, count_2) = blocks[-2:]
            together = weight_1 + weight_2
            blocks[-2:] = [((mean_1 * weight_1 + mean_2 * weight_2) / together, together, count_1 + count_2)]
    steps = np.repeat([mean for mean, _, _ in blocks], [count for _, _, count in blocks])
    ends = np.ones(len(points), dtype=np.bool_)
    ends[1:-1] = (steps[1:-1] != steps[:-2]) | (steps[1:-1] != steps[2:])
    return points[ends], steps[ends].clip(0.0, 1.0)


class Bin(msgspec.Struct, frozen=True):
    """Of the rows whose probability lies in one stretch: how many, its mean, the share that are cases."""

    rows: int
    mean_probability: float
    share: float


def reliability(
    probability: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], bins: int = 10
) -> tuple[list[Bin], float]:
    """The bins of equal width that hold a row, and the expected calibration error: the mean distance between
    probability and share, weighted by rows. Raises ``ValueError`` without a row or a bin."""
    given = np.asarray(probability, dtype=np.float64)
    if not len(given) or bins < 1:
        raise ValueError("reliability needs a row and a bin")
    of_row = np.minimum((given * bins).astype(np.int64), bins - 1)
    found = []
    for number in range(bins):
        chosen = of_row == number
        if chosen.any():
            share = float(np.asarray(labels)[chosen].mean())
            found.append(Bin(int(chosen.sum()), float(given[chosen].mean()), share))
    error = sum(one.rows * abs(one.mean_probability - one.share) for one in found) / len(given)
    return found, error


def _threshold(own: NDArray[np.float64]) -> float:
    """The score that at most ``ALPHA`` of such cases stay below; 0 with too few to tell."""
    below = math.floor(ALPHA * (len(own) + 1) + 1e-9)
    return float(np.sort(own)[below - 1]) if below >= 1 else 0.0


def _checked(probabilities: NDArray[np.floating[Any]], classes: int | None = None) -> NDArray[np.float64]:
    given = np.asarray(probabilities, dtype=np.float64)
    if given.ndim != 2 or given.shape[1] < 2 or given.shape[1] != (classes or given.shape[1]):
        raise ValueError(f"probabilities have the shape {given.shape}; expected (N, {classes or 'classes'})")
    if not ((given >= 0) & (given <= 1)).all() or (np.abs(given.sum(axis=1) - 1) > 1e-3).any():
        raise ValueError("a row holds no probabilities that sum to 1")
    return given


def _log(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    logs: NDArray[np.float64] = np.log(np.maximum(probabilities, _LEAST))
    return logs


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares
