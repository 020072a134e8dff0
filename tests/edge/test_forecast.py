"""Deterioration on the device: what training reads is what is asked, and nothing of it is of the future."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samd_data import calibration as calibrations
from samd_data import deterioration, history, splits
from samd_data.hourly import hourly
from samd_data.reading import Reading
from samd_data.synthetic import generate
from samd_edge.artefacts import Flag
from samd_edge.assessment import Model, ModelRefused, infer_rows, load_model
from samd_edge.clock import ScaledClock
from samd_edge.database import micros
from samd_edge.forecast import (
    NOTHING_KNOWN,
    OTHER_SCALE,
    REACHED,
    Following,
    Forecast,
    Hours,
    conclude,
    full_hour,
    to_message,
)
from samd_edge.forecaster import SETTING, SLICE_HOURS, Forecaster
from samd_edge.readings import Mark
from samd_edge.store import AdmissionStore
from samd_protocol import bundle as bundles

START = datetime(2026, 1, 1, 7, 20, tzinfo=UTC)
WELL = {
    "heart_rate": 80.0,
    "respiratory_rate": 16.0,
    "spo2": 97.0,
    "systolic_bp": 120.0,
    "temperature": 37.0,
}


@pytest.fixture(scope="module")
def model(untrained_deterioration_path: Path) -> Model:
    bundle = bundles.read(untrained_deterioration_path)
    return load_model(bundle, allow_untrained=True, task="deterioration")


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[Callable[[], AdmissionStore]]:
    made: list[AdmissionStore] = []

    def make() -> AdmissionStore:
        made.append(AdmissionStore(tmp_path / f"admission-{len(made)}"))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(make_store: Callable[[], AdmissionStore]) -> AdmissionStore:
    return make_store()


def reading(hours: float, **changes: float | None) -> Reading:
    return Reading(observed_at=START + timedelta(hours=hours), **(WELL | changes))  # type: ignore[arg-type]


def asked(forecaster: Forecaster, at: datetime) -> Forecast:
    """Work until there is an answer."""
    while forecaster.work(at):
        pass
    assert forecaster.latest is not None
    return forecaster.latest


def expected(readings: list[Reading], hour: datetime, model: Model) -> float:
    """The model's score at an hour, by the whole table that training would make of the readings before it."""
    table = hourly(reading for reading in readings if reading.observed_at < hour)
    assert table.hours[-1] == np.datetime64((hour - timedelta(hours=1)).replace(tzinfo=None), "s")
    return float(infer_rows(model, history.rows(table))[-1, 1])


def test_each_full_hour_is_what_training_would_read(store: AdmissionStore, model: Model) -> None:
    recording = list(generate(1, 60, 3)[0].readings)
    store.add_history(recording)
    forecaster = Forecaster(store, model=model)
    first = full_hour(recording[0].observed_at)
    probabilities = 0
    for number in range(1, 60):
        hour = first + timedelta(hours=number)
        found = asked(forecaster, hour + timedelta(minutes=7))
        assert found.asked_at == hour
        table = hourly(reading for reading in recording if reading.observed_at < hour)
        if deterioration.asked(table.values[-1:], "five")[0]:
            # one row or many at once: the interpreter's sums differ in the last bit
            assert found.probability == pytest.approx(expected(recording, hour, model), abs=1e-6)
            probabilities += 1
        else:
            assert (found.probability, found.reason) == (None, REACHED)
    assert probabilities == 38


def test_nothing_of_an_answer_is_of_the_future(
    make_store: Callable[[], AdmissionStore], model: Model
) -> None:
    """The whole recording in the store, or only what was measured by then: the same answer, to the bit."""
    recording = list(generate(1, 90, 5)[0].readings)
    whole = make_store()
    whole.add_history(recording)
    first = full_hour(recording[0].observed_at)
    for number in (1, 2, 7, 30, 31, 61, 88):
        hour = first + timedelta(hours=number)
        past = make_store()
        past.add_history(reading for reading in recording if reading.observed_at < hour)
        with_future, without = Forecaster(whole, model=model), Forecaster(past, model=model)
        whole.note(**{SETTING: None})
        assert asked(with_future, hour) == asked(without, hour)
        assert whole.setting(SETTING) == past.setting(SETTING)


