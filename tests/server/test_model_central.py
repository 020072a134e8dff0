"""Centralised training and its two commands, on small recordings made here."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from samd_data.features import FeatureSpec
from samd_data.reading import Reading
from samd_data.table import write_csv
from samd_protocol import bundle
from samd_server import central, cohort
from samd_server.errors import ServerError
from samd_server.graph import Graph
from samd_server.model_commands import main

PATIENTS, HOURS = 10, 60


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten patients, an hour a row; each is ill for a third of the time. No oxygen, no consciousness."""
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(1)
    for patient in range(PATIENTS):
        start = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=patient)
        ill = np.sin(np.arange(HOURS) / 7 + patient) > 0.5
        readings = [
            Reading(
                observed_at=start + timedelta(hours=hour),
                heart_rate=float(rng.normal(125 if ill[hour] else 80, 12)),
                respiratory_rate=float(rng.normal(25 if ill[hour] else 16, 2)),
                spo2=float(min(100, rng.normal(92 if ill[hour] else 97, 1.5))),
                systolic_bp=float(rng.normal(105 if ill[hour] else 125, 10)),
                temperature=float(rng.normal(37.2, 0.4)),
            )
            for hour in range(HOURS)
        ]
        write_csv(folder / f"ward-{patient:02}.csv", readings)
    return folder


@pytest.fixture(scope="module")
def model(untrained_bundle_path: Path) -> bundle.Bundle:
    return bundle.read(untrained_bundle_path)


def arguments(recordings: Path, start: Path, out: Path, *more: str) -> list[str]:
    return ["train", "--data", str(recordings), "--from", str(start), "--out", str(out), *more]


def test_the_cut_leaks_nothing(recordings: Path) -> None:
    rows = cohort.load(recordings, FeatureSpec())
    assert (rows.kind, rows.patients, rows.patients_unseen) == ("recordings", 8, 2)
    # 60 hours: cut at hour 42; training ends 6 h before it, the hold-out begins 6 h after it
    assert (len(rows.train), len(rows.holdout), len(rows.unseen)) == (8 * 37, 8 * 12, 2 * 60)
    pulses = [set(part.values[:, 0]) for part in (rows.train, rows.holdout, rows.unseen)]
    assert sum(map(len, pulses)) == len(set.union(*pulses))
    few = cohort.load(recordings, FeatureSpec(), limit=3)
    assert (few.patients, few.patients_unseen, len(few.unseen)) == (3, 0, 0)


def test_training_learns_and_says_what_it_is(recordings: Path, model: bundle.Bundle) -> None:
    rows = cohort.load(recordings, FeatureSpec())
    heard: list[tuple[int, float]] = []
    settings = central.Settings(epochs=60, learning_rate=0.01)
    trained = central.train(model, rows, settings, lambda epoch, loss: heard.append((epoch, loss)))
    assert [epoch for epoch, _ in heard] == list(range(1, 61))
    assert heard[-1][1] < 0.6 * heard[0][1]
    manifest = bundle.unpack(bundle.pack(trained)).manifest
    assert (manifest.version, manifest.parent, manifest.trained) == (1, 0, True)
    assert manifest.metrics["holdout"]["macro_f1"] > 0.7
    assert manifest.metrics["unseen"]["rows"] == 120
    assert manifest.metrics["holdout"]["macro_f1"] > manifest.metrics["holdout_masked"]["macro_f1"]
    assert (manifest.provenance["data"], manifest.provenance["patients"]) == ("recordings", 8)
    assert manifest.provenance["rows"] == len(rows.train)
    assert "ward" not in json.dumps([manifest.provenance, manifest.metrics]), "no patient is named"
    again = central.train(model, rows, settings)
    assert bundle.pack(again) == bundle.pack(trained)


def test_the_prior_is_the_classes_share() -> None:
    np.testing.assert_allclose(
        central.log_prior([10, 70, 15, 5], 1.0), np.log([0.1, 0.7, 0.15, 0.05]), rtol=1e-6
    )
    np.testing.assert_allclose(
        central.log_prior([2, 1, 1, 0], 2.0), 2 * np.log([0.4, 0.2, 0.2, 0.2]), rtol=1e-6
    )
    assert (central.log_prior([1, 2, 3, 4], 0.0) == 0).all()


def test_weights_that_explode_are_refused(recordings: Path, model: bundle.Bundle) -> None:
    rows = cohort.load(recordings, FeatureSpec())
    weights = model.weights.copy()
    head = model.manifest.layers[-1].size + model.manifest.layers[-2].size
    weights[-head:] = np.random.default_rng(0).standard_normal(head) * 1e38
    wild = bundle.Bundle(manifest=model.manifest, graph=model.graph, weights=weights, keras=model.keras)
    with pytest.raises(central.TrainError, match="learning-rate"):
        central.train(wild, rows, central.Settings(epochs=1))


