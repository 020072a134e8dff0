"""What a source takes back: struck through like a correction, not found, sent again, replaced in one step."""

import sqlite3
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from samd_data.plausibility import Rejection
from samd_data.reading import Reading
from samd_edge import orders
from samd_edge.admission import Admission, Record
from samd_edge.alerts import Policy
from samd_edge.anew import take_again
from samd_edge.artefacts import ArtefactPolicy
from samd_edge.assessment import Assessor, Judgement
from samd_edge.clock import WallClock
from samd_edge.commands import CommandFailed
from samd_edge.infer_command import Run
from samd_edge.retraction import BY_HAND, Retraction, Withdrawn, retraction_of
from samd_edge.store import AdmissionStore, read_readings
from samd_protocol import envelope
from samd_protocol.messages import Alert, Correction, ObservationAdd
from samd_scripts.fuzzing.bedside import Bedside

START = datetime(2026, 1, 1, tzinfo=UTC)
WHY = "the sender marks the value as wrong"


def at(minute: float) -> datetime:
    return START + timedelta(minutes=minute)


def reading(minute: float, **values: Any) -> Reading:
    return Reading(observed_at=at(minute), **values)


def back(field: str, minute: float, value: Any = None) -> Withdrawn:
    return Withdrawn(field, at(minute), value, WHY)


def retraction(*values: Withdrawn, instead: tuple[Reading, ...] = ()) -> Retraction:
    return Retraction(values=values, by="hl7:2575", instead=instead)


# -- in the store ------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AdmissionStore]:
    made = AdmissionStore(tmp_path / "admission")
    yield made
    made.close()


def test_every_reading_with_the_value_is_struck_and_kept(store: AdmissionStore) -> None:
    store.add_history(
        [
            reading(1, heart_rate=80.0),
            reading(1, heart_rate=80.0, respiratory_rate=16.0),
            reading(2, heart_rate=80.0),
        ]
    )
    wrong = back("heart_rate", 1, 80.0)
    assert store.take_back(retraction(wrong), corrected_at=at(5)) == ([wrong], [])
    left = [reading(1, respiratory_rate=16.0), reading(2, heart_rate=80.0)]
    assert [one for one in read_readings(store.path) if one.present()] == left
    assert store.take_back(retraction(wrong), corrected_at=at(6)) == ([], []), "a message that comes twice"
    with sqlite3.connect(f"{store.path.absolute().as_uri()}?mode=ro", uri=True) as connection:
        kept = connection.execute("SELECT reading, field, by, reason FROM corrections ORDER BY id").fetchall()
        assert kept == [(2, "heart_rate", "hl7:2575", WHY)], "it is one value"
        assert connection.execute("SELECT COUNT(*) FROM readings").fetchone() == (3,)
    connection.close()


def test_what_was_never_taken_is_told(store: AdmissionStore) -> None:
    store.add_history([reading(1, heart_rate=80.0)])
    store.add_observation(reading(2, consciousness="V"), by="nurse", entered_at=at(2))
    never = [
        back("heart_rate", 1, 81.0),
        back("heart_rate", 1.5),
        back("respiratory_rate", 1),
        back("consciousness", 2),
    ]
    assert store.take_back(retraction(*never), corrected_at=at(5)) == ([], never)
    assert len(list(read_readings(store.path))) == 2, "what a person entered is not a source's to take back"


def test_without_a_value_all_is_struck_but_what_is_said_now(store: AdmissionStore) -> None:
    store.add_history([reading(1, heart_rate=80.0), reading(1, heart_rate=85.0)])
    wrong = back("heart_rate", 1)
    again = retraction(wrong, instead=(reading(1, heart_rate=85.0),))
    assert store.take_back(again, corrected_at=at(5)) == ([wrong], [])
    assert [one.heart_rate for one in read_readings(store.path)] == [None, 85.0]
    assert store.take_back(again, corrected_at=at(6)) == ([], [])


def test_a_value_that_was_struck_stays_struck_however_it_is_sent_again(tmp_path: Path) -> None:
    store = AdmissionStore(tmp_path / "admission")
    store.add_history([reading(1, heart_rate=80.0, respiratory_rate=16.0)])
    store.take_back(retraction(back("heart_rate", 1)), corrected_at=at(5))
    for _ in range(2):
        assert store.as_corrected(reading(1, heart_rate=80.0)) is None
        other = reading(1, heart_rate=80.0, spo2=97.0)
        assert store.as_corrected(other) == reading(1, spo2=97.0)
        store.add_history([reading(1, heart_rate=80.0), other])
        assert store.as_corrected(reading(1, heart_rate=81.0)) == reading(1, heart_rate=81.0)
        assert store.as_corrected(reading(2, heart_rate=80.0)) == reading(2, heart_rate=80.0)
        assert {one.heart_rate for one in read_readings(store.path)} == {None}
        assert store.num_readings() == 3
        store.close()
        store = AdmissionStore(tmp_path / "admission")
    store.close()


