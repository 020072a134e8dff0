"""From readings to rows, and one round on them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samd_data.features import FeatureSpec, encode
from samd_data.hourly import hourly
from samd_data.reading import Reading
from samd_data.severity import labels
from samd_edge.runtime import TrainState
from samd_edge.trainer.learning import Diverged, Place, evaluate_round, train_round
from samd_edge.trainer.rows import PURGE, Rows, build, thin
from samd_protocol.tasks import TrainSettings

BEGIN = datetime(2026, 1, 1, 7, 20, tzinfo=UTC)
SPEC = FeatureSpec()


def signs(index: int) -> dict[str, Any]:
    return {
        "heart_rate": 60.0 + index % 80,
        "respiratory_rate": 14.0 + index % 14,
        "spo2": 100.0 - index % 12,
        "systolic_bp": 80.0 + index % 90,
        "temperature": 36.0 + index % 4,
    }


def stay(hours: int, per_hour: int = 1) -> list[Reading]:
    return [
        Reading(observed_at=BEGIN + timedelta(hours=index / per_hour), **signs(index))
        for index in range(hours * per_hour)
    ]


def rows(count: int = 50) -> Rows:
    table = hourly(stay(count))
    return Rows(table.values, labels(table.values, "five").astype(np.int32))


# -- rows --------------------------------------------------------------------------------------------------


def test_the_last_fifth_is_held_out_six_hours_away_from_the_cut() -> None:
    readings = stay(100)
    admission = build(readings, SPEC)
    assert len(admission.holdout) == 14
    assert len(admission.train) == 75
    whole = hourly(readings)
    np.testing.assert_array_equal(admission.train.values, whole.values[:75])
    np.testing.assert_array_equal(admission.holdout.values, whole.values[86:])
    assert timedelta(hours=6) == PURGE


def test_labels_are_those_of_the_signs_and_only_labelled_hours_count() -> None:
    readings = stay(60)
    readings[:20] = [Reading(observed_at=reading.observed_at, heart_rate=70.0) for reading in readings[:20]]
    admission = build(readings, SPEC)
    assert not np.isnan(admission.train.values[:, :5]).any()
    assert np.array_equal(admission.train.labels, labels(admission.train.values, "five"))
    assert sum(admission.train.counts()) == len(admission.train)
    assert len(admission.train.counts()) == 4


def test_all_labels_need_oxygen_and_consciousness() -> None:
    assert len(build(stay(60), FeatureSpec(labels="all")).train) == 0


@pytest.mark.parametrize("readings", [[], stay(1), stay(6)])
def test_short_recordings_give_few_rows_or_none(readings: Sequence[Reading]) -> None:
    admission = build(readings, SPEC)
    assert len(admission.train) + len(admission.holdout) <= len(readings)


moments = st.integers(0, 5 * 86400)
values = st.fixed_dictionaries(
    {},
    optional={
        "heart_rate": st.floats(40, 150),
        "temperature": st.floats(35, 40),
        "spo2": st.floats(80, 100),
        "supplemental_oxygen": st.booleans(),
        "consciousness": st.sampled_from("ACVPU"),
    },
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(moments, values, st.sampled_from([0, 0, 0, 60, 4000, 90000])), max_size=60))
def test_thinning_changes_no_hourly_row(given_readings: list[tuple[int, dict[str, Any], int]]) -> None:
    readings = sorted(
        (
            Reading(
                observed_at=BEGIN + timedelta(seconds=second),
                ages={field: float(age) for field in fields} if age else {},
                **fields,
            )
            for second, fields, age in given_readings
        ),
        key=lambda reading: reading.observed_at,
    )
    thinned = list(thin(readings))
    whole, less = hourly(readings), hourly(thinned)
    assert np.array_equal(whole.hours, less.hours)
    np.testing.assert_array_equal(whole.values, less.values)
    np.testing.assert_allclose(whole.ages, less.ages, atol=1e-3)


def test_thinning_keeps_two_readings_an_hour_at_most() -> None:
    assert len(list(thin(stay(24, per_hour=60)))) <= 2 * 25


# -- one round ---------------------------------------------------------------------------------------------


class Recorder:
    """A trainer that notes what it is given and adds 1 to each weight in each epoch."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.judged: list[Any] = []

    def train_epoch(self, **given: Any) -> tuple[TrainState, float]:
        self.calls.append(given)
        state = given["state"]
        return state._replace(weights=state.weights + 1, t=state.t + 1), 0.5

    def evaluate(self, features: Any, labels: Any, weights: Any) -> tuple[float, Any]:
        self.judged.append(features)
        return 0.25, np.eye(4, dtype=np.int64)


