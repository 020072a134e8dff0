"""The past of one patient: points, gaps, alerts, models, and nothing of anybody else."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from bedside_bench import BEGIN, NURSE
from ward_bench import WardBench, ahead, model

from samd_gateway import schema
from samd_gateway.errors import NotFoundError, UsageError
from samd_gateway.ward.answers import Timeline
from samd_gateway.ward.timeline import SHORTEST_GAP_S, thin

HOUR, DAY = 3600.0, 86_400.0


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[WardBench]:
    made = WardBench(tmp_path)
    made.birth("bed-01")
    yield made
    made.database.close()


def line(bench: WardBench, *, back: float = DAY, **more: object) -> Timeline:
    return bench.ward.timeline("bed-01", bench.now - back, bench.now, **more)  # type: ignore[arg-type]


def test_each_assessment_is_a_point_with_rule_model_and_outlook(bench: WardBench) -> None:
    bench.assess("bed-01", 2, 7, model=model(1), deterioration=ahead(0.3))
    bench.now += 60
    bench.assess("bed-01", 5, model=model(3), disagreement=True)
    found = line(bench)
    assert found.span_s is None
    first, second = found.points
    assert (first.low, first.high, first.rule_severity, first.rule_severity_possible) == (2, 7, 1, 3)
    assert (first.model_severity, first.model_version, first.probability) == (1, 3, 0.3)
    assert (second.low, second.high, second.model_severity, second.disagreement) == (5, 5, 3, True)
    assert second.probability is None
    assert first.at.timestamp() == BEGIN


def test_a_time_without_assessments_is_a_gap_by_what_is_usual_here(bench: WardBench) -> None:
    for _ in range(5):
        bench.assess("bed-01", 1)
        bench.now += 120
    last = bench.now - 120
    bench.now = last + 599
    bench.assess("bed-01", 1)
    before = bench.now
    bench.now += 601
    bench.assess("bed-01", 1)
    found = line(bench)
    assert found.gap_after_s == 600.0
    assert [(gap.since.timestamp(), gap.until and gap.until.timestamp()) for gap in found.gaps] == [
        (before, bench.now)
    ]
    bench.now += 700
    assert line(bench).gaps[-1].until is None


def test_a_gap_is_never_shorter_than_some_minutes(bench: WardBench) -> None:
    for _ in range(10):
        bench.assess("bed-01", 1)
        bench.now += 1
    assert line(bench).gap_after_s == SHORTEST_GAP_S


def test_many_points_are_thinned_to_the_worst_of_each_span_and_none_is_lost(bench: WardBench) -> None:
    for number in range(300):
        bench.assess("bed-01", 9 if number == 137 else number % 3)
        bench.now += 10
    found = line(bench, back=3000, points=20)
    assert found.span_s == 150.0
    assert len(found.points) == 20
    assert sum(point.count for point in found.points) == 300
    assert max(point.low for point in found.points) == 9
    assert {point.severity for point in found.points} == {1, 3}
    assert thin([], 0, 1, 10) == ([], None)


def test_from_when_on_another_model_judged(bench: WardBench) -> None:
    for version, personal in ((3, False), (3, False), (4, False), (4, True)):
        bench.assess("bed-01", 1, model=model(1, version=version, personal=personal))
        bench.now += 60
    bench.assess("bed-01", 1)
    found = line(bench)
    assert [(change.before, change.after, change.personal) for change in found.model_changes] == [
        (3, 4, False),
        (4, 4, True),
        (4, None, False),
    ]


def test_alerts_stand_beside_the_scores_with_who_knew_of_them(bench: WardBench) -> None:
    bench.assess("bed-01", 7)
    bench.say("bed-01", "raised", 3)
    bench.desk.acknowledge([bench.one().id], NURSE, "on my way")
    bench.now += 2 * DAY
    assert [(alert.severity, alert.acknowledged_by) for alert in line(bench).alerts] == [(3, "kim")]
    bench.say("bed-01", "cleared", 0)
    bench.now += 2 * DAY
    assert line(bench).alerts == []


def test_an_assessment_that_came_late_stands_at_its_own_time_and_none_in_the_future(
    bench: WardBench,
) -> None:
    bench.now += 5 * HOUR
    bench.assess("bed-01", 4, observed_at=datetime.fromtimestamp(BEGIN, UTC))
    bench.assess("bed-01", 5, observed_at=datetime.fromtimestamp(BEGIN + 99 * HOUR, UTC))
    assert [point.at.timestamp() for point in line(bench).points] == [BEGIN, BEGIN + 5 * HOUR]


def test_one_patients_line_holds_nothing_of_the_one_before_or_after(bench: WardBench) -> None:
    bench.assess("bed-01", 1)
    bench.now += 60
    bench.answer("bed-01", bench.ward.admit(NURSE, "bed-01", admission="stay-1"), "done")
    bench.assess("bed-01", 2)
    late = bench.item("bed-01", bench.assess("bed-01", 3))
    bench.say("bed-01", "raised", 3, alert_id="of-1")
    bench.say("bed-01", "cleared", 0, alert_id="of-1")
    bench.now += 60
    bench.answer("bed-01", bench.ward.discharge(NURSE, "bed-01"), "done")
    bench.now += 60
    command = bench.ward.admit(NURSE, "bed-01", admission="stay-2")
    assert line(bench).points == []
    bench.answer("bed-01", command, "done")
    bench.take_in(late)
    bench.assess("bed-01", 5)

    def lows(**more: str) -> list[int]:
        return [point.low for point in line(bench, **more).points]

    assert lows() == [5]
    assert line(bench).alerts == []
    assert lows(admission="stay-1") == [2, 3, 3]
    assert [alert.source_id for alert in line(bench, admission="stay-1").alerts] == ["of-1"]
    assert [admission.id for admission in line(bench).admissions] == ["stay-2", "stay-1"]
    with pytest.raises(NotFoundError, match="no admission"):
        line(bench, admission="stay-9")


def test_beyond_the_messages_stand_the_hours_that_are_left(bench: WardBench) -> None:
    with bench.database.write() as connection:
        for hour, low in ((BEGIN - 40 * DAY, 3), (BEGIN - 40 * DAY + HOUR, 5)):
            connection.execute(
                schema.assessment_hours.insert().values(
                    device="bed-01",
                    hour=hour,
                    count=60,
                    low_max=low,
                    high_max=low + 5,
                    severity_max=2,
                    probability_max=0.4,
                    disagreements=1,
                )
            )
    bench.assess("bed-01", 1)
    found = line(bench, back=60 * DAY)
    assert [(point.low, point.high, point.count) for point in found.points] == [
        (3, 8, 60),
        (5, 10, 60),
        (1, 1, 1),
    ]
    assert [(gap.since.timestamp(), gap.until and gap.until.timestamp()) for gap in found.gaps] == [
        (BEGIN - 40 * DAY + 2 * HOUR, BEGIN)
    ]


def test_times_that_make_no_sense_are_refused(bench: WardBench) -> None:
    with pytest.raises(UsageError, match="before until"):
        bench.ward.timeline("bed-01", BEGIN, BEGIN)
    with pytest.raises(NotFoundError, match="no device"):
        bench.ward.timeline("none", BEGIN - 1, BEGIN)
    assert bench.ward.timeline("bed-01", BEGIN + 5, BEGIN + 9).points == []
