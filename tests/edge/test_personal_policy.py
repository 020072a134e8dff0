"""Which personal models are used: enough data, no worse anywhere, nothing forgotten; and the two files."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from samd_data.features import FeatureSpec, encode
from samd_data.reading import COLUMNS
from samd_data.severity import labels
from samd_edge import personal
from samd_edge.assessment import Model
from samd_edge.personalisation import State
from samd_edge.personalisation.forgetting import NORMAL, RANGE, REHEARSE_SEED, SIZE, grid
from samd_edge.personalisation.policy import Evidence, judge, macro_f1, too_little, urgent_recall
from samd_protocol.tasks import Vector

GRAPH = "9" * 64
PERFECT = np.diag([10, 10, 10, 10])


def table(*rows: tuple[int, int, int, int]) -> Any:
    return np.array(rows, dtype=np.int64)


def evidence(complete: Any = PERFECT, masked: Any = PERFECT, forgotten: Any = PERFECT) -> Evidence:
    return Evidence(complete, masked, forgotten)


# -- enough data -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "holdout", "reason"),
    [
        ([12, 12, 0, 0], [12, 0, 0, 0], None),
        ([0, 0, 0, 0], [0, 0, 0, 0], "too little data: 0 labelled hours, 24 are needed"),
        ([2, 1, 0, 0], [0, 0, 0, 0], "too little data: 3 labelled hours, 24 are needed"),
        ([0, 90, 0, 0], [0, 20, 0, 0], "too little data: all 90 labelled hours are of one class"),
        ([60, 30, 0, 0], [5, 6, 0, 0], "too little data: 11 held-out hours, 12 are needed"),
    ],
)
def test_a_patient_with_too_little_data_keeps_the_global_model(
    train: list[int], holdout: list[int], reason: str | None
) -> None:
    assert too_little(train, holdout) == reason


# -- the examination ---------------------------------------------------------------------------------------


def test_the_scores_by_hand() -> None:
    counts = table((8, 2, 0, 0), (0, 6, 0, 0), (0, 0, 1, 1), (0, 1, 0, 1))
    # F1: 16/18, 12/15, 2/3, 2/4
    assert macro_f1(counts) == pytest.approx((16 / 18 + 12 / 15 + 2 / 3 + 2 / 4) / 4)
    assert urgent_recall(counts) == 3 / 4
    assert urgent_recall(table((8, 2, 0, 0), (0, 6, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0))) is None
    assert macro_f1(np.zeros((4, 4), dtype=np.int64)) is None


def test_as_good_as_the_others_is_good_enough() -> None:
    verdict = judge(evidence(), {"the global model": evidence(), "the model in use": evidence()})
    assert verdict.adopted
    assert verdict.reason == (
        "no worse than the global model and the model in use; recall of 5 or more on the grid 1.000"
    )


MISSES_ONE = table((10, 0, 0, 0), (0, 10, 0, 0), (0, 1, 9, 0), (0, 0, 0, 10))
CONFUSES_MILD = table((9, 1, 0, 0), (0, 10, 0, 0), (0, 0, 10, 0), (0, 0, 0, 10))
FORGETS = table((10, 0, 0, 0), (0, 10, 0, 0), (0, 3, 7, 0), (0, 0, 0, 10))


@pytest.mark.parametrize(
    ("own", "other", "reason"),
    [
        (evidence(complete=CONFUSES_MILD), evidence(), "macro-F1 on held-out hours 0.975, it has 1.000"),
        (
            evidence(masked=CONFUSES_MILD),
            evidence(),
            "macro-F1 on held-out hours with signs hidden 0.975, it has 1.000",
        ),
        (
            evidence(complete=MISSES_ONE),
            # worse on the whole, but it finds every hour that calls for action
            evidence(complete=table((5, 5, 0, 0), (5, 5, 0, 0), (0, 0, 10, 0), (0, 0, 0, 10))),
            "recall of 5 or more on held-out hours 0.950, it has 1.000",
        ),
        (
            evidence(forgotten=FORGETS),
            evidence(forgotten=FORGETS),
            "it forgets: recall of 5 or more on the grid 0.850, 0.9 is needed",
        ),
        (
            evidence(forgotten=MISSES_ONE),
            evidence(),
            "it forgets: recall of 5 or more on the grid 0.950, it has 1.000",
        ),
        (
            evidence(forgotten=np.zeros((4, 4), dtype=np.int64)),
            evidence(),
            "it forgets: recall of 5 or more on the grid none, 0.9 is needed",
        ),
    ],
)
def test_worse_anywhere_is_not_used(own: Evidence, other: Evidence, reason: str) -> None:
    verdict = judge(own, {"it": other})
    assert (verdict.adopted, verdict.reason) == (False, reason)


def test_a_hold_out_without_an_urgent_hour_says_nothing_of_recall() -> None:
    mild = table((10, 0, 0, 0), (0, 10, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0))
    assert judge(evidence(complete=mild), {"it": evidence(complete=mild)}).adopted


# -- the forgetting grid -----------------------------------------------------------------------------------


def test_the_grid_covers_the_range_and_is_labelled_by_the_chart() -> None:
    rows = grid("five")
    assert len(rows) == SIZE
    assert np.array_equal(rows.labels, labels(rows.values, "five"))
    assert min(rows.counts()) > 50
    for column, (lowest, highest) in enumerate(RANGE.values()):
        values = rows.values[:, column]
        assert lowest <= values.min() < lowest + (highest - lowest) / 10
        assert highest - (highest - lowest) / 10 < values.max() <= highest
    assert np.isnan(rows.values[:, 5:]).all()
    normal = (rows.values[:, 2] >= 96).mean()
    assert normal == pytest.approx(NORMAL, abs=0.04)
    assert np.isfinite(encode(rows.values, FeatureSpec())).all()


def test_the_grid_is_the_same_everywhere_and_rehearsals_are_other_readings() -> None:
    assert np.array_equal(grid("five").values, grid("five").values, equal_nan=True)
    rehearsed = grid("five", 64, REHEARSE_SEED)
    assert len(rehearsed) == 64
    judged = {row.tobytes() for row in grid("five").values}
    assert not judged & {row.tobytes() for row in rehearsed.values}


def test_the_grid_of_all_labels_knows_oxygen_and_consciousness() -> None:
    rows = grid("all", 200)
    assert not np.isnan(rows.values).any()
    assert np.array_equal(rows.labels, labels(rows.values, "all"))
    assert rows.values.shape == (200, len(COLUMNS))


# -- what lies in the admission's folder -------------------------------------------------------------------


def state(value: float, rounds: int = 1) -> State:
    return State(np.full(3, value, dtype=np.float32), alpha=0.25, rounds=rounds)


def keep(folder: Path, number: int, run: str = "run-1") -> None:
    personal.save_state(
        folder,
        method="ditto",
        graph_sha256=GRAPH,
        run=run,
        number=number,
        before=state(number - 1, number - 1),
        after=state(number, number),
    )


def load(folder: Path, number: int, **changes: Any) -> State | None:
    given = {"method": "ditto", "graph_sha256": GRAPH, "run": "run-1", "number": number, "size": 3}
    return personal.load_state(folder, **(given | changes))


def test_a_round_asked_for_twice_begins_twice_at_the_same_place(tmp_path: Path) -> None:
    assert load(tmp_path, 1) is None
    keep(tmp_path, 4)
    for number, value in ((4, 3.0), (5, 4.0)):
        found = load(tmp_path, number)
        assert found is not None
        assert (found.personal.tolist(), found.alpha, found.rounds) == ([value] * 3, 0.25, int(value))
    later = load(tmp_path, 4, run="run-2")
    assert later is not None
    assert later.personal.tolist() == [4.0] * 3  # the next run goes on where this one ended


@pytest.mark.parametrize("changes", [{"method": "apfl"}, {"graph_sha256": "8" * 64}, {"size": 4}])
def test_a_state_of_something_else_is_not_taken(tmp_path: Path, changes: dict[str, Any]) -> None:
    keep(tmp_path, 4)
    assert load(tmp_path, 5, **changes) is None


@pytest.mark.parametrize("damage", [b"", b"\xc1", b"\x80", bytes(40)])
def test_a_damaged_file_is_left_out(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / personal.STATE_FILE).write_bytes(damage)
    (tmp_path / personal.MODEL_FILE).write_bytes(damage)
    assert load(tmp_path, 5) is None
    assert personal.load_model(tmp_path, GRAPH) is None


def test_what_is_kept_is_for_its_owner_alone(tmp_path: Path) -> None:
    keep(tmp_path, 4)
    assert (tmp_path / personal.STATE_FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [personal.STATE_FILE]


def in_use(folder: Path, weights: Any, judged: list[int]) -> None:
    personal.save_model(
        folder,
        personal.ModelFile(
            method="ditto", graph_sha256=GRAPH, run="run-1", weights=Vector.of(weights), judged=judged
        ),
    )


def test_a_personal_model_assesses_only_beside_the_weights_it_was_judged_against(tmp_path: Path) -> None:
    weights = np.array([1.0, 2.0, 3.0], dtype=np.float32)
    model = Model(SimpleNamespace(), weights, 7, FeatureSpec())  # type: ignore[arg-type]
    assert personal.for_patient(model, GRAPH, tmp_path) is model
    in_use(tmp_path, weights + 1, [personal.checksum(weights)])
    found = personal.for_patient(model, GRAPH, tmp_path)
    assert found is not None
    assert found.weights.tolist() == [2, 3, 4]
    assert (found.personal, found.version) == (True, 7)
    newer = replace(model, weights=weights * 2, version=8)
    assert personal.for_patient(newer, GRAPH, tmp_path) is newer
    assert personal.for_patient(model, "8" * 64, tmp_path) is model
    assert personal.for_patient(None, GRAPH, tmp_path) is None


@pytest.mark.parametrize("weights", [[1.0, np.nan, 2.0], [1.0, 2.0]])
def test_a_vector_that_cannot_be_used_is_not(tmp_path: Path, weights: list[float]) -> None:
    model = Model(SimpleNamespace(), np.zeros(3, np.float32), 7, FeatureSpec())  # type: ignore[arg-type]
    in_use(tmp_path, np.array(weights, dtype=np.float32), [personal.checksum(model.weights)])
    assert personal.for_patient(model, GRAPH, tmp_path) is model
