"""Rule and model side by side, and what happens when one of them has nothing to say."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from samd_data.features import FeatureSpec, encode
from samd_data.reading import Reading, to_row
from samd_edge.artefacts import ArtefactPolicy
from samd_edge.assessment import (
    Assessor,
    Model,
    ModelRefused,
    load_model,
    refusal,
    signs_of,
    to_message,
)
from samd_edge.clock import ScaledClock, WallClock
from samd_edge.runtime import Graph, GraphError
from samd_protocol import bundle as bundles
from samd_protocol import envelope
from samd_protocol.bundle import Bundle

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
WELL: dict[str, Any] = {
    "heart_rate": 70.0,
    "respiratory_rate": 16.0,
    "spo2": 97.0,
    "systolic_bp": 120.0,
    "temperature": 37.0,
}
ILL: dict[str, Any] = {
    "heart_rate": 135.0,
    "respiratory_rate": 26.0,
    "spo2": 90.0,
    "systolic_bp": 85.0,
    "temperature": 39.5,
}
OBSERVED: dict[str, Any] = {"supplemental_oxygen": False, "consciousness": "A"}


def reading(at: datetime = NOON, **values: Any) -> Reading:
    return Reading(observed_at=at, **values)


class Says:
    """A graph that gives a fixed answer: what a device meets when a file or a weight went wrong."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[Any] = []

    def infer(self, features: Any, weights: Any) -> Any:
        self.asked.append(features)
        if isinstance(self.answer, Exception):
            raise self.answer
        return np.asarray(self.answer, dtype=np.float32)


def says(answer: Any, labels: Any = "five") -> Model:
    return Model(cast("Graph", Says(answer)), np.zeros(1, np.float32), 7, FeatureSpec(labels=labels))


def probabilities(severity: int) -> list[list[float]]:
    return [[0.7 if index == severity else 0.1 for index in range(4)]]


@pytest.fixture(scope="module")
def bundle(untrained_bundle_path: Path) -> Bundle:
    return bundles.read(untrained_bundle_path)


def changed(bundle: Bundle, **fields: Any) -> Bundle:
    return msgspec.structs.replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, **fields))


# -- the rule ----------------------------------------------------------------------------------------------


def test_with_everything_known_the_score_is_a_total() -> None:
    judgement = Assessor().update(reading(**ILL, **OBSERVED), NOON)
    assert judgement.news2.total == judgement.news2.low == judgement.news2.high == 14
    assert (judgement.rule_severity, judgement.rule_severity_possible, judgement.severity) == (3, 3, 3)
    assert judgement.missing == judgement.stale == ()
    assert judgement.model is None
    assert not judgement.disagreement


def test_what_nobody_entered_is_missing_and_gives_a_range() -> None:
    judgement = Assessor().update(reading(**WELL), NOON)
    assert judgement.news2.total is None
    assert (judgement.news2.low, judgement.news2.high) == (0, 5)
    assert judgement.missing == ("supplemental_oxygen", "consciousness")
    assert (judgement.rule_severity, judgement.rule_severity_possible) == (0, 2)


def test_with_nothing_known_everything_is_possible() -> None:
    judgement = Assessor(model=says(probabilities(0))).assess(NOON)
    assert (judgement.news2.low, judgement.news2.high) == (0, 20)
    assert judgement.rule_severity_possible == 3
    assert len(judgement.missing) == 7
    assert judgement.model is None
    assert judgement.model_error == "nothing that the model reads is known"
    assert judgement.observed_at == NOON


def test_values_are_carried_with_their_age_then_stale() -> None:
    assessor = Assessor()
    assessor.update(reading(**ILL, **OBSERVED), NOON)
    later = assessor.update(reading(NOON + timedelta(hours=1), heart_rate=70.0), NOON + timedelta(hours=1))
    assert later.news2.total == 11
    assert later.ages["spo2"] == 3600
    assert later.ages["heart_rate"] == 0
    stale = assessor.assess(NOON + timedelta(hours=4, seconds=1))
    assert set(stale.stale) == {"heart_rate", "respiratory_rate", "spo2", "systolic_bp"}
    assert stale.news2.total is None
    assert stale.observed_at == NOON + timedelta(hours=1)
    gone = assessor.assess(NOON + timedelta(hours=14))
    assert len(gone.stale) == 7
    assert gone.news2.points == {}


