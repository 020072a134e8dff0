"""Whether a candidate may be released: measured against the model in use, never on faith."""

import numpy as np

from samd_server.loop import Evaluation
from samd_server.metrics import macro_f1

TOLERANCE = 0.01
"""How much macro-F1 a candidate may lose: below what five seeds scatter on the ICU demo."""

MIN_EXAMPLES = 20
"""Fewer held-out hours than this say nothing about a model."""


def decide(candidate: Evaluation, in_use: Evaluation | None) -> tuple[bool, str]:
    """(released?, the reason in one sentence).

    The candidate must not lose more than `TOLERANCE` of macro-F1 against the model in use, on complete
    hold-out hours and with signs masked; without a trained model in use it must beat a model that always
    names the commonest class.
    """
    examples = int(candidate.complete.sum())
    if examples < MIN_EXAMPLES:
        return False, f"only {examples} held-out hours to judge it by; {MIN_EXAMPLES} are needed"
    for name, matrix, other in (
        ("complete", candidate.complete, None if in_use is None else in_use.complete),
        ("masked", candidate.masked, None if in_use is None else in_use.masked),
    ):
        score = macro_f1(matrix)
        if score is None:
            return False, f"its macro-F1 on {name} hours is undefined"
        if other is None or other.sum() == 0:
            bar, what = _always_commonest(matrix), "a model that always names the commonest class"
        else:
            bar, what = (macro_f1(other) or 0.0) - TOLERANCE, f"the model in use less {TOLERANCE}"
        if score < bar:
            return False, f"macro-F1 {score:.3f} on {name} hold-outs, below {what} ({bar:.3f})"
    return True, f"macro-F1 {macro_f1(candidate.complete):.3f} on {examples} held-out hours passes the gate"


def _always_commonest(matrix: "np.ndarray[tuple[int, int], np.dtype[np.int64]]") -> float:
    support = matrix.sum(axis=1)
    constant = np.zeros_like(matrix)
    constant[:, int(support.argmax())] = support
    return macro_f1(constant) or 0.0
