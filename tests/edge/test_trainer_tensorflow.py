"""Both trainers on the same tasks, each in its own process: the same weights, the same counts."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samd_data.reading import Reading
from samd_edge.store import AdmissionStore
from samd_edge.trainer import frames
from samd_protocol import bundle as bundles
from samd_protocol.bundle import Bundle
from samd_protocol.tasks import Task, TrainSettings, Update, Vector, decode_update
from samd_protocol.tasks import encode as encode_task

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def answers(trainer: str, bundle: Path, store: Path, tasks: list[Task]) -> list[Update]:
    """Everything is written at once: the frames wait in the pipe until the trainer comes to them."""
    said = frames.encode(frames.Prepare(bundle=str(bundle), store=str(store)))
    said += b"".join(frames.encode(frames.Work(task=encode_task(task))) for task in tasks)
    done = subprocess.run(
        [sys.executable, "-m", "samd_edge.trainer", "--trainer", trainer],
        input=said,
        capture_output=True,
        check=True,
        timeout=240,
    )
    messages, rest = [], done.stdout
    while rest:
        size = frames.length_of(rest[:4])
        messages.append(frames.decode_from_trainer(rest[4 : 4 + size]))
        rest = rest[4 + size :]
    assert isinstance(messages[0], frames.Ready)
    assert isinstance(messages[1], frames.Prepared)
    assert messages[1].error is None
    return [decode_update(message.update) for message in messages if isinstance(message, frames.Done)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(3)
    store = AdmissionStore(tmp_path_factory.mktemp("admission"))
    store.add_history(
        Reading(
            observed_at=BEGIN + timedelta(hours=hour),
            heart_rate=float(rng.integers(45, 135)),
            respiratory_rate=float(rng.integers(9, 27)),
            spo2=float(rng.integers(89, 100)),
            systolic_bp=float(rng.integers(85, 150)),
            temperature=float(rng.integers(350, 395)) / 10,
        )
        for hour in range(150)
    )
    store.close()
    return store.path


def task(bundle: Bundle, **changes: Any) -> Task:
    fields: dict[str, Any] = {
        "id": "t",
        "run": "r",
        "round": 1,
        "device": "bed-01",
        "kind": "train",
        "graph_sha256": bundle.graph_sha256,
        "deadline_s": 30.0,
        "weights": Vector.of(bundle.weights),
    }
    return Task(**{**fields, **changes})


def test_both_trainers_give_the_same_weights_and_counts(untrained_bundle_path: Path, store: Path) -> None:
    bundle = bundles.read(untrained_bundle_path)
    prior = np.log([0.1, 0.5, 0.3, 0.1]).tolist()
    tasks = [
        task(bundle, settings=TrainSettings(epochs=1, seed=1)),
        task(
            bundle,
            settings=TrainSettings(epochs=1, proximal_mu=0.5, mask_rate=0.2, log_prior=prior, seed=2),
        ),
        task(bundle, settings=TrainSettings(epochs=5, mask_rate=0.2, seed=3)),
        task(bundle, kind="evaluate", settings=TrainSettings(mask_rate=0.2, seed=4)),
        task(bundle, kind="evaluate", split="holdout", settings=TrainSettings(seed=4)),
        task(bundle, weights=Vector.of(np.zeros(5, np.float32)), settings=TrainSettings()),
    ]
    litert = answers("litert", untrained_bundle_path, store, tasks)
    reference = answers("tensorflow", untrained_bundle_path, store, tasks)
    assert len(litert) == len(reference) == len(tasks)
    for ours, theirs, tolerance in zip(litert[:3], reference[:3], (1e-4, 1e-4, 1e-3), strict=True):
        assert ours.error is None
        assert theirs.error is None
        assert ours.weights is not None
        assert theirs.weights is not None
        assert np.abs(ours.weights.array() - bundle.weights).max() > 0.01, "nothing was learnt"
        np.testing.assert_allclose(ours.weights.array(), theirs.weights.array(), atol=tolerance)
        assert ours.loss == pytest.approx(theirs.loss, abs=1e-4)
        assert ours.num_examples == theirs.num_examples
    for ours, theirs in zip(litert[3:5], reference[3:5], strict=True):
        assert ours.report is not None
        assert theirs.report is not None
        assert ours.report.confusion == theirs.report.confusion
        assert ours.report.confusion_masked == theirs.report.confusion_masked
        assert ours.report.loss == pytest.approx(theirs.report.loss, abs=1e-5)
    assert litert[5].error is not None
    assert litert[5].error == reference[5].error
