"""The command line, inside this process and as a program of its own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from samd_data.cli import main
from samd_data.datasets import open_dataset

HEADER = (
    "observed_at,heart_rate,respiratory_rate,spo2,systolic_bp,temperature,supplemental_oxygen,consciousness\n"
)
ROW = "2026-01-01T00:00:00Z,112,22,95,120,37,true,A\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "ward.csv"
    path.write_text(HEADER + ROW, encoding="utf-8")
    return path


def run(*arguments: str | Path | int) -> int:
    return main([str(argument) for argument in arguments])


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "samd_data.cli", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, **options)


def test_score(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("score", table) == 0
    output = capsys.readouterr()
    assert output.err == ""
    line = json.loads(output.out)
    assert line["observed_at"] == "2026-01-01T00:00:00Z"
    assert (line["total"], line["low"], line["high"], line["band"], line["missing"]) == (7, 7, 7, "high", [])
    assert line["points"]["supplemental_oxygen"] == 2

    assert run("score", table, "--spo2-scale", "2") == 0
    assert json.loads(capsys.readouterr().out)["points"]["spo2"] == 2
    assert run("score", table, "--version", "news") == 0
    assert json.loads(capsys.readouterr().out)["total"] == 7


def test_score_tells_what_it_rejects(table: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with table.open("a", encoding="utf-8") as file:
        file.writelines("2026-01-01T01:00:00Z,0,22,95,120,98.6,true,A\n" for _ in range(6))
        file.write("torn\n")
    assert run("score", table, "--rejects", tmp_path / "rejects.txt") == 0
    output = capsys.readouterr()
    lines = [json.loads(line) for line in output.out.splitlines()]
    assert len(lines) == 7
    assert lines[1]["missing"] == ["heart_rate", "temperature"]
    errors = output.err.splitlines()
    assert len(errors) == 11
    assert errors[0] == (
        f"{table}:3: heart_rate: 0 is outside 15 to 300 /min; "
        "check the leads and leave the cell empty if there was no measurement"
    )
    assert errors[-1] == (
        f"samd-data: rejected 13 values, the first 10 above, all in {tmp_path / 'rejects.txt'}: "
        "heart_rate 6, temperature 6, line 1"
    )
    assert len((tmp_path / "rejects.txt").read_text(encoding="utf-8").splitlines()) == 13


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["ward.csv", "empty", "header"]),
        (b"\n\n", ["ward.csv", "empty"]),
        (HEADER.encode(), ["no reading could be used", "no row below the header"]),
        (b"heart_rate,spo2\n80,97\n", ["ward.csv:1", "no column observed_at"]),
        (b"observed_at;spo2\n", ["ward.csv:1", "commas"]),
        (b"\x89PNG\r\n\x1a\n\x00\xff\xfe", ["ward.csv:1", "no column observed_at"]),
        (
            b"observed_at,spo2\n2026-01-01T00:00:00,97\n",
            ["ward.csv:2: observed_at", "no time zone", "give ISO 8601"],
        ),
        (
            b"observed_at,spo2\n2026-01-01T00:00:00Z,ninety\n",
            ["ward.csv:2: spo2", "'ninety' is not a number"],
        ),
        (b"observed_at,spo2\n2026-01-01T00:00:00Z,970\n", ["ward.csv:2: spo2", "outside 30 to 100"]),
        (
            b"observed_at,temperature\n2026-01-01T00:00:00Z,98.6\n",
            ["ward.csv:2: temperature", "98.6 °F is 37.0 °C"],
        ),
    ],
)
def test_bad_input_is_one_line_that_says_what_and_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, parts: list[str]
) -> None:
    path = tmp_path / "ward.csv"
    path.write_bytes(content)
    assert run("score", path) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("samd-data: ")
    for part in parts:
        assert part in error


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["score", "nowhere.csv"], "nowhere.csv: there is no such file"),
        (["score", "."], "this is a folder"),
        (["describe", "nowhere"], "no such file or folder"),
        (["describe", "EMPTY"], "holds no known data set; looked for clif_vitals.parquet"),
        (["convert", "EMPTY", "--out", "out"], "holds no known data set"),
        (["score", "x.csv", "--spo2-scale", "3"], "invalid choice"),
        (["score", "x.csv", "--version", "news", "--spo2-scale", "2"], "no SpO2 scale 2"),
        (["synthetic", "--patients", "0", "--out", "out"], "'0' is not a whole number from 1"),
        (["synthetic", "--seed", "-1", "--out", "out"], "seed"),
        (["synthetic"], "--out"),
        ([], "COMMAND"),
        (["dance"], "invalid choice"),
    ],
)
def test_wrong_use_is_one_line(
    arguments: list[str],
    part: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert part in error


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("samd-data 0.")
    for command in ([], ["score"], ["datasets"], ["synthetic"], ["convert"], ["describe"]):
        assert main([*command, "--help"]) == 0
        assert "example" in capsys.readouterr().out


def test_datasets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["datasets"]) == 0
    assert "clif-demo" in capsys.readouterr().out
    assert main(["datasets", "--json"]) == 0
    assert {"name", "what", "where", "licence", "command"} == set(json.loads(capsys.readouterr().out)[0])


def test_synthetic_describe_and_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "recordings"
    assert run("synthetic", "--patients", 4, "--hours", 48, "--seed", 3, "--out", out) == 0
    assert len(list(out.iterdir())) == 4
    assert run("synthetic", "--patients", 4, "--hours", 48, "--seed", 3, "--out", out) == 2
    assert "--force" in capsys.readouterr().err
    assert run("synthetic", "--patients", 4, "--hours", 48, "--seed", 3, "--out", out, "--force") == 0
    capsys.readouterr()
    assert run("describe", out, "--json") == 0
    description = json.loads(capsys.readouterr().out)
    assert (description["kind"], description["patients"], description["hours"]) == ("recordings", 4, 4 * 48)
    assert sum(description["severity_of_five_signs"].values()) <= 192
    assert run("describe", out) == 0
    text = capsys.readouterr().out
    assert "4 patients" in text
    assert "severity by five signs" in text
    assert run("score", out / "synthetic-001.csv") == 0
    assert len(capsys.readouterr().out.splitlines()) >= 47


def test_convert_keeps_every_value(
    ed_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("convert", ed_folder, "--out", tmp_path / "out", "--patients", 5) == 0
    output = capsys.readouterr()
    assert "5 recordings from mimic-iv-ed" in output.out
    assert "rejected 3 values" in output.err
    source, converted = open_dataset(ed_folder), open_dataset(tmp_path / "out")
    assert converted.patients() == source.patients()[:5]
    assert converted.rejections == []
    for patient in converted.patients():
        assert converted.recording(patient) == source.recording(patient)


def test_a_live_stream_is_answered_line_by_line() -> None:
    with start("score", "-", "--format", "csv") as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(HEADER)
        for hour in range(3):
            process.stdin.write(f"2026-01-01T0{hour}:00:00Z,{80 + hour},22,95,120,37,true,A\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())  # would hang if the program read ahead
            assert answer["observed_at"] == f"2026-01-01T0{hour}:00:00Z"
        process.stdin.write("2026-01-01T03:00:00Z,0,22,95,120,37,true,A\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["missing"] == ["heart_rate"]
        assert process.stderr.readline().startswith("stdin:5: heart_rate: 0 is outside")
        process.stdin.close()
        assert process.wait(timeout=30) == 0
        assert "rejected 1 value" in process.stderr.read()


def test_a_reader_that_has_enough_is_no_error() -> None:
    with start("score", "-", env={**os.environ, "PYTHONWARNINGS": ""}) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(HEADER + ROW)
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write(ROW)
        process.stdin.close()
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == ""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
def test_ctrl_c() -> None:
    with start("score", "-") as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(HEADER + ROW)
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert process.stderr.read() == ""


def test_bytes_that_are_no_text_on_stdin_spoil_only_their_cell() -> None:
    command = [sys.executable, "-m", "samd_data.cli", "score", "-"]
    content = (HEADER + ROW).encode() + b"2026-01-01T01:00:00Z,\xff\xfe,22,95,120,37,true,A\n"
    done = subprocess.run(command, input=content, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2
    assert b"stdin:3: heart_rate" in done.stderr
