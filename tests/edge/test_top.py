"""The local view: its parts as text, the screen as Textual draws it, and the command on a real agent."""

import asyncio
import html
import json
import math
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from textual.pilot import Pilot
from textual.widgets import Button, Input, RadioSet

from samd_data.carry import CARRY_SECONDS
from samd_data.news2 import score
from samd_data.plausibility import RANGES
from samd_data.reading import COLUMNS, FIELDS, Reading
from samd_data.response import advice, interval_s
from samd_data.severity import severity_of
from samd_edge.top import letters, panels, plain, trends, words
from samd_edge.top.app import Top
from samd_edge.top.feed import AgentFeed, FeedError, FileFeed, aged, is_stale
from samd_edge.top.look import Panel
from samd_edge.view import AlertView, SignView, SourceView, View
from samd_protocol.messages import ModelView, News2

AT = datetime(2026, 3, 1, 14, 3, 22, tzinfo=UTC)
WELL: dict[str, Any] = {
    "heart_rate": 72.0,
    "respiratory_rate": 16.0,
    "spo2": 97.0,
    "systolic_bp": 122.0,
    "diastolic_bp": 78.0,
    "temperature": 36.9,
    "supplemental_oxygen": False,
    "consciousness": "A",
}
SICK: dict[str, Any] = {
    "heart_rate": 128.0,
    "respiratory_rate": 27.0,
    "spo2": 91.0,
    "systolic_bp": 94.0,
    "diastolic_bp": 51.0,
    "temperature": 39.2,
    "supplemental_oxygen": True,
    "consciousness": "C",
}


def wave(field: str, end: float, hours: float = 6.0) -> list[tuple[float, float]]:
    """From what is normal to the value of now, a value each five minutes, an hour of it missing."""
    start = WELL[field]
    steps = range(int(hours * 12), -1, -1)
    return [
        (step * 300.0, start + (end - start) * (1 - step / (hours * 12)) ** 2 + math.sin(step) * 0.8)
        for step in steps
        if not 30 <= step < 42
    ]


def make_view(
    values: dict[str, Any],
    *,
    ages: dict[str, float] | None = None,
    flags: dict[str, str] | None = None,
    model: int | None = None,
    **about: Any,
) -> View:
    """The view of a patient with these values; a value that is too old is stale, as the agent has it."""
    old = {"temperature": 1800.0, "supplemental_oxygen": 7200.0, "consciousness": 7200.0, **(ages or {})}
    spo2_scale = about.get("spo2_scale", 1)
    valid = {field: value for field, value in values.items() if old.get(field, 12.0) <= CARRY_SECONDS[field]}
    found = score(Reading(observed_at=AT, **valid), spo2_scale=spo2_scale)
    signs = [
        SignView(
            field=field,
            unit=RANGES[field].unit if field in RANGES else "",
            value=values.get(field),
            age_s=old.get(field, 12.0) if field in values else None,
            points=found.points.get(field),
            state="valid" if field in valid else "stale" if field in values else "missing",
            flag=(flags or {}).get(field),
            due=field in COLUMNS and field not in valid,
            trend=wave(field, values[field]) if field in RANGES and field in valid else [],
        )
        for field in FIELDS
    ]
    certain, possible = severity_of(found.low), severity_of(found.high)
    shares = [
        [0.9, 0.07, 0.02, 0.01],
        [0.1, 0.8, 0.07, 0.03],
        [0.02, 0.1, 0.8, 0.08],
        [0.01, 0.03, 0.06, 0.9],
    ]
    interval = interval_s(found.low, found.band)
    settings: dict[str, Any] = {
        "at": AT,
        "device": "bed-01",
        "client_version": "0.1.0",
        "admission": "local-1",
        "clock": "synced",
        "news2": News2(
            total=found.total,
            low=found.low,
            high=found.high,
            band=found.band,
            points=found.points,
            missing=found.missing,
        ),
        "band_high": found.band_high,
        "rule_severity": certain,
        "rule_severity_possible": possible,
        "severity": certain if model is None else max(certain, model),
        "model": None
        if model is None
        else ModelView(severity=model, probabilities=shares[model], version=12),  # type: ignore[arg-type]
        "disagreement": model is not None and abs(model - certain) >= 2,
        "signs": signs,
        "score_trend": [
            (step * 600.0, round(found.low * (1 - step / 36)), round(found.high * (1 - step / 36)), certain)
            for step in range(36, -1, -1)
        ],
        "advice": advice(found.low, found.band),
        "next_due_s": None if interval is None else interval - 1800.0,
        "alert": AlertView(active=False, severity=0),
        "link_up": True,
        "link": "connected to mqtt://127.0.0.1:1883",
        "outbox_depth": 0,
        "dead_letters": 0,
        "model_version": 12,
        "sources": [SourceView(name="hl7:2575", readings=4211, rejected=0, last_s=12.0, ended=False)],
    }
    return View(**{**settings, **about})