def test_what_a_message_still_says_is_not_taken_back() -> None:
    now = reading(1, heart_rate=80.0)
    assert retraction_of([back("heart_rate", 1, 80.0)], "hl7:2575", [now]) is None
    both = retraction_of([back("heart_rate", 1, 80.0), back("spo2", 1)], "hl7:2575", [now])
    assert both == retraction(back("spo2", 1), instead=(now,))


# -- in an agent -------------------------------------------------------------------------------------------


class Bed:
    """An agent whose time stands still, and a patient who is well; what it is given was measured so many
    seconds ago."""

    def __init__(self, bedside: Bedside, admission: str) -> None:
        bedside.do(lambda: bedside.agent.close_admission(keep=False))
        bedside.do(lambda: bedside.agent.open_admission(Record(id=admission)))
        self._bedside = bedside
        self.agent = bedside.agent
        self.now = bedside.agent.source.clock.now()
        self.give(600, heart_rate=80.0, respiratory_rate=16.0, spo2=97.0, systolic_bp=120.0, temperature=37.0)

    @property
    def admission(self) -> Admission:
        assert self._bedside.agent.admission is not None
        return self._bedside.agent.admission

    def give(self, seconds_ago: float, **values: Any) -> Reading:
        given = Reading(observed_at=self.now - timedelta(seconds=seconds_ago), **values)
        self._bedside.do(lambda: self._bedside.agent.intake.take(given))
        return given

    def take_back(self, *values: tuple[str, float, Any], instead: tuple[Reading, ...] = ()) -> None:
        wrong = [
            Withdrawn(name, self.now - timedelta(seconds=ago), value, WHY) for name, ago, value in values
        ]
        item = Retraction(values=tuple(wrong), by="hl7:2575", instead=instead)
        self._bedside.do(lambda: self._bedside.agent.intake.retract(item))

    @property
    def judged(self) -> Judgement:
        assert self.admission.latest is not None
        return self.admission.latest

    def alerts(self) -> list[tuple[str, int]]:
        stored = [envelope.decode(one.body).data for one in self.admission.store.alerts_after(0)]
        return [(one.state, one.news2_low) for one in stored if isinstance(one, Alert)]


@pytest.fixture(scope="module")
def bedside() -> Iterator[Bedside]:
    made = Bedside(1.0)
    yield made
    made.close()


@pytest.fixture
def bed(bedside: Bedside, request: pytest.FixtureRequest) -> Bed:
    return Bed(bedside, str(request.node.name))


def test_the_value_before_it_counts_again(bed: Bed) -> None:
    bed.give(30, systolic_bp=88.0)
    assert (bed.judged.news2.low, bed.judged.news2.points["systolic_bp"]) == (3, 3)
    bed.take_back(("systolic_bp", 30, 88.0))
    assert (bed.judged.news2.low, bed.judged.snapshot.systolic_bp) == (0, 120.0)
    bed.give(30, systolic_bp=88.0)
    assert bed.judged.news2.low == 0, "sent again it stays struck"


def test_an_alert_does_not_live_on_what_was_taken_back(bed: Bed) -> None:
    bed.admission.policy = Policy(hysteresis=0, min_dwell_s=0)
    bed.give(40, respiratory_rate=22.0)
    bed.give(30, consciousness="V")
    assert bed.alerts() == [("raised", 5)]
    bed.take_back(("consciousness", 30, "V"))
    assert bed.alerts() == [("raised", 5), ("cleared", 2)], "its points are not held although it is missing"


def test_the_points_of_what_was_taken_back_do_not_come_back_with_a_restart(bed: Bed) -> None:
    bed.give(30, consciousness="V", respiratory_rate=26.0, spo2=93.0)
    assert bed.alerts() == [("raised", 8)]
    bed.take_back(("consciousness", 30, "V"))
    assert bed.admission.store.setting("alert")["points"] == {
        "heart_rate": 0,
        "respiratory_rate": 3,
        "spo2": 2,
        "systolic_bp": 0,
        "temperature": 0,
    }


def test_the_points_of_a_newer_value_are_held(bed: Bed) -> None:
    bed.give(50, consciousness="C")
    bed.give(40, consciousness="V", respiratory_rate=22.0)
    assert bed.alerts() == [("raised", 5)]
    bed.take_back(("consciousness", 50, "C"))
    assert (bed.admission.alert.points["consciousness"], bed.judged.news2.low) == (3, 5)