def test_a_restart_gives_the_same_answer(store: AdmissionStore, model: Model) -> None:
    recording = list(generate(1, 80, 1)[0].readings)
    forecaster = Forecaster(store, model=model)
    for one in recording:
        store.add_history([one])
        forecaster.work(one.observed_at)
    end = recording[-1].observed_at
    before = asked(forecaster, end)
    kept = store.setting(SETTING)
    again = asked(Forecaster(store, model=model), end)
    assert again.probability == pytest.approx(before.probability, abs=1e-6)
    assert replace(again, probability=None) == replace(before, probability=None)
    assert store.setting(SETTING) == kept, "the calibration of the store is used again"


def test_an_hour_is_asked_once(store: AdmissionStore, model: Model) -> None:
    store.add_history([reading(0), reading(0.5)])
    forecaster = Forecaster(store, model=model)
    found = asked(forecaster, START + timedelta(hours=1))
    assert found.asked_at == datetime(2026, 1, 1, 8, tzinfo=UTC)
    assert not forecaster.work(START + timedelta(hours=1, minutes=39))
    assert forecaster.latest is found
    assert asked(forecaster, START + timedelta(hours=1, minutes=40)).asked_at == found.asked_at + timedelta(
        hours=1
    )


def test_the_past_is_read_in_slices(store: AdmissionStore, model: Model) -> None:
    store.add_history(reading(hour) for hour in range(100))
    forecaster = Forecaster(store, model=model)
    slices, sizes, before = 0, [], 0
    while forecaster.work(START + timedelta(hours=100)):
        slices += 1
        total = forecaster._hours.waiting + len(forecaster._hours._asked)
        sizes.append(total - before)
        before = total
    assert slices >= 100 / (SLICE_HOURS + 1)
    assert max(sizes) <= SLICE_HOURS + 1