def nobody(**about: Any) -> View:
    """The view of a device without a patient."""
    return View(
        at=AT,
        device="bed-01",
        client_version="0.1.0",
        admission=None,
        alert=AlertView(active=False, severity=0),
        link_up=False,
        link="no broker at 127.0.0.1:1883 (refused)",
        outbox_depth=3,
        dead_letters=1,
        model_version=None,
        **about,
    )


WELL_VIEW = make_view(WELL, model=0)
RANGE_VIEW = make_view(
    {
        field: WELL[field]
        for field in ("heart_rate", "respiratory_rate", "spo2", "systolic_bp", "temperature")
    },
    ages={"systolic_bp": 4 * 3600.0},
    model=0,
)
SICK_VIEW = make_view(
    SICK,
    model=1,
    disagreements=2,
    alert=AlertView(
        active=True, severity=3, since_s=754.0, waiting="goes down to level 2 in 8 min if it stays like this"
    ),
)
ARTEFACT_VIEW = make_view(
    {**WELL, "respiratory_rate": 22.0},
    flags={
        "heart_rate": "heart_rate went from 72 to 210 within 2 s; "
        "it counts once a second reading confirms it",
        "spo2": "the probe is off; put it on again",
    },
    ages={"heart_rate": 95.0},
    model=1,
)


def text_of(view: View, width: int = 100, **about: Any) -> str:
    return plain.page(view, width=width, hours=6, zone=UTC, **about)


# -- the parts as text -------------------------------------------------------------------------------------


def test_a_patient_who_is_well() -> None:
    page = text_of(WELL_VIEW)
    assert "NEWS2 0\nseverity NONE (by rule and model)\nband low\n" in page
    assert "Routine: go on with the observations" in page
    assert re.search(r"respiration +16 /min +12 s +□□□ 0", page)
    assert re.search(r"systolic +122/78 mmHg +12 s +□□□ 0", page)
    assert re.search(r"temperature +36.9 °C +30 min +□□□ 0", page)
    assert re.search(r"oxygen +on air +2 h 00 min +□□□ 0", page)
    assert "next observations in 11 h 30 min" in page
    assert "no alert" in page
    assert "!" not in page


def test_missing_is_never_a_number_and_never_fine() -> None:
    page = text_of(RANGE_VIEW)
    assert "NEWS2 0-8 (inputs are missing: lowest to highest)" in page
    assert "severity ? (none to high)" in page
    assert "band low, possibly high" in page
    assert "By what is known: Routine" in page
    assert re.search(r"oxygen +-- +-- +-- +missing", page)
    assert re.search(r"consciousness +-- +-- +-- +missing", page)
    assert re.search(r"systolic +122 mmHg +4 h 00 min +-- +stale", page)
    assert "! systolic not scored: 122 mmHg is 4 h 00 min old, it counts for 3 h 00 min" in page
    assert "! never measured here: oxygen, consciousness (press o to enter)" in page
    assert "rule says ? none to high" in page


def test_nobody_and_nothing() -> None:
    page = text_of(nobody())
    assert "NEWS2 --\nseverity -- (no patient is admitted)\nband --\nnext observations --\n" in page
    assert not re.search(r"\b0\b", page.split("link DOWN")[0].split("value")[1])
    assert "link DOWN  outbox 3  dead letters 1  model --" in page
    assert "no broker at 127.0.0.1:1883 (refused)" in page
    unmeasured = text_of(make_view({}, news2=None, band_high=None, advice=""))
    assert "NEWS2 --\nseverity -- (nothing measured yet)" in unmeasured


def test_a_patient_who_is_ill_with_an_alert_and_a_disagreement() -> None:
    page = text_of(SICK_VIEW)
    assert "NEWS2 17\nseverity HIGH (by the rule)\nband high\nmonitor without a break\n" in page
    assert "▲ ALERT 3 emergency for 12 min\ngoes down to level 2 in 8 min if it stays like this" in page
    assert re.search(r"respiration +27 /min +12 s +■■■ 3", page)
    assert re.search(r"temperature +39.2 °C +30 min +■■□ 2", page)
    assert re.search(r"consciousness +C confused +2 h 00 min +■■■ 3", page)
    assert (
        "! rule and model disagree: the rule is certain of high, the model says low (2 times so far)" in page
    )
    assert re.search(r"low +80% █{60,}", page)
    assert re.search(r"none +10% █{8}·", page)


