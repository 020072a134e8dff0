"""A whole run on simulated time: averages, quorum, stop and pause, and resuming at every point."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from samd_protocol.messages import RunSpec
from samd_protocol.tasks import EvaluationReport, Task, Update, Vector
from samd_server.checkpoint import Checkpoint, RunFolder
from samd_server.errors import RunFailed, RunStopped
from samd_server.gate import decide
from samd_server.loop import RETRIES
from samd_server.outcome import log_prior

SPEC = RunSpec(rounds=3, quorum=2, round_deadline_s=10.0, seed=11)
TABLE = [[4, 1, 0, 0], [1, 4, 0, 0], [0, 0, 5, 0], [0, 0, 0, 5]]


class Crash(BaseException):
    """The process ends here."""


def refuse(task: Task) -> Update:
    return Update(
        task=task.id, run=task.run, round=task.round, device=task.device, kind=task.kind, error="no rows"
    )


def metrics(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_from_count_to_candidate(ward, small_bundle, tmp_path: Path) -> None:
    outcome = ward.loop(SPEC, tmp_path, small_bundle).run()
    assert ward.rounds("evaluate") == [0, 4]
    assert ward.rounds("train") == [1, 2, 3]
    assert [task.split for task in ward.asked if task.kind == "evaluate"] == ["train"] * 3 + ["holdout"] * 3
    assert outcome.label_counts == [15, 15, 15, 15]
    assert outcome.candidate.complete.tolist() == (3 * np.array(TABLE)).tolist()
    assert outcome.candidate.devices == 3
    assert outcome.candidate.loss == pytest.approx(0.5)
    assert outcome.in_use is None
    assert outcome.weights.dtype == np.float32
    # Four equal classes: each has the prior log(1/4).
    assert ward.asked[3].settings.log_prior == pytest.approx([-np.log(4)] * 4)
    assert ward.asked[3].settings.epochs == SPEC.epochs
    point = RunFolder(tmp_path, "run-1").load()
    assert point is not None
    assert (point.round, point.parent_version) == (3, 0)
    assert point.weights.array().tobytes() == outcome.weights.tobytes()
    assert [each["event"] for each in metrics(tmp_path / "run-1")] == ["counted", *["round"] * 3, "evaluated"]


def test_the_weights_are_those_of_the_sum_by_hand(ward, small_bundle, tmp_path: Path) -> None:
    outcome = ward.loop(SPEC, tmp_path, small_bundle).run()
    weights = small_bundle.weights
    for number in (1, 2, 3):
        updates = [
            ward.honest(task)
            for task in sorted(ward.asked, key=lambda task: task.device)
            if task.kind == "train" and task.round == number
        ]
        assert all(update.task for update in updates)
        total = sum(update.num_examples for update in updates)
        new = np.zeros(5, dtype=np.float32)
        for update in updates:
            assert update.weights is not None
            new += update.weights.array() * (update.num_examples / total)
        weights = new
    np.testing.assert_array_equal(outcome.weights, weights)


def test_the_status_of_a_round(ward, small_bundle, tmp_path: Path) -> None:
    ward.answers["bed-02"] = lambda task: None
    ward.loop(SPEC, tmp_path, small_bundle).run()
    phases = [(status.phase, status.round) for status in ward.statuses]
    assert phases == [
        ("preparing", 0),
        ("training", 0),
        ("training", 1),
        ("training", 2),
        ("training", 3),
        ("evaluating", 3),
    ]
    closed = ward.statuses[2]
    assert (closed.replies, closed.awaited, closed.dropped, closed.rounds, closed.quorum) == (
        2,
        {"silent": 1},
        {},
        3,
        2,
    )
    assert closed.round_seconds == pytest.approx(0.51)
    assert closed.metrics.keys() == {"loss", "examples"}


def test_log_prior_is_exact() -> None:
    assert log_prior([1, 1, 1, 1], 1.0) == pytest.approx([np.log(0.25)] * 4)
    assert log_prior([2, 1, 1, 0], 2.0) == pytest.approx([2 * np.log(x / 5) for x in (2, 1, 1, 1)])
    assert log_prior([1, 2, 3, 4], 0.0) == []
    assert log_prior([0, 0, 0, 0], 1.0) == []


@pytest.mark.parametrize("quorum", [1, 3])
def test_a_quorum_that_can_never_be_met_is_refused(make_ward, small_bundle, tmp_path: Path, quorum) -> None:
    devices = [f"bed-{number}" for number in range(quorum - 1)]
    with pytest.raises(RunFailed, match=f"a quorum of {quorum} with {quorum - 1} devices"):
        make_ward(devices).loop(RunSpec(quorum=quorum), tmp_path, small_bundle)


def test_below_the_quorum_it_asks_three_times_again_and_fails_with_reasons(
    ward, small_bundle, tmp_path: Path
) -> None:
    def broken(task: Task) -> Update:
        return msgspec.structs.replace(refuse(task), error="Mrs X unplugged it")

    ward.answers = {"bed-01": broken, "bed-02": lambda task: None}
    with pytest.raises(RunFailed) as failure:
        ward.loop(SPEC, tmp_path, small_bundle).run()
    assert str(failure.value) == (
        "round 0: 1 of the 2 replies needed, asked 4 times; 1 device error, 1 silent"
    )
    assert ward.rounds("evaluate") == [0] * (1 + RETRIES)
    assert ward.inbox.time == pytest.approx(40.0)
    missed = ward.statuses[-1]
    assert (missed.phase, missed.replies, missed.awaited, missed.dropped) == (
        "preparing",
        1,
        {"silent": 1},
        {"device error": 1},
    )
    assert "Mrs X" not in str(ward.statuses)
    assert metrics(tmp_path / "run-1")[0]["dropped"] == {"bed-01": "device: Mrs X unplugged it"}


def test_a_device_that_recovers_within_the_retries_saves_the_run(ward, small_bundle, tmp_path: Path) -> None:
    seen: list[int] = []

    def flaky(task: Task) -> Update | None:
        seen.append(task.round)
        return None if task.round == 2 and seen.count(2) < 3 else ward.honest(task)

    ward.answers = {"bed-01": flaky, "bed-02": lambda task: None}
    assert ward.loop(SPEC, tmp_path, small_bundle).run().rounds == 3
    assert seen.count(2) == 3


def test_late_answers_of_an_earlier_round_are_ignored(ward, small_bundle, tmp_path: Path) -> None:
    ward.delays["bed-02"] = 0.6  # each answer comes when the round has closed
    slow = ward.loop(SPEC, tmp_path / "a", small_bundle)
    outcome = slow.run()
    assert ward.last_grid.ignored["late"] >= 3
    without = type(ward)(ward.names)
    without.answers["bed-02"] = lambda task: None
    expected = without.loop(SPEC, tmp_path / "b", small_bundle).run()
    assert outcome.weights.tobytes() == expected.weights.tobytes()


def test_a_device_without_hold_out_is_no_reason_to_fail(ward, small_bundle, tmp_path: Path) -> None:
    for device in ("bed-01", "bed-02"):
        ward.answering(device, split="holdout", instead=refuse)
    outcome = ward.loop(SPEC, tmp_path, small_bundle).run()
    assert outcome.candidate.devices == 1
    assert ward.rounds("evaluate") == [0, 4], "asked once"


@pytest.mark.parametrize("instead", [refuse, lambda task: None])
def test_nobody_with_a_hold_out_ends_with_a_kept_candidate(
    ward, small_bundle, tmp_path: Path, instead
) -> None:
    for device in ward.names:
        ward.answering(device, split="holdout", instead=instead)
    outcome = ward.loop(SPEC, tmp_path, small_bundle).run()
    assert outcome.candidate.devices == 0
    assert decide(outcome.candidate, outcome.in_use) == (
        False,
        "only 0 held-out hours to judge it by; 20 are needed",
    )


def test_two_models_are_compared_on_the_same_patients(ward, trained_bundle, tmp_path: Path) -> None:

    def leaves_before_the_second(task: Task) -> Update | None:
        return None if task.round == SPEC.rounds + 2 else ward.honest(task)

    def better(task: Task) -> Update:
        update = ward.honest(task)
        if task.split != "holdout":
            return update
        table = np.diag([5, 5, 5, 5]).tolist()
        report = EvaluationReport(confusion=table, confusion_masked=table, loss=0.1)
        return msgspec.structs.replace(update, report=report)

    ward.answers = {"bed-01": leaves_before_the_second, "bed-02": better}
    outcome = ward.loop(SPEC, tmp_path, trained_bundle).run()
    assert outcome.in_use is not None
    assert outcome.candidate.devices == outcome.in_use.devices == 2
    assert outcome.candidate.complete.tolist() == (np.array(TABLE) + np.diag([5] * 4)).tolist()


def test_a_stop_interrupts_a_waiting_round_within_a_second(ward, small_bundle, tmp_path: Path) -> None:
    ward.answers = {"bed-01": lambda task: None, "bed-02": lambda task: None}
    ward.inbox.at(3.0, lambda: setattr(ward, "halt", "stop"))
    with pytest.raises(RunStopped, match="stopped by an operator"):
        ward.loop(SPEC, tmp_path, small_bundle).run()
    assert 3.0 <= ward.inbox.time < 4.0


def test_a_pause_keeps_what_came_and_says_so_once(ward, small_bundle, tmp_path: Path) -> None:
    ward.inbox.at(0.015, lambda: setattr(ward, "halt", "pause"))
    ward.inbox.at(60.0, lambda: setattr(ward, "halt", None))
    outcome = ward.loop(SPEC, tmp_path, small_bundle).run()
    phases = [status.phase for status in ward.statuses]
    assert phases.count("paused") == 1
    assert phases[phases.index("paused") + 1] == "training"
    assert ward.rounds() == [1, 2, 3], "the round under way is not asked again"
    plain = type(ward)(ward.names).loop(SPEC, tmp_path / "b", small_bundle).run()
    assert outcome.weights.tobytes() == plain.weights.tobytes()


def test_killed_at_any_point_it_ends_with_the_same_weights(make_ward, small_bundle, tmp_path: Path) -> None:
    """A crash at each publish, at each line of the log, and before and after each checkpoint."""
    names = ["bed-01", "bed-02", "bed-03"]
    expected = make_ward(names).loop(SPEC, tmp_path / "plain", small_bundle).run()
    for crash_at in range(1, 200):
        root = tmp_path / str(crash_at)
        ward, left = make_ward(names), [crash_at]
        loop = ward.loop(SPEC, root, small_bundle)

        def point(left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise Crash

        def guarded(function, point=point):
            def call(*args, **fields) -> None:
                point()
                function(*args, **fields)
                point()

            return call

        loop._publish = guarded(loop._publish)
        loop.folder.save = guarded(loop.folder.save)
        loop.folder.log = guarded(loop.folder.log)
        try:
            loop.run()
        except Crash:
            again = make_ward(names)
            outcome = again.loop(SPEC, root, small_bundle).run()
            assert outcome.weights.tobytes() == expected.weights.tobytes(), crash_at
            assert outcome.label_counts == expected.label_counts
            assert len(ward.rounds()) + len(again.rounds()) in (3, 4), "no closed round is trained again"
        else:
            assert crash_at > 30, "the points of a run"
            return
    raise AssertionError("the run never ended")


def test_a_checkpoint_of_another_network_ends_the_run(ward, small_bundle, tmp_path: Path) -> None:
    RunFolder(tmp_path, "run-1").save(
        Checkpoint(
            run="run-1",
            round=1,
            weights=Vector.of(np.zeros(6, np.float32)),
            label_counts=[1, 1, 1, 1],
            parent_version=0,
        )
    )
    with pytest.raises(RunFailed, match="the checkpoint holds 6 weights, the model 5"):
        ward.loop(SPEC, tmp_path, small_bundle).run()


def test_what_devices_measure_of_themselves_cannot_spoil_a_status(ward, small_bundle, tmp_path: Path) -> None:
    for device, seconds in (("bed-01", float("nan")), ("bed-02", float("inf")), ("bed-03", -5.0)):
        ward.answers[device] = lambda task, s=seconds: msgspec.structs.replace(ward.honest(task), seconds=s)
    ward.loop(SPEC, tmp_path, small_bundle).run()
    closed = ward.statuses[2]
    assert closed.overhead_seconds == closed.round_seconds
    for status in ward.statuses:
        assert "null" not in str(msgspec.json.encode(status.metrics))
