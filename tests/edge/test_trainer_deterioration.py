"""The trainer and the task deterioration: rows by what came later, scores by bin, and no run lost."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from samd_data import deterioration, history, splits
from samd_data.features import FeatureSpec, encode
from samd_data.hourly import hourly
from samd_data.reading import Reading
from samd_data.synthetic import generate
from samd_edge import personal
from samd_edge.runtime import Graph
from samd_edge.store import AdmissionStore
from samd_edge.trainer import frames, litert
from samd_edge.trainer.personalising import NO_GRID
from samd_edge.trainer.rows import build
from samd_edge.trainer.worker import Worker
from samd_protocol import bundle as bundles
from samd_protocol.methods import METHODS
from samd_protocol.scorebins import bins_of, problem
from samd_protocol.tasks import Task, TrainSettings, Update, Vector, decode_update
from samd_protocol.tasks import encode as encode_task

SPEC = FeatureSpec("history-v1")
RECORDING = list(generate(1, 200, 3)[0].readings)
WELL = {"heart_rate": 70.0, "respiratory_rate": 16.0, "spo2": 98.0, "systolic_bp": 120.0, "temperature": 37.0}


class Device:
    """A worker in this process, prepared for one admission."""

    def __init__(self, folder: Path, bundle: Path, readings: list[Reading]) -> None:
        store = AdmissionStore(folder)
        store.add_history(readings)
        store.close()
        self.folder = folder
        self.bundle = bundles.read(bundle)
        self.said: list[frames.FromTrainer] = []
        self.worker = Worker(litert.load, self.said.append)
        self.prepared = self.worker.prepare(frames.Prepare(bundle=str(bundle), store=str(store.path)))
        assert self.prepared.error is None, self.prepared.error

    def do(self, **changes: Any) -> Update:
        fields: dict[str, Any] = {
            "id": "task-1",
            "run": "run-1",
            "round": 1,
            "device": "bed-01",
            "kind": "train",
            "graph_sha256": self.bundle.graph_sha256,
            "deadline_s": 30.0,
            "weights": Vector.of(self.bundle.weights),
            "settings": TrainSettings(epochs=4, learning_rate=0.003, mask_rate=0.15, seed=5),
        }
        self.said.clear()
        task = Task(**(fields | changes))
        self.worker.run(iter([msgspec.msgpack.encode(frames.Work(task=encode_task(task)))]))
        done = [message for message in self.said if isinstance(message, frames.Done)]
        return decode_update(done[0].update)


@pytest.fixture
def device(tmp_path: Path, untrained_deterioration_path: Path) -> Device:
    return Device(tmp_path / "admission", untrained_deterioration_path, RECORDING)


def test_rows_are_the_hours_that_later_readings_have_answered() -> None:
    table = hourly(RECORDING)
    labels = deterioration.labels(table, "five")
    known = np.flatnonzero(labels >= 0)
    train, holdout = splits.by_time(table.hours[known], 0.8, timedelta(hours=6))
    made = build(RECORDING, SPEC, "deterioration")
    for rows, chosen in ((made.train, known[train]), (made.holdout, known[holdout])):
        np.testing.assert_array_equal(rows.values, history.rows(table)[chosen])
        assert rows.labels.tolist() == labels[chosen].tolist()
        assert rows.totals is not None
        assert rows.totals.tolist() == deterioration.low_totals(table.values[chosen], "five")[0].tolist()
        assert (rows.classes, rows.counts()) == (2, np.bincount(labels[chosen], minlength=2).tolist())
    assert made.hours == len(table) == 200
    # no look over the cut: the last label of training was known 6 h before the first hour of the hold-out
    assert table.hours[known[holdout]][0] - table.hours[known[train]][-1] >= np.timedelta64(12, "h")
    with pytest.raises(ValueError, match="task 'sepsis' is not known here"):
        build(RECORDING, SPEC, "sepsis")


def test_prepared_it_counts_two_classes(device: Device) -> None:
    made = build(RECORDING, SPEC, "deterioration")
    assert (device.prepared.train, device.prepared.holdout) == (made.train.counts(), made.holdout.counts())
    assert min(made.train.counts()) > 0


def test_a_round_is_trained_and_learns(device: Device) -> None:
    first = device.do()
    assert first.error is None
    assert first.label_counts == device.prepared.train
    assert first.num_examples == sum(device.prepared.train)
    assert first.weights is not None
    again = device.do(round=2, weights=first.weights)
    assert again.loss is not None
    assert first.loss is not None
    assert again.loss < first.loss
    adjusted = device.do(settings=TrainSettings(log_prior=[-0.1, -2.0]))
    assert adjusted.error is None
    assert device.do(settings=TrainSettings(log_prior=[-1.0] * 4)).error is not None, (
        "four classes do not fit"
    )


@pytest.mark.parametrize("split", ["train", "holdout"])
def test_an_evaluation_tells_scores_by_bin_and_no_reading(device: Device, split: Any) -> None:
    update = device.do(kind="evaluate", split=split)
    report = update.report
    assert report is not None
    made = build(RECORDING, SPEC, "deterioration")
    rows = made.train if split == "train" else made.holdout
    given = Graph(device.bundle.graph).infer(encode(rows.values, SPEC), device.bundle.weights)
    assert report.bins == bins_of(given[:, 1].astype(np.float64), rows.labels, rows.totals)
    assert report.confusion == [
        [int(((rows.labels == truth) & (given.argmax(axis=1) == said)).sum()) for said in (0, 1)]
        for truth in (0, 1)
    ]
    counts = (rows.counts()[0], rows.counts()[1])
    assert report.bins_masked is not None
    assert (problem(report.bins, counts), problem(report.bins_masked, counts)) == (None, None)
    assert report.bins_masked != report.bins
    assert update.num_examples == len(rows)


def test_hours_whose_future_is_yet_to_come_have_no_label(
    tmp_path: Path, untrained_deterioration_path: Path
) -> None:
    """Five well hours: nothing is positive, and no horizon is over. Answered with the reason, each time."""
    begin = datetime(2026, 1, 1, 7, 20, tzinfo=UTC)
    young = Device(
        tmp_path / "young",
        untrained_deterioration_path,
        [Reading(observed_at=begin + timedelta(hours=hour), **WELL) for hour in range(5)],
    )
    reason = "no labels yet: none of 5 recorded hours can be labelled"
    for kind, split in (("train", "train"), ("evaluate", "train"), ("evaluate", "holdout")):
        assert young.do(kind=kind, split=split).error == reason
    nobody = Device(tmp_path / "nobody", untrained_deterioration_path, [])
    assert nobody.do().error == "no data"


def test_a_patient_who_never_deteriorates_takes_part(
    tmp_path: Path, untrained_deterioration_path: Path
) -> None:
    begin = datetime(2026, 1, 1, 7, 20, tzinfo=UTC)
    well = Device(
        tmp_path / "well",
        untrained_deterioration_path,
        [Reading(observed_at=begin + timedelta(hours=hour), **WELL) for hour in range(80)],
    )
    update = well.do()
    assert (update.error, update.label_counts[1]) == (None, 0)
    report = well.do(kind="evaluate", split="holdout").report
    assert report is not None
    assert report.bins is not None
    assert sum(report.bins.positives) == 0


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_part_and_a_personal_model_is_not_used(device: Device, method: str) -> None:
    settings = TrainSettings(
        epochs=1, learning_rate=0.003, mask_rate=0.15, method=method, personal_mu=0.1, proximal_mu=0.01
    )
    trained = device.do(settings=settings)
    assert trained.error is None
    closing = device.do(kind="evaluate", split="holdout", personalise=True, settings=settings)
    assert closing.report is not None
    told = closing.report.personal
    if method in {"none", "fedprox"}:
        assert told is None
        return
    assert told is not None
    assert (told.adopted, told.reason) == (False, NO_GRID)
    kept = {path.name for path in device.folder.iterdir() if path.suffix == ".msgpack"}
    assert kept == {f"deterioration-{personal.STATE_FILE}"}, "that of severity is left alone"