def test_of_the_next_hour_only_what_is_new_is_read(
    store: AdmissionStore, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add_history(reading(hour / 10) for hour in range(200))
    forecaster = Forecaster(store, model=model)
    asked(forecaster, START + timedelta(hours=20))
    store.add_history(reading(20 + hour / 100) for hour in range(150))
    read: list[Reading] = []
    page = store.page

    def counted(*arguments: Any) -> Any:
        found = page(*arguments)
        read.extend(found[0])
        return found

    monkeypatch.setattr(store, "page", counted)
    found = asked(forecaster, START + timedelta(hours=21))
    # what came after the last full hour, once each: 20 h 40 min to 21 h 40 min of the stay
    hour = full_hour(START + timedelta(hours=21))
    assert [one.observed_at for one in read] == sorted(one.observed_at for one in read)
    assert min(one.observed_at for one in read) >= hour - timedelta(hours=1)
    assert len(read) == sum(
        hour - timedelta(hours=1) <= reading(number / 10).observed_at for number in range(200)
    ) + sum(reading(20 + number / 100).observed_at < hour for number in range(150))
    monkeypatch.undo()
    again = asked(Forecaster(store, model=model), START + timedelta(hours=21))
    assert found.probability == pytest.approx(again.probability, abs=1e-6)


@pytest.mark.parametrize("struck", [True, False])
def test_a_late_reading_and_a_correction_change_the_past(
    make_store: Callable[[], AdmissionStore], model: Model, struck: bool
) -> None:
    store, other = make_store(), make_store()
    readings = [reading(hour / 2, heart_rate=70.0 + hour) for hour in range(20)]
    late = reading(4.65, heart_rate=131.0)
    forecaster = Forecaster(store, model=model)
    if struck:
        store.add_history([*readings, late])
        asked(forecaster, START + timedelta(hours=10))
        kept = store.find_value("heart_rate", late.observed_at)
        assert kept is not None
        store.strike(kept.row, field="heart_rate", by="n", reason="slipped", corrected_at=START)
        other.add_history([*readings, reading(4.65, heart_rate=None)])
    else:
        store.add_history(readings)
        asked(forecaster, START + timedelta(hours=10))
        store.add_history([late])
        other.add_history([*readings, late])
    found = asked(forecaster, START + timedelta(hours=11))
    assert found == asked(Forecaster(other, model=model), START + timedelta(hours=11))
    assert (
        found.probability
        != asked(
            Forecaster(
                make_filled(make_store(), [*readings] if not struck else [*readings, late]), model=model
            ),
            START + timedelta(hours=11),
        ).probability
    )


def make_filled(store: AdmissionStore, readings: list[Reading]) -> AdmissionStore:
    store.add_history(readings)
    return store


def test_artefacts_are_not_read(make_store: Callable[[], AdmissionStore], model: Model) -> None:
    wild = reading(2.1, spo2=40.0)
    flag = {"spo2": Flag("jump", "it fell by 50 within a second", wild.observed_at)}
    store, other = make_store(), make_store()
    store.add_history([reading(hour) for hour in range(3)])
    store.add_history([wild], lambda _: flag)
    other.add_history([*(reading(hour) for hour in range(3)), reading(2.1, spo2=None)])
    at = START + timedelta(hours=3)
    found = asked(Forecaster(store, model=model), at)
    assert found == asked(Forecaster(other, model=model), at)
    assert found.probability is not None


def test_where_it_is_not_asked(make_store: Callable[[], AdmissionStore], model: Model) -> None:
    at = START + timedelta(hours=2)
    ill = make_filled(make_store(), [reading(1, respiratory_rate=26.0, spo2=90.0, heart_rate=95.0)])
    assert asked(Forecaster(ill, model=model), at).reason == REACHED  # 3 + 3 + 1
    six = make_filled(make_store(), [reading(1, respiratory_rate=26.0, spo2=90.0)])
    assert asked(Forecaster(six, model=model), at).reason is None
    assert asked(Forecaster(make_store(), model=model), at).reason == NOTHING_KNOWN
    # a temperature is carried into the twelve hours after its own; a day later there are no hours any more
    for hours, reason in ((13, None), (14, NOTHING_KNOWN), (40, NOTHING_KNOWN)):
        quiet = make_filled(make_store(), [reading(0.1)])
        assert asked(Forecaster(quiet, model=model), START + timedelta(hours=hours)).reason == reason
    scale_2 = Forecaster(six, spo2_scale=2, model=model)
    assert asked(scale_2, at) == Forecast(full_hour(at), model.version, reason=OTHER_SCALE)
    nobody = Forecaster(six)
    assert not nobody.work(at)
    assert nobody.latest is None


def test_after_a_day_of_silence_a_stay_begins(store: AdmissionStore, model: Model) -> None:
    first = [reading(hour, heart_rate=100.0) for hour in range(5)]
    second = [reading(40 + hour) for hour in range(3)]
    store.add_history(first)
    forecaster = Forecaster(store, model=model)
    for hour in range(1, 40):
        asked(forecaster, START + timedelta(hours=hour))  # silence is asked about as it goes on
    store.add_history(second)
    found = asked(forecaster, START + timedelta(hours=43))
    assert found == asked(Forecaster(store, model=model), START + timedelta(hours=43))
    assert found.probability == pytest.approx(
        expected([*first, *second], full_hour(START + timedelta(hours=43)), model), abs=1e-6
    )


def holdout(readings: list[Reading], end: datetime, model: Model) -> calibrations.Calibration:
    """The calibration, worked out from the whole table at once."""
    table = hourly(reading for reading in readings if reading.observed_at < end)
    labels = deterioration.labels(table, "five")
    known = labels >= 0
    _, rows = splits.by_time(table.hours[known], 0.8, timedelta(hours=6))
    scores = infer_rows(model, history.rows(table))[known][rows]
    return calibrations.fit(scores, labels[known][rows])


def last_asked(readings: list[Reading]) -> datetime:
    """The last full hour at which there is a question."""
    table = hourly(readings)
    begins = table.hours[deterioration.asked(table.values, "five")][-1]
    return datetime.fromisoformat(f"{begins}").replace(tzinfo=UTC) + timedelta(hours=1)


def test_calibrated_on_the_own_hold_out_and_kept(store: AdmissionStore, model: Model) -> None:
    recording = list(generate(1, 200, 3)[0].readings)
    store.add_history(recording)
    end = last_asked(recording)
    wanted = holdout(recording, end, model)
    assert (wanted.kind, min(wanted.cases) >= 10) == ("temperature", True)
    found = asked(Forecaster(store, model=model), end)
    assert found.calibration == "temperature"
    raw = expected(recording, end, model)
    odds = math.log(raw / (1 - raw)) / wanted.temperature
    assert found.probability == pytest.approx(1 / (1 + math.exp(-odds)), abs=1e-5)
    assert found.possible == tuple(
        name
        for name, score, least in zip(
            ("stable", "deteriorates"), (1 - raw, raw), wanted.thresholds, strict=True
        )
        if score >= least
    )
    kept = store.setting(SETTING)
    assert (kept["version"], kept["calibration"]["cases"]) == (model.version, wanted.cases)
    assert kept["calibration"]["temperature"] == pytest.approx(wanted.temperature, abs=1e-4)
    # within the day the same one, also by another forecaster; a day later a new one
    assert kept["fitted_at"] == end.isoformat().replace("+00:00", "Z")
    store.add_history(Reading(observed_at=end + timedelta(hours=hours), **WELL) for hours in (1.5, 23.5))
    assert asked(Forecaster(store, model=model), end + timedelta(hours=2)).probability is not None
    assert store.setting(SETTING) == kept
    assert asked(Forecaster(store, model=model), end + timedelta(hours=24)).probability is not None
    assert store.setting(SETTING)["fitted_at"] == (end + timedelta(hours=24)).isoformat().replace(
        "+00:00", "Z"
    )


def test_another_model_has_another_calibration(store: AdmissionStore, model: Model) -> None:
    recording = list(generate(1, 200, 3)[0].readings)
    store.add_history(recording)
    end = last_asked(recording)
    forecaster = Forecaster(store, model=model)
    first = asked(forecaster, end)
    other = replace(model, version=9, weights=model.weights * np.float32(0.5))
    forecaster.use(other)
    assert forecaster.latest is None, "an answer of the old model is not shown as the new one's"
    second = asked(forecaster, end)
    assert (second.version, second.asked_at) == (9, first.asked_at)
    assert second.probability != first.probability
    wanted = holdout(recording, end, other)
    assert store.setting(SETTING)["calibration"]["temperature"] == pytest.approx(wanted.temperature, abs=1e-4)


def test_with_too_few_cases_nothing_is_changed(store: AdmissionStore, model: Model) -> None:
    store.add_history(reading(hour) for hour in range(48))
    at = full_hour(START + timedelta(hours=48))
    found = asked(Forecaster(store, model=model), at)
    assert (found.calibration, found.possible) == ("none", ("stable", "deteriorates"))
    readings = [reading(hour) for hour in range(48)]
    assert found.probability == pytest.approx(expected(readings, at, model), abs=1e-6)


def test_a_damaged_calibration_is_fitted_anew(store: AdmissionStore, model: Model) -> None:
    store.add_history(reading(hour) for hour in range(4))
    store.note(**{SETTING: {"version": model.version, "weights": "?"}})
    assert asked(Forecaster(store, model=model), START + timedelta(hours=4)).probability is not None
    assert store.setting(SETTING)["calibration"]["kind"] == "none"


def test_a_model_that_fails_has_a_reason_and_is_asked_again(
    store: AdmissionStore, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    store.add_history(reading(hour) for hour in range(4))
    weights = model.weights.copy()
    weights[-1] = np.nan
    forecaster = Forecaster(store, model=replace(model, weights=weights))
    for hours in (4, 5, 6):
        found = asked(forecaster, START + timedelta(hours=hours))
        assert (found.probability, found.asked_at) == (None, full_hour(START + timedelta(hours=hours)))
        assert str(found.reason).startswith("no answer: ")
    assert len([record for record in caplog.records if "gives no answer" in record.message]) == 1
    forecaster.use(model)
    assert asked(forecaster, START + timedelta(hours=6)).probability is not None
    store.close()
    assert str(asked(forecaster, START + timedelta(hours=7)).reason).startswith("no answer: Cannot operate")


def test_a_conclusion_by_hand() -> None:
    calibration = calibrations.Calibration(
        kind="isotonic", scores=[0.2, 0.6], probabilities=[0.1, 0.3], thresholds=[0.7, 0.5], cases=[900, 300]
    )
    hours = Hours()
    hours.take(reading(0))
    hours.reach(datetime(2026, 1, 1, 8, tzinfo=UTC))
    hour = hours._waiting[0][0]._replace(score=0.5)
    at = datetime(2026, 1, 1, 8, tzinfo=UTC)
    found = conclude(hour, at, 4, calibration)
    # a quarter of the way short of .6: .1 + .3/.4 * .2
    assert found == Forecast(at, 4, pytest.approx(0.25), ("deteriorates",), "isotonic")


def test_reading_by_reading_is_the_same_as_from_the_store(store: AdmissionStore, model: Model) -> None:
    recording = list(generate(1, 70, 3)[0].readings)
    following = Following(model)
    store.add_history(recording)
    forecaster = Forecaster(store, model=model)
    for one in recording:
        told, kept = following.take(one, one.observed_at), asked(forecaster, one.observed_at)
        if told.probability is None or kept.probability is None:
            assert told == kept
        else:
            assert told.probability == pytest.approx(kept.probability, abs=1e-5)
            assert (told.asked_at, told.calibration) == (kept.asked_at, kept.calibration)


def test_on_the_wire_its_time_is_the_walls() -> None:
    begin = datetime(2026, 3, 1, 12, tzinfo=UTC)
    clock = ScaledClock(START, 60.0, lambda: begin)
    forecast = Forecast(full_hour(START) + timedelta(hours=2), 3, 0.25, ("stable",), "temperature")
    told = to_message(forecast, clock)
    assert told is not None
    assert told.asked_at == begin + timedelta(minutes=100) / 60
    assert (told.probability, told.possible, told.calibration, told.horizon_h, told.version) == (
        0.25,
        ["stable"],
        "temperature",
        6,
        3,
    )
    assert to_message(None, clock) is None


def test_pages_are_in_order_and_end(store: AdmissionStore) -> None:
    same = [reading(1, heart_rate=60.0 + number) for number in range(5)]
    store.add_history([*same, reading(0), reading(2)])
    seen: list[float] = []
    mark = Mark()
    for size in (2, 2, 2, 0):
        found, mark = store.page(mark, START + timedelta(hours=2), 2)
        assert len(found) == size
        seen += [float(one.heart_rate or 0) for one in found]
    assert seen == [80.0, 60.0, 61.0, 62.0, 63.0, 64.0], "what is observed then is not before it"
    newest = store.newest_rows()
    assert not store.changed_since(newest, micros(START + timedelta(hours=9)))
    store.add_history([reading(1.5)])
    assert store.changed_since(newest, micros(START + timedelta(hours=2)))
    assert not store.changed_since(newest, micros(START + timedelta(hours=1.5)))


def test_a_model_of_another_task_is_refused(untrained_bundle_path: Path, make_bundle: Any) -> None:
    severity = bundles.read(untrained_bundle_path)
    with pytest.raises(ModelRefused, match="its task is 'severity', not 'deterioration'"):
        load_model(severity, allow_untrained=True, task="deterioration")
    ahead = bundles.read(make_bundle(2, task="deterioration"))
    with pytest.raises(ModelRefused, match="its task is 'deterioration', not 'severity'"):
        load_model(ahead)
    assert load_model(ahead, task="deterioration").spec.name == "history-v1"
