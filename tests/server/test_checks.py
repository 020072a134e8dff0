"""Each reason for which an update is not used."""

import math

import msgspec
import numpy as np
import pytest

from samd_protocol.tasks import EvaluationReport, Task, TrainSettings, Update, Vector
from samd_server.checks import NORM_LIMIT, coarse, reject_reason

ANCHOR = np.array([1.0, 2.0, 3.0], dtype=np.float32)
TABLE = [[2, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]


def task(kind: str = "train") -> Task:
    return Task(
        id="t",
        run="r",
        round=1,
        device="bed-01",
        kind=kind,  # type: ignore[arg-type]
        graph_sha256="0" * 64,
        deadline_s=1.0,
        weights=Vector.of(ANCHOR),
        settings=TrainSettings(),
    )


def trained(values: object = (1.0, 2.0, 4.0), **fields: object) -> Update:
    given = {"num_examples": 5, "loss": 0.1, "weights": Vector.of(np.array(values, dtype=np.float32))}
    return Update(task="t", run="r", round=1, device="bed-01", kind="train", **(given | fields))  # type: ignore[arg-type]


def report(**fields: object) -> Update:
    given = {"confusion": TABLE, "confusion_masked": TABLE, "loss": 0.1}
    made = EvaluationReport(**(given | fields))  # type: ignore[arg-type]
    return Update(task="t", run="r", round=1, device="bed-01", kind="evaluate", num_examples=6, report=made)


def test_a_good_update_and_a_good_report_pass() -> None:
    assert reject_reason(trained(), task(), ANCHOR) is None
    assert reject_reason(report(), task("evaluate"), ANCHOR) is None


@pytest.mark.parametrize(
    ("update", "reason"),
    [
        (trained(error="too hot"), "device: too hot"),
        (trained(error="x" * 500), "device: " + "x" * 72),
        (trained(num_examples=0), "no examples"),
        (trained(num_examples=-1), "no examples"),
        (trained(num_examples=10_000_000), None),
        (trained(num_examples=10_000_001), "impossible count"),
        (trained(weights=None), "no weights"),
        (trained([1.0, 2.0]), "wrong size"),
        (trained([1.0, 2.0, 3.0, 4.0]), "wrong size"),
        (trained([]), "wrong size"),
        (trained([1.0, math.nan, 3.0]), "not finite"),
        (trained([1.0, math.inf, 3.0]), "not finite"),
        (trained([1.0, 2.0, 3.0 + NORM_LIMIT]), None),
        (trained([1.0, 2.0, 3.1 + NORM_LIMIT]), "out of norm"),
        (trained([3e38, 3e38, 3e38]), "out of norm"),
        (trained(loss=None), "no loss"),
        (trained(loss=math.nan), "loss not finite"),
        (trained(loss=math.inf), "loss not finite"),
        (trained(loss=1e300), "impossible loss"),
    ],
)
def test_training_updates(update: Update, reason: str | None) -> None:
    assert reject_reason(update, task(), ANCHOR) == reason


@pytest.mark.parametrize(
    ("update", "reason"),
    [
        (msgspec.structs.replace(report(), report=None), "no report"),
        (msgspec.structs.replace(report(), num_examples=7), "counts do not add up"),
        (report(confusion=TABLE[:3]), "malformed report"),
        (report(confusion_masked=TABLE[:3]), "malformed report"),
        (report(confusion=[[6, 0, 0], *TABLE[1:]]), "malformed report"),
        (report(confusion=[[], *TABLE[1:]]), "malformed report"),
        (report(confusion=[[3, -1, 0, 0], *TABLE[1:]]), "malformed report"),
        (report(confusion_masked=[[2**63, 0, 0, 0], *TABLE[1:]]), "impossible count"),
        (report(confusion=[[2**64, 0, 0, 0], *TABLE[1:]]), "counts do not add up"),
        (report(loss=math.nan), "loss not finite"),
        (report(loss=-1e9), "impossible loss"),
    ],
)
def test_reports(update: Update, reason: str) -> None:
    assert reject_reason(update, task("evaluate"), ANCHOR) == reason


@pytest.mark.parametrize("field", [{"run": "s"}, {"round": 2}, {"device": "bed-02"}, {"kind": "evaluate"}])
def test_an_answer_to_something_else(field: dict[str, object]) -> None:
    assert reject_reason(msgspec.structs.replace(trained(), **field), task(), ANCHOR) == "not its task"


def test_a_devices_own_words_are_not_published() -> None:
    assert coarse("device: Mrs X is asleep") == "device error"
    assert coarse("out of norm") == "out of norm"
