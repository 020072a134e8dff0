"""The report: what a store says of a period, drawn and told; nothing invented, nothing left out."""

import contextlib
import io
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from samd_data.reading import FIELDS, Reading
from samd_edge import control
from samd_edge.artefacts import Flag
from samd_edge.assessment import Assessor, to_message
from samd_edge.cli import main
from samd_edge.clock import WallClock
from samd_edge.report.gaps import CONTINUOUS_S, Gap, class_times, gaps, held
from samd_edge.report.history import read
from samd_edge.report.record import History, Run
from samd_edge.report.source import opened
from samd_edge.report.thinning import COLUMNS, lonely, thinned, with_holes, worst
from samd_edge.store import FILE, MIGRATIONS, AdmissionStore, Stored
from samd_protocol import envelope
from samd_protocol.envelope import Sealer
from samd_protocol.messages import Alert, ModelView

NOW = datetime.now(UTC).replace(microsecond=0)
START = NOW - timedelta(hours=12)
WELL: dict[str, Any] = {
    "heart_rate": 72.0,
    "respiratory_rate": 16.0,
    "spo2": 97.0,
    "systolic_bp": 122.0,
    "diastolic_bp": 78.0,
    "temperature": 36.9,
}
SEEN: dict[str, Any] = {"supplemental_oxygen": False, "consciousness": "A"}
EVIL = "<script>alert(1)</script>\"'&"


class Ward:
    """A real store, filled as an agent fills it: judged, sealed, committed."""

    def __init__(self, data_dir: Path, admission: str = "local", **settings: Any) -> None:
        self.folder = data_dir / "admissions" / admission
        self.store = AdmissionStore(self.folder)
        self.store.set(admission=admission, **settings)
        self.assessor = Assessor(spo2_scale=settings.get("spo2_scale", 1))
        self.sealer = Sealer("bed-01", 1, clock=lambda: "synced")

    def read(
        self,
        minute: float,
        *,
        flags: dict[str, tuple[str, str]] | None = None,
        model: int | None = None,
        alert: tuple[str, int] | None = None,
        **values: Any,
    ) -> None:
        """A reading at a minute of the record, with its judgement; ``alert`` is a change and its level."""
        at = START + timedelta(minutes=minute)
        reading = Reading(observed_at=at, **{**WELL, **values})
        found = {field: Flag(kind, reason, at) for field, (kind, reason) in (flags or {}).items()}  # type: ignore[arg-type]
        kept = {field: value for field, value in {**WELL, **values}.items() if field not in found}
        self.assessor.take(Reading(observed_at=at, **kept), observed=True)
        message = to_message(self.assessor.assess(at), WallClock(lambda: at), share_signs=False)
        if model is not None:
            message = msgspec.structs.replace(
                message,
                model=ModelView(severity=model, probabilities=[0.25] * 4, version=3),  # type: ignore[arg-type]
                disagreement=abs(model - message.rule_severity) >= 2,
                severity=max(message.severity, model),
            )
        stored = None
        if alert is not None:
            sealed = self.sealer.seal(
                Alert(
                    alert_id="a",
                    state=alert[0],  # type: ignore[arg-type]
                    severity=alert[1],  # type: ignore[arg-type]
                    observed_at=at,
                    news2_low=message.news2.low,
                    news2_high=message.news2.high,
                )
            )
            stored = Stored(0, sealed.id, envelope.encode(sealed))
        sealed = self.sealer.seal(message)
        self.store.add(
            reading,
            assessed_at=at,
            severity=message.severity,
            assessment=Stored(0, sealed.id, envelope.encode(sealed)),
            alert=stored,
            flags=found,
        )

    def see(self, minute: float, by: str, **values: Any) -> None:
        at = START + timedelta(minutes=minute)
        reading = Reading(observed_at=at, **values)
        self.store.add_observation(reading, by=by, entered_at=at + timedelta(minutes=1))
        self.assessor.take(reading, observed=True)

    def strike(self, minute: float, field: str | None, by: str, reason: str, **right: Any) -> None:
        at = START + timedelta(minutes=minute)
        row = next(kept.row for kept in self.store.recent(at) if kept.reading.observed_at == at)
        self.store.strike(
            row,
            field=field,
            by=by,
            reason=reason,
            corrected_at=at + timedelta(minutes=5),
            instead=Reading(observed_at=at, **right) if right else None,
        )


