"""Every method in the trainer of a device, on the bundle's own graph: rounds, the examination, the files."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from samd_data.reading import Reading
from samd_edge import personal
from samd_edge.personalisation import head_of
from samd_edge.runtime import GraphError
from samd_edge.store import AdmissionStore
from samd_edge.trainer import frames, litert
from samd_edge.trainer.worker import Worker
from samd_protocol import bundle as bundles
from samd_protocol.bundle import Bundle
from samd_protocol.methods import METHODS, PERSONAL
from samd_protocol.tasks import Task, TrainSettings, Update, Vector, decode_update
from samd_protocol.tasks import encode as encode_task

BEGIN = datetime(2026, 1, 1, 7, 20, tzinfo=UTC)
WELL = {"heart_rate": 70.0, "respiratory_rate": 16.0, "spo2": 98.0, "systolic_bp": 120.0, "temperature": 37.0}


def recording(hours: int) -> list[Reading]:
    rng = np.random.default_rng(0)
    return [
        Reading(
            observed_at=BEGIN + timedelta(hours=hour),
            heart_rate=float(rng.integers(45, 135)),
            respiratory_rate=float(rng.integers(9, 27)),
            spo2=float(rng.integers(89, 100)),
            systolic_bp=float(rng.integers(85, 150)),
            temperature=float(rng.integers(350, 395)) / 10,
        )
        for hour in range(hours)
    ]


def well(hours: int) -> list[Reading]:
    return [Reading(observed_at=BEGIN + timedelta(hours=hour), **WELL) for hour in range(hours)]


@dataclass
class Device:
    """A worker in this process, prepared for one admission."""

    worker: Worker
    folder: Path
    bundle: Bundle
    said: list[frames.FromTrainer] = field(default_factory=list)

    def task(self, number: int = 1, weights: Any = None, **changes: Any) -> Task:
        settings = {
            "epochs": 3,
            "learning_rate": 0.01,
            "mask_rate": 0.15,
            "seed": 5,
            "personal_mu": 0.1,
            "proximal_mu": 0.01,
        }
        fields: dict[str, Any] = {
            "id": f"task-{number}",
            "run": "run-1",
            "round": number,
            "device": "bed-01",
            "kind": "train",
            "graph_sha256": self.bundle.graph_sha256,
            "deadline_s": 30.0,
            "weights": Vector.of(self.bundle.weights if weights is None else weights),
            "settings": TrainSettings(**(settings | changes.pop("settings", {}))),
        }
        return Task(**(fields | changes))

    def do(self, task: Task) -> Update:
        self.said.clear()
        self.worker.run(iter([msgspec.msgpack.encode(frames.Work(task=encode_task(task)))]))
        done = [message for message in self.said if isinstance(message, frames.Done)]
        return decode_update(done[0].update)

    def rounds(self, method: str, count: int, weights: Any = None) -> list[Update]:
        found, at = [], self.bundle.weights if weights is None else weights
        for number in range(1, count + 1):
            found.append(self.do(self.task(number, at, settings={"method": method})))
            assert found[-1].error is None, found[-1].error
            at = found[-1].weights.array()
        return found

    def close_run(self, weights: Any, method: str, number: int = 4, **settings: Any) -> Update:
        task = self.task(
            number,
            weights,
            kind="evaluate",
            split="holdout",
            personalise=True,
            settings={"method": method} | settings,
        )
        return self.do(task)


@pytest.fixture
def device(tmp_path: Path, untrained_bundle_path: Path) -> Callable[..., Device]:
    number = itertools.count(1)

    def make(readings: list[Reading], in_use: Path | None = None, bundle: Path | None = None) -> Device:
        folder = tmp_path / f"admission-{next(number)}"
        store = AdmissionStore(folder)
        store.add_history(readings)
        store.close()
        chosen = untrained_bundle_path if bundle is None else bundle
        said: list[frames.FromTrainer] = []
        worker = Worker(litert.load, said.append)
        prepared = worker.prepare(
            frames.Prepare(
                bundle=str(chosen), store=str(store.path), in_use="" if in_use is None else str(in_use)
            )
        )
        assert prepared.error is None, prepared.error
        return Device(worker, folder, bundles.read(chosen), said)

    return make


def released(path: Path, weights: Any, where: Path) -> Path:
    """The bundle with these weights, as a trained one in use."""
    bundle = bundles.read(path)
    manifest = msgspec.structs.replace(bundle.manifest, version=3, trained=True, hashes={})
    bundles.write(where, msgspec.structs.replace(bundle, manifest=manifest, weights=weights))
    return where


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_part_in_rounds(device: Any, method: str) -> None:
    one = device(recording(120))
    updates = one.rounds(method, 3)
    assert [update.num_examples for update in updates] == [91] * 3
    assert updates[0].label_counts == one.worker._prepared.admission.train.counts()
    assert updates[2].loss < updates[0].loss
    kept = (one.folder / personal.STATE_FILE).exists()
    assert kept == (method in PERSONAL)
    head = head_of(one.bundle.manifest.layers) > 0
    sent = updates[0].weights.array()
    assert np.array_equal(sent[head], one.bundle.weights[head]) == (method in ("fedper", "fedrep"))
    assert not np.array_equal(sent[~head], one.bundle.weights[~head])
    if method == "apfl":
        assert updates[0].metrics["alpha"] == 0.5
        assert updates[0].metrics["personal_loss"] > 0


@pytest.mark.parametrize("method", PERSONAL)
def test_the_same_round_asked_for_twice_gives_the_same_bytes(device: Any, method: str) -> None:
    one = device(recording(120))
    one.rounds(method, 2)
    task = one.task(3, settings={"method": method})
    first = one.do(task)
    kept = (one.folder / personal.STATE_FILE).read_bytes()
    again = one.do(msgspec.structs.replace(task, id="task-again"))
    assert first.weights == again.weights
    assert (one.folder / personal.STATE_FILE).read_bytes() == kept


def test_what_is_sent_does_not_depend_on_what_is_kept(device: Any) -> None:
    one = device(recording(120))
    sent = {method: one.do(one.task(1, settings={"method": method})).weights for method in METHODS}
    assert sent["ditto"] == sent["finetune"] == sent["apfl"] == sent["none"] == sent["fedprox"]


@pytest.mark.parametrize("method", PERSONAL)
def test_a_run_ends_with_a_verdict(device: Any, method: str) -> None:
    one = device(recording(150))
    final = one.rounds(method, 3)[-1].weights.array()
    update = one.close_run(final, method)
    assert update.error is None
    report = update.report.personal
    rows = [sum(row) for row in update.report.confusion]
    assert [sum(row) for row in report.confusion] == [sum(row) for row in report.confusion_masked] == rows
    assert 0 <= report.grid_recall <= 1
    # three rounds of three epochs on one patient: far from the grid's nine tenths
    assert not report.adopted
    assert report.reason.startswith("it forgets: recall of 5 or more on the grid")
    assert not (one.folder / personal.MODEL_FILE).exists()
    assert not [message for message in one.said if isinstance(message, frames.Adopted)]


def test_the_global_method_leaves_nothing_to_judge(device: Any) -> None:
    one = device(recording(120))
    update = one.close_run(one.bundle.weights, "none")
    assert update.error is None
    assert update.report.personal is None


@pytest.fixture
def learned(device: Any) -> tuple[Device, Any]:
    """A device whose global weights have learned the chart, by many epochs on the forgetting grid itself."""
    from samd_edge.personalisation.forgetting import grid
    from samd_edge.trainer.learning import Place, train_round

    one = device(recording(150))
    prepared = one.worker._prepared
    weights, _ = train_round(
        prepared.trainer,
        grid("five", 2048, seed=1),
        prepared.spec,
        weights=one.bundle.weights,
        settings=TrainSettings(epochs=60, learning_rate=0.01, mask_rate=0.05),
        place=Place(0, 0, "school"),
        batch_size=32,
    )
    return one, weights


def test_a_personal_model_that_passes_is_put_in_use_and_told(learned: Any) -> None:
    one, weights = learned
    # a pull so strong that the personal model stays at the global one: no worse, then
    update = one.close_run(weights, "finetune", personal_epochs=1, personal_learning_rate=1e-6)
    report = update.report.personal
    assert report.adopted, report.reason
    assert report.reason.startswith("no worse than the global model; recall of 5 or more on the grid 1.000")
    assert [type(message) for message in one.said if isinstance(message, frames.Adopted)] == [frames.Adopted]
    kept, vector = personal.load_model(one.folder, one.bundle.graph_sha256)
    assert kept.judged == [personal.checksum(weights)]
    assert vector.shape == weights.shape
    assert 0 < np.abs(vector - weights).max() < 1e-3


def test_it_has_to_stand_up_to_the_model_in_use(
    learned: Any, device: Any, untrained_bundle_path: Path, tmp_path: Path
) -> None:
    _, weights = learned
    in_use = released(untrained_bundle_path, weights, tmp_path / "in-use.samd")
    one = device(recording(150), in_use)
    worse = one.close_run(one.bundle.weights, "finetune", personal_epochs=1)
    assert not worse.report.personal.adopted
    same = one.close_run(weights, "finetune", number=9, personal_epochs=1, personal_learning_rate=1e-6)
    assert same.report.personal.adopted, same.report.personal.reason
    assert "the model in use" in same.report.personal.reason


def test_a_personal_model_that_forgets_danger_is_not_used(learned: Any, device: Any, tmp_path: Path) -> None:
    _, weights = learned
    mild = device([replace_signs(reading) for reading in recording(150)])
    update = mild.close_run(weights, "finetune", personal_epochs=200, personal_learning_rate=0.01)
    assert not update.report.personal.adopted
    assert update.report.personal.reason.startswith("it forgets: recall of 5 or more on the grid 0.9")
    assert update.report.personal.reason.endswith("the global model has 1.000")
    # the same with grid rows among the personal ones
    rehearsed = mild.close_run(
        weights, "finetune", number=5, personal_epochs=200, personal_learning_rate=0.01, rehearsal=1024
    )
    assert rehearsed.report.personal.grid_recall > update.report.personal.grid_recall


def replace_signs(reading: Reading) -> Reading:
    """The same patient, never in danger: pulse and pressure of a healthy one."""
    return msgspec.structs.replace(
        reading, spo2=98.0, respiratory_rate=16.0, systolic_bp=120.0, temperature=37.0
    )


def test_a_model_in_use_that_cannot_be_read_keeps_the_personal_one_out(
    learned: Any, device: Any, tmp_path: Path
) -> None:
    _, weights = learned
    damaged = tmp_path / "damaged.samd"
    damaged.write_bytes(b"PK")
    one = device(recording(150), damaged)
    update = one.close_run(weights, "finetune", personal_epochs=1, personal_learning_rate=1e-6)
    assert update.error is None
    assert not update.report.personal.adopted
    assert update.report.personal.reason.startswith("the model in use cannot be compared with: ")


# -- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_patient_of_one_class_takes_part_and_keeps_the_global_model(device: Any, method: str) -> None:
    one = device(well(120))
    update = one.rounds(method, 1)[0]
    assert update.label_counts == [91, 0, 0, 0]
    assert np.isfinite(update.weights.array()).all()
    closed = one.close_run(update.weights.array(), method)
    assert closed.error is None
    if method in PERSONAL:
        assert closed.report.personal.reason == "too little data: all 91 labelled hours are of one class"
        assert not closed.report.personal.adopted


@pytest.mark.parametrize("method", METHODS)
def test_a_patient_of_three_readings_takes_part_and_has_no_hold_out(device: Any, method: str) -> None:
    hours = [0, 10, 20]
    readings = [replace_time(reading, hour) for reading, hour in zip(recording(3), hours, strict=True)]
    one = device(readings)
    update = one.do(one.task(settings={"method": method}))
    assert update.error is None or update.error.startswith("no data")
    closed = one.close_run(one.bundle.weights, method)
    assert closed.error is not None or not closed.report.personal or not closed.report.personal.adopted


def replace_time(reading: Reading, hour: int) -> Reading:
    return msgspec.structs.replace(reading, observed_at=BEGIN + timedelta(hours=hour))


def test_without_a_reading_or_a_label_it_says_so_and_answers_the_next(device: Any) -> None:
    one = device([])
    for task in (one.task(), one.task(kind="evaluate"), one.task(kind="evaluate", split="holdout")):
        assert one.do(task).error == "no data"
    unlabelled = device([Reading(observed_at=BEGIN + timedelta(hours=h), heart_rate=70.0) for h in range(30)])
    assert unlabelled.do(unlabelled.task()).error == (
        "no labels yet: none of 30 recorded hours can be labelled"
    )


def test_a_method_that_the_layout_cannot_do_is_answered_with_its_remedy(
    device: Any, untrained_bundle_path: Path, tmp_path: Path
) -> None:
    bundle = bundles.read(untrained_bundle_path)
    layers = [msgspec.structs.replace(layer, part="body") for layer in bundle.manifest.layers]
    manifest = msgspec.structs.replace(bundle.manifest, layers=layers, hashes={})
    old = tmp_path / "old.samd"
    bundles.write(old, msgspec.structs.replace(bundle, manifest=manifest))
    one = device(recording(120), bundle=old)
    for method in ("fedper", "fedrep"):
        error = one.do(one.task(settings={"method": method})).error
        assert error is not None
        assert error.startswith(f"{method} keeps the head of the network on the device")
        assert "choose one of: none, finetune, fedprox, ditto, apfl" in error
    assert one.do(one.task(settings={"method": "magic"})).error.startswith("there is no method 'magic'")
    assert one.do(one.task(settings={"method": "ditto"})).error is None


def test_a_feature_that_is_no_number_is_answered_and_the_next_task_done(
    device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = device(recording(120))
    prepared = one.worker._prepared

    class Broken:
        """A trainer whose rows went wrong on the way to the graph."""

        def train_epoch(self, **given: Any) -> Any:
            given["features"] = np.where(given["features"] == 1, np.nan, given["features"])
            return prepared.trainer.train_epoch(**given)

    one.worker._prepared = replace(prepared, trainer=Broken())
    assert one.do(one.task()).error == "train got features that are not finite"
    one.worker._prepared = prepared
    assert one.do(one.task()).error is None
    row = np.full((1, prepared.spec.size), np.nan, dtype=np.float32)
    with pytest.raises(GraphError, match="infer got features that are not finite"):
        prepared.trainer.infer(row, one.bundle.weights)  # an assessment goes on by the rule alone


def test_a_folder_that_cannot_be_written_costs_the_round_and_says_so(
    device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = device(recording(120))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("samd_edge.personal.tempfile.mkstemp", full)
    assert "No space left" in one.do(one.task(settings={"method": "ditto"})).error
    assert one.do(one.task(settings={"method": "none"})).error is None


def test_sgd_takes_steps_in_proportion_to_the_gradient(device: Any) -> None:
    one = device(recording(120))
    weights = one.bundle.weights

    def step(rate: float, optimizer: str) -> Any:
        settings = {
            "epochs": 1,
            "learning_rate": rate,
            "optimizer": optimizer,
            "mask_rate": 0.0,
            "proximal_mu": 0.0,
        }
        update = one.do(one.task(settings=settings))
        assert update.error is None, update.error
        return update.weights.array() - weights

    adam, sgd = step(1e-4, "adam"), step(1e-4, "sgd")
    # three batches: Adam moves a weight by about the rate each time, SGD by the rate times its gradient
    assert np.abs(adam).max() == pytest.approx(3e-4, rel=0.05)
    assert 0 < np.abs(sgd).max() < 1e-4
    np.testing.assert_allclose(step(2e-4, "sgd"), 2 * sgd, rtol=0.02, atol=3e-7)
    assert one.do(one.task(settings={"optimizer": "rmsprop"})).error == (
        "optimizer is 'rmsprop'; it is one of adam, sgd"
    )
