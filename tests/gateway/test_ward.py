"""The ward: in which order the cards stand, what is of the present, whose it is, and what people do."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from bedside_bench import ADMIN, BEGIN, NURSE
from gateway_peers import Device, Gateway, Process, until
from hypothesis import given
from hypothesis import strategies as st
from ward_bench import WardBench, ahead, model

from samd_gateway.access.actor import Actor
from samd_gateway.alerts.rules import SILENCE, Silence
from samd_gateway.errors import ConflictError, ForbiddenError, NotFoundError, UsageError
from samd_gateway.settings import put
from samd_gateway.ward.cards import natural
from samd_gateway.ward.risk import Standing, risk
from samd_gateway.ward.trend import SPAN_S, SPANS, Line
from samd_gateway.ward.why import why_differ
from samd_protocol.messages import Assessment, News2, ObservationAdd, PatientAdmit, PatientDischarge

VIEWER = Actor(name="guest", role="viewer", via="api")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[WardBench]:
    made = WardBench(tmp_path)
    yield made
    made.database.close()


# the order


def test_what_is_certain_stands_first_then_what_is_possible_and_unknown_above_the_well(
    bench: WardBench,
) -> None:
    bench.patient("well", 0)
    bench.patient("low", 2)
    bench.patient("maybe", 2, 7)
    bench.patient("urgent", 5)
    bench.patient("emergency", 9)
    bench.patient("lost-emergency", 8)
    bench.patient("lost-well", 0)
    for device in ("lost-emergency", "lost-well"):
        bench.birth(device, status="offline", connection=1)
    bench.birth("nobody-knows")
    bench.beat("nobody-knows")
    bench.ward.admit(NURSE, "nobody-knows")
    assert bench.order() == [
        "emergency",
        "lost-emergency",
        "urgent",
        "nobody-knows",
        "lost-well",
        "maybe",
        "low",
        "well",
    ]


def test_of_two_alike_the_one_with_a_waiting_alert_or_a_worse_outlook_stands_first(bench: WardBench) -> None:
    bench.patient("a", 5)
    bench.patient("b", 5, deterioration=ahead(0.7))
    bench.patient("c", 5)
    bench.say("c", "raised", 2)
    assert bench.order() == ["c", "b", "a"]
    bench.desk.acknowledge([bench.one().id], NURSE)
    # of `a` and `c` nothing was asked, which is not the same as that nothing is to be feared
    assert bench.order() == ["b", "a", "c"]


def test_a_model_that_fears_more_than_the_rule_counts_as_what_is_possible(bench: WardBench) -> None:
    bench.patient("a", 1)
    bench.patient("b", 1, model=model(3), disagreement=True)
    assert bench.order() == ["b", "a"]


standings = st.builds(
    Standing,
    current=st.booleans(),
    certain=st.one_of(st.none(), st.integers(0, 3)),
    possible=st.one_of(st.none(), st.integers(0, 3)),
    model=st.one_of(st.none(), st.integers(0, 3)),
    low=st.integers(0, 20),
    high=st.integers(0, 20),
    probability=st.one_of(st.none(), st.floats(0, 1)),
    waiting=st.booleans(),
)


@given(standing=standings)
def test_no_one_of_whom_nothing_is_known_stands_below_one_who_is_certainly_well(standing: Standing) -> None:
    well = Standing(
        current=True, certain=1, possible=1, model=1, low=4, high=4, waiting=True, probability=1.0
    )
    if not standing.current or standing.possible is None:
        assert risk(standing) > risk(well)


def test_beds_are_sorted_as_people_count() -> None:
    beds = ["bed 10", "bed 9", "bed 2 B", "bed 2 A", "²"]
    assert sorted(beds, key=natural)[:4] == ["bed 2 A", "bed 2 B", "bed 9", "bed 10"]


# what is of the present


def test_an_old_score_is_marked_with_its_age_and_is_not_certain(bench: WardBench) -> None:
    bench.patient("bed-01", 2)
    (card,) = bench.cards()
    assert (card.current, card.certain, card.why_not_current, card.age_s) == (True, True, None, 0.0)
    bench.now += 3601
    bench.beat("bed-01")
    (card,) = bench.cards()
    assert (card.state, card.current, card.certain, card.age_s) == ("online", False, False, 3601.0)
    assert card.why_not_current is not None
    assert card.why_not_current.text == "the last reading was 60 min ago, and 60 min is the limit here"
    bench.birth("bed-01", status="offline")
    (card,) = bench.cards()
    assert card.why_not_current is not None
    assert card.why_not_current.key == "ward.not_current.offline"
    with bench.database.write() as connection:
        put(connection, SILENCE, Silence(reading_age_s=7200), Silence(), actor=ADMIN, now=bench.now)
    bench.birth("bed-01", connection=2)
    assert bench.cards()[0].current


def test_monitoring_without_a_break_has_a_limit_of_its_own(bench: WardBench) -> None:
    bench.patient("bed-01", 8, next_due_at=None)
    assert (bench.cards()[0].current, bench.cards()[0].overdue) == (True, False)
    bench.now += 601
    bench.beat("bed-01")
    assert (bench.cards()[0].current, bench.cards()[0].overdue) == (False, True)


def test_a_range_is_not_certain_and_what_is_due_becomes_overdue(bench: WardBench) -> None:
    bench.patient("bed-01", 2, 7, next_due_at=datetime.fromtimestamp(BEGIN + 60, UTC))
    (card,) = bench.cards()
    assert (card.current, card.certain, card.overdue) == (True, False, False)
    assert card.news2 is not None
    assert (card.news2.total, card.news2.low, card.news2.high) == (None, 2, 7)
    bench.now += 61
    assert bench.cards()[0].overdue


def test_raw_signs_are_shown_only_where_the_ward_shares_them(bench: WardBench) -> None:
    bench.patient("bed-01", 2)
    bench.patient("bed-02", 2, signs={"heart_rate": 99.0})
    assert [card.signs for card in bench.cards()] == [None, {"heart_rate": 99.0}]


# whose it is


def test_an_admission_begins_and_ends_with_the_devices_own_word(bench: WardBench) -> None:
    bench.patient("bed-01", 6)
    command = bench.ward.admit(
        NURSE, "bed-01", admission="stay-1", bed="12 A", ward="w3", spo2_scale=2, consent_to_training=True
    )
    device, _, body = bench.commands.sent[-1]
    assert (device, body) == (
        "bed-01",
        PatientAdmit(admission="stay-1", spo2_scale=2, consent_to_training=True),
    )
    (card,) = bench.cards()
    # the device has not answered: what it says is of somebody else
    assert (card.pseudonym, card.admission_state, card.news2, card.trend) == ("stay-1", "pending", None, [])
    bench.answer("bed-02", command, "done")  # not the device that was asked
    assert bench.cards()[0].admission_state == "pending"
    bench.answer("bed-01", command, "done")
    (card,) = bench.cards()
    assert (card.admission_state, card.bed, card.ward, card.spo2_scale) == ("active", "12 A", "w3", 2)
    assert card.news2 is None
    bench.assess("bed-01", 3)
    assert bench.cards()[0].news2 is not None
    assert bench.ward.result(command, 0).status == "done"

    command = bench.ward.discharge(ADMIN, "bed-01", keep=False)
    assert bench.commands.sent[-1][2] == PatientDischarge(admission="stay-1", keep=False)
    assert bench.cards()[0].pseudonym == "stay-1"
    bench.answer("bed-01", command, "done")
    assert bench.cards() == []
    bench.assess("bed-01", 1)  # the next patient, admitted at the device itself
    (card,) = bench.cards()
    assert (card.pseudonym, card.rule_severity) == (None, 1)
    assert bench.audited() == [
        ("kim", "patient.admit", "device/bed-01"),
        ("lee", "patient.discharge", "device/bed-01"),
    ]


def test_what_a_former_patient_left_in_the_outbox_is_not_the_next_ones(bench: WardBench) -> None:
    bench.patient("bed-01", 1)
    bench.answer("bed-01", bench.ward.admit(NURSE, "bed-01", admission="stay-1"), "done")
    late = bench.item("bed-01", bench.assess("bed-01", 8))
    bench.answer("bed-01", bench.ward.discharge(NURSE, "bed-01"), "done")
    bench.answer("bed-01", bench.ward.admit(NURSE, "bed-01", admission="stay-2"), "done")
    bench.take_in(late)
    (card,) = bench.cards()
    assert (card.pseudonym, card.news2) == ("stay-2", None)


def test_a_refusal_is_shown_with_its_reason_and_leaves_the_bed_free(bench: WardBench) -> None:
    bench.patient("bed-01", 1)
    command = bench.ward.admit(NURSE, "bed-01", admission="stay-1")
    with pytest.raises(ConflictError, match="discharge first"):
        bench.ward.admit(NURSE, "bed-01")
    bench.answer("bed-01", command, "rejected", "a patient is admitted: discharge first")
    outcome = bench.ward.result(command, 0)
    assert (outcome.status, outcome.reason) == ("rejected", "a patient is admitted: discharge first")
    assert bench.admissions() == [("stay-1", "refused", "a patient is admitted: discharge first")]
    assert bench.cards()[0].pseudonym is None
    with pytest.raises(ConflictError, match="used once"):
        bench.ward.admit(NURSE, "bed-01", admission="stay-1")
    bench.ward.admit(NURSE, "bed-01", admission="stay-2")


def test_an_answer_that_never_comes_frees_the_bed_and_one_that_comes_late_still_counts(
    bench: WardBench,
) -> None:
    bench.patient("bed-01", 1)
    command = bench.ward.admit(NURSE, "bed-01", admission="stay-1")
    bench.now += 70
    bench.ward.tend()
    assert bench.admissions() == [("stay-1", "refused", "the device has not answered in time")]
    bench.answer("bed-01", command, "done")
    assert bench.admissions() == [("stay-1", "active", None)]


def test_a_patient_who_was_discharged_at_the_device_is_gone_here_too(bench: WardBench) -> None:
    bench.patient("bed-01", 1)
    bench.answer("bed-01", bench.ward.admit(NURSE, "bed-01", admission="stay-1"), "done")
    command = bench.ward.discharge(NURSE, "bed-01")
    bench.answer("bed-01", command, "failed", "the disk is full")
    assert bench.admissions() == [("stay-1", "active", "not discharged: the disk is full")]
    bench.answer("bed-01", bench.ward.discharge(NURSE, "bed-01"), "rejected", "no patient")
    assert bench.admissions() == [("stay-1", "ended", "discharged at the device itself, before")]
    with pytest.raises(ConflictError, match="samd-edge discharge"):
        bench.ward.discharge(NURSE, "bed-01")


def test_a_device_that_was_set_up_anew_shows_what_it_says_from_then_on(bench: WardBench) -> None:
    bench.birth("bed-01", boot=40)
    bench.beat("bed-01", boot=40)
    command = bench.ward.admit(NURSE, "bed-01", admission="stay-1")
    bench.take_in(bench.item("bed-01", _done(command), boot=40))
    bench.assess("bed-01", 5, boot=40)
    bench.birth("bed-01", boot=1)
    bench.assess("bed-01", 2, boot=1)
    assert bench.cards()[0].rule_severity == 1


def _done(command: str) -> object:
    from samd_protocol.messages import Result

    return Result(command=command, status="done")


# what people do


def test_an_observation_and_a_correction_carry_the_name_and_not_the_value_into_the_audit(
    bench: WardBench,
) -> None:
    bench.patient("bed-01", 1)
    bench.ward.observe(NURSE, "bed-01", consciousness="C", supplemental_oxygen=True)
    bench.ward.correct(NURSE, "bed-01", field="temperature", value=37.2, reason="typing error")
    observed, corrected = (body for _, _, body in bench.commands.sent)
    assert observed == ObservationAdd(by="kim", consciousness="C", supplemental_oxygen=True)
    assert isinstance(corrected, ObservationAdd)
    assert corrected.correction is not None
    assert (corrected.by, corrected.correction.value) == ("kim", 37.2)
    assert [action for _, action, _ in bench.audited()] == ["observation.add", "observation.correct"]
    from sqlalchemy import select

    from samd_gateway import schema

    with bench.reading() as connection:
        told = str(connection.execute(select(schema.audit.c.after)).all())
    assert "37.2" not in told
    assert '"C"' not in told


@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        (lambda ward: ward.observe(NURSE, "bed-01"), UsageError, "nothing was observed"),
        (lambda ward: ward.observe(VIEWER, "bed-01", consciousness="A"), ForbiddenError, "ward"),
        (lambda ward: ward.observe(NURSE, "none", consciousness="A"), NotFoundError, "api/devices"),
        (lambda ward: ward.correct(NURSE, "bed-01", field="spo2", reason=" "), UsageError, "why"),
        (lambda ward: ward.correct(NURSE, "bed-01", field="a\x00b", reason="x"), UsageError, "control"),
        (lambda ward: ward.admit(NURSE, "bed-01", admission="Kim Lee"), UsageError, "pseudonym"),
        (lambda ward: ward.admit(NURSE, "bed-01", bed="x" * 65), UsageError, "64"),
        (lambda ward: ward.admit(NURSE, "bed-01", monitoring_interval_s=5), UsageError, "60 s"),
        (lambda ward: ward.admit(VIEWER, "bed-01"), ForbiddenError, "ward"),
        (lambda ward: ward.discharge(NURSE, "bed-01"), ConflictError, "samd-edge discharge"),
        (lambda ward: ward.card("none"), NotFoundError, "api/ward"),
        (lambda ward: ward.result("none", 0), NotFoundError, "command"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_sent(
    bench: WardBench, act: Callable, error: type[Exception], words: str
) -> None:
    bench.patient("bed-01", 1)
    with pytest.raises(error, match=words):
        act(bench.ward)
    assert bench.commands.sent == []
    assert bench.audited() == []


def test_a_result_is_told_as_soon_as_it_is_on_record(bench: WardBench) -> None:
    bench.patient("bed-01", 1)
    command = bench.ward.observe(NURSE, "bed-01", consciousness="A")
    assert bench.ward.result(command, 0).status is None
    found: list[str | None] = []
    waiting = threading.Thread(target=lambda: found.append(bench.ward.result(command, 10.0).status))
    waiting.start()
    bench.answer("bed-01", command, "done")
    waiting.join(10.0)
    assert found == ["done"]


# why the rule and the model differ


def judged(low: int, points: dict[str, int], missing: list[str], **more: object) -> Assessment:
    from ward_bench import severity

    high = low + 3 * len(missing)
    return Assessment(
        observed_at=datetime(2026, 3, 1, tzinfo=UTC),
        news2=News2(
            total=None if missing else low, low=low, high=high, band="low", points=points, missing=missing
        ),
        rule_severity=severity(low),
        rule_severity_possible=severity(high),
        severity=severity(low),
        disagreement=False,
        **more,
    )


def test_the_reasons_say_what_each_went_by() -> None:
    told = judged(
        6,
        {"heart_rate": 1, "supplemental_oxygen": 2, "consciousness": 3, "spo2": 0},
        [],
        model=model(1, sure=0.5),
    )
    reasons = why_differ(told, labels="five", spo2_scale=2)
    assert [reason.key.removeprefix("ward.why.") for reason in reasons] == [
        "rule",
        "model",
        "unseen",
        "scale",
        "unsure",
    ]
    assert reasons[0].arguments == {
        "severity": 2,
        "points": {"heart_rate": 1, "supplemental_oxygen": 2, "consciousness": 3},
    }
    assert reasons[2].text == (
        "the model was trained without the points of oxygen given and consciousness, which the rule counts"
    )


def test_what_is_missing_is_never_nothing_in_the_reasons() -> None:
    told = judged(1, {"heart_rate": 1}, ["spo2", "temperature"], model=model(3, personal=True))
    reasons = {reason.key.removeprefix("ward.why."): reason.text for reason in why_differ(told)}
    assert list(reasons) == ["rule", "model", "missing", "personal"]
    assert reasons["missing"] == (
        "the rule counts nothing for oxygen saturation and temperature, which is missing: the whole score "
        "may be 1 to 7"
    )
    told = judged(5, {"heart_rate": 3, "spo2": 2}, ["temperature"], model=model(0))
    assert [reason.key for reason in why_differ(told)][2:] == ["ward.why.model_missing"]


def test_there_is_nothing_to_explain_where_they_agree_or_there_is_no_model() -> None:
    assert why_differ(judged(1, {"heart_rate": 1}, [], model=model(1))) == []
    assert why_differ(judged(1, {"heart_rate": 1}, [])) == []


# the line of the last day


def test_the_line_keeps_the_worst_of_each_span_and_forgets_after_a_day() -> None:
    line = Line()
    begin = SPAN_S * 1000
    for at, low, high in ((begin, 2, 5), (begin + 10, 4, 4), (begin + SPAN_S, 1, 1), (begin + 5, 3, 9)):
        line.add(at, low, high)
    assert line.points(0, begin * 2) == [(begin, 4, 9), (begin + SPAN_S, 1, 1)]
    line.add(begin + SPANS * SPAN_S, 7, 7)
    assert line.points(0, begin * 2) == [(begin + SPAN_S, 1, 1), (begin + SPANS * SPAN_S, 7, 7)]
    line.add(begin, 9, 9)
    assert len(line.points(0, begin * 2)) == 2
    line.add(begin * 3, 300, -5)
    assert line.points(0, begin * 9) == [(begin * 3, 254, 0)]


def test_the_line_is_the_same_after_a_restart_and_begins_with_the_admission(bench: WardBench) -> None:
    bench.patient("bed-01", 9)
    bench.now += 7200
    bench.answer("bed-01", bench.ward.admit(NURSE, "bed-01"), "done")
    for low in (1, 3, 2):
        bench.assess("bed-01", low)
        bench.now += 1800
    bench.beat("bed-01")
    before = bench.cards()[0].trend
    assert [(low, high) for _, low, high in before] == [(1, 1), (3, 3), (2, 2)]
    bench.restart()
    assert bench.cards()[0].trend == before


def test_a_ward_of_sixty_is_read_within_its_budget_of_queries(bench: WardBench) -> None:
    """What it costs must not grow with the beds: the time itself is measured by the benchmark."""
    from sqlalchemy import event

    for number in range(60):
        bench.patient(f"bed-{number:02d}", number % 9, model=model(1))
    bench.cards()
    statements: list[str] = []
    event.listen(
        bench.database.engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2])
    )
    assert len(bench.cards()) == 60
    assert len([each for each in statements if each.startswith("SELECT")]) <= 6


# over real connections


def test_the_bedside_over_http_and_by_commands(
    own_broker: str, make_gateway: Callable[..., Gateway], peers: Callable, name: str
) -> None:
    gateway = make_gateway(own_broker)
    device = peers(Device(own_broker, name))
    until(lambda: gateway.device(name))
    answering = threading.Event()

    def answer() -> None:
        deadline = time.monotonic() + 60
        done = 0
        while not answering.is_set() and time.monotonic() < deadline:
            rows = gateway.get(f"/api/devices/{name}/results")["results"]
            for row in reversed(rows):
                if row["status"] is None:
                    refused = row["type"] == "observation.add" and done >= 2
                    device.result(
                        row["command"],
                        "rejected" if refused else "done",
                        "its time lies in the future" if refused else None,
                    )
                    done += 1
            answering.wait(0.1)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        admitted = gateway.http.post(f"/api/ward/{name}/admit", json={"bed": "12 A"}, timeout=30).json()
        assert (admitted["type"], admitted["status"]) == ("patient.admit", "done")
        device.assess(3)
        card = until(lambda: (found := gateway.get("/api/ward")["cards"]) and found[0]["news2"] and found[0])
        assert (card["device"], card["bed"], card["news2"]["low"]) == (name, "12 A", 3)
        assert gateway.get(f"/api/ward/{name}")["pseudonym"] == card["pseudonym"]
        line = gateway.get(f"/api/ward/{name}/timeline")
        assert [point["low"] for point in line["points"]] == [3]

        command = Process("ward", "observe", name, "--consciousness", "A", "--json", "--gateway", gateway.url)
        assert command.popen.wait(30) == 0
        command.end()
        assert '"status": "done"' in command.lines.get(timeout=5)
        refused = Process("ward", "observe", name, "--oxygen", "yes", "--gateway", gateway.url)
        assert refused.popen.wait(30) == 1
        refused.end()
        assert refused.lines.get(timeout=5) == f"{name}: rejected: its time lies in the future"
        observed = [body for body in device.commands if isinstance(body, ObservationAdd)]
        assert [body.by for body in observed] == ["local", "local"]
    finally:
        answering.set()
        thread.join(10.0)
    raw = {"body": {"type": "patient.discharge", "admission": "x"}}
    answer_ = gateway.http.post(f"/api/devices/{name}/commands", json=raw)
    assert (answer_.status_code, "/api/ward" in answer_.json()["detail"]) == (422, True)
