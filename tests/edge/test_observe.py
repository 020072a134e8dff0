"""What a person enters and corrects, by command line and by command; and the socket that takes it."""

import json
import os
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samd_data.reading import Reading
from samd_edge.commands import Answer, Refused
from samd_edge.control import FILE, Control, ControlError, ask, listens
from samd_edge.observe_command import data_dir, moment
from samd_edge.store import FILE as STORE
from samd_edge.store import read_readings
from samd_edge.view import AlertView, View
from samd_protocol.messages import Correction, ObservationAdd

NOWHERE = "mqtt://127.0.0.1:1"
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def observe(folder: Path, *arguments: str, by: str = "N. Kim") -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "samd_edge", "observe", "--data-dir", str(folder), "--by", by]
    return subprocess.run([*command, *arguments], check=False, capture_output=True, text=True, timeout=60)


def signs(seconds_ago: float, **values: Any) -> Reading:
    given = values or {
        "heart_rate": 80.0,
        "respiratory_rate": 16.0,
        "spo2": 97.0,
        "systolic_bp": 120.0,
        "temperature": 37.0,
    }
    return Reading(observed_at=datetime.now(UTC) - timedelta(seconds=seconds_ago), **given)


def test_an_observation_completes_the_score(run_agent: Callable[..., Any], wait: Any) -> None:
    agent = run_agent(NOWHERE).ready()
    agent.feed(signs(1))
    wait(lambda: (view := agent.view()) and view["news2"] and view["news2"]["high"] == 5, "a range")
    done = observe(agent.data_dir, "--consciousness", "a", "--oxygen", "no")
    assert (done.returncode, done.stdout) == (0, "done; NEWS2 is now 0 (low)\n"), done.stderr
    done = observe(agent.data_dir, "--consciousness", "V", "--json")
    assert json.loads(done.stdout)["news2"]["total"] == 3
    agent.stop()


def test_a_wrong_value_is_struck_through_with_name_and_reason(
    run_agent: Callable[..., Any], wait: Any
) -> None:
    agent = run_agent(NOWHERE).ready()
    wrong = signs(30, systolic_bp=62.0)
    agent.feed(signs(60), wrong)
    wait(lambda: (view := agent.view()) and view["news2"] and view["news2"]["low"] == 3, "a low pressure")
    done = observe(agent.data_dir, "--correct", "systolic_bp", "--reason", "cuff slipped")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        f"done; struck systolic_bp 62 of {wrong.observed_at:%Y-%m-%dT%H:%M:%SZ}; NEWS2 is now 0-5 "
    ), "the value before it counts again"
    done = observe(
        agent.data_dir, "--correct", "heart_rate", "--value", "118", "--reason", "typed wrong", "--at", "90s"
    )
    assert done.returncode == 1
    assert "no value of heart_rate was measured then" in done.stderr
    done = observe(agent.data_dir, "--correct", "heart_rate", "--value", "118", "--reason", "typed wrong")
    assert done.stdout.startswith("done; struck heart_rate 80 of ")
    assert ", 118 in its place; NEWS2 is now 2-7" in done.stdout
    assert "62" not in done.stdout
    store = agent.data_dir / "admissions" / "local" / STORE
    with sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True) as connection:
        kept = connection.execute("SELECT field, by, reason FROM corrections ORDER BY id").fetchall()
        assert kept == [("systolic_bp", "N. Kim", "cuff slipped"), ("heart_rate", "N. Kim", "typed wrong")]
        assert connection.execute("SELECT COUNT(*) FROM readings").fetchone() == (3,), "nothing is removed"
    connection.close()
    rates = [found.heart_rate for found in read_readings(store) if found.heart_rate is not None]
    assert rates == [118.0], "the trainer never sees what was struck"
    agent.stop()
    again = run_agent(NOWHERE).ready()
    view = wait(lambda: (view := again.view()) and view["news2"] and view, "the score after a restart")
    assert (view["news2"]["low"], view["news2"]["high"]) == (2, 7)
    again.stop()


def test_a_struck_value_that_is_sent_again_stays_struck(run_agent: Callable[..., Any], wait: Any) -> None:
    agent = run_agent(NOWHERE).ready()
    wrong = signs(30, systolic_bp=62.0)
    agent.feed(signs(60), wrong)
    wait(lambda: (view := agent.view()) and view["news2"] and view["news2"]["low"] == 3, "a low pressure")
    assert observe(agent.data_dir, "--correct", "systolic_bp", "--reason", "cuff").returncode == 0
    agent.feed(wrong, signs(0, heart_rate=82.0))
    view = wait(
        lambda: (view := agent.view()) and _sign(view, "heart_rate")["value"] == 82.0 and view, "the newest"
    )
    assert view["news2"]["low"] == 0
    assert _sign(view, "systolic_bp")["value"] == 120.0
    agent.stop()