def night(data_dir: Path, **settings: Any) -> Ward:
    """Twelve hours: well, a gap of three hours, ill with an alert, artefacts, corrections, a disagreement."""
    ward = Ward(data_dir, **settings)
    ward.see(0, "N. Kim", **SEEN)
    for minute in range(0, 240, 10):
        ward.read(minute, model=0)
    ward.read(240, heart_rate=95.0, model=0)  # 1 point: due in 4 h
    for minute in range(500, 620, 10):
        values: dict[str, Any] = {"respiratory_rate": 25.0, "heart_rate": 115.0}
        change = ("raised", 2) if minute == 500 else None
        ward.read(minute, model=0, alert=change, **values)
    ward.read(620, respiratory_rate=22.0, heart_rate=80.0, model=1, alert=("cleared", 1))
    ward.read(
        630, heart_rate=210.0, flags={"heart_rate": ("jump", "heart_rate went from 80 to 210")}, model=1
    )
    ward.read(640, spo2=80.0, model=1)
    ward.strike(640, "spo2", "A. Lee", "probe on the cuff arm", spo2=96.0)
    ward.read(650, systolic_bp=60.0, model=1)
    ward.strike(650, None, "A. Lee", "of another patient")
    ward.store.add(
        None,
        assessed_at=START + timedelta(minutes=655),
        severity=1,
        assessment=Stored(0, "odd", b"{}"),
        flags={
            "spo2": Flag("no_signal", "the probe is off; put it on again", START + timedelta(minutes=655))
        },
    )
    for minute in range(660, 720, 10):
        ward.read(minute, model=1)
    return ward


# -- reading a page ------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """A page taken apart: text of each section, rows of its tables, struck texts, and every tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {"": ""}
        self.rows: dict[str, list[list[str]]] = {}
        self.struck: list[str] = []
        self._section = ""
        self._open: list[str] = []
        self.feed(text)
        svg = text[text.index("<svg") : text.rindex("</svg>") + 6]
        self.svg = ET.fromstring(svg)  # noqa: S314  (our own)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "section":
            self._section = str(dict(attrs)["id"])
            self.sections[self._section], self.rows[self._section] = "", []
        elif tag == "tr":
            self.rows[self._section].append([])
        elif tag in ("td", "th"):
            self.rows[self._section][-1].append("")
        elif tag == "s":
            self.struck.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        text = " ".join(data.split())
        if not text:
            return
        self.sections[self._section] = f"{self.sections[self._section]} {text}".strip()
        if self._section and ("td" in self._open or "th" in self._open):
            self.rows[self._section][-1][-1] = f"{self.rows[self._section][-1][-1]} {text}".strip()
        if "s" in self._open:
            self.struck[-1] += text

    def marks(self, name: str) -> int:
        """How many marks of a kind the picture holds: groups of that name, or the symbols in them."""
        groups = [
            group for group in self.svg.iter("{http://www.w3.org/2000/svg}g") if group.get("id") == name
        ]
        symbols = sum(len(list(group.iter("{http://www.w3.org/2000/svg}use"))) for group in groups)
        return symbols or len(groups)

    def cell(self, section: str, first: str) -> list[str]:
        return next(row[1:] for row in self.rows[section] if row[0] == first)


class Made(NamedTuple):
    """What the command did: its exit code, the page, what it said."""

    returncode: int
    stdout: str
    stderr: str


def run(*options: str) -> Made:
    """The command, in this process: matplotlib is loaded once."""
    page, said = io.BytesIO(), io.StringIO()
    out = io.TextIOWrapper(page, write_through=True)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
        code = main(["report", "--utc", *options])
    return Made(code, page.getvalue().decode(), said.getvalue())


def page_of(data_dir: Path, *options: str) -> Page:
    made = run("--data-dir", str(data_dir), "--out", "-", *options)
    assert (made.returncode, made.stderr) == (0, "")
    return Page(made.stdout)


def short(minute: float) -> str:
    return (START + timedelta(minutes=minute)).strftime("%d %b %H:%M:%S")


@pytest.fixture(scope="module")
def ward_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ward")
    ward = night(folder)
    ward.store.close()
    return folder


@pytest.fixture(scope="module")
def page(ward_dir: Path) -> Page:
    return page_of(ward_dir, "--since", "24h")


# -- what the page says --------------------------------------------------------------------------------------


def test_the_head_says_whose_page_it_is_and_what_it_is_not(page: Page) -> None:
    head = page.sections[""]
    assert "bed-01: admission local" in head
    assert f"{START:%d %b %Y %H:%M} to " in head
    assert "(UTC)" in head
    assert "SpO2 scale 1 observations as the NEWS2 chart asks" in head
    assert "This is research software and no certified medical device." in head
    assert "NEWS2 0" in head
    assert f"highest 5, {short(500)}" in head
    assert "open since" not in head