WEIGHTS = np.zeros(3, dtype=np.float32)
PLACE = Place(7, 3, "bed-01")


def run(trainer: Any, data: Rows, place: Place = PLACE, **changes: Any) -> tuple[Any, float]:
    chosen = TrainSettings(**{"epochs": 3, "learning_rate": 0.02, "proximal_mu": 0.1, "seed": 7, **changes})
    return train_round(trainer, data, SPEC, weights=WEIGHTS, settings=chosen, place=place, batch_size=32)


def test_a_round_is_its_epochs_from_the_received_weights() -> None:
    trainer, data, told = Recorder(), rows(), []
    weights, loss = train_round(
        trainer,
        data,
        SPEC,
        weights=WEIGHTS,
        settings=TrainSettings(epochs=3, learning_rate=0.02, proximal_mu=0.1, log_prior=[-1, -2, -3, -4]),
        place=PLACE,
        batch_size=32,
        on_epoch=told.append,
    )
    assert weights.tolist() == [3, 3, 3]
    assert loss == 0.5
    assert told == [1, 2, 3]
    assert [call["state"].t for call in trainer.calls] == [0, 1, 2]
    for call in trainer.calls:
        assert np.array_equal(call["anchor"], WEIGHTS)
        assert call["trainable"].tolist() == [1, 1, 1]
        assert call["log_prior"].tolist() == [-1, -2, -3, -4]
        assert (call["learning_rate"], call["mu"]) == (0.02, 0.1)
        assert len(call["order"]) == 64
        assert sorted(call["order"][call["order"] >= 0]) == list(range(50))
    assert not np.array_equal(trainer.calls[0]["order"], trainer.calls[1]["order"])


def test_without_masking_the_rows_are_seen_as_they_are() -> None:
    trainer, data = Recorder(), rows()
    run(trainer, data)
    assert np.array_equal(trainer.calls[0]["features"], encode(data.values, SPEC))
    assert trainer.calls[0]["log_prior"].tolist() == [0, 0, 0, 0]


def test_signs_are_hidden_afresh_in_each_epoch_and_labels_stay() -> None:
    trainer, data = Recorder(), rows(400)
    run(trainer, data, mask_rate=0.3)
    masks = [call["features"][:, -5:] for call in trainer.calls]
    assert masks[0].mean() == pytest.approx(0.3, abs=0.04)
    assert not np.array_equal(masks[0], masks[1])
    assert all(np.array_equal(call["labels"], data.labels) for call in trainer.calls)


def drawn(place: Place, data: Rows) -> list[Any]:
    trainer = Recorder()
    run(trainer, data, place, mask_rate=0.3)
    return [part for call in trainer.calls for part in (call["order"], call["features"])]


def test_the_draw_depends_on_seed_round_and_device_alone() -> None:
    data = rows()
    first = drawn(PLACE, data)
    assert all(np.array_equal(a, b) for a, b in zip(first, drawn(PLACE, data), strict=True))
    for other in (PLACE._replace(seed=8), PLACE._replace(round=4), PLACE._replace(device="bed-02")):
        assert not np.array_equal(first[0], drawn(other, data)[0])


@pytest.mark.parametrize("changes", [{"epochs": 0}, {"mask_rate": 1.5}])
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes)).removeprefix("mask_")):
        run(Recorder(), rows(), **changes)


def test_no_rows_is_an_error() -> None:
    with pytest.raises(ValueError, match="no rows"):
        run(Recorder(), Rows(np.zeros((0, 7)), np.zeros(0, np.int32)))


def test_a_result_that_is_no_number_is_not_sent() -> None:
    class Diverging(Recorder):
        def train_epoch(self, **given: Any) -> tuple[TrainState, float]:
            state = given["state"]
            return state._replace(weights=state.weights * np.float32("nan")), float("nan")

    with pytest.raises(Diverged, match="lower the learning rate"):
        run(Diverging(), rows())


def test_evaluation_hides_the_same_signs_in_every_round() -> None:
    trainer, data = Recorder(), rows()
    for number in (1, 2):
        report = evaluate_round(
            trainer,
            data,
            SPEC,
            weights=WEIGHTS,
            settings=TrainSettings(mask_rate=0.3),
            place=PLACE._replace(round=number),
        )
    complete, hidden, complete_again, hidden_again = trainer.judged
    assert np.array_equal(complete, encode(data.values, SPEC))
    assert np.array_equal(complete, complete_again)
    assert np.array_equal(hidden, hidden_again)
    assert hidden[:, -5:].any()
    assert report.confusion == np.eye(4).astype(int).tolist()
    assert report.loss == 0.25
