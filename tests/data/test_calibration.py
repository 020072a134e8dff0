"""Calibration: numbers worked out by hand, scikit-learn as the reference, no correction out of nothing."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from samd_data.calibration import (
    ALPHA,
    Calibration,
    apply,
    choose,
    fit,
    isotonic,
    reliability,
    sets,
    temperature,
)

Floats = NDArray[np.float64]


def two(positive: list[float] | Floats) -> Floats:
    given = np.asarray(positive, dtype=np.float64)
    return np.stack([1 - given, given], axis=1)


def drawn(rows: int, sharpness: float, seed: int = 0) -> tuple[Floats, NDArray[np.int64]]:
    """Scores whose logits are `sharpness` times the true ones."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1.0, 1.5, rows)
    labels = (rng.random(rows) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    return two(1 / (1 + np.exp(-sharpness * logits))), labels


def test_the_kind_by_the_number_of_cases() -> None:
    assert choose([500, 9]) == "none"
    assert choose([500, 0]) == "none"
    assert choose([500, 10]) == "temperature"
    assert choose([799, 200]) == "temperature"
    assert choose([800, 200]) == "isotonic"
    assert choose([800, 200, 500]) == "temperature"
    assert choose([800, 200, 0, 0]) == "temperature"
    assert fit(np.zeros((0, 2)), np.zeros(0, np.int64)) == Calibration(thresholds=[0.0, 0.0], cases=[0, 0])


def test_a_temperature_by_hand() -> None:
    """Always .9 for the class that is right in 3 of 4: the odds of 9 must become odds of 3."""
    given, labels = two([0.9] * 40), np.array([1] * 30 + [0] * 10)
    found = fit(given, labels)
    assert found.kind == "temperature"
    assert found.temperature == pytest.approx(math.log(9) / math.log(3))
    assert apply(found, two([0.9, 0.5, 0.1]))[:, 1] == pytest.approx([0.75, 0.5, 0.25])
    assert temperature(given, np.ones(40, np.int64)) == 0.1
    assert temperature(given, np.zeros(40, np.int64)) == 10.0


def test_a_temperature_of_four_classes_finds_what_was_done_to_the_logits() -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, (20000, 4))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (rng.random((20000, 1)) > true.cumsum(axis=1)).sum(axis=1)
    sharp = np.exp(logits * 2) / np.exp(logits * 2).sum(axis=1, keepdims=True)
    assert temperature(sharp, labels) == pytest.approx(2.0, abs=0.03)


def test_an_isotonic_line_by_hand() -> None:
    """.2, .3 and .4 with 0, 1, 0 pool the last two; the two rows at .5 are one point."""
    scores, steps = isotonic(np.array([0.5, 0.2, 0.4, 0.3, 0.5, 0.9]), np.array([1, 0, 0, 1, 0, 1]))
    assert scores.tolist() == [0.2, 0.3, 0.5, 0.9]
    assert steps.tolist() == [0.0, 0.5, 0.5, 1.0]


@pytest.mark.parametrize("seed", range(5))
def test_isotonic_agrees_with_scikit_learn(seed: int) -> None:
    peer = pytest.importorskip("sklearn.isotonic").IsotonicRegression(out_of_bounds="clip")
    given, labels = drawn(3000, 2.0, seed)
    given = np.round(given, 3) if seed % 2 else given  # with ties, and without
    found = fit(given, labels)
    assert found.kind == "isotonic"
    peer.fit(given[:, 1], labels)
    asked = np.linspace(0, 1, 501)
    assert apply(found, two(asked))[:, 1] == pytest.approx(peer.predict(asked), abs=1e-9)


def test_temperature_agrees_with_scikit_learn() -> None:
    """A logistic regression on the one logit, without intercept and penalty, is a temperature."""
    linear = pytest.importorskip("sklearn.linear_model")
    given, labels = drawn(900, 2.0)
    logit = np.log(given[:, 1:] / given[:, :1])
    peer = linear.LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(logit, labels)
    assert 1 / temperature(given, labels) == pytest.approx(peer.coef_[0, 0], rel=1e-4)


def test_a_set_by_hand() -> None:
    """19 cases with .05 to .95: the tenth of 20 is 2, so the second lowest is the last one that is in."""
    own = np.arange(1, 20) / 20
    given = two(np.concatenate([own, [0.5] * 8]))
    labels = np.array([1] * 19 + [0] * 8)
    found = fit(given, labels)
    assert found.thresholds == [0.0, pytest.approx(0.1)]
    assert sets(found, two([0.09, 0.1, 0.9])).tolist() == [[True, False], [True, True], [True, True]]


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_sets_cover_each_class_as_often_as_they_say(sharpness: float) -> None:
    given, labels = drawn(8000, sharpness)
    found = fit(given[:4000], labels[:4000])
    held = sets(found, given[4000:])
    for label in (0, 1):
        here = labels[4000:] == label
        assert held[here, label].mean() == pytest.approx(1 - ALPHA, abs=0.03)


def test_calibrating_helps_what_is_too_sharp() -> None:
    given, labels = drawn(8000, 3.0)
    _, before = reliability(given[4000:, 1], labels[4000:])
    _, after = reliability(apply(fit(given[:4000], labels[:4000]), given[4000:])[:, 1], labels[4000:])
    assert before > 0.1
    assert after < 0.03


def test_reliability_by_hand() -> None:
    bins, error = reliability(np.array([0.05, 0.15, 0.12, 1.0]), np.array([0, 1, 0, 1]), 10)
    assert [(one.rows, one.share) for one in bins] == [(1, 0.0), (2, 0.5), (1, 1.0)]
    assert bins[1].mean_probability == pytest.approx(0.135)
    assert error == pytest.approx((0.05 + 2 * 0.365 + 0) / 4)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), max_size=60))
def test_whatever_the_hold_out_holds_the_answer_is_a_probability(rows: list[tuple[float, int]]) -> None:
    given = two([score for score, _ in rows]) if rows else np.zeros((0, 2))
    found = fit(given, np.array([label for _, label in rows], dtype=np.int64))
    answer = apply(found, two(np.linspace(0, 1, 21)))
    assert (np.diff(answer[:, 1]) >= 0).all()
    assert answer.sum(axis=1) == pytest.approx(np.ones(21))
    assert msgspec.json.decode(msgspec.json.encode(found), type=Calibration) == found


def test_what_is_no_probability_is_refused() -> None:
    for wrong in ([[0.5, 0.6]], [[np.nan, 1.0]], [[-0.1, 1.1]], [[1.0]], [0.5, 0.5]):
        with pytest.raises(ValueError, match="probabilities"):
            fit(np.array(wrong), np.zeros(1, np.int64))
    with pytest.raises(ValueError, match="labels"):
        fit(two([0.5]), np.array([2]))
    with pytest.raises(ValueError, match="temperature"):
        Calibration(temperature=0.0, thresholds=[0, 0], cases=[1, 1])
    with pytest.raises(ValueError, match="rises"):
        Calibration(kind="isotonic", scores=[0.5, 0.2], probabilities=[0, 1], thresholds=[0, 0], cases=[1, 1])
    with pytest.raises(ValueError, match="shape"):
        apply(fit(two([0.5]), np.array([1])), np.full((1, 4), 0.25))
