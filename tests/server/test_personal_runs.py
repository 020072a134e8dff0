"""What the server makes of personal models: what is asked, what is written down, what is refused."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from samd_protocol import bundle as bundles
from samd_protocol.bundle import Bundle
from samd_protocol.messages import RunSpec
from samd_protocol.methods import METHODS, PERSONAL
from samd_protocol.tasks import EvaluationReport, PersonalReport, Task, TrainSettings, Update, Vector
from samd_server.checks import reject_reason
from samd_server.errors import RunFailed
from samd_server.outcome import judged, personal_of

TABLE = [[4, 1, 0, 0], [1, 4, 0, 0], [0, 0, 5, 0], [0, 0, 0, 5]]
PERFECT = [[5, 0, 0, 0], [0, 5, 0, 0], [0, 0, 5, 0], [0, 0, 0, 5]]
SPEC = RunSpec(rounds=2, quorum=2, round_deadline_s=10.0, seed=11, proximal_mu=0.01)


@pytest.fixture
def with_head(small_bundle: Bundle) -> Bundle:
    """The small bundle, its second layer a head."""
    body, head = small_bundle.manifest.layers
    layers = [body, msgspec.structs.replace(head, part="head")]
    manifest = msgspec.structs.replace(small_bundle.manifest, layers=layers)
    return bundles.unpack(bundles.pack(msgspec.structs.replace(small_bundle, manifest=manifest)))


def personal(
    *, adopted: bool = True, confusion: list[list[int]] = PERFECT, reason: str = "no worse"
) -> PersonalReport:
    return PersonalReport(
        adopted=adopted, reason=reason, confusion=confusion, confusion_masked=confusion, grid_recall=0.95
    )


def closing(task: Task, said: PersonalReport | None) -> Update:
    report = EvaluationReport(confusion=TABLE, confusion_masked=TABLE, loss=0.5, personal=said)
    return Update(
        task=task.id,
        run=task.run,
        round=task.round,
        device=task.device,
        kind="evaluate",
        num_examples=20,
        report=report,
    )


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_and_its_settings_reach_every_device(
    ward: Any, with_head: Bundle, tmp_path: Path, method: str
) -> None:
    fields = {
        "method": method,
        "optimizer": "sgd",
        "personal_epochs": 3,
        "personal_learning_rate": 0.02,
        "personal_mu": 0.5,
        "personal_alpha": 0.25,
        "personal_alpha_rate": 0.125,
        "rehearsal": 7 if method in PERSONAL else 0,
    }
    spec = msgspec.structs.replace(SPEC, **fields)
    ward.loop(spec, tmp_path, with_head).run()
    for task in ward.asked:
        assert {name: getattr(task.settings, name) for name in fields} == fields
    asked = [task for task in ward.asked if task.split == "holdout"]
    assert {task.personalise for task in asked} == {method in PERSONAL}
    # what ends a run is a training too: with the adjustment of the rounds
    prior = ward.asked[3].settings.log_prior
    assert prior
    assert {tuple(task.settings.log_prior) for task in asked} == {tuple(prior) if method in PERSONAL else ()}


def test_what_became_of_the_personal_models_is_summed_and_written_down(
    ward: Any, with_head: Bundle, tmp_path: Path
) -> None:
    said = {
        "bed-01": personal(),
        "bed-02": personal(adopted=False, reason="it forgets"),
        "bed-03": PersonalReport(adopted=False, reason="too little data: 3 labelled hours, 24 are needed"),
    }
    for device, report in said.items():
        ward.answering(device, split="holdout", instead=lambda task, report=report: closing(task, report))
    outcome = ward.loop(
        msgspec.structs.replace(SPEC, method="ditto", personal_mu=0.1), tmp_path, with_head
    ).run()
    assert outcome.personal is not None
    assert (outcome.personal.tried, outcome.personal.adopted) == (2, 1)
    # bed-01 is assessed by its own, bed-02 stays with the candidate
    assert outcome.personal.used.tolist() == (np.array(PERFECT) + TABLE).tolist()
    assert outcome.personal.candidate.tolist() == (2 * np.array(TABLE)).tolist()
    (told,) = [record for record in records(tmp_path / "run-1") if record["event"] == "personalised"]
    assert {device: each["reason"] for device, each in told["by_device"].items()} == {
        device: report.reason for device, report in said.items()
    }
    assert told["by_device"]["bed-01"]["macro_f1"] == 1.0
    assert told["by_device"]["bed-03"]["macro_f1"] is None
    assert told["by_device"]["bed-03"]["macro_f1_global"] == pytest.approx(0.9)


def test_an_older_device_says_nothing_of_a_personal_model(
    ward: Any, with_head: Bundle, tmp_path: Path
) -> None:
    outcome = ward.loop(msgspec.structs.replace(SPEC, method="finetune"), tmp_path, with_head).run()
    assert outcome.personal is not None
    assert (outcome.personal.tried, outcome.personal.adopted) == (0, 0)
    assert personal_of({}).devices == {}


def test_a_method_that_the_layout_cannot_do_fails_before_anybody_trains(
    ward: Any, small_bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(RunFailed, match=r"method: fedper keeps the head .* choose one of: none, finetune"):
        ward.loop(msgspec.structs.replace(SPEC, method="fedper"), tmp_path, small_bundle)
    assert ward.asked == []


def test_devices_without_data_cost_no_run(ward: Any, with_head: Bundle, tmp_path: Path) -> None:
    def nothing(task: Task) -> Update:
        given = {"task": task.id, "run": task.run, "round": task.round, "device": task.device}
        return Update(
            kind=task.kind, error="no labels yet: none of 30 recorded hours can be labelled", **given
        )

    ward.answers["bed-02"] = nothing
    outcome = ward.loop(msgspec.structs.replace(SPEC, method="fedrep"), tmp_path, with_head).run()
    assert outcome.rounds == 2
    dropped = [record["dropped"] for record in records(tmp_path / "run-1") if record["event"] == "round"]
    assert dropped == [{"bed-02": "device: no labels yet: none of 30 recorded hours can be labelled"}] * 2


# -- what is refused ---------------------------------------------------------------------------------------


def task(kind: Any = "train") -> Task:
    return Task(
        id="t",
        run="r",
        round=1,
        device="bed-01",
        kind=kind,
        graph_sha256="9" * 64,
        deadline_s=60.0,
        weights=Vector.of(np.zeros(3, np.float32)),
        settings=TrainSettings(),
    )


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ([], None),
        ([7, 2, 0, 1], None),
        ([7, 2, 0, 0], "counts do not add up"),
        ([12, -2, 0, 0], "counts do not add up"),
    ],
)
def test_label_counts_that_do_not_add_up(counts: list[int], reason: str | None) -> None:
    update = Update(
        task="t",
        run="r",
        round=1,
        device="bed-01",
        kind="train",
        num_examples=10,
        weights=Vector.of(np.ones(3, np.float32)),
        loss=0.5,
        label_counts=counts,
    )
    assert reject_reason(update, task(), np.zeros(3, np.float32)) == reason


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (personal(), None),
        (PersonalReport(adopted=False, reason="too little data"), None),
        (personal(confusion=PERFECT[:3]), "malformed report"),
        (personal(confusion=[[6, 0, 0, 0], *PERFECT[1:]]), "counts do not add up"),
        (personal(confusion=[[6, -1, 0, 0], *PERFECT[1:]]), "malformed report"),
    ],
)
def test_a_personal_report_is_of_the_same_rows(said: PersonalReport, reason: str | None) -> None:
    assert reject_reason(closing(task("evaluate"), said), task("evaluate"), np.zeros(3, np.float32)) == reason


def test_a_hold_out_in_numbers() -> None:
    found = judged(EvaluationReport(confusion=TABLE, confusion_masked=PERFECT, loss=0.5))
    assert found["rows"] == 20
    assert found["macro_f1"] == pytest.approx(0.9)
    assert (found["macro_f1_masked"], found["recall_urgent"], found["loss"]) == (1.0, 1.0, 0.5)
