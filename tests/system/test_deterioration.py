"""Deterioration from end to end, with every program real: three devices train it, and then answer with it."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from samd_protocol import bundle as bundles
from samd_scripts.recordings import prepare
from samd_scripts.stack import Stack, wait_until

pytestmark = pytest.mark.system

TASK = "deterioration"
REAL = ("10020740", "10018081", "10019003")
"""Patients of intensive care who reach 7 and come back from it, in history and after it."""
SPEED = 600
REASONS = ("7 or more is reached already", "nothing that the model reads is known")


class Ward:
    """Three devices that replay recordings; one server for both tasks."""

    def __init__(self, stack: Stack, recordings: Path, patients: Sequence[str]) -> None:
        self.stack = stack
        self.recordings = recordings
        self.patients = patients

    def start(self, *models: Path) -> None:
        self.stack.broker()
        self.stack.wait_ready(self.stack.gateway(), 60)
        more = [argument for path in models[1:] for argument in ("--model", str(path))]
        server = self.stack.server(models[0], *more, "--task", "severity", "--task", TASK)
        self.stack.wait_ready(server, 60)
        for number in range(len(self.patients)):
            self.start_agent(number)
        self.stack.wait_online(len(self.patients))

    def start_agent(self, number: int) -> None:
        source = f"replay:{self.recordings}?patient={self.patients[number]}&speed={SPEED}&from=70%"
        name = f"bed-{number + 1:02d}"
        self.stack.wait_ready(self.stack.agent(name, source, "--train-during-alert"), 60)

    def finish(self, **spec: object) -> dict:
        run = self.stack.start_run(**({"task": TASK, "quorum": 3} | spec))
        *_, status = self.stack.follow_run(run, timeout=120)
        return status

    def assessment(self, device: str) -> dict | None:
        found = {each["name"]: each for each in self.stack.api("GET", "/api/devices")["devices"]}
        return found[device]["assessment"] if device in found else None

    def answer(self, device: str) -> dict | None:
        told = self.assessment(device)
        return None if told is None else told["deterioration"]

    def answers_with(self, device: str, version: int) -> dict:
        """The device's answer by a version: a probability with what cannot be ruled out, or why none."""
        told: dict = wait_until(
            lambda: (found := self.answer(device)) and found["version"] == version and found,
            timeout=60,
            what=f"{device} answers with version {version}",
        )
        assert told["horizon_h"] == 6
        if told["probability"] is None:
            assert told["reason"] in REASONS
        else:
            assert 0 <= told["probability"] <= 1
            assert set(told["possible"]) <= {"stable", "deteriorates"}
        return told

    def next_hour(self, device: str) -> None:
        """Patient time goes on: the device is asked again, at a full hour, and says a probability."""
        first = datetime.fromisoformat(self.answer(device)["asked_at"])
        later = wait_until(
            lambda: (
                (found := self.answer(device))
                and datetime.fromisoformat(found["asked_at"]) > first
                and found["probability"] is not None
                and found
            ),
            timeout=90,
            what="another full hour with a probability",
        )
        hours = (datetime.fromisoformat(later["asked_at"]) - first) / timedelta(hours=1) * SPEED
        assert hours == pytest.approx(round(hours), abs=1e-3)  # an hour of the patient is six seconds here


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path / "stack") as made:
        yield made


def test_three_devices_train_it_and_answer_at_each_full_hour(
    stack: Stack, tmp_path: Path, untrained_bundle_path: Path, untrained_deterioration_path: Path
) -> None:
    recordings = prepare("synthetic", tmp_path / "recordings", 3)
    ward = Ward(stack, recordings.folder, [each.patient for each in recordings.taking_part])
    ward.start(untrained_bundle_path, untrained_deterioration_path)
    assert ward.answer("bed-01") is None, "nobody answers with a model that was never trained"
    status = ward.finish(rounds=10, epochs=3, learning_rate=0.003)
    assert (status["state"], status["round"]) == ("done", 10), status
    assert status["accepted"] == ["bed-01", "bed-02", "bed-03"]
    assert status["released"], status["reason"]
    assert status["spec"]["logit_adjustment"] == 0.0
    told = status["metrics"]
    assert told["complete_auroc"] > told["complete_rule_auroc"]
    assert told["complete_average_precision"] > told["complete_rule_average_precision"]
    version = status["model_version"]
    for device in ("bed-01", "bed-02", "bed-03"):
        ward.answers_with(device, version)
    ward.next_hour("bed-01")
    assert ward.assessment("bed-01")["signs"] is None  # the ward has not opted in

    # What has left the devices are counts by bin, and no reading.
    records = (stack.folder / "server" / "runs" / status["id"] / "metrics.jsonl").read_text()
    evaluated = next(one for one in map(json.loads, records.splitlines()) if one["event"] == "evaluated")
    assert {"auroc", "average_precision"} <= evaluated["by_device"]["bed-01"].keys()
    assert "heart_rate" not in records
    released = bundles.read(stack.folder / "server" / "models" / TASK / f"{version:06d}" / "model.samd")
    assert (released.manifest.task, released.manifest.trained) == (TASK, True)

    # Killed and started again, a device answers anew; severity is trained beside it, by the same server.
    stack.programs.pop("bed-02").kill()
    ward.start_agent(1)
    stack.wait_online(3)
    ward.answers_with("bed-02", version)
    severity = ward.finish(task="severity", rounds=2, epochs=1)
    assert (severity["state"], severity["round"], severity["model_version"]) == ("done", 2, 1), severity
    assert ward.answer("bed-01")["version"] == version, "the other task's model stays"


def test_real_patients_by_a_model_that_was_trained_on_many(
    stack: Stack,
    tmp_path: Path,
    icu_folder: Path,
    untrained_bundle_path: Path,
    untrained_deterioration_path: Path,
) -> None:
    """The reference model of the ICU demo answers on devices that replay its patients, and three of them
    train it on. Whether three patients make it better is the gate's to say: here it only has to be said."""
    trained = tmp_path / "trained.samd"
    command = [sys.executable, "-m", "samd_server", "train", "--from", str(untrained_deterioration_path)]
    command += ["--data", str(icu_folder), "--epochs", "10", "--out", str(trained)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    ward = Ward(stack, icu_folder, REAL)
    ward.start(untrained_bundle_path, trained)
    for device in ("bed-01", "bed-02", "bed-03"):
        ward.answers_with(device, 1)
    ward.next_hour("bed-02")
    status = ward.finish(rounds=3, epochs=1, learning_rate=0.001)
    assert (status["state"], status["round"], status["model_version"]) == ("done", 3, 2), status
    assert ("pass the gate" in status["reason"]) == status["released"]
    for device in ("bed-01", "bed-02", "bed-03"):
        ward.answers_with(device, 2 if status["released"] else 1)
