"""Whether a candidate may be released: measured against the model in use, never on faith."""

import numpy as np
from numpy.typing import NDArray

from samd_server.metrics import scores
from samd_server.outcome import Evaluation
from samd_server.ranking import Ranking

TOLERANCE = 0.01
"""How much macro-F1 a candidate may lose: below what five seeds scatter on the ICU demo."""

MIN_EXAMPLES = 20
"""Fewer held-out hours than this say nothing about a model."""

MIN_POSITIVES = 10
"""Fewer hours before a deterioration than this say nothing about a ranking."""


def decide(candidate: Evaluation, in_use: Evaluation | None) -> tuple[bool, str]:
    """(released?, the reason in one sentence).

    The candidate must not lose more than `TOLERANCE` of macro-F1 against the model in use, on complete
    hold-out hours and with signs masked; without a trained model in use it must beat a model that always
    names the commonest class. Of deterioration it is AUROC and average precision, and without a trained model
    in use NEWS2 itself, as it is now, has to be beaten. What cannot be judged is not released.
    """
    if candidate.ranking is not None and candidate.ranking_masked is not None:
        return _decide_ranking(candidate.ranking, candidate.ranking_masked, in_use)
    examples = int(candidate.complete.sum())
    if examples < MIN_EXAMPLES:
        return False, f"only {examples} held-out hours to judge it by; {MIN_EXAMPLES} are needed"
    for name, matrix, other in (
        ("complete", candidate.complete, None if in_use is None else in_use.complete),
        ("masked", candidate.masked, None if in_use is None else in_use.masked),
    ):
        score = scores(matrix).macro_f1
        if score is None:
            return False, f"its macro-F1 on {name} hours is undefined"
        if other is None:
            bar = _always_commonest(matrix)
            if score <= bar:
                return False, (
                    f"macro-F1 {score:.3f} on {name} hold-outs, "
                    f"not above a model that always names the commonest class ({bar:.3f})"
                )
            continue
        used = scores(other).macro_f1
        if used is None:
            return False, f"the model in use could not be judged on {name} hours"
        if score < used - TOLERANCE:
            return False, (
                f"macro-F1 {score:.3f} on {name} hold-outs, "
                f"more than {TOLERANCE} below the model in use ({used:.3f})"
            )
    judged = scores(candidate.complete)
    # Released all the same: a ward of well patients has no such hour, and alerts act on the rule alone.
    unseen = f"; no hour of {' or '.join(judged.absent)} among them" if judged.absent else ""
    return True, f"macro-F1 {judged.macro_f1:.3f} on {examples} held-out hours passes the gate{unseen}"


def _decide_ranking(complete: Ranking, masked: Ranking, in_use: Evaluation | None) -> tuple[bool, str]:
    if complete.rows < MIN_EXAMPLES:
        return False, f"only {complete.rows} held-out hours to judge it by; {MIN_EXAMPLES} are needed"
    if complete.positives < MIN_POSITIVES or complete.auroc is None:
        return False, (
            f"only {complete.positives} of {complete.rows} held-out hours come before a deterioration; "
            f"{MIN_POSITIVES} are needed, and one that does not"
        )
    used = (None, None) if in_use is None else (in_use.ranking, in_use.ranking_masked)
    for hours, found, other in (("complete", complete, used[0]), ("masked", masked, used[1])):
        for measure in ("auroc", "average_precision"):
            score = getattr(found, measure)
            name = "AUROC" if measure == "auroc" else "average precision"
            if other is not None:
                theirs = getattr(other, measure)
                if theirs is None:
                    return False, f"the model in use could not be judged on {hours} hours"
                if score < theirs - TOLERANCE:
                    return False, (
                        f"{name} {score:.3f} on {hours} hold-outs, "
                        f"more than {TOLERANCE} below the model in use ({theirs:.3f})"
                    )
            elif hours == "complete" and score <= (bar := getattr(found, f"rule_{measure}")):
                return False, (
                    f"{name} {score:.3f} on {hours} hold-outs, not above that of NEWS2 itself ({bar:.3f})"
                )
    return True, (
        f"AUROC {complete.auroc:.3f} and average precision {complete.average_precision:.3f} on "
        f"{complete.rows} held-out hours ({complete.positives} before a deterioration) pass the gate"
    )


def _always_commonest(matrix: NDArray[np.int64]) -> float:
    """The macro-F1, on these rows, of a model that always names the class with the most of them."""
    support = matrix.sum(axis=1)
    constant = np.zeros_like(matrix)
    constant[:, int(support.argmax())] = support
    return scores(constant).macro_f1 or 0.0
