"""The gate, at its exact edges."""

import numpy as np
import pytest
from numpy.typing import NDArray

from samd_server import gate
from samd_server.gate import MIN_EXAMPLES, decide
from samd_server.metrics import scores
from samd_server.outcome import Evaluation


def table(*rows: list[int]) -> NDArray[np.int64]:
    return np.array(rows, dtype=np.int64)


def judged(complete: NDArray[np.int64], masked: NDArray[np.int64] | None = None) -> Evaluation:
    return Evaluation(complete, complete if masked is None else masked, 0.1, 3)


PERFECT = np.diag([10, 10, 5, 5]).astype(np.int64)
NOTHING = np.zeros((4, 4), dtype=np.int64)
CONSTANT = table([10, 0, 0, 0], [6, 0, 0, 0], [4, 0, 0, 0], [0, 0, 0, 0])


def test_a_perfect_first_model_passes() -> None:
    assert decide(judged(PERFECT), None) == (True, "macro-F1 1.000 on 30 held-out hours passes the gate")


def test_a_class_that_nobody_had_is_named() -> None:
    released, reason = decide(judged(np.diag([20, 10, 0, 0]).astype(np.int64)), None)
    assert released
    assert reason.endswith("passes the gate; no hour of medium or high among them")


@pytest.mark.parametrize(("hours", "released"), [(MIN_EXAMPLES - 1, False), (MIN_EXAMPLES, True)])
def test_too_few_hours(hours: int, released: bool) -> None:
    matrix = np.diag([hours - 10, 10, 0, 0]).astype(np.int64)
    assert decide(judged(matrix), None)[0] is released


def test_nobody_had_a_hold_out() -> None:
    assert decide(judged(NOTHING), None) == (False, "only 0 held-out hours to judge it by; 20 are needed")
    assert not decide(judged(NOTHING), judged(NOTHING))[0]


def test_a_first_model_that_always_names_the_commonest_class_is_kept() -> None:
    # F1 of class 0 is 20/30, of the two others 0: their mean is 2/9.
    released, reason = decide(judged(CONSTANT), None)
    assert not released
    assert reason == (
        "macro-F1 0.222 on complete hold-outs, "
        "not above a model that always names the commonest class (0.222)"
    )


def test_one_better_answer_beats_the_constant() -> None:
    assert decide(judged(CONSTANT + table([0] * 4, [-1, 1, 0, 0], [0] * 4, [0] * 4)), None)[0]


def test_with_signs_masked_it_must_hold_too() -> None:
    assert decide(judged(PERFECT, CONSTANT), None)[1].startswith("macro-F1 0.222 on masked hold-outs")
    assert decide(judged(PERFECT, NOTHING), None) == (False, "its macro-F1 on masked hours is undefined")


def test_the_tolerance_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    candidate, used = judged(np.diag([10, 10, 5, 4]) + np.eye(4, k=-1, dtype=np.int64)), judged(PERFECT)
    ours, theirs = scores(candidate.complete).macro_f1, scores(used.complete).macro_f1
    assert ours is not None
    assert theirs == 1.0
    loss = theirs - ours
    monkeypatch.setattr(gate, "TOLERANCE", loss + 1e-12)
    assert decide(candidate, used)[0]
    monkeypatch.setattr(gate, "TOLERANCE", loss - 1e-12)
    released, reason = decide(candidate, used)
    assert not released
    assert "below the model in use (1.000)" in reason


def test_better_or_equal_than_the_model_in_use_passes() -> None:
    assert decide(judged(PERFECT), judged(PERFECT))[0]
    assert decide(judged(PERFECT), judged(CONSTANT))[0]
    # Also a poor one: it loses nothing against what is in use.
    assert decide(judged(CONSTANT), judged(CONSTANT))[0]


def test_a_model_in_use_that_nobody_judged_is_no_excuse() -> None:
    assert decide(judged(PERFECT), judged(NOTHING)) == (
        False,
        "the model in use could not be judged on complete hours",
    )
