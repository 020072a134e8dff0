"""Runs of the task deterioration: two classes, reports by bin, a gate that NEWS2 itself sets, two stores."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from samd_protocol import bundle as bundles
from samd_protocol.messages import RunSpec
from samd_protocol.scorebins import bins_of
from samd_protocol.tasks import EvaluationReport, Task, TrainSettings, Update, Vector
from samd_server.checks import reject_reason
from samd_server.errors import RunFailed
from samd_server.gate import decide
from samd_server.outcome import Evaluation, described, judged, summed
from samd_server.ranking import Ranking, of_bins
from samd_server.registry import Registry
from samd_server.service import Service, import_model

DEVICES = ["bed-01", "bed-02", "bed-03"]
TASK = "deterioration"
SPEC = RunSpec(task=TASK, rounds=2, quorum=3, round_deadline_s=20.0, logit_adjustment=0.0)
SCORES = [0.1, 0.2, 0.3, 0.6, 0.2, 0.7, 0.8, 0.4, 0.9, 0.6]
LABELS = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
TOTALS = [0, 1, 2, 5, 6, 5, 6, 0, 4, 3]


def report(scores: Any = SCORES, masked: Any = SCORES) -> EvaluationReport:
    """The rows above, five of each class, as a device would tell them."""
    bins, bins_masked = bins_of(scores, LABELS, TOTALS), bins_of(masked, LABELS, TOTALS)
    tables = []
    for given in (scores, masked):
        positive = np.asarray(given) > 0.5
        truth = np.asarray(LABELS)
        tables.append([[int(((truth == t) & (positive == p)).sum()) for p in (False, True)] for t in (0, 1)])
    return EvaluationReport(
        confusion=tables[0], confusion_masked=tables[1], loss=0.4, bins=bins, bins_masked=bins_masked
    )


def honest(task: Task) -> Update:
    """A device that ranks its ten hours as above, and learns a little."""
    answered: dict[str, Any] = {
        "task": task.id,
        "run": task.run,
        "round": task.round,
        "device": task.device,
        "kind": task.kind,
        "num_examples": len(LABELS),
        "label_counts": [5, 5],
    }
    if task.kind == "evaluate":
        return Update(**answered, report=report())
    moved = Vector.of(task.weights.array() + np.float32(0.01))
    return Update(**answered, weights=moved, loss=0.5)


# -- what is judged -----------------------------------------------------------


def test_summed_over_devices_it_is_ranked() -> None:
    found = summed({"bed-02": report(), "bed-01": report()}, TASK)
    assert found.complete.tolist() == [[8, 2], [2, 8]]
    assert (found.devices, found.loss) == (2, pytest.approx(0.4))
    one = report().bins
    assert one is not None
    assert found.ranking == of_bins([one, one])
    # of 25 pairs a case loses one (.4 to .6) and ties with one (.6 with .6): 23.5
    assert found.ranking is not None
    assert (found.ranking.rows, found.ranking.positives) == (20, 10)
    assert found.ranking.auroc == pytest.approx(23.5 / 25)
    # the totals of cases 5 6 0 4 3 against 0 1 2 5 6: 3.5 + 4.5 + .5 + 3 + 3
    assert found.ranking.rule_auroc == pytest.approx(14.5 / 25)
    assert described(found, TASK)["complete"]["auroc"] == found.ranking.auroc
    told = judged(report(), TASK)
    assert told["auroc"] == pytest.approx(23.5 / 25)
    assert "macro_f1" not in told


def task(kind: Any = "evaluate") -> Task:
    return Task(
        id="t",
        run="r",
        round=1,
        device="bed-01",
        kind=kind,
        graph_sha256="0" * 64,
        deadline_s=1.0,
        weights=Vector.of(np.zeros(3, np.float32)),
        settings=TrainSettings(),
    )


def test_reports_of_two_classes_are_checked() -> None:
    anchor = np.zeros(3, np.float32)
    sound = honest(task())
    sound = msgspec.structs.replace(sound, report=report())

    def reason(**changes: Any) -> str | None:
        changed = msgspec.structs.replace(report(), **changes)
        update = msgspec.structs.replace(sound, report=changed)
        return reject_reason(update, task(), anchor, 2, ranked=True)

    assert reason() is None
    assert reason(confusion=np.zeros((4, 4), int).tolist()) == "malformed report"
    assert reason(bins=None) == "no scores"
    assert reason(bins_masked=None) == "no scores"
    other = bins_of(SCORES[:9], LABELS[:9], TOTALS[:9])
    assert reason(bins=other) == "counts do not add up"
    assert reject_reason(sound, task(), anchor, 4) == "malformed report"


def ranked(
    auroc: float = 0.85, average_precision: float = 0.5, *, rows: int = 100, positives: int = 20
) -> Evaluation:
    found = Ranking(
        rows=rows,
        positives=positives,
        auroc=auroc if positives else None,
        average_precision=average_precision if positives else None,
        calibration_error=0.05,
        mean_probability=0.2,
        rule_auroc=0.76,
        rule_average_precision=0.33,
    )
    empty = np.zeros((2, 2), dtype=np.int64)
    return Evaluation(empty, empty, 0.3, 3, found, found)


def test_a_first_model_has_to_beat_news2() -> None:
    assert decide(ranked(), None) == (
        True,
        "AUROC 0.850 and average precision 0.500 on 100 held-out hours (20 before a deterioration) pass "
        "the gate",
    )
    assert decide(ranked(0.76), None) == (
        False,
        "AUROC 0.760 on complete hold-outs, not above that of NEWS2 itself (0.760)",
    )
    assert decide(ranked(0.85, 0.33), None) == (
        False,
        "average precision 0.330 on complete hold-outs, not above that of NEWS2 itself (0.330)",
    )


def test_what_cannot_be_ranked_is_kept() -> None:
    assert decide(ranked(rows=19), None) == (False, "only 19 held-out hours to judge it by; 20 are needed")
    assert decide(ranked(positives=9), None)[1] == (
        "only 9 of 100 held-out hours come before a deterioration; 10 are needed, and one that does not"
    )
    assert not decide(ranked(positives=0), ranked())[0]
    assert decide(ranked(), ranked(positives=0)) == (
        False,
        "the model in use could not be judged on complete hours",
    )


def test_against_the_model_in_use_it_may_lose_a_hundredth() -> None:
    used = ranked(0.9, 0.6)
    assert decide(ranked(0.891, 0.591), used)[0]
    assert decide(ranked(0.889, 0.6), used) == (
        False,
        "AUROC 0.889 on complete hold-outs, more than 0.01 below the model in use (0.900)",
    )
    assert decide(ranked(0.9, 0.58), used)[1].startswith("average precision 0.580 on complete hold-outs")
    # one in use that is worse than NEWS2 is no bar to a better one
    assert decide(ranked(0.7, 0.3), ranked(0.6, 0.2))[0]


# -- the loop and the service -------------------------------------------------


@pytest.fixture
def small(small_bundle: bundles.Bundle) -> bundles.Bundle:
    manifest = msgspec.structs.replace(
        small_bundle.manifest, task=TASK, classes=["stable", "deteriorates"], name=TASK
    )
    return msgspec.structs.replace(small_bundle, manifest=manifest)


def test_a_run_from_count_to_candidate(make_ward: Any, small: bundles.Bundle, tmp_path: Path) -> None:
    ward = make_ward(DEVICES)
    ward.answers = dict.fromkeys(DEVICES, honest)
    loop = ward.loop(SPEC, tmp_path, small, task=TASK)
    outcome = loop.run()
    assert outcome.label_counts == [15, 15]
    assert outcome.candidate.ranking is not None
    assert (outcome.candidate.ranking.rows, outcome.candidate.ranking.positives) == (30, 15)
    np.testing.assert_allclose(outcome.weights, small.weights + 2 * 0.01, atol=1e-6)
    assert all(asked.settings.log_prior == [] for asked in ward.asked), "shown probabilities: no adjustment"
    adjusted = msgspec.structs.replace(SPEC, logit_adjustment=1.0)
    ward.asked.clear()
    ward.loop(adjusted, tmp_path, small, run="run-2", task=TASK).run()
    assert next(a for a in ward.asked if a.kind == "train").settings.log_prior == pytest.approx(
        [-np.log(2)] * 2
    )


def test_a_device_without_labels_costs_no_run(make_ward: Any, small: bundles.Bundle, tmp_path: Path) -> None:
    def young(task: Task) -> Update:
        reason = "no labels yet: none of 5 recorded hours can be labelled"
        return msgspec.structs.replace(
            honest(task), num_examples=0, weights=None, report=None, loss=None, label_counts=[], error=reason
        )

    ward = make_ward(DEVICES)
    ward.answers = dict.fromkeys(DEVICES, honest) | {"bed-02": young}
    spec = msgspec.structs.replace(SPEC, quorum=2)
    outcome = ward.loop(spec, tmp_path, small, task=TASK).run()
    assert outcome.label_counts == [10, 10]
    assert outcome.candidate.devices == 2
    ward.answers = dict.fromkeys(DEVICES, young)
    with pytest.raises(RunFailed, match=r"0 of the 2 replies needed.*3 device error"):
        ward.loop(spec, tmp_path, small, run="run-2", task=TASK).run()


@pytest.fixture
def service(
    broker: Any,
    uploads: Any,
    tmp_path: Path,
    untrained_bundle_path: Path,
    untrained_deterioration_path: Path,
) -> Iterator[Service]:
    models = tmp_path / "data/models"
    import_model(Registry(models, "severity"), untrained_bundle_path)
    import_model(Registry(models, TASK), untrained_deterioration_path)
    made = Service(broker.address, uploads.url, tmp_path / "data", tasks=("severity", TASK))
    thread = threading.Thread(target=made.serve)
    thread.start()
    assert made.link.connected.wait(20)
    yield made
    made.stop()
    thread.join(20)
    assert not thread.is_alive()


def test_one_server_trains_and_releases_both(service: Service, peers: Any, eventually: Any) -> None:
    eventually(lambda: {release.task for release in peers.releases} == {"severity", TASK})
    state = peers.states[-1]
    assert (state.task, state.model_version, [each.task for each in state.others]) == ("severity", 0, [TASK])
    assert state.served(TASK).graph_sha256 == service.registries[TASK].read(0).graph_sha256
    assert state.served("mood") is None
    peers.answers = dict.fromkeys(DEVICES, honest)
    peers.order("start", "run-d", SPEC, DEVICES)
    eventually(lambda: peers.ended("run-d"))
    told = peers.ended("run-d")
    assert (told.phase, told.model_version, told.released) == ("done", 1, True), told
    assert told.metrics["complete_auroc"] == pytest.approx(23.5 / 25)
    eventually(lambda: (TASK, 1) in [(each.task, each.version) for each in peers.releases])
    eventually(lambda: peers.states[-1].served(TASK).model_version == 1)
    assert peers.states[-1].served("severity").model_version == 0
    card = service.registries[TASK].card(1)
    assert (card.task, card.run, card.decision) == (TASK, "run-d", "released")
    assert card.metrics["complete"]["rule_auroc"] == pytest.approx(14.5 / 25)
    assert service.registries["severity"].versions() == [0]
    # the other task is trained beside it, by its own classes
    peers.answers = {}
    peers.order("start", "run-s", RunSpec(rounds=1, quorum=3, round_deadline_s=20.0), DEVICES)
    eventually(lambda: peers.ended("run-s"))
    assert (peers.ended("run-s").phase, peers.ended("run-s").released) == ("done", True)
    assert service.registries["severity"].versions() == [0, 1]