def test_scale_2_is_the_patients_setting() -> None:
    signs = {**WELL, **OBSERVED, "spo2": 89.0}
    assert Assessor(spo2_scale=1).update(reading(**signs), NOON).news2.total == 3
    assert Assessor(spo2_scale=2).update(reading(**signs), NOON).news2.total == 0
    with pytest.raises(ValueError, match="spo2_scale"):
        Assessor(spo2_scale=cast("Any", 3))


def test_a_model_of_scale_1_does_not_judge_a_patient_on_scale_2() -> None:
    signs = WELL | OBSERVED | {"spo2": 90.0}
    judged = Assessor(spo2_scale=2, model=says(probabilities(3))).update(reading(**signs), NOON)
    assert (judged.model, judged.severity, judged.disagreement) == (None, 0, False)
    assert judged.model_error == "the model learned SpO2 scale 1, this patient is on 2"
    assert Assessor(spo2_scale=1, model=says(probabilities(3))).update(reading(**signs), NOON).severity == 3


def test_a_late_reading_takes_nothing_back() -> None:
    assessor = Assessor()
    assessor.update(reading(**ILL), NOON)
    judgement = assessor.update(reading(NOON - timedelta(hours=1), **WELL), NOON)
    assert judgement.snapshot.heart_rate == 135
    assert judgement.observed_at == NOON


def test_the_age_of_an_old_value_counts_for_the_newest_time() -> None:
    assessor = Assessor()
    judgement = assessor.update(reading(heart_rate=70.0, ages={"heart_rate": 600.0}), NOON)
    assert judgement.observed_at == NOON - timedelta(minutes=10)
    assert judgement.ages == {"heart_rate": 600.0}


# -- the model ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "signs", "severity", "disagreement"),
    [(0, WELL, 0, False), (1, WELL, 1, False), (2, WELL, 2, True), (0, ILL, 3, True), (3, ILL, 3, False)],
)
def test_the_worse_of_both_counts_and_two_classes_apart_disagree(
    model: int, signs: dict[str, Any], severity: int, disagreement: bool
) -> None:
    judgement = Assessor(model=says(probabilities(model))).update(reading(**signs, **OBSERVED), NOON)
    assert judgement.model is not None
    assert judgement.model.severity == model
    assert judgement.model.version == 7
    assert judgement.model.probabilities[model] == pytest.approx(0.7)
    assert judgement.severity == severity
    assert judgement.disagreement is disagreement


def test_disagreement_is_measured_from_the_certain_end() -> None:
    judgement = Assessor(model=says(probabilities(2))).update(reading(**WELL), NOON)
    assert judgement.rule_severity_possible == 2
    assert judgement.disagreement


@pytest.mark.parametrize(("labels", "size"), [("five", 30), ("all", 34)])
def test_the_model_sees_what_is_valid_and_a_mask_for_the_rest(labels: Any, size: int) -> None:
    model = says(probabilities(0), labels)
    partly = {**WELL, "temperature": None}
    Assessor(model=model).update(reading(**partly, **OBSERVED), NOON)
    seen = cast("Says", model.graph).asked[0]
    assert seen.shape == (1, size)
    assert np.array_equal(seen, encode(to_row(reading(**partly, **OBSERVED))[np.newaxis], model.spec))
    mask = seen[0, -len(model.spec.inputs) :]
    assert mask.tolist() == [float(field == "temperature") for field in model.spec.inputs]


