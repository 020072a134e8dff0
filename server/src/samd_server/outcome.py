"""What the rounds of a run gave: counts over the devices' hold-outs, the candidate, the personal models."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from samd_data.tasks import DETERIORATION, SEVERITY, task_of
from samd_protocol.tasks import EvaluationReport
from samd_server.metrics import scores
from samd_server.ranking import Ranking, of_bins


@dataclass(frozen=True)
class Evaluation:
    """Summed confusion counts, int64[C, C] (`[true][predicted]`), of the devices' hold-outs; of a task that
    is ranked (deterioration) also how well."""

    complete: NDArray[np.int64]
    masked: NDArray[np.int64]
    loss: float
    devices: int
    ranking: Ranking | None = None
    ranking_masked: Ranking | None = None


@dataclass(frozen=True)
class Outcome:
    """What the rounds gave. `in_use` is None where no trained model was in use."""

    weights: NDArray[np.float32]
    candidate: Evaluation
    in_use: Evaluation | None
    rounds: int
    label_counts: list[int]
    personal: "Personal | None" = None


@dataclass(frozen=True)
class Personal:
    """What became of the personal models: how many devices tried one, how many use it now; and, of those that
    tried, the hold-outs under the model that each patient is assessed by now (the personal one where it is
    used) beside the same rows under the candidate. `devices` says it of each."""

    tried: int
    adopted: int
    used: NDArray[np.int64]
    candidate: NDArray[np.int64]
    devices: dict[str, dict[str, Any]]


def personal_of(reports: Mapping[str, EvaluationReport], task: str = SEVERITY) -> Personal:
    """What became of each device's personal model."""
    classes = task_of(task).classes
    told = {device: each.personal for device, each in sorted(reports.items()) if each.personal is not None}
    tried = {device: each for device, each in told.items() if each.confusion}
    used = np.zeros((len(classes), len(classes)), dtype=np.int64)
    candidate = used.copy()
    for device, each in tried.items():
        theirs = reports[device].confusion
        used += np.asarray(each.confusion if each.adopted else theirs, dtype=np.int64)
        candidate += np.asarray(theirs, dtype=np.int64)
    devices = {
        device: {
            "adopted": each.adopted,
            "reason": each.reason[:200],
            "grid_recall": each.grid_recall,
            "macro_f1": scores(each.confusion, classes).macro_f1 if each.confusion else None,
            "macro_f1_global": scores(reports[device].confusion, classes).macro_f1,
        }
        for device, each in told.items()
    }
    return Personal(len(tried), sum(each.adopted for each in told.values()), used, candidate, devices)


def judged(report: EvaluationReport, task: str = SEVERITY) -> dict[str, float | int | None]:
    """One device's hold-out in a few numbers."""
    if report.bins is not None and report.bins_masked is not None:
        ranked, masked_too = of_bins([report.bins]), of_bins([report.bins_masked])
        return {
            "rows": ranked.rows,
            "positives": ranked.positives,
            "loss": report.loss,
            "auroc": ranked.auroc,
            "average_precision": ranked.average_precision,
            "average_precision_masked": masked_too.average_precision,
        }
    classes = task_of(task).classes
    complete, masked = scores(report.confusion, classes), scores(report.confusion_masked, classes)
    return {
        "rows": complete.rows,
        "loss": report.loss,
        "macro_f1": complete.macro_f1,
        "recall_urgent": complete.recall_urgent,
        "macro_f1_masked": masked.macro_f1,
    }


def summed(reports: Mapping[str, EvaluationReport], task: str = SEVERITY) -> Evaluation:
    """The reports of several devices as one, in the order of their names; the loss is the mean over rows."""
    classes = len(task_of(task).classes)
    complete = np.zeros((classes, classes), dtype=np.int64)
    masked = np.zeros((classes, classes), dtype=np.int64)
    loss = 0.0
    for _, report in sorted(reports.items()):
        counts = np.asarray(report.confusion, dtype=np.int64)
        complete += counts
        masked += np.asarray(report.confusion_masked, dtype=np.int64)
        loss += report.loss * int(counts.sum())
    found = Evaluation(complete, masked, loss / max(int(complete.sum()), 1), len(reports))
    if task != DETERIORATION:
        return found
    ordered = [report for _, report in sorted(reports.items())]
    return replace(
        found,
        ranking=of_bins([report.bins for report in ordered if report.bins is not None]),
        ranking_masked=of_bins([report.bins_masked for report in ordered if report.bins_masked is not None]),
    )


def described(evaluation: Evaluation, task: str = SEVERITY) -> dict[str, dict[str, Any]]:
    """The scores that a model's card holds: of complete hours, and with signs masked."""
    if evaluation.ranking is not None and evaluation.ranking_masked is not None:
        pair: tuple[Any, Any] = evaluation.ranking, evaluation.ranking_masked
    else:
        classes = task_of(task).classes
        pair = scores(evaluation.complete, classes), scores(evaluation.masked, classes)
    return {"complete": msgspec.to_builtins(pair[0]), "masked": msgspec.to_builtins(pair[1])}


def log_prior(label_counts: list[int], tau: float) -> list[float]:
    """The logit adjustment tau * log(class share), of the classes' counts summed over the devices.

    Menon et al., "Long-tail learning via logit adjustment" (ICLR 2021). A class that nobody has is counted
    as one case, since its share has no logarithm. Empty (no adjustment) for tau 0 or without any count.
    """
    counts = np.asarray(label_counts, dtype=np.float64)
    if tau == 0.0 or counts.sum() == 0:
        return []
    shares = np.maximum(counts, 1.0)
    return [float(value) for value in tau * np.log(shares / shares.sum())]