def test_the_signs_without_what_was_struck_or_flagged(page: Page) -> None:
    end = short(710)
    assert page.cell("signs", "respiration /min") == ["46", "16", "25", "16", end, "0", "1"]
    assert page.cell("signs", "SpO2 %") == ["46", "96", "97", "97", end, "0", "2"]
    assert page.cell("signs", "systolic mmHg") == ["46", "122", "122", "122", end, "0", "1"]
    assert page.cell("signs", "pulse /min") == ["45", "72", "115", "72", end, "1", "1"]
    assert page.cell("signs", "temperature °C") == ["46", "36.9", "36.9", "36.9", end, "0", "1"]


def test_the_counts(page: Page) -> None:
    assert page.cell("counts", "readings") == ["49", "47 live, 0 of a recording's past"]
    assert page.cell("counts", "observations by people")[0] == "2"
    assert page.cell("counts", "judgements")[0] == "47"
    assert page.cell("counts", "judgements that cannot be read")[0] == "1"
    assert page.cell("counts", "values flagged as artefacts")[0] == "1"
    assert page.cell("counts", "times that a value was rejected")[0] == "1"
    assert page.cell("counts", "corrections") == ["2", "1 whole readings"]
    assert page.cell("counts", "disagreements")[0] == "1"
    assert page.cell("counts", "judged with model 3") == ["47", f"{short(0)} to {short(710)}"]


def test_alerts_gaps_and_how_long_each_class_stood(page: Page) -> None:
    assert page.rows["alerts"][1:] == [
        [short(500), "▲ raised", "2 urgent", "5"],
        [short(620), "▽ cleared", "none; severity low", "2"],
    ]
    assert page.rows["gaps"][1:] == [[short(240), short(500), "4 h 20 min", "1 h 40 min"]]
    stood = {row[0]: row[1] for row in page.rows["classes"]}
    assert stood["none"] == "4 h 00 min"  # the model's "low" is what stood after 620
    assert stood["medium"] == "2 h 00 min"
    assert stood["no judgement stood"] == "80 min"  # a judgement stands for 3 h of a gap of 4 h 20


def test_what_people_entered_and_struck(page: Page) -> None:
    assert page.rows["observations"][1:] == [
        [short(0), "on air, A alert", "N. Kim", short(1)],
        [short(640), "SpO2 96 % (a correction)", "A. Lee", short(645)],
    ]
    assert page.rows["corrections"][1][:6] == [
        short(640),
        "SpO2",
        "80 %",
        "SpO2 96 %",
        "A. Lee",
        "probe on the cuff arm",
    ]
    assert page.rows["corrections"][2][1:2] == ["whole reading"]
    assert page.rows["corrections"][2][3:6] == ["nothing", "A. Lee", "of another patient"]
    assert page.struck[0] == "80 %"
    assert "systolic 60 mmHg" in page.struck[1]
    assert page.rows["artefacts"][1:] == [
        ["pulse", "a jump that no body makes", "1", short(630), short(630), "heart_rate went from 80 to 210"],
        ["SpO2", "no signal", "1", short(655), short(655), "the probe is off; put it on again"],
    ]


def test_the_marks_of_the_picture(page: Page) -> None:
    assert page.marks("flagged-heart_rate") == 1
    assert page.marks("struck-spo2") == 2
    assert page.marks("struck-systolic_bp") == 1
    assert page.marks("no-value-spo2") == 1
    assert page.marks("points-heart_rate") == 45
    assert page.marks("points-diastolic_bp") == 46
    assert page.marks("gap") == 8  # one gap, on each of the eight axes
    assert page.marks("alert-raised") == page.marks("alert-cleared") == 1
    assert page.marks("disagreement") == 1
    for name in ("score", "rule", "model", "values-spo2", "oxygen-air", "consciousness-A"):
        assert page.marks(name) == 1
    texts = [text.text for text in page.svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"NEWS2", "severity", "respiration", "pulse", "none", "medium"} <= set(texts)
    for name in ("spo2", "heart_rate", "temperature"):  # nothing is drawn through the gap
        line = next(group for group in page.svg.iter() if group.get("id") == f"values-{name}")
        assert "".join(path.get("d", "") for path in line).count("M ") == 2