@pytest.mark.parametrize(
    "answer",
    [
        [[float("nan")] * 4],
        [[float("inf"), 0, 0, 0]],
        [[0.5, 0.5]],
        [0.25, 0.25, 0.25, 0.25],
        [[0.25] * 4, [0.25] * 4],
        [[2.0, -1.0, 0.0, 0.0]],
        [[0.1, 0.1, 0.1, 0.1]],
        GraphError("infer failed"),
    ],
)
def test_a_failing_model_never_stops_the_rule(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    assessor = Assessor(model=says(answer))
    with caplog.at_level(logging.ERROR):
        for minute in range(3):
            at = NOON + timedelta(minutes=minute)
            judgement = assessor.update(reading(at, **ILL, **OBSERVED), at)
    assert judgement.news2.total == 14
    assert judgement.severity == 3
    assert judgement.model is None
    assert judgement.model_error
    assert not judgement.disagreement
    assert assessor.model_failures == 3
    assert len(caplog.records) == 1, "one line for three readings"
    assert "135" not in caplog.text
    assert to_message(judgement, WallClock(), False).model is None


def test_a_model_can_be_exchanged_between_readings() -> None:
    assessor = Assessor()
    assert assessor.update(reading(**WELL), NOON).model is None
    assessor.model = says(probabilities(1))
    judgement = assessor.assess(NOON)
    assert judgement.model is not None
    assert judgement.model.severity == 1


def test_a_real_bundle_answers(bundle: Bundle) -> None:
    model = load_model(bundle, allow_untrained=True)
    judgement = Assessor(model=model).update(reading(**ILL), NOON)
    assert judgement.model is not None
    assert sum(judgement.model.probabilities) == pytest.approx(1, abs=1e-6)
    expected = Graph(bundle.graph).infer(
        encode(to_row(reading(**ILL))[np.newaxis], model.spec), bundle.weights
    )
    assert judgement.model.probabilities == pytest.approx(expected[0].tolist())


def test_other_weights_of_the_same_layout_can_be_used(bundle: Bundle) -> None:
    own = load_model(bundle, allow_untrained=True)
    personal = load_model(bundle, weights=bundle.weights * 2, allow_untrained=True)
    first, second = (Assessor(model=model).update(reading(**ILL), NOON).model for model in (own, personal))
    assert first is not None
    assert second is not None
    assert first.probabilities != second.probabilities
    with pytest.raises(ModelRefused, match="weights of shape"):
        load_model(bundle, weights=bundle.weights[:-1], allow_untrained=True)
    with pytest.raises(ModelRefused, match="not numbers"):
        load_model(bundle, weights=np.full_like(bundle.weights, np.nan), allow_untrained=True)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "never trained"),
        ({"trained": True, "task": "sepsis"}, "'sepsis'; this client knows severity and deterioration"),
        ({"trained": True, "task": "deterioration"}, "medium, high, not stable, deteriorates"),
        (
            {
                "trained": True,
                "features": bundles.Features(name="history-v1", labels="five", size=171),
            },
            "of several hours; severity is asked of the values now",
        ),
        ({"trained": True, "classes": ["a", "b", "c", "d"]}, "its classes are a, b, c, d"),
        (
            {"trained": True, "features": bundles.Features(name="signs-v9", labels="five", size=30)},
            "signs-v9.*update the client",
        ),
        (
            {"trained": True, "features": bundles.Features(name="signs-v1", labels="five", size=31)},
            "31 numbers; here they have 30",
        ),
    ],
)
def test_a_bundle_that_cannot_assess_is_refused(bundle: Bundle, fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelRefused, match=reason) as caught:
        load_model(changed(bundle, **fields))
    assert "\n" not in str(caught.value)


def test_a_damaged_graph_is_refused(bundle: Bundle) -> None:
    damaged = msgspec.structs.replace(changed(bundle, trained=True), graph=b"junk" * 10)
    with pytest.raises(ModelRefused, match="fetch"):
        load_model(damaged)


def test_a_trained_bundle_is_not_refused(bundle: Bundle) -> None:
    assert refusal(changed(bundle, trained=True).manifest) is None
    assert refusal(bundle.manifest, allow_untrained=True) is None


# -- the message -------------------------------------------------------------------------------------------


# -- artefacts, and what is due ----------------------------------------------------------------------------


def after(minutes: float, **values: Any) -> Reading:
    return reading(NOON + timedelta(minutes=minutes), **values)


def test_an_artefact_is_flagged_and_the_value_before_it_counts() -> None:
    assessor = Assessor()
    assessor.take(after(0, **WELL, **OBSERVED))
    judgement = assessor.update(after(0.1, spo2=61.0), NOON + timedelta(seconds=6))
    assert judgement.news2.total == 0, "61 would have scored 3"
    assert judgement.artefacts == {"spo2": "jump"}
    assert judgement.ages["spo2"] == 6.0, "and its age is told"
    judgement = assessor.update(after(0.2, spo2=96.0), NOON + timedelta(seconds=12))
    assert (judgement.artefacts, judgement.ages["spo2"]) == ({}, 0.0)


def test_a_flat_line_is_withdrawn_not_carried_on() -> None:
    assessor = Assessor(artefacts=ArtefactPolicy(flat_after_s=600, flat_readings=10))
    assessor.take(after(0, **WELL, **OBSERVED))
    for minute in range(1, 12):
        judgement = assessor.update(after(minute, heart_rate=72.0), NOON + timedelta(minutes=minute))
    assert judgement.artefacts == {"heart_rate": "flat"}
    assert judgement.missing == ("heart_rate",)
    assert (judgement.news2.total, judgement.news2.low, judgement.news2.high) == (None, 0, 3)


