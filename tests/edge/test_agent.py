"""The agent as a process, on a real broker."""

import json
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from samd_data.reading import Reading
from samd_edge.store import AdmissionStore, read_readings
from samd_protocol import envelope, topics
from samd_protocol.messages import (
    Config,
    ModelActivate,
    ObservationAdd,
    PatientAdmit,
    PatientDischarge,
    Report,
    TrainingStart,
)

WELL = {"heart_rate": 75.0, "respiratory_rate": 16.0, "spo2": 98.0, "systolic_bp": 120.0, "temperature": 37.0}
ILL = WELL | {"heart_rate": 135.0, "respiratory_rate": 26.0, "spo2": 90.0}


def now(seconds_ago: float = 0.0, **values: Any) -> Reading:
    return Reading(observed_at=datetime.now(UTC) - timedelta(seconds=seconds_ago), **(values or WELL))


def test_birth_assessment_alert_and_farewell(
    broker: Any, peer: Any, run_agent: Callable[..., Any], device: str, wait: Any
) -> None:
    agent = run_agent(broker.url).ready()
    birth = peer.wait(device, "state").data
    assert (birth.status, birth.connection, birth.model_version) == ("online", 1, None)
    agent.feed(now())
    first = peer.wait(device, "assessment")
    assert (first.data.news2.low, first.data.news2.high, first.data.news2.total) == (0, 5, None)
    assert first.data.missing == ["supplemental_oxygen", "consciousness"]
    assert first.data.signs is None, "no vital sign leaves the device unless the ward opts in"
    assert first.expires_at is not None
    agent.feed(now(**ILL))
    raised = peer.wait(device, "alert").data
    assert (raised.state, raised.severity, raised.news2_low, raised.news2_high) == ("raised", 3, 9, 14)
    agent.feed(now())
    cleared = peer.wait(device, "alert", lambda data: data.state == "cleared").data
    assert (cleared.alert_id, cleared.severity) == (raised.alert_id, 0)
    beat = peer.wait(device, "heartbeat", lambda data: data.reading_age_s is not None).data
    assert beat.interval_s == 0.5
    assert 20 < beat.resident_mb < 120
    assert agent.stop() == 0
    gone = peer.wait(device, "state", lambda data: data.status == "offline")
    assert gone.data.connection == 1
    for sign in ("135", "heart_rate"):
        assert sign not in agent.log, "no vital sign in a log"
    wait(lambda: peer.envelopes(device, "state")[-1].data.status == "offline", "the farewell")


def test_last_will_of_a_killed_agent(
    broker: Any, peer: Any, run_agent: Callable[..., Any], device: str
) -> None:
    agent = run_agent(broker.url).ready()
    birth = peer.wait(device, "state")
    agent.kill()
    will = peer.wait(device, "state", lambda data: data.status == "offline")
    assert (will.boot, will.data.connection, will.data.boot_id) == (birth.boot, 1, birth.data.boot_id)
    peer.forget()
    again = run_agent(broker.url).ready()
    birth = peer.wait(device, "state", lambda data: data.status == "online")
    assert birth.boot == will.boot + 1
    again.stop()