def test_an_artefact_is_told_with_what_counts_instead() -> None:
    page = " ".join(text_of(ARTEFACT_VIEW).split())
    assert "pulse 72 /min 1 min □□□ 0 flagged" in page
    assert (
        "! pulse not scored: heart_rate went from 72 to 210 within 2 s; it counts once a second reading "
        "confirms it; the value of 1 min ago counts"
    ) in page


def test_overdue_and_due() -> None:
    page = text_of(make_view(WELL, next_due_s=-720.0))
    assert "observations OVERDUE by 12 min" in page


def test_a_model_worse_than_the_rule_is_the_severity() -> None:
    assert words.severity(make_view(WELL, model=3)) == ("HIGH", "severity-3", "by the model")
    assert words.severity(make_view(SICK, model=0)) == ("HIGH", "severity-3", "by the rule")
    partly = {field: SICK[field] for field in ("heart_rate", "respiratory_rate")}
    assert words.severity(make_view(partly)) == ("MEDIUM", "severity-2", "at least; possibly high")


def test_a_model_without_a_view_says_why() -> None:
    page = text_of(make_view(WELL, spo2_scale=2, model_error="the model learned SpO2 scale 1"))
    assert "model version 12 has no view" in page
    assert "! the model has no view: the model learned SpO2 scale 1" in page
    assert "no model in use: the rule alone judges" in text_of(make_view(WELL, model_version=None))


def test_text_of_others_cannot_command_the_terminal() -> None:
    view = make_view(
        WELL,
        device="bed\x1b]0;owned\x07-01",
        flags={"spo2": "off\x1b[2J\nNEWS2 0\u202e"},
        sources=[SourceView(name="x\x9b31m", readings=1, rejected=0, last_s=1.0, ended=True, error="a\rb")],
    )
    page = text_of(view)
    assert not set(page) & {"\x1b", "\x07", "\r", "\x9b", "\u202e"}
    assert page.count("\nNEWS2 ") == 2  # the heading and the trend: no line was forged


@pytest.mark.parametrize("width", [20, 40, 60, 80, 132, 200])
@pytest.mark.parametrize("height", [1, 2, 3, 5])
def test_no_line_is_longer_than_the_screen(width: int, height: int) -> None:
    for view in (WELL_VIEW, RANGE_VIEW, SICK_VIEW, ARTEFACT_VIEW, nobody()):
        for lines in (
            panels.head(view, width, UTC),
            panels.situation(view, width),
            panels.advice(view, width),
            panels.table(view, width, hours=6, height=height),
            panels.model(view, width, one_line=height == 1),
            panels.notes(view, width),
            panels.notes(view, width, 2),
            panels.system(view, width),
            panels.system(view, width, 2),
        ):
            assert all(len(line) <= width for line in panels.plain(lines))


def test_few_lines_say_that_there_are_more() -> None:
    assert panels.plain(panels.notes(RANGE_VIEW, 80, 2))[1] == "… 2 more lines: enlarge the window"
    assert len(panels.notes(RANGE_VIEW, 80)) == 3


def test_worst_signs_first_and_the_unknown_before_the_fine() -> None:
    rows = panels.plain(panels.table(make_view({**WELL, "heart_rate": 95.0, "spo2": 90.0}), 80, hours=6))
    assert [row.split()[0] for row in rows[1:4]] == ["respiration", "SpO2", "oxygen"]
    partly = {field: WELL[field] for field in FIELDS if field != "consciousness"}
    view = make_view({**partly, "heart_rate": 95.0, "spo2": 90.0})
    rows = panels.plain(panels.table(view, 80, hours=6, worst_first=True))
    assert [row.split()[0] for row in rows[1:5]] == ["SpO2", "pulse", "consciousness", "respiration"]


def test_pressures_of_two_times_are_not_one_measurement() -> None:
    page = text_of(make_view(WELL, ages={"diastolic_bp": 600.0}))
    assert re.search(r"systolic +122 mmHg +12 s", page)


def test_spans_and_numbers() -> None:
    assert [words.span(s) for s in (0.4, 89, 90, 3600, 5400, 11400, 172800)] == [
        "0 s",
        "89 s",
        "1 min",
        "60 min",
        "1 h 30 min",
        "3 h 10 min",
        "2 d 0 h",
    ]
    assert words.number("temperature", 38.05) == "38.1"  # halves up, as it is scored
    assert words.number("heart_rate", 90.5) == "91"
    assert words.number("diastolic_bp", 77.5) == "78"
    assert words.marks(None) == "--"
    assert [words.marks(points) for points in range(4)] == ["□□□ 0", "■□□ 1", "■■□ 2", "■■■ 3"]