def test_train_command_writes_a_bundle_that_infers(
    recordings: Path, untrained_bundle_path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model.samd"
    given = arguments(recordings, untrained_bundle_path, out, "--epochs", "5", "--json")
    assert main(given) == 0
    said = capfd.readouterr()
    assert said.err == ""
    told = json.loads(said.out)
    assert (told["version"], told["trained"], told["metrics"]["unseen"]["rows"]) == (1, True, 120)
    trained = bundle.read(out, sha256=told["sha256"])
    assert trained.manifest.parent == 0
    found = Graph(trained.graph).infer(np.zeros((2, told["features"])), trained.weights)
    assert found.shape == (2, 4)
    # again, from the trained one: the next version
    assert main([*arguments(recordings, out, tmp_path / "two.samd", "--epochs", "1"), "--patients", "4"]) == 0
    second = bundle.read(tmp_path / "two.samd").manifest
    assert (second.version, second.parent, second.provenance["patients"]) == (2, 1, 4)
    assert "absent" in capfd.readouterr().out


def test_training_never_loads_tensorflow(
    recordings: Path, untrained_bundle_path: Path, tmp_path: Path
) -> None:
    given = arguments(recordings, untrained_bundle_path, tmp_path / "model.samd", "--epochs", "1")
    program = (
        "import sys; from samd_server.model_commands import main; "
        f"assert main({given!r}) == 0; assert not {{'tensorflow', 'flwr'}} & set(sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, timeout=60)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.long
def test_both_trainers_give_the_same_weights(
    recordings: Path, untrained_bundle_path: Path, tmp_path: Path
) -> None:
    weights = []
    for trainer in ("litert", "tensorflow"):
        out = tmp_path / f"{trainer}.samd"
        given = arguments(recordings, untrained_bundle_path, out, "--epochs", "1", "--trainer", trainer)
        command = [sys.executable, "-m", "samd_server.model_commands", *given]
        ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
        assert (ran.returncode, ran.stderr) == (0, "")
        weights.append(bundle.read(out).weights)
    np.testing.assert_allclose(weights[0], weights[1], atol=1e-4, rtol=0)


@pytest.mark.long
def test_export_is_the_same_each_time(untrained_bundle_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.samd"
    command = [sys.executable, "-m", "samd_server.model_commands", "export", "--out", str(out)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert out.read_bytes() == untrained_bundle_path.read_bytes()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--data", "nowhere"], "nowhere: there is no such file or folder"),
        (["--from", "missing.samd"], "missing.samd: cannot be read"),
        (["--epochs", "0"], "epochs is 0"),
        (["--learning-rate", "nan"], "learning rate is nan"),
        (["--mask-rate", "1"], "mask rate is 1.0"),
        (["--logit-adjustment", "-1"], "logit adjustment is -1.0"),
        (["--hidden", "8"], "--labels and --hidden are of a new network"),
    ],
)
def test_bad_input_is_one_line(
    recordings: Path,
    untrained_bundle_path: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    change: list[str],
    says: str,
) -> None:
    out = tmp_path / "model.samd"
    assert main([*arguments(recordings, untrained_bundle_path, out), *change]) == 2
    said = capfd.readouterr().err
    assert said.startswith("samd-server: ")
    assert said.count("\n") == 1
    assert says in said
    assert not out.exists()


def test_nothing_is_replaced_without_force(
    recordings: Path, untrained_bundle_path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model.samd"
    out.write_bytes(b"precious")
    assert main(arguments(recordings, untrained_bundle_path, out)) == 2
    assert main(["export", "--out", str(out)]) == 2
    assert capfd.readouterr().err.count("--force") == 2
    assert out.read_bytes() == b"precious"
    assert main(["export", "--out", str(tmp_path)]) == 2
    assert "is a folder" in capfd.readouterr().err


def test_recordings_without_oxygen_have_no_label_of_all_seven(recordings: Path) -> None:
    with pytest.raises(Exception, match="try --labels five"):
        cohort.load(recordings, FeatureSpec(labels="all"))


def test_a_model_of_other_features_is_refused(model: bundle.Bundle) -> None:
    features = bundle.Features(name="signs-v1", labels="all", size=model.manifest.features.size)
    other = bundle.Bundle(
        manifest=bundle.msgspec.structs.replace(model.manifest, features=features),
        graph=model.graph,
        weights=model.weights,
        keras=model.keras,
    )
    with pytest.raises(ServerError, match="export a new one"):
        central.spec_of(other)