def test_an_alert_does_not_live_on_a_value_that_was_wrong(
    broker: Any, peer: Any, run_agent: Callable[..., Any], device: str
) -> None:
    agent = run_agent(broker.url).ready()
    agent.feed(signs(5, systolic_bp=62.0, heart_rate=118.0))
    raised = peer.wait(device, "alert").data
    assert (raised.state, raised.news2_low) == ("raised", 5)
    assert observe(agent.data_dir, "--correct", "systolic_bp", "--reason", "cuff slipped").returncode == 0
    cleared = peer.wait(device, "alert", lambda data: data.state == "cleared").data
    assert cleared.alert_id == raised.alert_id, "the pressure is missing now, and its points are not held"
    agent.stop()


def _sign(view: dict[str, Any], field: str) -> dict[str, Any]:
    return next(sign for sign in view["signs"] if sign["field"] == field)


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ([], 2, "nothing to enter"),
        (["--consciousness", "X"], 2, "invalid choice"),
        (["--correct", "pulse", "--reason", "x"], 2, "invalid choice"),
        (["--correct", "spo2"], 2, "a correction carries its reason"),
        (["--correct", "spo2", "--reason", " "], 2, "a correction carries its reason"),
        (["--value", "5"], 2, "belong to a correction"),
        (["--correct", "spo2", "--reason", "x", "--oxygen", "no"], 2, "two things"),
        (["--correct", "spo2", "--value", "much", "--reason", "x"], 2, "spo2 is a number"),
        (["--oxygen", "no", "--at", "yesterday"], 2, "is no time"),
        (["--oxygen", "no", "--at", "2026-01-01T00:00"], 2, "has no zone"),
        (["--correct", "spo2", "--value", "970", "--reason", "x"], 1, "give a number from 30 to 100 %"),
        (["--correct", "spo2", "--reason", "x"], 1, "no value of spo2"),
        (["--oxygen", "no", "--at", "13h"], 1, "more than 12 h ago"),
    ],
)
def test_what_cannot_be_entered_says_why(
    shared_agent: Any, arguments: list[str], code: int, reason: str
) -> None:
    done = observe(shared_agent.data_dir, *arguments)
    assert done.returncode == code
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_an_observation_carries_a_name(shared_agent: Any) -> None:
    done = observe(shared_agent.data_dir, "--oxygen", "no", by=" ")
    assert (done.returncode, "by whom?" in done.stderr) == (1, True)


def test_without_an_agent_it_says_how_to_start_one(tmp_path: Path) -> None:
    done = observe(tmp_path, "--oxygen", "no")
    assert (done.returncode, done.stderr) == (
        2,
        f"samd-edge observe: {tmp_path}: no agent runs here; start it with samd-edge run\n",
    )


def test_only_a_socket_that_answers_is_an_agent(
    tmp_path: Path, run_agent: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = run_agent(NOWHERE).ready()
    root = tmp_path / "root"
    for name in ("bed-01", "bed-02"):  # killed: their sockets are left over
        (root / name).mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(root / name / FILE))
    monkeypatch.setattr("samd_edge.observe_command.DEFAULT_ROOT", root)
    with pytest.raises(ValueError, match=f"^no agent runs in {root}"):
        data_dir(None, None)
    (root / "bed-03").symlink_to(agent.data_dir.absolute())
    assert data_dir(None, None) == root / "bed-03"
    (root / "bed-04").symlink_to(agent.data_dir.absolute())
    with pytest.raises(ValueError, match=r"^2 agents run here \(bed-03, bed-04\)"):
        data_dir(None, None)
    agent.kill()
    assert not listens(agent.data_dir)
    assert (agent.data_dir / FILE).exists()


def test_a_correction_by_command(
    broker: Any, peer: Any, run_agent: Callable[..., Any], device: str, wait: Any
) -> None:
    agent = run_agent(broker.url).ready()
    wrong = signs(5, systolic_bp=61.625)
    agent.feed(wrong)
    seen = peer.wait(device, "assessment", lambda data: data.news2.low == 3).data
    correction = Correction(
        field="systolic_bp", reason="cuff slipped", observed_at=seen.observed_at, value=121
    )
    done = peer.command(device, ObservationAdd(by="nurse-7", correction=correction))
    assert (done.status, done.detail) == ("done", {}), "no vital sign in a result"
    peer.wait(device, "assessment", lambda data: data.news2.points == {"systolic_bp": 0})
    for bad, reason in (
        (msgspec.structs.replace(correction, field="pulse"), "there is no 'pulse' in a reading"),
        (msgspec.structs.replace(correction, reason=""), "a correction carries its reason"),
        (msgspec.structs.replace(correction, value="high"), "give a number from 30 to 300 mmHg"),
        (msgspec.structs.replace(correction, value=True), "give a number from 30 to 300 mmHg"),
        (msgspec.structs.replace(correction, value=1299), "give a number from 30 to 300 mmHg"),
    ):
        refused = peer.command(device, ObservationAdd(by="nurse-7", correction=bad))
        assert (refused.status, reason in refused.reason) == ("rejected", True)
    for value in ("61.625", "high", "1299"):
        assert value not in agent.log, "no vital sign in a log"
    agent.stop()


