"""`samd-edge infer` as it is typed."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from fhirclient.models.bundle import Bundle

from samd_data.reading import Reading
from samd_data.table import write_csv
from samd_edge.assessment import Assessor
from samd_edge.infer_out import as_text
from samd_protocol import bundle as bundles

COMMAND = (sys.executable, "-m", "samd_edge", "infer")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HEADER = (
    "observed_at,heart_rate,respiratory_rate,spo2,systolic_bp,temperature,supplemental_oxygen,consciousness\n"
)
WELL = "2026-01-01T12:00:00Z,70,16,97,120,37.0,no,A\n"
ILL = "2026-01-01T13:00:00Z,135,26,90,85,39.5,no,A\n"
HALF = "2026-01-02T13:00:00Z,70,16,,,,,\n"
BAD = "2026-01-01T12:30:00Z,999,16,97,120,98.6,no,A\n"


def infer(*arguments: str, said: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        input=said,
        stdin=subprocess.DEVNULL if said is None else None,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture(scope="module")
def trained(untrained_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The untrained weights under a manifest that says trained: what is tested is the command."""
    bundle = bundles.read(untrained_bundle_path)
    manifest = msgspec.structs.replace(bundle.manifest, trained=True, version=3)
    path = tmp_path_factory.mktemp("model") / "model.samd"
    bundles.write(path, msgspec.structs.replace(bundle, manifest=manifest))
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "bed.csv"
    path.write_text(HEADER + WELL + BAD + ILL + HALF)
    return path


def test_json_lines_hold_the_rule_the_model_and_what_is_missing(trained: str, file: Path) -> None:
    done = infer("--model", trained, "--source", f"csv:{file}", "--json")
    assert done.returncode == 0, done.stderr
    well, bad, ill, half = (json.loads(line) for line in done.stdout.splitlines())
    assert (well["news2"]["total"], well["rule_severity"], well["missing"]) == (0, 0, [])
    assert bad["signs"]["heart_rate"] == 70, "a rejected value does not replace the one before"
    assert bad["ages"]["heart_rate"] == 1800
    assert bad["artefacts"] == {"heart_rate": "implausible", "temperature": "implausible"}
    assert (well["artefacts"], ill["artefacts"]) == ({}, {})
    assert (well["due"], well["next_due_at"]) == ([], "2026-01-01T15:00:00Z")
    assert (ill["news2"]["total"], ill["news2"]["points"]["heart_rate"], ill["severity"]) == (14, 3, 3)
    assert half["news2"]["total"] is None
    assert (half["news2"]["low"], half["news2"]["high"]) == (0, 14)
    assert half["stale"] == ["spo2", "systolic_bp", "temperature", "supplemental_oxygen", "consciousness"]
    for line in (well, bad, ill, half):
        assert sum(line["model"]["probabilities"]) == pytest.approx(1, abs=1e-5)
        assert line["model"]["version"] == 3
        assert line["severity"] == max(line["rule_severity"], line["model"]["severity"])
        assert line["disagreement"] == (abs(line["rule_severity"] - line["model"]["severity"]) >= 2)
    assert "4 readings" in done.stderr
    assert "2 rejected" in done.stderr


@pytest.fixture
def ahead(untrained_deterioration_path: Path, tmp_path: Path) -> str:
    bundle = bundles.read(untrained_deterioration_path)
    manifest = msgspec.structs.replace(bundle.manifest, trained=True, version=7)
    path = tmp_path / "ahead.samd"
    bundles.write(path, msgspec.structs.replace(bundle, manifest=manifest))
    return str(path)