def test_what_a_person_enters_is_not_screened() -> None:
    assessor = Assessor()
    assessor.take(after(0, **WELL))
    assert assessor.take(after(1, systolic_bp=220.0), observed=True) == {}
    assert assessor.assess(NOON + timedelta(minutes=1)).news2.points["systolic_bp"] == 3


def test_a_value_that_could_not_be_used_is_flagged_until_a_good_one_comes() -> None:
    assessor = Assessor()
    assert assessor.flag("spo2", "no_signal", "probe off", NOON)
    assert not assessor.flag("spo2", "no_signal", "probe off", NOON), "that is no news"
    assert assessor.flag("spo2", "implausible", "120", NOON)
    assert not assessor.flag("row", "implausible", "torn", NOON), "a row is no sign"
    assert assessor.assess(NOON).artefacts == {"spo2": "implausible"}
    assessor.take(after(-1, spo2=97.0))
    assert assessor.assess(NOON).artefacts == {"spo2": "implausible"}, "an older value does not clear it"
    assert assessor.assess(NOON + timedelta(hours=3, seconds=1)).artefacts == {}, "it is stale by now"


@pytest.mark.parametrize(
    ("values", "interval_s", "due_in_s"),
    [
        (WELL, None, 3 * 3600),  # the chart asks for 12 h; the signs are valid for 3
        (WELL | {"heart_rate": 100.0}, None, 3 * 3600),
        (WELL | {"spo2": 90.0}, None, 3600),  # a single 3: every hour
        (WELL | {"spo2": 90.0, "heart_rate": 115.0}, None, 3600),  # 5
        (WELL, 1800.0, 1800),  # the admission asks for more
        (WELL | {"spo2": 90.0}, 7200.0, 3600),  # and never for less
        (ILL, None, None),  # 7 or more: without a break
        (ILL, 1800.0, None),
    ],
)
def test_when_the_next_observations_are_due(
    values: dict[str, Any], interval_s: float | None, due_in_s: float | None
) -> None:
    assessor = Assessor(monitoring_interval_s=interval_s)
    judgement = assessor.update(after(0, **values, **OBSERVED), NOON)
    assert judgement.due == ()
    expected = None if due_in_s is None else NOON + timedelta(seconds=due_in_s)
    assert judgement.next_due_at == expected


def test_each_input_is_due_by_its_own_age_and_a_missing_one_now() -> None:
    assessor = Assessor(monitoring_interval_s=3600)
    assessor.take(after(-70, temperature=37.0))
    judgement = assessor.update(after(-10, heart_rate=70.0, spo2=97.0, respiratory_rate=15.0), NOON)
    assert judgement.due == ("systolic_bp", "temperature", "supplemental_oxygen", "consciousness")
    assert judgement.next_due_at == NOON - timedelta(minutes=10)


def test_the_message_carries_both_sides_and_survives_the_wire() -> None:
    judgement = Assessor(model=says(probabilities(1))).update(reading(**WELL, consciousness="A"), NOON)
    message = to_message(judgement, WallClock(), False)
    assert message.signs is None
    assert message.news2.missing == ["supplemental_oxygen"]
    assert message.missing == ["supplemental_oxygen"]
    assert message.model is not None
    sealed = envelope.Sealer("bed-01", 1).seal(message)
    assert envelope.decode(envelope.encode(sealed), sender="bed-01").data == message


def test_signs_travel_only_where_the_ward_opted_in() -> None:
    judgement = Assessor().update(reading(**WELL, consciousness="A", diastolic_bp=80.0), NOON)
    assert to_message(judgement, WallClock(), True).signs == {
        **WELL,
        "diastolic_bp": 80.0,
        "consciousness": "A",
    }
    assert b"97" not in msgspec.json.encode(to_message(judgement, WallClock(), False))
    assert signs_of(reading()) == {}


def test_on_the_wire_times_are_wall_times() -> None:
    wall = SimpleNamespace(now=datetime(2026, 6, 1, tzinfo=UTC))
    clock = ScaledClock(NOON, 600, lambda: wall.now)
    assessor = Assessor()
    assessor.take(reading(**WELL))
    wall.now += timedelta(seconds=6)
    judgement = assessor.assess(clock.now())
    assert judgement.ages["spo2"] == 3600
    message = to_message(judgement, clock, False)
    assert message.observed_at == datetime(2026, 6, 1, tzinfo=UTC)
    assert message.reading_age_s == pytest.approx(6)