def test_the_next_patient_without_a_gateway(run_agent: Callable[..., Any], wait: Any) -> None:
    agent = run_agent(NOWHERE).ready()

    def edge(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "samd_edge", arguments[0], "--data-dir", str(agent.data_dir)]
        return subprocess.run(
            [*command, *arguments[1:]], check=False, capture_output=True, text=True, timeout=60
        )

    refused = edge("admit", "stay-2")
    assert (refused.returncode, "discharge first" in refused.stderr) == (1, True)
    done = edge("discharge")
    assert (done.returncode, done.stdout) == (0, "admission local ended; its store is kept, sealed\n")
    assert edge("discharge").returncode == 1
    done = edge("admit", "stay-2", "--spo2-scale", "2", "--monitoring-interval", "3600")
    assert (done.returncode, done.stdout) == (0, "admission stay-2 is open\n"), done.stderr
    agent.feed(signs(0, spo2=90.0))
    view = wait(lambda: (view := agent.view()) and view["news2"] and view, "a score")
    assert (view["admission"], view["spo2_scale"], view["news2"]["points"]) == ("stay-2", 2, {"spo2": 0})
    assert json.loads(edge("discharge", "stay-2", "--erase", "--json").stdout) == {
        "ok": True,
        "admission": "stay-2",
    }
    assert not (agent.data_dir / "admissions" / "stay-2").exists()
    agent.stop()


# -- the socket --------------------------------------------------------------------------------------------


def test_the_socket_is_its_owners_alone_and_goes_with_the_agent(run_agent: Callable[..., Any]) -> None:
    agent = run_agent(NOWHERE).ready()
    path = agent.data_dir / FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    agent.kill()
    assert path.exists()
    with pytest.raises(ControlError, match="no agent answers"):
        ask(agent.data_dir, {"ask": "view"})
    again = run_agent(NOWHERE).ready()
    assert ask(agent.data_dir, {"ask": "view"})["view"]["device"] == again.device
    again.stop()
    assert not path.exists()


def test_a_deep_folder_is_no_obstacle(tmp_path: Path, run_agent: Callable[..., Any]) -> None:
    deep = "/".join(["a-folder-with-a-long-name"] * 6)
    agent = run_agent(NOWHERE, data=deep).ready()
    assert len(os.fsencode(agent.data_dir / FILE)) > 108
    assert ask(agent.data_dir, {"ask": "view"})["ok"]
    agent.stop()


def test_a_line_without_end_ends_the_talk_and_not_the_agent(run_agent: Callable[..., Any]) -> None:
    agent = run_agent(NOWHERE).ready()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(os.path.relpath(agent.data_dir / FILE))
        connection.sendall(b"x" * 200_000)
        assert connection.recv(10) == b""
    assert ask(agent.data_dir, {"ask": "view"})["ok"]
    agent.stop()


def _control(tmp_path: Path) -> Control:
    empty = View(
        at=NOW,
        device="bed-01",
        client_version="0",
        admission=None,
        alert=AlertView(active=False, severity=0),
        link_up=False,
        link="",
        outbox_depth=0,
        dead_letters=0,
        model_version=None,
    )

    def execute(body: Any) -> Answer:
        if not body.by:
            raise Refused("by whom?")
        return Answer(kept=True)

    return Control(tmp_path, view=lambda _hours: empty, execute=execute)


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b'{"ask":"do","body":{"type":"observation.add","by":"k","consciousness":"A"}}', {"kept": True}),
        (b'{"ask":"do","body":{"type":"observation.add","by":""}}', "by whom?"),
        (b'{"ask":"do","body":{"type":"model.activate","version":1}}', "this is no request"),
        (b'{"ask":"do"}', "this is no request"),
        (b'{"ask":"view","hours":0}', "it lies above 0"),
        (b'{"ask":"view","hours":1e9}', "it lies above 0"),
        (b'{"ask":"everything"}', "cannot be asked"),
        (b'{"ask":"view","more":1}', "this is no request"),
        (b"[" * 5000, "this is no request"),
        (b"\xff", "this is no request"),
    ],
)
def test_what_the_socket_answers(tmp_path: Path, line: bytes, answer: object) -> None:
    found = json.loads(_control(tmp_path).answer(line))
    assert found.get("detail") == answer if found["ok"] else str(answer) in found["error"]


@given(st.binary(max_size=200))
def test_whatever_is_asked_is_answered(line: bytes) -> None:
    assert isinstance(json.loads(_control(Path(".")).answer(line))["ok"], bool)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("10m", NOW - timedelta(minutes=10)),
        ("1.5h", NOW - timedelta(minutes=90)),
        ("7d", NOW - timedelta(days=7)),
        ("2026-06-01T13:00:00+02:00", NOW - timedelta(hours=1)),
    ],
)
def test_a_moment(text: str, expected: datetime) -> None:
    assert moment(text, NOW) == expected
