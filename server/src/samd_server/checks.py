"""Whether an update may be used: a reply is judged before Flower sees it.

Flower's FedAvg averages NaN, raises on a wrong size and divides by zero when no reply has examples; so
every reply that is late, malformed, of the wrong size, not finite or out of norm is dropped here, with a
short fixed reason that is counted and published.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from samd_protocol.scorebins import problem
from samd_protocol.tasks import EvaluationReport, Task, Update

NORM_LIMIT = 100.0
"""Longest step that one device may ask for, as the Euclidean norm of its weights less the global ones.

Honest devices stay below 10 on the network of the spine (20 epochs, rate 0.01: Adam moves a weight by at
most about rate x steps); a scaled or exploded update is far above."""

EXAMPLES_LIMIT = 10_000_000
"""More rows than a bedside device can hold: a century of readings, one each five minutes."""

LOSS_LIMIT = 1e6
"""A mean cross-entropy beyond this is no loss; the limit also keeps sums over devices finite."""

LOSS_HAIR = 1e-4

DEVICE_ERROR = "device: "
"""Begins the reason of a device that answered with an error of its own."""


def reject_reason(
    update: Update, task: Task, anchor: NDArray[np.float32], classes: int = 4, *, ranked: bool = False
) -> str | None:
    """Why this answer to this task must not be used, or None.

    `anchor` are the global weights that the task carried, float32[P]; `classes` how many its model tells.
    `ranked`: a report has to hold the scores by bin.
    """
    if update.error is not None:
        return f"{DEVICE_ERROR}{update.error}"[:80]
    if (update.run, update.round, update.device, update.kind) != (
        task.run,
        task.round,
        task.device,
        task.kind,
    ):
        return "not its task"
    if update.num_examples <= 0:
        return "no examples"
    if update.num_examples > EXAMPLES_LIMIT:
        return "impossible count"
    if update.label_counts and (
        min(update.label_counts) < 0 or sum(update.label_counts) != update.num_examples
    ):
        return "counts do not add up"
    if task.kind == "train":
        return _reject_weights(update, anchor)
    return _reject_report(update, classes, ranked=ranked)


def _reject_weights(update: Update, anchor: NDArray[np.float32]) -> str | None:
    if update.weights is None:
        return "no weights"
    weights = update.weights.array()
    if weights.shape != anchor.shape:
        return "wrong size"
    if not np.isfinite(weights).all():
        return "not finite"
    if (reason := _reject_loss(update.loss)) is not None:
        return reason
    if float(np.linalg.norm(weights.astype(np.float64) - anchor)) > NORM_LIMIT:
        return "out of norm"
    return None


def _reject_report(update: Update, classes: int, *, ranked: bool) -> str | None:
    if update.report is None:
        return "no report"
    for table in (update.report.confusion, update.report.confusion_masked):
        if not _is_table(table, classes):
            return "malformed report"
    if (reason := _reject_loss(update.report.loss)) is not None:
        return reason
    if _total(update.report.confusion) != update.num_examples:
        return "counts do not add up"
    if _total(update.report.confusion_masked) > EXAMPLES_LIMIT:
        return "impossible count"
    if ranked and (reason := _reject_bins(update.report)) is not None:
        return reason
    personal = update.report.personal
    if personal is not None and personal.confusion:
        for table in (personal.confusion, personal.confusion_masked):
            if not _is_table(table, classes):
                return "malformed report"
            # the same rows as the global model's
            if [sum(row) for row in table] != [sum(row) for row in update.report.confusion]:
                return "counts do not add up"
    return None


def _reject_bins(report: EvaluationReport) -> str | None:
    """The scores by bin are of the same rows as the counts."""
    rows = (sum(report.confusion[0]), sum(report.confusion[1]))
    for bins in (report.bins, report.bins_masked):
        if bins is None:
            return "no scores"
        if (reason := problem(bins, rows)) is not None:
            return reason
    return None


def _is_table(table: Sequence[Sequence[int]], classes: int) -> bool:
    return len(table) == classes and all(len(row) == classes and min(row) >= 0 for row in table)


def _reject_loss(loss: float | None) -> str | None:
    if loss is None:
        return "no loss"
    if not np.isfinite(loss):
        return "loss not finite"
    # A cross-entropy is not negative; rounding takes one of nearly 0 a hair below.
    return None if -LOSS_HAIR <= loss <= LOSS_LIMIT else "impossible loss"


def _total(table: Sequence[Sequence[int]]) -> int:
    """Of Python's own integers: a count from the wire may exceed 64 bits."""
    return sum(map(sum, table))


def coarse(reason: str) -> str:
    """The reason as a retained message may carry it: a device's own words stay in the server's files."""
    return "device error" if reason.startswith(DEVICE_ERROR) else reason