def test_killed_while_it_sends_nothing_is_lost(
    own_broker: Any, listen: Callable[..., Any], run_agent: Callable[..., Any], device: str, wait: Any
) -> None:
    """Readings while the broker is away, kill -9, broker back, kill -9 in the middle of sending, drained."""
    agent = run_agent(own_broker.url).ready()
    for number in range(300):
        agent.feed(now(300 - number, **(ILL if number // 20 % 2 else WELL)))
    store = agent.data_dir / "admissions" / "local" / "store.sqlite"
    wait(lambda: store.exists() and sum(1 for _ in read_readings(store)) == 300, "300 readings in the store")
    agent.kill()
    own_broker.start()
    peer = listen(own_broker)
    for _ in range(2):
        count = len(peer.envelopes(device, "assessment"))
        agent = run_agent(own_broker.url).ready()
        wait(
            lambda count=count: len(peer.envelopes(device, "assessment")) >= count + 20,
            "some of the messages",
        )
        agent.kill()
    agent = run_agent(own_broker.url).ready()
    kept = AdmissionStore(store.parent)
    alerts = {row.message_id for row in kept.alerts_after(0)}
    assert len(alerts) == 14
    assert sum(1 for _ in kept.assessments_after(0)) >= 300

    def missing() -> int:
        arrived = {found.id for kind in ("assessment", "alert") for found in peer.envelopes(device, kind)}
        stored = {row.message_id for row in kept.assessments_after(0)}
        return len((stored | alerts) - arrived)

    wait(lambda: missing() == 0, "every stored assessment and alert, under the id that it was stored with")
    count = len(peer.envelopes(device, "heartbeat"))
    wait(
        lambda: any(beat.data.outbox_depth == 0 for beat in peer.envelopes(device, "heartbeat")[count:]),
        "an empty outbox",
    )
    kept.close()
    agent.stop()


def test_the_broker_goes_away_and_comes_back(
    own_broker: Any, listen: Callable[..., Any], run_agent: Callable[..., Any], device: str, wait: Any
) -> None:
    own_broker.start()
    first = listen(own_broker)
    agent = run_agent(own_broker.url).ready()
    agent.feed(now(10))
    first.wait(device, "assessment")
    own_broker.stop()
    wait(lambda: "ended" in agent.log, "the end of the connection")
    agent.feed(*(now(9 - number / 10, **ILL) for number in range(30)))
    store = agent.data_dir / "admissions" / "local" / "store.sqlite"
    wait(lambda: sum(1 for _ in read_readings(store)) == 31, "assessing goes on without a broker")
    own_broker.start()
    second = listen(own_broker)
    birth = second.wait(device, "state", lambda data: data.status == "online")
    assert birth.data.connection >= 2, "each connection has its own number, in its birth and its last will"
    wait(lambda: len(second.envelopes(device, "assessment")) >= 30, "the outbox drained")
    second.wait(device, "alert", lambda data: data.state == "raised")
    second.forget()
    agent.kill()
    will = second.wait(device, "state", lambda data: data.status == "offline")
    assert will.data.connection == birth.data.connection
    assert agent.log.count("no broker at") <= 1, "an outage is one line"


def test_commands_are_executed_once_and_never_late(
    broker: Any, peer: Any, run_agent: Callable[..., Any], device: str, wait: Any
) -> None:
    agent = run_agent(broker.url).ready()
    peer.wait(device, "state")
    agent.feed(now())
    peer.wait(device, "assessment")
    body = ObservationAdd(by="nurse", consciousness="V", supplemental_oxygen=True)
    result = peer.command(device, body)
    assert result.status == "done"
    seen = peer.wait(device, "assessment", lambda data: data.news2.total is not None).data
    assert seen.news2.total == 5
    # the same message again: the same result, and no second observation
    payload = peer.raw(topics.down(device, "command"))[0]
    before = peer.raw(topics.up(device, "result"))
    peer.send(topics.down(device, "command"), payload)
    wait(lambda: len(peer.raw(topics.up(device, "result"))) == len(before) + 1, "the result again")
    assert peer.raw(topics.up(device, "result"))[-1] == before[0]
    agent.kill()
    agent = run_agent(broker.url).ready()
    peer.send(topics.down(device, "command"), payload)
    wait(lambda: len(peer.raw(topics.up(device, "result"))) >= len(before) + 2, "the result after a restart")
    assert peer.raw(topics.up(device, "result"))[-1] == before[0]
    store = agent.data_dir / "admissions" / "local" / "store.sqlite"
    assert sum(found.consciousness == "V" for found in read_readings(store)) == 1
    expired = peer.command(device, PatientDischarge(admission="local"), seconds=-1.0)
    assert (expired.status, "after its expiry" in expired.reason) == ("expired", True)
    assert peer.command(device, Report()).status == "done"
    agent.stop()


def test_commands_are_refused_with_a_reason(
    broker: Any, peer: Any, run_agent: Callable[..., Any], device: str
) -> None:
    agent = run_agent(broker.url).ready()
    peer.wait(device, "state")
    today = datetime.now(UTC)
    start = TrainingStart(run="r1", task="severity", model_version=0, graph_sha256="0" * 64)
    for body, reason in (
        (start, "opted out"),
        (ModelActivate(version=9), "model 9 is not held here"),
        (ObservationAdd(by="nurse"), "nothing was observed"),
        (ObservationAdd(by=" ", consciousness="A"), "by whom?"),
        (
            ObservationAdd(by="n", consciousness="A", observed_at=today + timedelta(hours=1)),
            "future",
        ),
        (
            ObservationAdd(by="n", consciousness="A", observed_at=today - timedelta(days=1)),
            "12 h",
        ),
        (PatientAdmit(admission="a-2"), "discharge first"),
        (PatientDischarge(admission="other"), "another patient"),
    ):
        result = peer.command(device, body)
        assert result.status == "rejected"
        assert reason in result.reason
    agent.stop()


def test_malformed_messages_stop_nothing(
    broker: Any, peer: Any, run_agent: Callable[..., Any], device: str, wait: Any
) -> None:
    agent = run_agent(broker.url).ready()
    peer.wait(device, "state")
    rubbish = (b"", b"{", b"\x00" * 100, b'{"v": 9}', b"[" * 5000, b'{"v":1,"id":"x"}', b"x" * 300_000)
    for kind in ("command", "config", "task"):
        for payload in rubbish:
            peer.send(topics.down(device, kind), payload)
    peer.say(topics.down(device, "command"), Config(version=1))
    assert peer.command(device, Report()).status == "done"
    agent.stop()
    for kind in ("command", "config", "task"):
        assert agent.log.count(f"a message on {topics.down(device, kind)} was dropped") == 1
    assert "Traceback" not in agent.log


def test_each_admission_has_a_store_of_its_own(
    broker: Any, peer: Any, run_agent: Callable[..., Any], device: str, wait: Any
) -> None:
    agent = run_agent(broker.url).ready()
    peer.wait(device, "state")
    agent.feed(now(**ILL))
    raised = peer.wait(device, "alert").data
    assert peer.command(device, PatientDischarge(admission="local")).status == "done"
    closed = peer.wait(device, "alert", lambda data: data.state == "cleared").data
    assert closed.alert_id == raised.alert_id, "an alert does not outlive its admission"
    sealed = agent.data_dir / "admissions" / "local" / "store.sqlite"
    assert [path.name for path in sealed.parent.iterdir()] == ["store.sqlite"]
    connection = sqlite3.connect(f"{sealed.absolute().as_uri()}?mode=ro", uri=True)
    kept = [
        envelope.decode(body).data for (body,) in connection.execute("SELECT body FROM alerts ORDER BY id")
    ]
    connection.close()
    assert [(alert.alert_id, alert.state) for alert in kept] == [
        (raised.alert_id, "raised"),
        (raised.alert_id, "cleared"),
    ], "and its record says when it ended"
    agent.feed(now(**ILL))
    wait(lambda: "it belongs to nobody" in agent.log, "a reading without a patient")
    assert peer.command(device, PatientAdmit(admission="local")).status == "rejected"
    result = peer.command(device, PatientAdmit(admission="bed-7.b", spo2_scale=2, consent_to_training=True))
    assert result.status == "done"
    peer.forget()
    agent.feed(now(spo2=90.0))
    assessment = peer.wait(device, "assessment").data
    assert (assessment.news2.low, assessment.news2.points) == (0, {"spo2": 0}), (
        "nothing of the patient before"
    )
    assert sum(1 for _ in read_readings(sealed)) == 1
    second = agent.data_dir / "admissions" / "bed-7.b" / "store.sqlite"
    assert sum(1 for _ in read_readings(second)) == 1
    agent.kill()
    agent = run_agent(broker.url).ready()  # the admission is the device's, not the process's
    assert peer.command(device, PatientDischarge(admission="bed-7.b", keep=False)).status == "done"
    assert not second.parent.exists()
    agent.stop()


def test_a_configuration_is_applied_once(
    broker: Any, peer: Any, run_agent: Callable[..., Any], device: str
) -> None:
    agent = run_agent(broker.url).ready()
    peer.wait(device, "config", lambda data: data.version == 0 and data.consent_to_training is False)
    desired = Config(version=3, heartbeat_s=0.2, share_signs=True, consent_to_training=True)
    peer.say(topics.down(device, "config"), desired, retain=True)
    peer.wait(device, "config", lambda data: data == desired)
    peer.wait(device, "heartbeat", lambda data: data.interval_s == 0.2)
    agent.feed(now())
    assert peer.wait(device, "assessment").data.signs == WELL
    peer.command(device, PatientDischarge(admission="local"))
    peer.command(device, PatientAdmit(admission="next"))
    agent.kill()
    peer.forget()
    agent = run_agent(broker.url).ready()
    told = peer.wait(device, "config").data
    assert told.version == 3
    assert told.consent_to_training is False, "the consent of one patient never passes to the next"
    peer.send(topics.down(device, "config"), b"", retain=True)
    agent.stop()


def test_two_agents_in_one_directory(run_agent: Callable[..., Any]) -> None:
    url = "mqtt://127.0.0.1:9"
    agent = run_agent(url).ready()
    other = run_agent(url)
    assert other.wait() == 2
    assert f"an agent is already running here (process {agent.process.pid})" in other.log
    assert "Traceback" not in other.log
    assert agent.stop(signal.SIGINT) == 130


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--device", "bed/01", "--source", "-"], "device 'bed/01'"),
        (["--device", "bed-01", "--source", "csv:/nowhere.csv"], "/nowhere.csv"),
        (["--device", "bed-01", "--source", "-", "--broker", "http://x"], "write mqtt://HOST:PORT"),
        (["--device", "bed-01", "--source", "-", "--model", "/nowhere.samd"], "/nowhere.samd"),
        (["--source", "-"], "no device"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, options: list[str], text: str) -> None:
    command = [sys.executable, "-m", "samd_edge", "run", "--data-dir", str(tmp_path / "d"), *options]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert ended.returncode == 2
    assert ended.stdout == ""
    lines = [line for line in ended.stderr.splitlines() if line.startswith("samd-edge run: ")]
    assert len(lines) == 1
    assert text in lines[0]
    assert "Traceback" not in ended.stderr


def test_the_end_of_a_source(
    broker: Any, peer: Any, run_agent: Callable[..., Any], device: str, tmp_path: Path
) -> None:
    file = tmp_path / "readings.csv"
    rows = ["observed_at,heart_rate,spo2", *(f"2026-01-01T0{h}:00:00Z,{60 + h},97" for h in range(10))]
    file.write_text("\n".join(rows) + "\n")
    agent = run_agent(broker.url, source=f"csv:{file}").ready()
    peer.wait(device, "assessment", lambda data: data.observed_at.hour == 9)
    assert peer.command(device, Report()).status == "done", "the device stays for commands"
    assert peer.envelopes(device, "state")[-1].data.status == "online"
    agent.stop()
    peer.forget()
    agent = run_agent(broker.url, "--exit-at-end", source=f"csv:{file}").ready()
    assert agent.wait() == 0
    store = agent.data_dir / "admissions" / "local" / "store.sqlite"
    assert sum(1 for _ in read_readings(store)) == 10, "a file that is read again is not counted twice"


def test_a_replay_begins_an_admission_with_consent(
    broker: Any, peer: Any, run_agent: Callable[..., Any], device: str, tmp_path: Path
) -> None:
    file = tmp_path / "p1.csv"
    rows = ["observed_at,heart_rate,spo2", *(f"2026-01-01T{h:02}:00:00Z,{60 + h},97" for h in range(20))]
    file.write_text("\n".join(rows) + "\n")
    agent = run_agent(broker.url, source=f"replay:{file}?speed=36000&from=70%").ready()
    peer.wait(device, "config", lambda data: data.consent_to_training is True)
    wall = datetime.now(UTC)
    assessment = peer.wait(device, "assessment")
    assert abs((assessment.data.observed_at - wall).total_seconds()) < 10, "a replay is rebased to now"
    store = agent.data_dir / "admissions" / "recording" / "store.sqlite"
    assert sum(1 for _ in read_readings(store)) >= 15
    agent.kill()
    agent = run_agent(broker.url, "--no-consent", source=f"replay:{file}?speed=36000&from=70%").ready()
    peer.wait(device, "config", lambda data: data.consent_to_training is False)
    agent.stop()
    assert (agent.data_dir / "admissions" / "recording-2").is_dir(), (
        "a replay that begins anew is a new patient"
    )


def test_models_on_the_command_line(
    run_agent: Callable[..., Any], make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    url = "mqtt://127.0.0.1:9"
    for version in (1, 2):
        run_agent(url, "--model", str(make_bundle(version))).ready().stop()
    data = tmp_path / "device"

    def models(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "samd_edge", "models", "--data-dir", str(data), *options]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    def uses() -> list[tuple[int, str | None]]:
        lines = [json.loads(line) for line in models("--json").stdout.splitlines()]
        return [(line["version"], line["use"]) for line in lines]

    assert uses() == [(1, "previous"), (2, "active")]
    assert models("--rollback").returncode == 0
    assert uses() == [(1, "active"), (2, "previous")]
    assert models("--activate", "2").returncode == 0
    missing = models("--activate", "7")
    assert (missing.returncode, "7 is not held" in missing.stderr) == (2, True)
    agent = run_agent(url).ready()
    busy = models("--rollback")
    assert (busy.returncode, "already running" in busy.stderr) == (2, True)
    agent.stop()


def test_signs_go_stale_without_a_new_reading(
    broker: Any, peer: Any, run_agent: Callable[..., Any], device: str, tmp_path: Path
) -> None:
    file = tmp_path / "p1.csv"
    file.write_text("observed_at,heart_rate,spo2\n2026-01-01T00:00:00Z,75,97\n2026-01-03T00:00:00Z,75,97\n")
    agent = run_agent(broker.url, source=f"replay:{file}?speed=7200").ready()
    peer.wait(device, "assessment", lambda data: "heart_rate" in data.news2.points)
    stale = peer.wait(device, "assessment", lambda data: data.stale == ["heart_rate", "spo2"]).data
    assert stale.news2.points == {}
    agent.stop()


@pytest.mark.parametrize("delay_s", [0.3, 0.5, 0.7, 0.9])
def test_ctrl_c_while_it_starts_is_not_lost(tmp_path: Path, delay_s: float) -> None:
    command = [
        sys.executable,
        "-m",
        "samd_edge",
        "run",
        "--device",
        "bed-01",
        "--source",
        "sim:?scenario=well",
    ]
    with subprocess.Popen(
        [*command, "--data-dir", str(tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        threading.Event().wait(delay_s)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (130, -signal.SIGINT)
