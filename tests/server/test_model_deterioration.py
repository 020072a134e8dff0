"""The task deterioration on the server: exported, trained centrally, judged; one network, two questions."""

import json
from pathlib import Path

import numpy as np
import pytest

from samd_data import deterioration
from samd_data.datasets import open_dataset
from samd_data.datasets.recordings import write_recordings
from samd_data.features import FeatureSpec
from samd_data.synthetic import generate
from samd_protocol import bundle
from samd_server import central, cohort
from samd_server.graph import Graph, GraphError, TrainState
from samd_server.model_commands import main

SPEC = FeatureSpec("history-v1")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    write_recordings(folder, generate(8, 90, 4))
    return folder


@pytest.fixture(scope="module")
def model(untrained_deterioration_path: Path) -> bundle.Bundle:
    return bundle.read(untrained_deterioration_path)


def test_what_the_export_says_of_itself(model: bundle.Bundle) -> None:
    manifest = model.manifest
    assert (manifest.name, manifest.task, manifest.trained) == ("deterioration", "deterioration", False)
    assert manifest.classes == ["stable", "deteriorates"]
    assert (manifest.features.name, manifest.features.size) == ("history-v1", 171)
    # 171 x 32 + 32, 32 x 16 + 16, 16 x 2 + 2
    assert manifest.weights_size == 5504 + 528 + 34
    assert central.spec_of(model) == SPEC


def test_the_graph_has_two_classes(model: bundle.Bundle) -> None:
    graph = Graph(model.graph)
    rows = np.random.default_rng(0).standard_normal((40, 171)).astype(np.float32)
    given = graph.infer(rows, model.weights)
    assert given.shape == (40, 2)
    labels = (rows[:, 0] > 0).astype(np.int32)
    loss, confusion = graph.evaluate(rows, labels, model.weights)
    assert loss == pytest.approx(-np.log(given[np.arange(40), labels]).mean(), abs=1e-5)
    answered = given.argmax(axis=1)
    assert confusion.tolist() == [
        [int(((labels == truth) & (answered == said)).sum()) for said in (0, 1)] for truth in (0, 1)
    ]
    order = np.pad(np.arange(40), (0, 24), constant_values=-1)
    state = TrainState.fresh(model.weights)
    _, first = graph.train_epoch(features=rows, labels=labels, order=order, state=state, learning_rate=0.01)
    assert first > 0
    with pytest.raises(GraphError, match="label outside 0 to 1"):
        graph.train_epoch(features=rows, labels=np.full(40, 2), order=order, state=state, learning_rate=0.01)


def test_rows_are_labelled_by_what_came_later(recordings: Path) -> None:
    rows = cohort.load(recordings, SPEC, task="deterioration")
    dataset = open_dataset(recordings)
    found = np.concatenate(
        [
            deterioration.labels(table, "five")
            for name in dataset.patients()
            for table in dataset.hourly_tables(name)
        ]
    )
    sets = (rows.train, rows.holdout, rows.unseen)
    assert all(part.values.shape[1] == SPEC.row_size for part in sets)
    assert all(set(part.labels.tolist()) <= {0, 1} for part in sets)
    assert 0 < sum(map(len, sets)) < int((found >= 0).sum()), "purged hours are in no set"
    assert max(int(part.totals.max(initial=0)) for part in sets) <= 6, "never asked from 7 on"


def test_training_ranks_above_chance_and_names_what_it_reached(
    recordings: Path, model: bundle.Bundle
) -> None:
    rows = cohort.load(recordings, SPEC, task="deterioration")
    settings = central.Settings(epochs=15, logit_adjustment=0.0)
    trained = central.train(model, rows, settings)
    manifest = bundle.unpack(bundle.pack(trained)).manifest
    assert (manifest.task, manifest.version, manifest.trained) == ("deterioration", 1, True)
    found = manifest.metrics["holdout"]
    assert found["rows"] == len(rows.holdout)
    assert found["positives"] == int(rows.holdout.labels.sum())
    assert found["auroc"] > 0.6
    assert "macro_f1" not in found
    assert np.sum(found["confusion"]) == found["rows"]


def test_the_command_says_ranking_and_calibration(
    recordings: Path, untrained_deterioration_path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = ["train", "--data", str(recordings), "--from", str(untrained_deterioration_path)]
    assert main([*given, "--out", str(tmp_path / "a.samd"), "--epochs", "1"]) == 0
    said = capfd.readouterr().out
    assert "AUROC" in said
    assert "NEWS2 itself" in said
    assert main([*given, "--out", str(tmp_path / "b.samd"), "--epochs", "1", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["task"] == "deterioration"
    # shown probabilities: no logit adjustment unless asked for
    settings = bundle.read(tmp_path / "b.samd").manifest.provenance["settings"]
    assert settings["logit_adjustment"] == 0.0
    assert main([*given, "--out", str(tmp_path / "c.samd"), "--task", "deterioration"]) == 2
    assert "--task, --labels and --hidden are of a new network" in capfd.readouterr().err


def test_a_model_of_an_unknown_task_is_refused(model: bundle.Bundle) -> None:
    other = bundle.Bundle(
        manifest=bundle.msgspec.structs.replace(model.manifest, task="sepsis"),
        graph=model.graph,
        weights=model.weights,
        keras=model.keras,
    )
    with pytest.raises(central.TrainError, match="task 'sepsis' is not known here"):
        central.spec_of(other)