def test_it_needs_nothing_and_runs_nothing(ward_dir: Path) -> None:
    text = run("--data-dir", str(ward_dir), "--out", "-").stdout
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "iframe", "object", "embed", "img", "form", "base", "audio", "video"}
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith("#") or (tag, value) == ("link", "data:,")
    assert "url(http" not in text
    assert "@import" not in text
    policy = next(attributes for _, attributes in page.tags if "http-equiv" in attributes)
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_names_and_reasons_are_text_and_nothing_else(tmp_path: Path) -> None:
    ward = Ward(tmp_path, admission="x'y")
    ward.store.set(admission=f'"</style>{EVIL}')
    ward.see(0, EVIL, **SEEN)
    ward.read(5, flags={"spo2": ("jump", EVIL)})
    ward.read(10)
    ward.strike(10, "heart_rate", EVIL, f"</s></td>{EVIL}\x1b[31m{{{{ 7 * 7 }}}}")
    ward.store.close()
    text = run("--data-dir", str(tmp_path), "--out", "-").stdout
    assert "<script" not in text
    assert text.count("</style>") == text.count("<style") == 2  # the page's and the picture's
    assert "\x1b" not in text
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.rows["observations"][1][2] == EVIL
    assert page.rows["corrections"][1][4] == EVIL
    assert page.rows["corrections"][1][5] == f"</s></td>{EVIL} [31m{{{{ 7 * 7 }}}}"
    assert page.rows["artefacts"][1][5] == EVIL


# -- periods and stores --------------------------------------------------------------------------------------


def test_a_period(ward_dir: Path) -> None:
    page = page_of(ward_dir, "--since", (START + timedelta(minutes=300)).isoformat())
    assert page.cell("signs", "respiration /min")[:3] == ["21", "16", "25"]
    # the gap began before the period, and is told whole
    assert page.rows["gaps"][1:] == [[short(240), short(500), "4 h 20 min", "1 h 40 min"]]
    assert page.marks("oxygen-air") == 1  # entered 5 h before, and still valid
    assert page.cell("counts", "disagreements")[0] == "1"
    quiet = page_of(ward_dir, "--since", (START + timedelta(minutes=716)).isoformat())
    assert "No reading in this period." in quiet.sections[""]
    assert quiet.cell("signs", "SpO2 %") == ["0", "--", "--", "--", "--", "0", "0"]
    assert quiet.rows["gaps"] == []


def test_minutes_hours_days(ward_dir: Path) -> None:
    for text, readings in (("721m", "49"), ("7d", "49"), ("100m", "11")):
        found = page_of(ward_dir, "--since", text).cell("counts", "readings")[0]
        gone = (datetime.now(UTC) - NOW) // timedelta(minutes=1)  # the period ends now, and now moves on
        assert int(readings) - 1 - gone <= int(found) <= int(readings) + 1, text


@pytest.mark.parametrize(
    ("since", "said"),
    [
        ("yesterday", "'yesterday' is no time"),
        ("2026-01-01T00:00:00", "has no zone"),
        ("2999-01-01T00:00:00Z", "lies after the end of the record"),
        ("0h", "lies after the end of the record"),
        ("99999999999d", "too long ago"),
    ],
)
def test_times_that_cannot_be(ward_dir: Path, since: str, said: str) -> None:
    refused = run("--data-dir", str(ward_dir), "--out", "-", "--since", since)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert said in refused.stderr
    assert refused.stderr.startswith("samd-edge report: --since ")
    assert refused.stderr.count("\n") == 1