def test_a_second_model_answers_at_each_full_hour(trained: str, ahead: str, file: Path) -> None:
    given = ("--model", trained, "--deterioration", ahead, "--source", f"csv:{file}")
    done = infer(*given, "--json")
    assert done.returncode == 0, done.stderr
    first, second, ill, half = (json.loads(line)["deterioration"] for line in done.stdout.splitlines())
    assert (first["asked_at"], first["reason"]) == (
        "2026-01-01T12:00:00Z",
        "nothing that the model reads is known",
    )
    assert second == first, "asked once an hour"
    # at 13:00 the hour of 12 is over: well, and the ill reading of 13:00 is of the next
    assert (ill["asked_at"], ill["version"], ill["horizon_h"]) == ("2026-01-01T13:00:00Z", 7, 6)
    assert 0 < ill["probability"] < 1
    assert (ill["calibration"], ill["possible"]) == ("none", ["stable", "deteriorates"])
    assert half["reason"] == "nothing that the model reads is known", "a day later"
    text = infer(*given).stdout.splitlines()
    assert f"7+ within 6 h of 13:00: {ill['probability']:.2f} (uncalibrated; possible: stable" in text[2]
    alone = infer("--model", trained, "--source", f"csv:{file}", "--json").stdout.splitlines()
    assert all(json.loads(line)["deterioration"] is None for line in alone)
    for wrong in (("--deterioration", trained), ("--deterioration", ahead, "--spo2-scale", "2")):
        refused = infer("--model", trained, "--source", f"csv:{file}", *wrong)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)


def test_text_lines_can_be_read(trained: str, file: Path) -> None:
    done = infer("--model", trained, "--source", f"csv:{file}")
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert len(lines) == 4
    assert "NEWS2 14 " in lines[2]
    assert "rule high" in lines[2]
    assert "heart_rate=3" in lines[2]
    assert "NEWS2 0-14" in lines[3]
    assert "stale: spo2" in lines[3]
    assert all("agree" in line.lower() for line in lines)
    assert "not scored: heart_rate (implausible), temperature (implausible)" in lines[1]


def test_a_range_reads_as_a_range_and_the_possible_is_named() -> None:
    judgement = Assessor().update(Reading(observed_at=NOON, heart_rate=135.0), NOON)
    text = as_text(judgement)
    assert "NEWS2 3-20" in text
    assert "rule low (possibly high)" in text
    assert "model none" in text
    assert "missing: respiratory_rate, spo2" in text


def test_rejects_are_listed_with_file_row_and_column(trained: str, file: Path, tmp_path: Path) -> None:
    rejects = tmp_path / "rejects.jsonl"
    done = infer("--model", trained, "--source", f"csv:{file}", "--rejects", str(rejects))
    assert done.returncode == 0
    listed = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [(entry["row"], entry["column"]) for entry in listed] == [(3, "heart_rate"), (3, "temperature")]
    assert all(entry["file"] == str(file) and entry["remedy"] for entry in listed)


def test_standard_input_is_read_as_csv_or_json_lines(trained: str, file: Path) -> None:
    by_csv = infer("--model", trained, "--source", "-", "--json", said=file.read_text())
    assert len(by_csv.stdout.splitlines()) == 4
    line = '{"observed_at": "2026-01-01T12:00:00Z", "heart_rate": 70}\nnonsense\n'
    by_json = infer("--model", trained, "--source", "-", "--json", said=line)
    assert by_json.returncode == 0
    assert json.loads(by_json.stdout)["news2"]["points"] == {"heart_rate": 0}
    assert "1 rejected" in by_json.stderr