# -- trends ------------------------------------------------------------------------------------------------


def drawn(lines: list[trends.Line]) -> list[str]:
    return ["".join(text for text, _ in line) for line in lines]


def test_a_trend_has_holes_where_nothing_was_measured() -> None:
    rows = trends.sign_rows("spo2", [(3500.0, 100.0), (100.0, 85.0)], seconds=3600, width=4)
    assert drawn(rows) == ["█  ▁"]
    assert [style for _, style in rows[0]] == ["trend-0", "", "", "trend-3"]
    assert drawn(trends.sign_rows("spo2", [], seconds=3600, width=4, height=2)) == ["    ", "    "]


def test_of_one_column_the_worst_value_is_drawn() -> None:
    rows = trends.sign_rows("heart_rate", [(30.0, 72.0), (20.0, 140.0), (10.0, 71.0)], seconds=3600, width=1)
    assert rows == [[("█", "trend-3")]]


def test_on_scale_2_the_points_of_a_high_saturation_hang_on_the_oxygen() -> None:
    assert trends.points_of("spo2", [97.0, 90.0, 84.0], 2) == [-1, 0, 2]
    assert trends.points_of("spo2", [97.0, 90.0, 84.0], 1) == [0, 3, 3]
    assert trends.points_of("diastolic_bp", [70.0], 1) == [-1]


def test_values_outside_the_scale_and_the_hours() -> None:
    rows = trends.sign_rows("heart_rate", [(9000.0, 20.0), (10.0, 200.0)], seconds=3600, width=3, height=2)
    assert drawn(rows) == ["  █", "  █"]
    assert drawn(trends.sign_rows("heart_rate", [(1.0, 80.0)], seconds=3600, width=0)) == [""]


def test_a_score_stands_until_the_next_one_and_its_range_is_shaded() -> None:
    rows = trends.score_rows([(2700.0, 0, 8, 0), (900.0, 5, 5, 2)], seconds=3600, width=4, height=4)
    assert drawn(rows) == ["    ", "    ", " ░░▁", " ▁▁█"]
    assert [style for _, style in rows[3]] == ["", "trend", "trend", "trend-2"]


def test_large_letters() -> None:
    assert letters.large("LOW") == ["█   ▄▀▀▄ █   █", "█   █  █ █▄▀▄█", "▀▀▀  ▀▀  ▀   ▀"]
    assert letters.large("1", 2) == ["  ██  ", "████  ", "  ██  ", "  ██  ", "██████"]
    for word in ("NONE", "MEDIUM", "HIGH", "STALE", "?", "--", *map(str, range(21)), "12-20"):
        assert {len(row) for row in letters.large(word)} == {len(letters.large(word)[0])}


# -- of now, or not ----------------------------------------------------------------------------------------


def test_a_view_grows_older_when_none_comes() -> None:
    later = aged(make_view(WELL, speed=60.0, next_due_s=100.0, alert=SICK_VIEW.alert), 10.0)
    ages = {sign.field: sign.age_s for sign in later.signs}
    assert ages["heart_rate"] == 612.0  # ten seconds of a replay at 60 times
    assert later.next_due_s == -500.0
    assert later.alert == AlertView(active=True, severity=3, since_s=1354.0, waiting=None)
    assert later.sources[0].last_s == 22.0  # the wall's
    assert aged(nobody(), 10.0).signs == []
    missing = next(sign for sign in aged(RANGE_VIEW, 10.0).signs if sign.field == "consciousness")
    assert missing.age_s is None


def test_what_is_not_of_now() -> None:
    assert not is_stale(WELL_VIEW, 1.0, AT + timedelta(seconds=1), 1.0)
    assert is_stale(WELL_VIEW, 5.1, AT + timedelta(seconds=1), 1.0)
    assert is_stale(WELL_VIEW, 0.0, AT + timedelta(seconds=5.1), 1.0)
    assert is_stale(WELL_VIEW, 0.0, AT - timedelta(seconds=5.1), 1.0)  # of a clock that was set back


def test_views_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "views.jsonl"
    file.write_bytes(b"\n".join(map(msgspec.json.encode, (WELL_VIEW, SICK_VIEW))) + b"\n")
    feed = FileFeed(file)
    assert [feed.view(6.0) for _ in range(3)] == [WELL_VIEW, SICK_VIEW, SICK_VIEW]
    with pytest.raises(FeedError, match="nothing can be entered"):
        feed.enter({})
    for text, said in (("", "holds no view"), ("{", "holds no view"), ('{"at": 1}', "of another version")):
        file.write_text(text)
        with pytest.raises(FeedError, match=said):
            FileFeed(file).view(6.0)
    with pytest.raises(FeedError, match="cannot be read"):
        FileFeed(tmp_path / "none").view(6.0)