def test_a_correction_is_one_step_and_clears_nothing(bed: Bed) -> None:
    bed.admission.policy = Policy(hysteresis=0, min_dwell_s=0)
    bed.give(30, respiratory_rate=22.0, heart_rate=132.0)
    assert bed.alerts() == [("raised", 5)]
    right = Reading(observed_at=bed.now - timedelta(seconds=30), respiratory_rate=22.0, heart_rate=135.0)
    bed.take_back(("heart_rate", 30, None), instead=(right,))
    assert bed.alerts() == [("raised", 5)], "cleared in between, it would keep silent for half an hour"
    assert bed.judged.snapshot.heart_rate == 135.0
    assert [one.heart_rate for one in read_readings(bed.admission.store.path)] == [80.0, None, 135.0]


def test_a_value_that_was_struck_cannot_be_corrected_back_by_its_source(bed: Bed) -> None:
    given = bed.give(30, heart_rate=85.0)
    bed.take_back(("heart_rate", 30, None), instead=(msgspec.structs.replace(given, heart_rate=90.0),))
    assert (bed.judged.snapshot.heart_rate, bed.admission.rejected) == (90.0, 0)
    bed.take_back(("heart_rate", 30, None), instead=(given,))
    assert bed.judged.snapshot.heart_rate == 80.0, "of the two neither counts: the value before them does"
    assert bed.admission.rejected == 1, "and people are told"


def test_what_is_not_found_is_a_rejection_and_changes_nothing(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Rejection] = []
    monkeypatch.setattr(bed.admission, "reject", told.append)
    before = bed.judged
    bed.take_back(("heart_rate", 30, 80.0))
    reason = "heart_rate: the sender marks the value as wrong, but no such value was taken"
    assert told == [Rejection("hl7:2575", 0, "", "", reason, BY_HAND)]
    assert bed.judged is before


def test_a_correction_from_the_future_is_refused(bed: Bed) -> None:
    given = bed.give(30, heart_rate=120.0)
    late = Reading(observed_at=bed.now + timedelta(hours=1), heart_rate=85.0)
    bed.take_back(("heart_rate", 30, None), instead=(late,))
    assert bed.judged.snapshot.heart_rate == 80.0
    assert late not in list(read_readings(bed.admission.store.path))
    assert bed.admission.store.as_corrected(given) is None