def test_a_live_pipe_is_answered_line_by_line(trained: str) -> None:
    with subprocess.Popen(
        [*COMMAND, "--model", trained, "--source", "-", "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for rate in (70, 71):
            line = {"observed_at": "2026-01-01T12:00:00Z", "heart_rate": rate}
            process.stdin.write(json.dumps(line).encode() + b"\n")
            assert json.loads(process.stdout.readline())["signs"] == {"heart_rate": rate}
        process.stdin.close()
        assert process.wait(30) == 0


def test_a_stray_byte_on_a_pipe_spoils_one_value_and_not_the_pipe(tmp_path: Path) -> None:
    rejects = tmp_path / "rejects"
    header, row = HEADER.encode(), WELL.encode()
    said = header + row.replace(b",97,", b",9\xff7,") + row.replace(b"12:00", b"12:01")
    command = [*COMMAND, "--source", "-", "--json", "--rejects", str(rejects)]
    done = subprocess.run(command, input=said, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    scores = [json.loads(line)["news2"]["total"] for line in done.stdout.splitlines()]
    assert scores == [None, 0]
    assert [json.loads(line)["column"] for line in rejects.read_text().splitlines()] == ["spo2"]


def test_ctrl_c_ends_it_without_a_traceback(trained: str) -> None:
    with subprocess.Popen(
        [*COMMAND, "--model", trained, "--source", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write((HEADER + WELL).encode())
        assert process.stdout.readline()
        process.send_signal(2)
        assert process.wait(30) == 130
        assert b"Traceback" not in process.stderr.read()


def test_a_reader_that_goes_away_is_no_error(trained: str, tmp_path: Path) -> None:
    readings = [Reading(observed_at=NOON + timedelta(minutes=n), heart_rate=70.0) for n in range(2000)]
    write_csv(tmp_path / "long.csv", readings)
    read, write = os.pipe()
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "samd_edge",
            "infer",
            "--model",
            trained,
            "--source",
            f"csv:{tmp_path}/long.csv",
        ],
        stdout=write,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(write)
        os.read(read, 1)
        os.close(read)
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


def test_scale_2_is_an_option(trained: str, tmp_path: Path) -> None:
    file = tmp_path / "bed.csv"
    file.write_text(HEADER + "2026-01-01T12:00:00Z,70,16,89,120,37.0,no,A\n")
    totals = [
        json.loads(infer("--model", trained, "--source", f"csv:{file}", "--json", *more).stdout)["news2"][
            "total"
        ]
        for more in ((), ("--spo2-scale", "2"))
    ]
    assert totals == [3, 0]


def test_a_replay_can_be_judged_too(trained: str, tmp_path: Path) -> None:
    write_csv(tmp_path / "7.csv", [Reading(observed_at=NOON, spo2=90.0)] * 2)
    done = infer("--model", trained, "--source", f"replay:{tmp_path}?patient=7&from=50%", "--json")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_an_untrained_model_only_on_purpose(untrained_bundle_path: Path, file: Path) -> None:
    model = ("--model", str(untrained_bundle_path), "--source", f"csv:{file}")
    refused = infer(*model)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert "never trained" in refused.stderr
    assert "--allow-untrained" in refused.stderr
    assert infer(*model, "--allow-untrained").returncode == 0


def changed_bytes(path: Path, how: str) -> bytes:
    data = path.read_bytes()
    if how == "truncated":
        return data[: len(data) // 2]
    if how == "tampered":
        at = data.index(b"TFL3") + 1000
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    return b"" if how == "empty" else b"PK nonsense"


@pytest.mark.parametrize("how", ["truncated", "tampered", "empty", "no zip"])
def test_a_damaged_model_is_refused_in_one_line(
    untrained_bundle_path: Path, file: Path, tmp_path: Path, how: str
) -> None:
    model = tmp_path / "model.samd"
    model.write_bytes(changed_bytes(untrained_bundle_path, how))
    done = infer("--model", str(model), "--source", f"csv:{file}", "--allow-untrained")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert str(model) in done.stderr


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        ("", "empty"),
        ("a,b\n1,2\n", "observed_at"),
        (HEADER, "held no reading"),
        (HEADER + "yesterday,70,,,,,,\n", "held no reading"),
    ],
)
def test_a_source_without_readings_is_bad_input(
    trained: str, tmp_path: Path, content: str | None, reason: str
) -> None:
    file = tmp_path / "bed.csv"
    if content is not None:
        file.write_text(content)
    done = infer("--model", trained, "--source", f"csv:{file}")
    assert done.returncode == 2
    assert reason in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_rejects_file_that_cannot_be_written_is_bad_input(trained: str, file: Path) -> None:
    done = infer("--model", trained, "--source", f"csv:{file}", "--rejects", "/nowhere/rejects")
    assert done.returncode == 2
    assert "--rejects" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [(), ("bogus",), ("infer",), ("infer", "--spo2-scale", "3")])
def test_wrong_arguments_are_bad_input(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "samd_edge", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "usage: samd-edge" in done.stderr


def test_help_names_every_command_and_loads_none() -> None:
    code = (
        "import sys\nfrom samd_edge.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('numpy', 'paho', 'msgspec') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in ("run", "infer", "models", "doctor"):
        assert f"  {name} " in done.stdout
    assert done.stdout.rstrip().endswith("[]")


def test_many_rows_are_judged_as_one_patient(trained: str, tmp_path: Path) -> None:
    """Each row with the ones before it: the command gives what an assessor gives."""
    readings = [
        Reading(observed_at=NOON + timedelta(minutes=7 * n), **fields)
        for n, fields in enumerate(_rotating(60))
    ]
    write_csv(tmp_path / "7.csv", readings)
    done = infer("--model", trained, "--source", f"csv:{tmp_path / '7.csv'}", "--json")
    assessor = Assessor()
    for reading, line in zip(readings, done.stdout.splitlines(), strict=True):
        expected = assessor.update(reading, reading.observed_at)
        got = json.loads(line)
        assert got["news2"]["points"] == expected.news2.points
        assert (got["news2"]["low"], got["news2"]["high"]) == (expected.news2.low, expected.news2.high)
        assert got["stale"] == list(expected.stale)


def test_without_a_model_the_rule_goes_alone_and_says_so(file: Path) -> None:
    done = infer("--source", f"csv:{file}", "--out", "json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["news2"]["total"] for line in lines] == [0, 0, 14, None]
    assert {line["model"] for line in lines} == {None}
    assert [line["severity"] for line in lines] == [line["rule_severity"] for line in lines]
    assert "the rule alone, without a model" in done.stderr
    assert "model none" in infer("--source", f"csv:{file}").stdout


def test_fhir_lines_are_read_by_another_library(trained: str, file: Path) -> None:
    options = ("--source", f"csv:{file}", "--out", "fhir", "--subject", "Patient/17")
    done = infer("--model", trained, *options, "--score-code", "http://example.org/codes|news2")
    assert done.returncode == 0, done.stderr
    bundles_read = [Bundle(json.loads(line)) for line in done.stdout.splitlines()]
    scores = [bundle.entry[0].resource for bundle in bundles_read]
    assert [score.status for score in scores] == ["final", "final", "final", "preliminary"]
    assert [score.valueQuantity.value for score in scores[:3]] == [0, 0, 14]
    assert (scores[3].valueRange.low.value, scores[3].valueRange.high.value) == (0, 14)
    for bundle in bundles_read:
        risk = bundle.entry[1].resource
        assert sum(one.probabilityDecimal for one in risk.prediction) == pytest.approx(100, abs=1e-3)
        assert risk.method.text.endswith("version 3")
        assert risk.subject.reference == "Patient/17"
        assert bundle.entry[0].resource.code.coding[1].code == "news2"
    alone = infer(*options)
    assert [len(json.loads(line)["entry"]) for line in alone.stdout.splitlines()] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--subject", "Patient/17"), "belongs to --out fhir"),
        (("--score-code", "http://example.org|x", "--json"), "belongs to --out fhir"),
        (("--out", "fhir", "--subject", "bed 3"), "write Patient/ID"),
        (("--out", "fhir", "--score-code", "x"), "write SYSTEM|CODE"),
    ],
)
def test_options_of_fhir_that_do_not_fit_are_bad_input(
    file: Path, options: tuple[str, ...], reason: str
) -> None:
    done = infer("--source", f"csv:{file}", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert reason in done.stderr


def test_a_recording_cannot_stand_beside_a_live_source(file: Path) -> None:
    done = infer("--source", f"csv:{file}", "--source", "fhir:0")
    assert done.returncode == 2
    assert "give it alone" in done.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def live() -> Iterator[Callable[..., tuple[subprocess.Popen[str], list[int]]]]:
    """Start the command on so many FHIR listeners, and wait until it listens."""
    started = []

    def start(*options: str, listeners: int = 1) -> tuple[subprocess.Popen[str], list[int]]:
        ports = [free_port() for _ in range(listeners)]
        sources = [word for port in ports for word in ("--source", f"fhir:{port}")]
        process = subprocess.Popen(
            [*COMMAND, *sources, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stderr is not None
        names = ", ".join(f"fhir:{port}" for port in ports)
        assert (
            process.stderr.readline() == f"samd-edge infer: waiting for readings of {names}; Ctrl-C ends it\n"
        )
        return process, ports

    yield start
    for process in started:
        process.kill()
        process.communicate()


def post(port: int, code: str, value: float, unit: str, at: datetime) -> int:
    content = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
        "effectiveDateTime": at.isoformat(),
        "valueQuantity": {"value": value, "unit": unit},
    }
    return httpx.post(f"http://127.0.0.1:{port}/Observation", json=content, trust_env=False).status_code


def test_live_sources_are_judged_when_they_speak(live: Callable[..., Any], tmp_path: Path) -> None:
    rejects = tmp_path / "rejects"
    process, (first, second) = live("--json", "--rejects", str(rejects), listeners=2)
    now = datetime.now(UTC)
    assert post(first, "8867-4", 80, "/min", now - timedelta(hours=4)) == 201
    assert json.loads(process.stdout.readline())["stale"] == ["heart_rate"], "it is old when it comes"
    assert post(second, "9279-1", 26, "/min", now - timedelta(seconds=30)) == 201
    line = json.loads(process.stdout.readline())
    assert line["news2"]["points"] == {"respiratory_rate": 3}
    assert 30 <= line["ages"]["respiratory_rate"] < 60
    assert post(first, "9279-1", 0, "/min", now) == 422
    assert json.loads(rejects.read_text())["column"] == "respiratory_rate"
    assert post(second, "8867-4", 80, "/min", now) == 201
    assert json.loads(process.stdout.readline())["artefacts"] == {"respiratory_rate": "implausible"}
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert "Traceback" not in process.stderr.read()


def test_live_rejections_are_told_once_a_sort_and_counted_when_ctrl_c_ends_it(tmp_path: Path) -> None:
    file = tmp_path / "bed.csv"
    now = datetime.now(UTC)
    bare = [f"{now - timedelta(minutes=age):%Y-%m-%dT%H:%M:%S},70,16,97,120,37.0,no,A\n" for age in (3, 2)]
    fast = [f"{(now - timedelta(minutes=1)).isoformat()},{rate},,,,,,\n" for rate in (999, 998)]
    good = f"{now.isoformat()},70,16,97,120,37.0,no,A\n"
    file.write_text(HEADER + "".join((*bare, *fast)) + good)
    command = [*COMMAND, "--source", f"csv:{file}?follow=1", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while '"heart_rate": 70' not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    waiting, zone, rate, summary = said.splitlines()
    assert waiting.endswith("Ctrl-C ends it")
    assert zone.startswith(f"samd-edge infer: rejected: {file}:2: observed_at: ")
    assert "time zone" in zone
    assert rate.startswith(f"samd-edge infer: rejected: {file}:4: heart_rate: 999 is outside 15 to 300 /min")
    assert summary.startswith("samd-edge infer: ended; 3 readings; ")
    assert summary.endswith("; 4 rejected (list them with --rejects FILE)")


@pytest.mark.parametrize(
    ("options", "named"), [((), "standard output"), (("--rejects", "/dev/full"), "/dev/full")]
)
def test_a_full_disk_is_told_in_one_line(file: Path, options: tuple[str, ...], named: str) -> None:
    with Path("/dev/full").open("w") as full, Path(os.devnull).open("w") as nowhere:
        done = subprocess.run(
            [*COMMAND, "--source", f"csv:{file}", *options],
            stdout=nowhere if options else full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        f"samd-edge infer: {named}: cannot be written (No space left on device); make room"
    )
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == (2 if options else 1)


def _rotating(count: int) -> list[dict[str, Any]]:
    cycle: list[dict[str, Any]] = [
        {"heart_rate": 70.0},
        {"spo2": 93.0},
        {"respiratory_rate": 25.0},
        {"temperature": 38.5},
        {"systolic_bp": 95.0},
        {"consciousness": "V"},
        {"supplemental_oxygen": True},
    ]
    return [cycle[n % len(cycle)] for n in range(count)]
