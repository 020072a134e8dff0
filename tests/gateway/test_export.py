"""Exports: exact content in each format, safe in a spreadsheet, light whatever their length."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from fhir.resources.R4B.observation import Observation as Strict
from fhirclient.models.observation import Observation
from gateway_peers import Gateway, until
from postgres import PostgreSQL

from samd_gateway import export, export_kinds, schema
from samd_gateway.access import audit
from samd_gateway.access.actor import SYSTEM
from samd_gateway.errors import UsageError

NOON = 1_760_000_400.0
ILL: dict[str, Any] = {
    "news2": {
        "total": 9,
        "low": 9,
        "high": 9,
        "band": "high",
        "points": {
            "respiratory_rate": 3,
            "spo2": 3,
            "supplemental_oxygen": 0,
            "systolic_bp": 1,
            "heart_rate": 2,
            "consciousness": 0,
            "temperature": 0,
        },
        "missing": [],
    },
    "signs": {
        "respiratory_rate": 26.0,
        "spo2": 90.0,
        "supplemental_oxygen": False,
        "systolic_bp": 95.0,
        "diastolic_bp": 60.0,
        "heart_rate": 115.0,
        "consciousness": "A",
        "temperature": 36.5,
    },
    "model": {"severity": 3, "probabilities": [0.0, 0.1, 0.2, 0.7], "version": 4, "personal": False},
}


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[schema.Database]:
    if request.param == "sqlite":
        opened = schema.open_database(None, tmp_path)
    else:
        server: PostgreSQL = request.getfixturevalue("postgresql")
        opened = schema.open_database(server.create(), tmp_path, password_file=str(server.password_file))
    yield opened
    opened.close()


def row(number: int, at: float, *, device: str = "bed-01", **more: Any) -> dict[str, Any]:
    body = {
        "type": "assessment",
        "observed_at": datetime.fromtimestamp(at, UTC).isoformat(),
        "news2": {
            "total": None,
            "low": 3,
            "high": 8,
            "band": "low",
            "points": {"heart_rate": 1, "spo2": 2},
            "missing": ["consciousness", "temperature"],
        },
        "rule_severity": 1,
        "rule_severity_possible": 3,
        "severity": 1,
        "disagreement": False,
        "model": None,
        "missing": ["consciousness", "temperature"],
        "stale": [],
        "reading_age_s": 2.0,
        "signs": None,
        "artefacts": {},
        "due": [],
        "next_due_at": None,
        "deterioration": None,
    } | more
    return {
        "device": device,
        "id": f"m{number:06}",
        "kind": "assessment",
        "boot": 1,
        "seq": number,
        "received_at": at + 1,
        "sent_at": at,
        "body": json.dumps(body),
    }


def insert(database: schema.Database, table: Any, *rows: dict[str, Any]) -> None:
    with database.write() as connection:
        connection.execute(table.insert(), list(rows))


def exported(database: schema.Database, kind: Any, format_: Any = "csv", **more: Any) -> str:
    asked = export.Asked(kind=kind, format=format_, **more)
    return b"".join(export.lines(database, asked, NOON + 1e6, {})).decode()


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_assessments_as_csv(database: schema.Database) -> None:
    insert(database, schema.messages, row(1, NOON), row(2, NOON + 60, **ILL, severity=3))
    first, second = table(exported(database, "assessments"))
    assert tuple(first) == export_kinds.ASSESSMENT_COLUMNS
    assert {name: value for name, value in first.items() if value} == {
        "device": "bed-01",
        "id": "m000001",
        "received_at": "2025-10-09T09:00:01+00:00",
        "sent_at": "2025-10-09T09:00:00+00:00",
        "observed_at": "2025-10-09T09:00:00+00:00",
        "news2_low": "3",
        "news2_high": "8",
        "news2_band": "low",
        "news2_points_heart_rate": "1",
        "news2_points_spo2": "2",
        "rule_severity": "1",
        "rule_severity_possible": "3",
        "severity": "1",
        "disagreement": "false",
        "missing": "consciousness temperature",
        "reading_age_s": "2.0",
    }  # a missing total is an empty cell, never a 0
    assert second["news2_total"] == "9"
    assert second["model_probabilities_3"] == "0.7"
    assert second["signs_spo2"] == "90.0"
    assert second["signs_supplemental_oxygen"] == "false"


def test_assessments_as_json_are_what_the_device_said(database: schema.Database) -> None:
    insert(database, schema.messages, row(1, NOON, **ILL))
    (line,) = exported(database, "assessments", "json").splitlines()
    record = json.loads(line)
    assert record["news2"] == ILL["news2"]
    assert record["signs"] == ILL["signs"]
    assert record["device"] == "bed-01"
    assert record["admission"] is None


def test_only_what_was_asked_for(database: schema.Database) -> None:
    insert(
        database,
        schema.messages,
        *(row(number, NOON + number, device=f"bed-{number % 2}") for number in range(10)),
        row(99, NOON) | {"kind": "result"},
    )
    found = table(exported(database, "assessments", device="bed-1", since=NOON + 4, until=NOON + 8))
    assert [each["id"] for each in found] == ["m000003", "m000005", "m000007"]
    with pytest.raises(UsageError, match="since lies after until"):
        exported(database, "assessments", since=2.0, until=1.0)
    with pytest.raises(UsageError, match="format fhir"):
        exported(database, "alerts", "fhir")
    with pytest.raises(UsageError, match="leave out since"):
        exported(database, "devices", since=1.0)


@pytest.mark.parametrize("kind", ["assessments", "health", "hours", "audit", "devices", "alerts"])
def test_pages_meet_without_a_gap_or_a_row_twice(
    database: schema.Database, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where many rows have the same time, and where the last page is full."""
    monkeypatch.setattr(export, "PAGE_ROWS", 7)
    if kind == "assessments":
        insert(
            database,
            schema.messages,
            *(row(number, NOON + number // 5, device=f"bed-{number % 3}") for number in range(42)),
        )
        key: tuple[str, ...] = ("id",)
    elif kind == "health":
        insert(
            database,
            schema.health,
            *(
                {"device": f"bed-{n % 6}", "at": NOON + 300 * (n // 6), "span_s": 300, "beats": 1}
                for n in range(42)
            ),
        )
        key = ("device", "at")
    elif kind == "hours":
        rows = (
            {"device": f"bed-{n % 6}", "hour": 3600.0 * (n // 6), "count": 1, "disagreements": 0}
            for n in range(42)
        )
        insert(database, schema.assessment_hours, *rows)
        key = ("device", "hour")
    elif kind == "devices":
        insert(database, schema.devices, *({"name": f"bed-{n:02}"} for n in range(42)))
        key = ("name",)
    elif kind == "alerts":
        common = {"kind": "severity", "state": "cleared", "changed_at": NOON, "step": 0}
        rows = (
            common | {"id": f"a{n:02}", "device": "bed-01", "source_id": str(n), "raised_at": NOON + n // 10}
            for n in range(42)
        )
        insert(database, schema.alerts, *rows)
        key = ("id",)
    else:
        with database.write() as connection:
            for number in range(42):
                audit.record(connection, SYSTEM, "test.entry", f"n/{number}", now=NOON, after={"n": number})
        key = ("id",)
    for format_ in ("csv", "json"):
        text = exported(database, kind, format_)
        found = table(text) if format_ == "csv" else [json.loads(line) for line in text.splitlines()]
        keys = [tuple(each[name] for name in key) for each in found]
        assert len(keys) == 42
        assert len(set(keys)) == 42


def test_a_cell_is_no_formula(database: schema.Database) -> None:
    alert = {"device": "bed-01", "kind": "severity", "source_id": "1", "state": "cleared", "step": 0}
    note = '=HYPERLINK("http://example.org","x")'
    values = {"id": "a1", "raised_at": NOON, "changed_at": NOON, "note": note, "acknowledged_by": "@SUM(1)"}
    insert(
        database,
        schema.alerts,
        alert | values | {"reason": 'line one\nline "two", three', "pause_reason": "-1+1"},
    )
    (found,) = table(exported(database, "alerts"))
    assert found["note"] == "'" + note
    assert found["acknowledged_by"] == "'@SUM(1)"
    assert found["pause_reason"] == "'-1+1"
    assert found["reason"] == 'line one\nline "two", three'
    (exact,) = [json.loads(line) for line in exported(database, "alerts", "json").splitlines()]
    assert exact["note"] == note


@pytest.mark.parametrize("value", ["=1", "+1", "-1", "@a", "\t=1", "\r=1", "\n=1"])
def test_text_that_begins_like_a_formula_is_kept_from_being_one(value: str) -> None:
    assert export.cell(value) == f"'{value}"


@pytest.mark.parametrize(
    ("value", "cell"), [(-1.5, -1.5), (0, 0), (None, ""), (True, "true"), ("a=1", "a=1")]
)
def test_other_values_stay_as_they_are(value: Any, cell: Any) -> None:
    assert export.cell(value) == cell


# FHIR


def admitted(database: schema.Database, scale: int = 1, **more: Any) -> None:
    times = {"admitted_at": NOON, "admitted_by": "n.kim", "consent_to_training": False}
    place = {"state": "active", "boot": 1, "seq": 0, "bed": "", "ward": ""}
    insert(
        database,
        schema.admissions,
        {"id": "adm-7", "device": "bed-01", "spo2_scale": scale} | times | place | more,
    )


def observations(database: schema.Database) -> list[dict[str, Any]]:
    """Read back strictly by two libraries, nothing lost."""
    lines = exported(database, "assessments", "fhir").splitlines()
    found = [json.loads(line) for line in lines]
    for each in found:
        assert Observation(each).as_json() == each
        Strict.model_validate(each)
    return found


def test_a_complete_score_as_fhir(database: schema.Database) -> None:
    admitted(database)
    insert(database, schema.messages, row(1, NOON, **ILL))
    score, *signs = observations(database)
    assert score["status"] == "final"
    assert score["valueQuantity"]["value"] == 9
    assert score["code"]["coding"][0]["code"] == "1104051000000101"
    assert score["subject"] == {"identifier": {"system": "urn:samd:admission", "value": "adm-7"}}
    assert score["effectiveDateTime"] == "2025-10-09T09:00:00+00:00"
    points = [part["valueQuantity"]["value"] for part in score["component"]]
    assert points == [3, 3, 0, 1, 2, 0, 0]
    assert [
        (each["code"]["coding"][0]["code"], each.get("valueQuantity", {}).get("value")) for each in signs
    ] == [
        ("8867-4", 115.0),
        ("9279-1", 26.0),
        ("59408-5", 90.0),
        ("8310-5", 36.5),
        ("85354-9", None),
        ("67775-7", None),
    ]
    assert [part["valueQuantity"]["value"] for part in signs[4]["component"]] == [95.0, 60.0]
    assert len({each["id"] for each in (score, *signs)}) == 7


def test_an_incomplete_score_is_a_range_and_says_what_is_missing(database: schema.Database) -> None:
    insert(database, schema.messages, row(1, NOON, stale=["temperature"], artefacts={"systolic_bp": "flat"}))
    (score,) = observations(database)  # no signs were shared
    assert score["status"] == "preliminary"
    assert "valueQuantity" not in score
    assert (score["valueRange"]["low"]["value"], score["valueRange"]["high"]["value"]) == (3, 8)
    assert "subject" not in score  # nobody was admitted
    by_text = {part["dataAbsentReason"]["text"] for part in score["component"] if "dataAbsentReason" in part}
    assert by_text == {
        "it is missing",
        "its last value is too old",
        "the newest value is not scored: flat",
    }
    assert [part["code"].get("text") for part in score["component"]][1] == (
        "NEWS2 oxygen saturation score, scale not known"
    )


def test_the_scale_is_the_one_that_was_prescribed(database: schema.Database) -> None:
    admitted(database, scale=2)
    insert(database, schema.messages, row(1, NOON, **ILL))
    score = observations(database)[0]
    assert score["component"][1]["code"]["coding"][0]["code"] == "1104321000000108"


def test_what_came_after_a_discharge_names_nobody(database: schema.Database) -> None:
    admitted(database, state="ended", end_boot=1, end_seq=5)
    insert(database, schema.messages, row(4, NOON), row(5, NOON + 1), row(6, NOON + 2))
    assert ["subject" in each for each in observations(database)] == [True, False, False]


def test_a_doubtful_sign_is_no_vital_sign(database: schema.Database) -> None:
    insert(database, schema.messages, row(1, NOON, **ILL, stale=["spo2"], artefacts={"heart_rate": "jump"}))
    codes = {each["code"]["coding"][0]["code"] for each in observations(database)}
    assert codes.isdisjoint({"59408-5", "8867-4"})
    assert "9279-1" in codes


# length


ROWS = 100_000


@pytest.fixture(scope="module")
def long_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    database = schema.open_database(None, folder)
    example = row(0, NOON)
    for begin in range(0, ROWS, 10_000):
        numbers = range(begin, begin + 10_000)
        insert(
            database,
            schema.messages,
            *(example | {"id": f"m{n:06}", "seq": n, "received_at": NOON + n / 100} for n in numbers),
        )
    database.close()
    return folder


@pytest.mark.parametrize(
    ("format_", "until_s", "expected"), [("csv", 1000.0, ROWS + 1), ("fhir", 200.0, 20_001)]
)
def test_memory_does_not_grow_with_the_length(
    long_folder: Path, format_: Any, until_s: float, expected: int
) -> None:
    database = schema.open_database(None, long_folder)
    asked = export.Asked(kind="assessments", format=format_, until=NOON + until_s)
    pieces = export.lines(database, asked, NOON + 1e6, {})
    first = next(pieces)
    lines, length = first.count(b"\n"), len(first)
    process = psutil.Process()
    before = peak = process.memory_info().rss
    for piece in pieces:
        lines += piece.count(b"\n")
        length += len(piece)
        peak = max(peak, process.memory_info().rss)
    database.close()
    assert lines == expected
    assert length > 15e6
    assert peak - before < length / 2


def test_a_reader_that_leaves_in_the_middle_leaves_nothing_behind(
    broker_url: str, make_gateway: Callable[..., Gateway], long_folder: Path
) -> None:
    gateway = make_gateway(broker_url, "--name", "export", data=str(long_folder))
    process = psutil.Process(gateway.process.popen.pid)
    for _ in range(25):  # more than the connections that the gateway has to its database
        with gateway.http.stream("GET", "/api/export/assessments?format=json") as response:
            assert response.status_code == 200
            assert response.headers["content-type"] == "application/x-ndjson"
            next(response.iter_bytes())
    before = process.memory_info().rss
    with gateway.http.stream("GET", "/api/export/assessments?format=json", timeout=120) as response:
        lines = sum(piece.count(b"\n") for piece in response.iter_bytes())
    assert lines == ROWS
    assert process.memory_info().rss - before < 60e6
    assert gateway.get("/healthz")["status"] == "ok"
    database = schema.open_database(None, long_folder)  # nobody holds it
    insert(database, schema.tags, {"device": "bed-01", "tag": "written"})
    database.close()
    entries = gateway.get("/api/audit", action="data.export")["entries"]
    assert len(entries) == 26
    assert entries[0]["target"] == "export/assessments"


def test_an_export_that_breaks_off_leaves_no_file(
    broker_url: str, make_gateway: Callable[..., Gateway], long_folder: Path, tmp_path: Path
) -> None:
    """The gateway is killed while the command reads."""
    gateway = make_gateway(broker_url, "--name", "export", data=str(long_folder))
    file = tmp_path / "out.ndjson"
    arguments = ["export", "assessments", "--format", "json", "--gateway", gateway.url, "--out", str(file)]
    reader = subprocess.Popen(
        [sys.executable, "-m", "samd_gateway", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    part = tmp_path / ".out.ndjson.part"
    until(lambda: part.exists() and part.stat().st_size > 100_000, seconds=60)
    gateway.process.popen.kill()
    _, error = reader.communicate(timeout=60)
    assert reader.returncode == 2, error
    assert "no gateway answers" in error
    assert list(tmp_path.glob("*out*")) == []


def test_the_command_writes_a_file_and_a_summary(
    broker_url: str, make_gateway: Callable[..., Gateway], long_folder: Path, tmp_path: Path
) -> None:
    gateway = make_gateway(broker_url, "--name", "export", data=str(long_folder))
    file = tmp_path / "out.csv"

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "samd_gateway",
                "export",
                "assessments",
                "--gateway",
                gateway.url,
                *arguments,
            ],
            check=False,
            capture_output=True,
            text=True,
            timeout=90,
        )

    done = command("--until", "2025-10-09T09:00:09Z", "--out", str(file), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"file": str(file), "bytes": file.stat().st_size, "lines": 902}
    assert file.stat().st_mode & 0o777 == 0o600
    assert command("--out", str(file)).returncode == 2  # exists
    bad = command("--since", "yesterday")
    assert bad.returncode == 2
    assert "'yesterday' is no time" in bad.stderr
    wrong = gateway.http.get("/api/export/alerts", params={"format": "fhir"})
    assert (wrong.status_code, wrong.headers["content-type"]) == (422, "application/problem+json")