def test_a_store_that_fails_leaves_nothing_wrong_scored(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    bed.give(30, consciousness="V")

    def full(*_: Any, **__: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(bed.admission.store, "take_back", full)
    bed.take_back(("consciousness", 30, "V"))
    assert bed.judged.snapshot.consciousness is None
    assert bed.admission.failures == 1


# -- by a person, the same measurement in several readings --------------------------------------------------


def correct(bed: Bed, name: str, seconds_ago: float | None, value: float | None = None) -> bool:
    moment = None if seconds_ago is None else bed.now - timedelta(seconds=seconds_ago)
    second = timedelta(seconds=1)
    struck = bed.admission.correct(
        name, moment, value, by="N. Kim", reason="cuff slipped", corrected_at=bed.now, tolerance=second
    )
    return struck is not None


def test_a_value_that_stands_in_two_readings_is_struck_in_both(bed: Bed) -> None:
    bed.give(30, heart_rate=135.0)
    bed.give(30, heart_rate=135.0, respiratory_rate=18.0)
    assert correct(bed, "heart_rate", None)
    assert (bed.judged.snapshot.heart_rate, bed.judged.snapshot.respiratory_rate) == (80.0, 18.0)
    assert [one.heart_rate for one in read_readings(bed.admission.store.path)] == [80.0, None, None]
    bed.give(30, heart_rate=135.0, spo2=96.0)
    assert (bed.judged.snapshot.heart_rate, bed.judged.snapshot.spo2) == (80.0, 96.0)
    assert correct(bed, "heart_rate", None)
    assert bed.judged.snapshot.heart_rate is None, "the next one is the one before"
    assert not correct(bed, "heart_rate", None)


def test_a_wrong_pressure_does_not_come_back_with_the_next_message_that_repeats_it(bed: Bed) -> None:
    def repeat(seconds_ago: float, measured_ago: float) -> None:
        age = float(round(measured_ago - seconds_ago))
        bed.give(seconds_ago, heart_rate=81.0, systolic_bp=88.0, ages={"systolic_bp": age})

    for seconds_ago in (20.0, 19.2, 18.4, 17.6):
        repeat(seconds_ago, 40)
    assert bed.judged.news2.points["systolic_bp"] == 3
    assert correct(bed, "systolic_bp", None)
    assert bed.judged.snapshot.systolic_bp == 120.0
    for seconds_ago in (16.8, 16.0):
        repeat(seconds_ago, 40)
    assert bed.judged.snapshot.systolic_bp == 120.0
    assert {one.systolic_bp for one in read_readings(bed.admission.store.path)} == {120.0, None}
    repeat(5, 10)
    assert bed.judged.snapshot.systolic_bp == 88.0, "the same number measured anew is another value"


def test_a_person_may_correct_a_correction_back(bed: Bed) -> None:
    assert correct(bed, "heart_rate", None, 85.0)
    assert bed.judged.snapshot.heart_rate == 85.0
    assert correct(bed, "heart_rate", None, 80.0)
    assert bed.judged.snapshot.heart_rate == 80.0
    bed.give(30, spo2=95.0)
    kept = [one.heart_rate for one in read_readings(bed.admission.store.path)]
    assert kept == [None, None, 80.0, None]


def test_a_correction_that_cannot_be_stored_says_so(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(bed.admission.store, "strike", full)
    wrong = ObservationAdd(by="N. Kim", correction=Correction(field="heart_rate", reason="typed wrong"))
    with pytest.raises(CommandFailed, match=r"^the store cannot be written .*; check the disk$"):
        orders.execute(bed.agent, wrong)
    assert bed.judged.snapshot.heart_rate == 80.0


# -- in infer ----------------------------------------------------------------------------------------------


def test_infer_forgets_what_is_taken_back_and_judges_anew() -> None:
    run = Run(Assessor(), WallClock(lambda: at(10)), live=True)
    run_all = [*run.take(reading(8, heart_rate=135.0)), *run.take(reading(9, respiratory_rate=26.0))]
    assert [one[1].news2.low for one in run_all if isinstance(one, tuple)] == [3, 6]
    assert list(run.take(retraction(back("heart_rate", 8, 134.0)))) == []
    ((of, judged),) = run.take(retraction(back("heart_rate", 8)))  # type: ignore[misc]
    assert (of, judged.news2.points) == (Reading(observed_at=at(8)), {"respiratory_rate": 3})
    assert list(run.take(reading(8, heart_rate=135.0))) == [], "sent again"
    right = reading(9, respiratory_rate=21.0)
    ((of, judged),) = run.take(retraction(back("respiratory_rate", 9), instead=(right,)))  # type: ignore[misc]
    assert (of, judged.news2.points) == (right, {"respiratory_rate": 2})
    ((_, judged),) = run.take(reading(9.5, heart_rate=72.0))  # type: ignore[misc]
    assert judged.snapshot.heart_rate == 72.0, "it is no jump from a value that was wrong"
    assert "2 values taken back by their source" in run.summary(None)


# -- taken over again --------------------------------------------------------------------------------------

PAST = st.lists(
    st.tuples(
        st.integers(0, 900),  # minutes ago
        st.sampled_from([70.0, 80.0, 135.0]) | st.none(),
        st.sampled_from([16.0, 26.0]) | st.none(),
        st.sampled_from(["A", "V"]) | st.none(),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda said: said[0],
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PAST, st.data())
def test_it_is_judged_as_if_it_had_never_been_said(tmp_path: Path, past: Any, data: st.DataObject) -> None:
    said = [
        Reading(observed_at=at(1000 - ago), heart_rate=rate, respiratory_rate=breaths, consciousness=level)
        for ago, rate, breaths, level in past
    ]
    values = [(one.observed_at, name) for one in said for name in one.present()]
    struck = data.draw(st.sets(st.sampled_from(values), max_size=4)) if values else set()
    store = AdmissionStore(tmp_path / str(uuid.uuid4()))
    screen = ArtefactPolicy(jumps=False, flat_lines=())
    assessor, without_it = Assessor(artefacts=screen), Assessor(artefacts=screen)
    store.add_history(said, assessor.take)
    wrong = [Withdrawn(name, moment, None, WHY) for moment, name in struck]
    assert len(store.take_back(retraction(*wrong), corrected_at=at(1000))[0]) == len(struck)
    oldest = {name: min(moment for moment, of in struck if of == name) for _, name in struck}
    take_again(assessor, store, oldest, at(1000))
    for kept in store.recent(at(1000) - timedelta(hours=12)):
        without_it.take(kept.reading)
    store.close()
    assert assessor.assess(at(1000)).snapshot == without_it.assess(at(1000)).snapshot


def test_a_wild_value_is_no_beginning(bed: Bed) -> None:
    bed.give(590, heart_rate=210.0)
    assert bed.judged.artefacts == {"heart_rate": "jump"}
    bed.take_back(("heart_rate", 600, 80.0))
    assert bed.judged.snapshot.heart_rate is None, "of the two neither counts"
    bed.give(20, heart_rate=84.0)
    assert bed.judged.snapshot.heart_rate == 84.0
    bed.take_back(("heart_rate", 20, 84.0))
    assert bed.judged.snapshot.heart_rate is None
