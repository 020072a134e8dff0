"""What the pages are made of, without a browser: differences of cards, calls of scripts, forms, the plot."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from samd_gateway.errors import UsageError
from samd_gateway.pages import advice, chart, panels
from samd_gateway.pages.bedside import sign_value
from samd_gateway.pages.form import Field, Form, Option, checked
from samd_gateway.pages.hub import as_sent, difference, script
from samd_gateway.pages.texts import Catalogue
from samd_gateway.ward.answers import (
    Because,
    ModelChange,
    News2Out,
    Timeline,
    TimelineGap,
    TimelinePoint,
    WardCard,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def card(**changes: Any) -> WardCard:
    fields: dict[str, Any] = {
        "device": "bed-1", "pseudonym": None, "admission_state": None, "bed": "", "ward": "",
        "spo2_scale": None, "state": "online", "state_reason": "", "state_since": None, "current": True,
        "why_not_current": None,
        "news2": News2Out(total=3, low=3, high=3, band="low", points={"heart_rate": 3}, missing=[]),
        "rule_severity": 1, "rule_severity_possible": 1, "model": None, "severity": 1, "disagreement": False,
        "why_differ": [], "deterioration": None, "trend": [], "signs": None, "age_s": 5.0,
        "observed_at": NOON, "next_due_at": None, "due": [], "overdue": False, "stale": [], "missing": [],
        "artefacts": {}, "alert": None, "risk": [1.0], "certain": True,
    }  # fmt: skip
    return WardCard(**(fields | changes))


def test_only_what_differs_is_sent() -> None:
    before = as_sent(card(), 1000.0)
    assert before["read_at"] == 995.0
    # a minute later the same reading is a minute older, and nothing is to be said
    assert difference(before, as_sent(card(age_s=65.2), 1060.0)) is None
    after = as_sent(card(age_s=1.0, severity=2), 1060.0)
    assert difference(before, after) == {"device": "bed-1", "read_at": 1059.0, "severity": 2}
    assert difference(before, as_sent(card(age_s=None), 1000.0)) == {"device": "bed-1", "read_at": None}


def test_what_came_over_the_wire_is_never_code() -> None:
    hostile = '");alert(1);//</script>\u2028\u2029`${1}\\'
    code = script("cards", {"cards": [{"bed": hostile, "__proto__": {"x": 1}}]})
    literal = code.removeprefix("samd.cards(JSON.parse(").removesuffix("))")
    assert "\u2028" not in code
    assert "\u2029" not in code
    assert json.loads(json.loads(literal))["cards"][0]["bed"] == hostile


FORM = Form(
    title="",
    fields=(
        Field(name="level", label="Level", kind="radio", options=(Option("A", "alert"), Option("", "none"))),
        Field(name="reason", label="Reason", required=True, longest=10),
        Field(name="consent", label="Consent", kind="checkbox"),
        Field(name="at", label="At", kind="time"),
    ),
)


def test_a_form_takes_what_it_asked_for() -> None:
    said = {"level": "A", "reason": " why ", "consent": True, "at": 1.5e9, "other": "x"}
    assert checked(FORM, said) == {"level": "A", "reason": "why", "consent": True, "at": 1.5e9}
    assert checked(FORM, {"reason": "why", "consent": "yes", "at": "now"}) == {
        "level": "",
        "reason": "why",
        "consent": False,
        "at": None,
    }


@pytest.mark.parametrize(
    "said", [{"level": "B", "reason": "why"}, {"reason": "  "}, {"reason": "x" * 11}, {}, None, [1]]
)
def test_a_form_refuses_the_rest(said: object) -> None:
    with pytest.raises(UsageError):
        checked(FORM, said)


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("temperature", "37,2", 37.2),
        ("heart_rate", " ", None),
        ("heart_rate", "", None),
        ("consciousness", "c", "C"),
        ("supplemental_oxygen", "예", True),
        ("supplemental_oxygen", "No", False),
    ],
)
def test_corrected_values(field: str, text: str, value: object) -> None:
    assert sign_value(field, text.strip()) == value


@pytest.mark.parametrize(
    ("field", "text"),
    [("heart_rate", "nan"), ("heart_rate", "inf"), ("heart_rate", "many"), ("consciousness", "X"),
     ("supplemental_oxygen", "1"), ("heart_rate", "1e9")],
)  # fmt: skip
def test_corrected_values_that_are_none(field: str, text: str) -> None:
    with pytest.raises(UsageError):
        sign_value(field, text)


def test_advice_is_for_the_present_alone() -> None:
    def scored(low: int, high: int, band: str, possible: int, **changes: Any) -> WardCard:
        news2 = News2Out(
            total=low if low == high else None, low=low, high=high, band=band, points={}, missing=[]
        )
        return card(news2=news2, rule_severity_possible=possible, **changes)

    assert advice.advice(scored(0, 0, "low", 0)) == ("zero", None)
    assert advice.advice(scored(0, 5, "low", 2)) == ("zero", "medium")
    assert advice.advice(scored(3, 3, "low-medium", 1)) == ("low-medium", None)
    assert advice.advice(scored(5, 8, "medium", 3)) == ("medium", "high")
    assert advice.advice(scored(7, 12, "high", 3)) == ("high", None)
    assert advice.advice(scored(7, 7, "high", 3, current=False)) == (None, None)
    assert advice.advice(card(news2=None)) == (None, None)


def point(minutes: int, low: int, high: int, **changes: Any) -> TimelinePoint:
    fields: dict[str, Any] = {
        "at": NOON + timedelta(minutes=minutes), "low": low, "high": high, "rule_severity": 1,
        "rule_severity_possible": 1, "severity": 1, "model_severity": None, "probability": None,
        "disagreement": False, "model_version": None, "count": 1,
    }  # fmt: skip
    return TimelinePoint(**(fields | changes))


def line(points: list[TimelinePoint], gaps: list[TimelineGap]) -> Timeline:
    return Timeline(
        device="bed-1",
        since=NOON,
        until=NOON + timedelta(hours=6),
        span_s=None,
        gap_after_s=3600.0,
        points=points,
        gaps=gaps,
        alerts=[],
        model_changes=[ModelChange(at=NOON + timedelta(minutes=10), before=None, after=3, personal=True)],
        admissions=[],
    )


def test_the_plot_breaks_where_nothing_was_assessed() -> None:
    gap = TimelineGap(since=NOON + timedelta(minutes=10), until=NOON + timedelta(minutes=200))
    past = line([point(0, 1, 3), point(10, 2, 2, probability=0.254), point(200, 4, 6)], [gap])
    drawn = chart.options(past, Catalogue().of("en"), chart.DARK)
    json.dumps(drawn)
    at = NOON.timestamp() * 1000
    minute = 60_000.0
    assert drawn["series"][0]["data"] == [
        [at, 1],
        [at + 10 * minute, 2],
        [at + 10 * minute + 1, None],
        [at + 200 * minute, 4],
        [at + 360 * minute, 4],  # holds until now
    ]
    assert [row[1] for row in drawn["series"][3]["data"]] == [2, 0, None, 2, 2]
    assert drawn["series"][6]["data"][1][1] == 25.4
    marks = drawn["series"][1]["markLine"]["data"]
    assert [mark["label"]["formatter"] for mark in marks] == ["5", "7", "v3*"]
    assert drawn["series"][0]["markArea"]["data"][0][0]["name"] == "no data"


def test_a_gap_that_lasts_ends_the_line() -> None:
    gap = TimelineGap(since=NOON, until=None)
    drawn = chart.options(line([point(0, 1, 1)], [gap]), Catalogue().of("ko"), chart.LIGHT)
    assert [row[1] for row in drawn["series"][0]["data"]] == [1, None]


def test_reasons_are_told_in_the_readers_language() -> None:
    korean = Catalogue().of("ko")
    reason = Because(key="ward.why.missing", arguments={"signs": ["consciousness"], "possible": 3}, text="x")
    assert panels.because(reason, korean).startswith("지금 의식 수준 측정값이 없어")
    assert "≥ 7점" in panels.because(reason, korean)
    unknown = Because(key="ward.why.new", arguments={}, text="in English")
    assert panels.because(unknown, korean) == "in English"
    broken = Because(key="ward.why.missing", arguments={}, text="in English")
    assert panels.because(broken, korean) == "in English"