def test_an_open_alert_and_an_admission_that_has_ended(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    ward.see(0, "N. Kim", supplemental_oxygen=True, consciousness="C")
    ward.read(0, respiratory_rate=26.0)
    ward.read(10, respiratory_rate=26.0, alert=("raised", 3))
    ward.read(30, respiratory_rate=26.0)
    ward.store.seal()
    store = ward.folder / FILE
    assert store.stat().st_mode & 0o777 == 0o400
    page = page_of(tmp_path, "--since", "24h")
    head = page.sections[""]
    assert "admission ended" in head
    assert f"{START:%d %b %Y %H:%M} to {START + timedelta(minutes=30):%d %b %Y %H:%M}" in head
    assert f"▲ alert 3 emergency open since {short(10)}" in head
    assert "NEWS2 8" in head
    # the chart asks for monitoring without a break: 20 minutes are one, 10 are none
    assert page.rows["gaps"][1:] == [[short(10), f"{short(30)}, the end", "20 min", "15 min"]]
    assert page.marks("oxygen-on-oxygen") == page.marks("consciousness-C") == 1
    assert sorted(path.name for path in ward.folder.iterdir()) == [FILE]


def test_a_range_is_told_as_one(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    ward.read(719)
    ward.store.close()
    page = page_of(tmp_path)
    assert "NEWS2 0-5" in page.sections[""]
    assert "lowest to highest with inputs missing" in page.sections[""]
    assert "severity ? none to medium" in page.sections[""]
    assert page.marks("score-range") == 1
    assert page.marks("possible") == 1
    assert [row[0] for row in page.rows["classes"]] == ["none or worse, too little was known"]


def test_a_class_is_told_with_the_possible_one_and_by_whom(tmp_path: Path) -> None:
    ward = Ward(tmp_path / "range")
    ward.read(719, respiratory_rate=21.0)
    ward.store.close()
    assert "severity low at least; possibly high" in page_of(tmp_path / "range").sections[""]
    for name, model in (("by the rule", None), ("by rule and model", 1), ("by the model", 3)):
        ward = Ward(tmp_path / name)
        ward.see(718, "N. Kim", **SEEN)
        ward.read(719, heart_rate=95.0, model=model)
        ward.store.close()
        word = "high" if model == 3 else "low"
        assert f"severity {word} {name}" in page_of(tmp_path / name).sections[""]


def test_a_monitor_that_falls_silent_is_a_gap_long_before_the_chart_asks(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    ward.see(0, "N. Kim", **SEEN)
    for step in range(30):
        ward.read(step / 10)
    ward.store.close()
    for since in ("24h", "60m"):  # also when the period begins after the last reading
        page = page_of(tmp_path, "--since", since)
        assert page.rows["gaps"][1][0] == short(2.9)
        assert page.rows["gaps"][1][1].endswith(", the end")
        long, allowed = page.rows["gaps"][1][2:]
        assert allowed == "15 min"
        hours, minutes = re.fullmatch(r"(\d+) h (\d+) min", long).groups()
        elapsed = (datetime.now(UTC) - NOW) // timedelta(minutes=1)  # the period ends now, and now moves on
        assert 717 <= 60 * int(hours) + int(minutes) <= 718 + elapsed
        assert page.marks("gap") == 8
        assert f"//// no reading since {short(2.9)}: {long} until the end" in page.sections[""]
        assert "10 times the usual interval of this admission's readings (6 s)" in page.sections["gaps"]


def test_the_record_of_a_replay_ends_with_the_patients_clock(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    ward.sealer = Sealer("bed-01", 1, clock=lambda: "synced", now=lambda: START - timedelta(minutes=5))
    for minute in range(0, 60, 10):
        ward.read(minute)
    ward.store.close()
    head = page_of(tmp_path).sections[""]
    assert f"{START:%d %b %Y %H:%M} to {START + timedelta(minutes=50):%d %b %Y %H:%M}" in head
    assert "no reading since" not in head


def test_the_reason_of_the_last_rejection_is_told(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    for minute, reason in ((0, "the first"), (10, "the second"), (5, "told late")):
        ward.read(minute, flags={"spo2": ("jump", reason)})
    ward.store.close()
    page = page_of(tmp_path)
    assert page.rows["artefacts"][1][2:] == ["3", short(0), short(10), "the second"]
    assert "the first is kept, with its time and its reason" in page.sections["artefacts"]


def test_on_scale_2_high_saturations_score_only_while_oxygen_is_given(tmp_path: Path) -> None:
    for name in ("air", "oxygen"):
        ward = Ward(tmp_path / name, spo2_scale=2, monitoring_interval_s=3600.0)
        ward.see(0, "N. Kim", supplemental_oxygen=name == "oxygen", consciousness="A")
        ward.read(0)
        ward.store.close()
    air, oxygen = (page_of(tmp_path / name) for name in ("air", "oxygen"))
    assert "SpO2 scale 2 (hypercapnic respiratory failure, by prescription)" in air.sections[""]
    assert "observations at least every 60 min" in air.sections[""]
    assert air.marks("band-3") == oxygen.marks("band-3") == 6
    assert (air.marks("band-3-on-oxygen"), oxygen.marks("band-3-on-oxygen")) == (0, 1)
    assert air.rows["gaps"][1][2].startswith("12 h 0")
    assert air.rows["gaps"][1][3] == "60 min"


def test_an_empty_store_and_one_that_was_never_judged(tmp_path: Path) -> None:
    ward = Ward(tmp_path / "empty")
    ward.store.close()
    page = page_of(tmp_path / "empty")
    assert "No reading in this period." in page.sections[""]
    assert "NEWS2 --" in page.sections[""]
    assert "bed-01" not in page.sections[""]  # nobody told the device's name: the folder's stands
    assert page.cell("counts", "readings")[0] == "0"
    assert page.rows["gaps"][1][0] == "before anything was read"

    ward = Ward(tmp_path / "past")
    times = [START + timedelta(minutes=minute) for minute in range(0, 700, 20)]
    assert ward.store.add_history(Reading(observed_at=at, **WELL) for at in times) == 35
    ward.store.close()
    page = page_of(tmp_path / "past")
    assert "none of them was judged" in page.sections[""]
    assert page.cell("signs", "pulse /min")[0] == "35"
    assert page.cell("counts", "readings") == ["35", "0 live, 35 of a recording's past"]
    assert [row[0] for row in page.rows["classes"]] == ["no judgement stood"]
    assert page.rows["classes"][0][1].startswith("12 h 0")


def test_a_clock_that_was_set_back_hides_no_judgement(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    ward.see(0, "N. Kim", **SEEN)
    ward.read(700)  # the clock was eleven hours fast
    ward.assessor.forget()
    ward.assessor.take(Reading(observed_at=START, **SEEN), observed=True)
    for minute in range(0, 300, 10):
        ward.read(minute, heart_rate=95.0)
    ward.store.close()
    page = page_of(tmp_path)
    assert page.cell("counts", "judgements")[0] == "31"
    assert page.cell("counts", "times that the clock was set back")[0] == "1"
    stood = {row[0]: row[1] for row in page.rows["classes"]}
    assert stood["low"] == "7 h 50 min"  # the last of them stands for 3 h


def test_a_store_of_the_first_schema(tmp_path: Path) -> None:
    ward = night(tmp_path)
    ward.store.close()
    with sqlite3.connect(ward.folder / FILE) as connection:
        connection.execute("DROP TABLE artefacts")
        connection.execute("ALTER TABLE corrections DROP COLUMN reason")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    page = page_of(tmp_path)
    assert page.rows["corrections"][1][5] == "no reason was kept"
    assert page.cell("counts", "values flagged as artefacts")[0] == "0"


def test_a_damaged_store_and_a_newer_one(ward_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(ward_dir / "admissions", tmp_path / "admissions")
    store = tmp_path / "admissions" / "local" / FILE
    good = store.read_bytes()
    with sqlite3.connect(store) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    newer = run("--data-dir", str(tmp_path), "--out", "-")
    assert newer.returncode == 1
    assert "update samd-edge" in newer.stderr
    for damage in (good[:5000] + b"\xff" * (len(good) - 5000), b"no database at all" * 500):
        store.write_bytes(damage)
        damaged = run("--data-dir", str(tmp_path), "--out", "-")
        assert (damaged.returncode, damaged.stdout) == (1, "")
        assert damaged.stderr.startswith(f"samd-edge report: {store}: is damaged (")
        assert "sqlite3" in damaged.stderr
        assert damaged.stderr.count("\n") == 1
        assert store.read_bytes() == damage  # the report repairs nothing
    store.write_bytes(b"")
    blank = run("--data-dir", str(tmp_path), "--out", "-")
    assert (blank.returncode, "never written" in blank.stderr) == (1, True)


def test_whose_report_it_is_is_never_guessed(tmp_path: Path) -> None:
    nothing = run("--data-dir", str(tmp_path), "--out", "-")
    assert (nothing.returncode, "holds no admission" in nothing.stderr) == (2, True)
    for admission in ("one", "two"):
        ward = Ward(tmp_path, admission=admission)
        ward.read(0, heart_rate=71.0 if admission == "one" else 99.0)
        ward.store.close()
    unclear = run("--data-dir", str(tmp_path), "--out", "-")
    assert unclear.returncode == 2
    assert unclear.stderr == (
        f"samd-edge report: {tmp_path}: no admission is open; give --admission with one of one, two\n"
    )
    page = page_of(tmp_path, "--admission", "two")
    assert page.cell("signs", "pulse /min")[1] == "99"
    wrong = run("--data-dir", str(tmp_path), "--admission", "../two", "--out", "-")
    assert (wrong.returncode, "has no admission '../two'" in wrong.stderr) == (2, True)


# -- the file ------------------------------------------------------------------------------------------------


def test_the_file_is_whole_private_and_only_a_report_is_overwritten(ward_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    for _ in range(2):
        assert run("--data-dir", str(ward_dir), "--out", str(out)).returncode == 0
    assert out.stat().st_mode & 0o777 == 0o600
    assert out.read_text().startswith("<!doctype html>")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    store = ward_dir / "admissions" / "local" / FILE
    before = store.read_bytes()
    for name, said in (
        (store, "exists and is no report"),
        (tmp_path, "is no ordinary file"),
        (tmp_path / "none" / "page.html", "there is no folder"),
    ):
        refused = run("--data-dir", str(ward_dir), "--out", str(name))
        assert (refused.returncode, said in refused.stderr) == (2, True)
    assert store.read_bytes() == before


def test_the_libraries_are_an_extra(ward_dir: Path) -> None:
    for library in ("jinja2", "matplotlib"):
        program = f"""
import sys
sys.modules[{library!r}] = None
from samd_edge.cli import main
sys.exit(main(["report", "--data-dir", {str(ward_dir)!r}, "--out", "-"]))
"""
        ran = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert "pip install './edge_client[report]'" in ran.stderr
        assert ran.stderr.count("\n") == 1


# -- beside a running agent ----------------------------------------------------------------------------------


def test_a_report_while_the_agent_writes(run_agent: Any, wait: Any) -> None:
    agent = run_agent("mqtt://127.0.0.1:1").ready()
    now = datetime.now(UTC)
    signs = {**WELL, "heart_rate": 95.0}
    agent.feed(
        *(Reading(observed_at=now - timedelta(minutes=minute), **signs) for minute in range(50, 0, -10)),
        Reading(observed_at=now, **{**signs, "systolic_bp": 88.0}),
    )
    assert agent.process.stdin is not None
    agent.process.stdin.write(b'{"observed_at": "%s", "spo2": 120}\n' % now.isoformat().encode())
    agent.process.stdin.flush()

    def told() -> dict[str, Any]:
        return control.ask(agent.data_dir, {"ask": "view", "hours": 1})["view"]  # type: ignore[no-any-return]

    # the last one holds nothing that could be taken
    wait(lambda: told()["sources"][0]["readings"] == 7 and told()["sources"][0]["rejected"] == 1, "the feed")
    by = {"type": "observation.add", "by": "N. Kim"}
    control.ask(
        agent.data_dir, {"ask": "do", "body": {**by, "consciousness": "A", "supplemental_oxygen": False}}
    )
    correction = {"field": "systolic_bp", "reason": "cuff too large", "value": 121.0}
    control.ask(agent.data_dir, {"ask": "do", "body": {**by, "correction": correction}})

    page = page_of(agent.data_dir, "--since", "1h")
    assert f"{agent.device}: admission local" in page.sections[""]
    assert "NEWS2 1" in page.sections[""]
    assert page.cell("signs", "pulse /min")[:3] == ["6", "95", "95"]
    assert page.cell("signs", "systolic mmHg")[:3] == ["6", "121", "122"]
    assert page.cell("signs", "systolic mmHg")[-1] == "1"
    assert page.struck == ["88 mmHg"]
    assert page.rows["corrections"][1][3:6] == ["systolic 121 mmHg", "N. Kim", "cuff too large"]
    assert page.rows["observations"][1][1:3] == ["on air, A alert", "N. Kim"] or (
        page.rows["observations"][2][1:3] == ["on air, A alert", "N. Kim"]
    )
    assert page.cell("counts", "times that a value was rejected")[0] == "1"
    assert page.marks("no-value-spo2") == 1
    assert page.marks("struck-systolic_bp") == 1
    assert agent.process.poll() is None
    assert agent.stop() == 0


# -- the arithmetic ------------------------------------------------------------------------------------------


def run_of(
    start: float, low: int, *, last: float | None = None, high: int | None = None, **about: Any
) -> Run:
    band = "high" if low >= 7 else "medium" if low >= 5 else "low"
    severity = 3 if low >= 7 else 2 if low >= 5 else int(low > 0)
    end = start if last is None else last
    known: dict[str, Any] = {"model": -1, "disagreement": False, "possible": severity, **about}
    return Run(start, end, low, low if high is None else high, band, severity, severity=severity, **known)


def history_of(ward_dir: Path, **changes: Any) -> History:
    """A history with its numbers exchanged."""
    store = ward_dir / "admissions" / "local" / FILE
    with opened(store) as connection:
        history = read(connection, store, device="bed", since=0.0, until=100_000.0)
    for name, value in {"before": None, "usual_s": None, "read_at": [], "runs": [], **changes}.items():
        setattr(history, name, value)
    return history


def test_a_judgement_stands_until_the_next_and_no_longer_than_its_values(ward_dir: Path) -> None:
    runs = [run_of(-500.0, 0), run_of(1000.0, 5, last=2000.0), run_of(20_000.0, 1)]
    history = history_of(ward_dir, runs=runs)
    assert [(each.start, each.end) for each in held(history)] == [
        (0.0, 1000.0),
        (1000.0, 2000.0 + 3 * 3600),
        (20_000.0, 20_000.0 + 3 * 3600),
    ]
    times = class_times(history)
    assert (times["0"], times["2"], times["1"]) == (1000.0, 11_800.0, 10_800.0)
    assert times["unjudged"] == 100_000.0 - 23_600.0
    unknown = history_of(ward_dir, runs=[run_of(0.0, 0, high=9, possible=3)], until=60.0)
    assert class_times(unknown)["open"] == 60.0


def test_gaps_are_as_long_as_the_chart_allows_at_that_score(ward_dir: Path) -> None:
    history = history_of(
        ward_dir,
        runs=[run_of(0.0, 7, last=900.0), run_of(1900.0, 5, last=5000.0), run_of(9000.0, 0, last=60_000.0)],
        read_at=[0.0, 900.0, 1900.0, 5500.0, 9200.0, 52_000.0, 52_400.0],
        until=52_400.0 + 43_200.0,
    )
    assert gaps(history) == [Gap(900.0, 1900.0, CONTINUOUS_S), Gap(5500.0, 9200.0, 3600.0)]
    history.monitoring_interval_s = 1800.0
    assert len(gaps(history)) == 5
    history.usual_s = 300.0  # ten times that is 50 min: shorter than the chart's 60, longer than its 15
    history.monitoring_interval_s = None
    assert gaps(history)[:3] == [
        Gap(900.0, 1900.0, CONTINUOUS_S),
        Gap(1900.0, 5500.0, 3000.0),
        Gap(5500.0, 9200.0, 3000.0),
    ]
    assert gaps(history_of(ward_dir, until=20_000.0)) == [Gap(None, 20_000.0, 14_400.0)]
    assert gaps(history_of(ward_dir, before=-100.0, until=20_000.0)) == [Gap(-100.0, 20_000.0, 14_400.0)]


def test_thinning_keeps_the_lowest_and_the_highest_of_each_stretch() -> None:
    times = np.arange(100_000.0)
    values = np.full(100_000, 70.0)
    values[[1234, 77_777]] = 30.0, 210.0
    few_times, few = thinned(times, values, 0.0, 100_000.0)
    assert len(few) <= 2 * COLUMNS
    assert (np.diff(few_times) > 0).all()
    assert few_times[few == 30.0].tolist() == [1234.0]
    assert few_times[few == 210.0].tolist() == [77_777.0]
    same = thinned(times[:100], values[:100], 0.0, 100.0)
    assert same[0] is not None
    assert len(same[1]) == 100


def test_no_line_joins_what_lies_apart() -> None:
    times, values = np.array([0.0, 1.0, 10.0]), np.array([1.0, 2.0, 3.0])
    joins = np.array([True, False])
    assert lonely(joins).tolist() == [False, False, True]
    holed = with_holes(times, values, joins)
    assert holed[0].tolist() == [0.0, 1.0, 10.0, 10.0]
    assert np.isnan(holed[1]).tolist() == [False, False, True, False]


def test_the_worst_of_each_stretch_is_drawn(ward_dir: Path) -> None:
    runs = [run_of(float(second), second % 2) for second in range(0, 20_000, 2)]
    runs[5000] = run_of(10_000.0, 9, high=12, possible=3)
    history = history_of(ward_dir, runs=runs, until=20_000.0)
    drawn = worst(held(history), 0.0, 20_000.0)
    assert len(drawn) <= COLUMNS
    assert [each.run.low for each in drawn if each.start <= 10_000 < each.end] == [9]
    assert max(each.run.high for each in drawn) == 12
    assert sum(each.end - each.start for each in drawn) == 20_000.0


def test_many_readings_are_counted_all_and_drawn_few(tmp_path: Path) -> None:
    """A day and a half at one reading in six seconds, a fortieth of a full store."""
    ward = Ward(tmp_path)
    begin = NOW - timedelta(hours=36)
    past = (
        Reading(
            observed_at=begin + timedelta(seconds=6 * number),
            heart_rate=70.0 + number % 7 if number != 4321 else 155.0,
            spo2=97.0,
        )
        for number in range(20_000)
    )
    assert ward.store.add_history(past) == 20_000
    ward.store.close()
    began = time.monotonic()
    made = run("--data-dir", str(tmp_path), "--since", "7d", "--out", "-")
    assert time.monotonic() - began < 20
    page = Page(made.stdout)
    assert page.cell("signs", "pulse /min")[:3] == ["20000", "70", "155"]
    assert len(made.stdout) < 400_000


def test_every_field_of_a_reading_is_told() -> None:
    from samd_edge.report.people import told

    everything = Reading(observed_at=NOW, **WELL, **SEEN)
    assert told(everything) == (
        "pulse 72 /min, respiration 16 /min, SpO2 97 %, systolic 122 mmHg, temperature 36.9 °C, "
        "diastolic 78 mmHg, on air, A alert"
    )
    assert told(everything, "spo2") == "97 %"
    assert told(Reading(observed_at=NOW)) == "--"
    assert set(FIELDS) == {*WELL, *SEEN}
    assert json.loads(msgspec.json.encode(everything))["consciousness"] == "A"