# -- the screen --------------------------------------------------------------------------------------------


class Given:
    """A feed of given views; None is an agent that is gone. ``entered`` is what was given to it."""

    def __init__(self, *views: View | None, refuses: str = "") -> None:
        self.views = list(views)
        self.refuses = refuses
        self.hours: list[float] = []
        self.entered: list[dict[str, Any]] = []

    def view(self, hours: float) -> View:
        self.hours.append(hours)
        view = self.views.pop(0) if len(self.views) > 1 else self.views[0]
        if view is None:
            raise FeedError("/var/lib/samd: no agent runs here; start it with samd-edge run")
        return view

    def enter(self, body: dict[str, Any]) -> None:
        if self.refuses:
            raise FeedError(self.refuses)
        self.entered.append(body)


class Now:
    """A clock that the test moves on."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wall(self) -> datetime:
        return AT + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


def shown(app: Top) -> list[str]:
    """The rows of the screen as text."""
    rows: dict[float, dict[float, str]] = {}
    for found in re.finditer(
        r'<text[^>]* x="([\d.]+)" y="([\d.]+)"[^>]* clip-path[^>]*>([^<]*)</text>', app.export_screenshot()
    ):
        x, y, text = found.groups()
        rows.setdefault(float(y), {})[float(x)] = html.unescape(text).replace("\xa0", " ").rstrip("\n")
    lines = []
    for y in sorted(rows):
        line = ""
        for x, text in sorted(rows[y].items()):
            line = line.ljust(round(x / 12.2)) + text
        lines.append(line.rstrip())
    return lines


async def until(pilot: Pilot[None], check: Callable[[], Any], what: str) -> None:
    for _ in range(500):
        await pilot.pause(0.01)
        if check():
            await pilot.pause()  # what was decided is also laid out
            return
    pytest.fail(f"waited in vain for {what}:\n" + "\n".join(shown(pilot.app)))  # type: ignore[arg-type]


def on_screen(
    feed: Any,
    see: Callable[[Top, Pilot[None], Now], Awaitable[None]],
    size: tuple[int, int] = (80, 24),
    **about: Any,
) -> None:
    """Run the screen without a terminal and look at it."""

    async def run() -> None:
        now = Now()
        app = Top(feed, every_s=0.2, wall=now.wall, monotonic=now.monotonic, zone=UTC, **about)
        async with app.run_test(size=size, notifications=True) as pilot:
            await until(
                pilot, lambda: any("bed-01" in row or "NO VIEW" in row for row in shown(app)), "a view"
            )
            await see(app, pilot, now)

    asyncio.run(run())


def test_80_by_24_holds_all_that_matters() -> None:
    async def see(app: Top, pilot: Pilot[None], now: Now) -> None:
        rows = shown(app)
        assert rows[0].startswith("bed-01  admission local-1  SpO2 scale 1  01 Mar 14:03:22  clock synced")
        for number, row in enumerate(letters.large("17")):
            assert rows[2 + number].startswith(row.rstrip())
        for number, row in enumerate(letters.large("HIGH")):
            assert row.strip() in rows[2 + number]
        assert "▲ ALERT 3 emergency for 12 min" in rows[3]
        assert rows[6].startswith("Emergency: call the medical team at once")
        assert re.match(r"respiration +27 /min +12 s +■■■ 3 ", rows[10])
        assert rows[18].startswith("model 12 says  low   none 10% ····  low 80% ███·  medium 7%")
        assert rows[19].startswith("! rule and model disagree")
        assert rows[21].startswith("link up  outbox 0  dead letters 0  model 12")
        assert rows[22].startswith("hl7:2575  last 12 s ago  4211 readings  0 rejected")
        assert "q quit" in rows[23]

    on_screen(Given(SICK_VIEW), see)


@pytest.mark.parametrize("size", [(20, 5), (40, 12), (60, 20), (100, 30), (130, 40), (200, 60)])
def test_every_size_is_drawn(size: tuple[int, int]) -> None:
    async def see(app: Top, pilot: Pilot[None], now: Now) -> None:
        rows = shown(app)
        assert rows[0].startswith("bed-01")
        assert len(rows) <= size[1]
        if size[1] >= 30:
            assert any("never measured here" in row for row in rows)
            assert any(re.search(r"none +90%", row) for row in rows)

    on_screen(Given(RANGE_VIEW), see, size, light=size[0] == 130)


def test_a_window_that_changes_its_size() -> None:
    async def see(app: Top, pilot: Pilot[None], now: Now) -> None:
        for size in ((132, 44), (80, 24), (200, 60), (33, 9)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
        assert any(row.startswith("bed-01") for row in shown(app))

    on_screen(Given(SICK_VIEW), see)


def test_an_agent_that_stops_is_said_everywhere() -> None:
    async def see(app: Top, pilot: Pilot[None], now: Now) -> None:
        assert not app.stale()
        now.seconds = 95.0
        await until(pilot, lambda: "NOT OF NOW" in shown(app)[0], "the warning")
        rows = shown(app)
        text = " ".join(" ".join(rows[:3]).split())
        assert (
            "NOT OF NOW: the last view is 1 min old, of 01 Mar 14:03:22. /var/lib/samd: no agent runs" in text
        )
        for number, row in enumerate(letters.large("STALE")):
            assert row.strip() in rows[4 + number]
        assert not any("Emergency" in row or "goes down" in row for row in rows)
        assert re.search(r"respiration +27 /min +1 min", "\n".join(rows))
        assert all(panel.greyed for panel in app.query(Panel))
        await pilot.press("o")
        await pilot.pause()
        assert not app.query(Input)

    on_screen(Given(SICK_VIEW, None), see)


def test_an_agent_that_comes_back_is_of_now_again() -> None:
    async def see(app: Top, pilot: Pilot[None], now: Now) -> None:
        now.seconds = 60.0
        await until(pilot, app.stale, "the warning")
        feed.views = [msgspec.structs.replace(WELL_VIEW, at=now.wall())]
        await until(pilot, lambda: not app.stale(), "a fresh view")
        rows = shown(app)
        assert rows[0].startswith("bed-01")
        assert letters.large("NONE")[0].strip() in rows[2]

    feed = Given(SICK_VIEW, None)
    on_screen(feed, see)


def test_no_agent_from_the_beginning() -> None:
    async def see(app: Top, pilot: Pilot[None], now: Now) -> None:
        await until(pilot, lambda: "no agent runs here" in " ".join(shown(app)), "the reason")
        assert not any(row.startswith("respiration") for row in shown(app))

    on_screen(Given(None), see)


def test_keys() -> None:
    async def see(app: Top, pilot: Pilot[None], now: Now) -> None:
        asked = len(feed.hours)
        await pilot.press("h")
        await until(pilot, lambda: 24.0 in feed.hours[asked:], "24 hours")
        assert any("trend of 24 h" in row for row in shown(app))
        await pilot.press("h")
        await until(pilot, lambda: 1.0 in feed.hours[asked:], "one hour")
        first = next(row for row in shown(app) if "/min" in row)
        assert first.startswith("respiration")
        await pilot.press("s")
        await until(pilot, lambda: any(row.startswith("respiration") for row in shown(app)), "the order")
        assert next(row for row in shown(app) if "■■■" in row).startswith("respiration")
        assert app.theme == "samd-dark"
        await pilot.press("l")
        assert app.theme == "samd-light"
        await pilot.press("question_mark")
        await until(pilot, lambda: any("no certified medical device" in row for row in shown(app)), "help")
        await pilot.press("escape")
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running, "the end")

    feed = Given(SICK_VIEW)
    on_screen(feed, see)


@pytest.mark.parametrize("form", [False, True])
def test_ctrl_c_quits(form: bool) -> None:
    async def see(app: Top, pilot: Pilot[None], now: Now) -> None:
        if form:
            await pilot.press("o")
            await until(pilot, lambda: app.screen.query("#by"), "the form")
            app.screen.query_one("#by", Input).focus()
            await pilot.pause()
        await pilot.press("ctrl+c")
        await until(pilot, lambda: not app.is_running, "the end")

    on_screen(Given(SICK_VIEW), see)


@pytest.mark.parametrize("columns", [80, 100])
def test_the_longest_words_keep_to_their_places(columns: int) -> None:
    async def see(app: Top, pilot: Pilot[None], now: Now) -> None:
        rows = shown(app)
        assert "replay ×600" in rows[0]
        assert "clock NOT synced" in rows[0]
        for number, row in enumerate(letters.large("MEDIUM")):
            assert row.strip() in rows[2 + number]
        assert rows[1][50:].startswith("band low-medium")
        assert rows[2][50:].endswith("OVERDUE by 23 h 10 min")
        assert rows[2][48:50] == "  "
        assert rows[5].endswith(" …")

    view = make_view(
        {**WELL, "heart_rate": 95.0},
        admission="replay-of-a-long-name-7",
        clock="unsynced",
        speed=600.0,
        severity=2,
        band_high="medium",
        next_due_s=-83_400.0,
        alert=AlertView(active=True, severity=2, waiting="goes down to level 1 in 8 min if " * 4),
    )
    assert view.news2 is not None
    view = msgspec.structs.replace(view, news2=msgspec.structs.replace(view.news2, band="low-medium"))
    on_screen(Given(view), see, (columns, 24))


def test_a_source_that_ended_says_by_which_clock() -> None:
    ended = SourceView(name="replay", readings=9, rejected=0, last_s=144.0, ended=True)
    assert panels.plain(panels.system(make_view(WELL, speed=600.0, sources=[ended]), 120))[-1] == (
        "replay  ENDED  last 24 h 00 min ago, patient's time (wall: 2 min)  9 readings  0 rejected"
    )
    live = make_view(WELL, sources=[ended])
    assert "ENDED  last 2 min ago (wall clock)  9 readings" in text_of(live)


def test_a_choice_is_told_by_its_shape() -> None:
    async def see(app: Top, pilot: Pilot[None], now: Now) -> None:
        await pilot.press("o")
        await until(pilot, lambda: app.screen.query("#by"), "the form")
        app.screen.query_one("#consciousness", RadioSet).query("RadioButton")[1].value = True  # type: ignore[attr-defined]
        await until(pilot, lambda: any("● A  alert" in row for row in shown(app)), "the mark")
        text = "\n".join(shown(app))
        assert (text.count("●"), text.count("○")) == (2, 7)
        assert "to be entered: A alert" in text

    on_screen(Given(RANGE_VIEW), see)


async def fill(app: Top, pilot: Pilot[None], consciousness: int, oxygen: int, by: str) -> None:
    """Open the form, choose, write the name, press Enter."""
    await pilot.press("o")
    await until(pilot, lambda: app.screen.query("#by"), "the form")
    app.screen.query_one("#consciousness", RadioSet).query("RadioButton")[consciousness].value = True  # type: ignore[attr-defined]
    app.screen.query_one("#oxygen", RadioSet).query("RadioButton")[oxygen].value = True  # type: ignore[attr-defined]
    app.screen.query_one("#by", Input).value = by
    await pilot.pause()
    app.screen.query_one("#enter", Button).press()
    await pilot.pause()


def test_an_observation_is_entered_with_a_name() -> None:
    async def see(app: Top, pilot: Pilot[None], now: Now) -> None:
        await fill(app, pilot, 2, 1, "N. Kim")
        await until(pilot, lambda: not app.screen.query("#by"), "the form to close")
        said = "entered: C new confusion, on air, by N. Kim"
        await until(pilot, lambda: said in " ".join(" ".join(shown(app)).replace("▌", "").split()), "answer")
        assert feed.entered == [
            {"type": "observation.add", "by": "N. Kim", "consciousness": "C", "supplemental_oxygen": False}
        ]
        await pilot.press("o")
        await until(pilot, lambda: app.screen.query("#by"), "the form")
        assert app.screen.query_one("#by", Input).value == "N. Kim"

    feed = Given(RANGE_VIEW)
    on_screen(feed, see)


def test_what_cannot_be_entered_is_said() -> None:
    async def see(app: Top, pilot: Pilot[None], now: Now) -> None:
        await fill(app, pilot, 0, 0, "N. Kim")
        await until(pilot, lambda: any("nothing to enter" in row for row in shown(app)), "the reason")
        await pilot.press("escape")
        await pilot.pause()
        await fill(app, pilot, 1, 0, " ")
        await until(pilot, lambda: any("by whom?" in row for row in shown(app)), "the reason")
        await pilot.press("escape")
        await pilot.pause()
        await fill(app, pilot, 1, 0, "N. Kim")
        await until(pilot, lambda: any("not entered: no patient" in row for row in shown(app)), "the refusal")
        assert feed.entered == []

    feed = Given(RANGE_VIEW, refuses="no patient")
    on_screen(feed, see)


def test_what_was_seen_of_one_patient_is_not_entered_for_the_next() -> None:
    async def see(app: Top, pilot: Pilot[None], now: Now) -> None:
        await pilot.press("o")
        await until(pilot, lambda: app.screen.query("#by"), "the form")
        feed.views = [msgspec.structs.replace(RANGE_VIEW, admission="local-2")]
        asked = len(feed.hours)
        await until(pilot, lambda: len(feed.hours) > asked + 1, "the next patient")
        app.screen.query_one("#consciousness", RadioSet).query("RadioButton")[1].value = True  # type: ignore[attr-defined]
        app.screen.query_one("#by", Input).value = "N. Kim"
        await pilot.pause()
        app.screen.query_one("#enter", Button).press()
        await until(
            pilot, lambda: any("local-1 is not the admission" in row for row in shown(app)), "refusal"
        )
        assert feed.entered == []

    feed = Given(RANGE_VIEW)
    on_screen(feed, see)


# -- the command, on a real agent --------------------------------------------------------------------------


def command(*options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "samd_edge", "top", *options],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


def test_a_real_agent_is_shown_and_takes_an_observation(run_agent: Any, wait: Any) -> None:
    agent = run_agent("mqtt://127.0.0.1:1").ready()
    signs = {field: WELL[field] for field in FIELDS[:6]}
    agent.feed(Reading(observed_at=datetime.now(UTC), **{**signs, "heart_rate": 95.0}))
    feed = AgentFeed(agent.data_dir)
    view = wait(lambda: (found := feed.view(6.0)).news2 is not None and found, "the reading")
    assert (view.news2.low, view.news2.high) == (1, 6)

    feed.enter({"type": "observation.add", "by": "N. Kim", "consciousness": "A", "supplemental_oxygen": True})
    with pytest.raises(FeedError, match="a name"):
        feed.enter({"type": "observation.add", "by": " ", "consciousness": "A"})

    once = command("--data-dir", str(agent.data_dir), "--once")
    assert (once.returncode, once.stderr) == (0, "")
    assert "NEWS2 3\nseverity LOW (by the rule)\nband low\n" in once.stdout
    assert re.search(r"pulse +95 /min +\d+ s +■□□ 1", once.stdout)
    assert re.search(r"oxygen +on oxygen +\d+ s +■■□ 2", once.stdout)
    assert "no model in use" in once.stdout

    printed = command("--data-dir", str(agent.data_dir), "--json")
    decoded = msgspec.json.decode(printed.stdout, type=View)
    assert decoded.news2 is not None
    assert (decoded.device, decoded.news2.total) == (agent.device, 3)

    async def see(app: Top, pilot: Pilot[None], now: Now) -> None:
        await until(pilot, lambda: any(letters.large("LOW")[0] in row for row in shown(app)), "the severity")
        assert agent.stop() == 0
        await until(pilot, lambda: "NOT OF NOW" in shown(app)[0], "the warning")

    async def run() -> None:
        app = Top(feed, every_s=0.2, zone=UTC)
        async with app.run_test(size=(80, 24)) as pilot:
            await see(app, pilot, Now())

    asyncio.run(run())


def test_without_an_agent_or_a_terminal(tmp_path: Path) -> None:
    for options in (("--once",), ("--json",)):
        gone = command("--data-dir", str(tmp_path), *options)
        assert (gone.returncode, gone.stdout) == (2, "")
        assert gone.stderr == (
            f"samd-edge top: {tmp_path}: no agent runs here; start it with samd-edge run\n"
        )
    blind = command("--data-dir", str(tmp_path))
    assert (blind.returncode, blind.stderr) == (
        2,
        "samd-edge top: this is no terminal; use --once or --json\n",
    )


def test_a_view_of_a_file_is_not_of_now(tmp_path: Path) -> None:
    file = tmp_path / "view.json"
    file.write_bytes(msgspec.json.encode(WELL_VIEW))
    once = command("--from", str(file), "--once")
    assert once.stdout.startswith("*** NOT OF NOW: this view is of ")
    assert json.loads(command("--from", str(file), "--json").stdout)["news2"]["total"] == 0


@pytest.mark.parametrize(
    "options", [("--hours", "0"), ("--hours", "nan"), ("--every", "x"), ("--every", "0.01")]
)
def test_options_that_cannot_be(options: tuple[str, str]) -> None:
    refused = command("--once", *options)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith(f"samd-edge top: error: argument {options[0]}: ")


def test_textual_is_loaded_by_the_screen_alone(tmp_path: Path) -> None:
    """It is an extra: one page of text is printed without it, and the screen says what to install."""
    file = tmp_path / "view.json"
    file.write_bytes(msgspec.json.encode(WELL_VIEW))
    program = f"""
import sys, pty
sys.modules["textual"] = None
from samd_edge.cli import main
assert main(["top", "--from", {str(file)!r}, "--once"]) == 0
terminal = pty.openpty()[1]
sys.stdin, sys.stdout = open(terminal, closefd=False), open(terminal, "w", closefd=False)
sys.exit(main(["top", "--from", {str(file)!r}]))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 2
    assert "NEWS2 0" in ran.stdout
    assert ran.stderr.startswith("samd-edge top: Textual is not installed")
    assert ran.stderr.count("\n") == 1
    assert "pip install './edge_client[top]'" in ran.stderr
