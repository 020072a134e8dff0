"""The command line against a real gateway, as a person types it."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from gateway_peers import Device, Gateway, Server, assessment, free_port, until
from rich.console import Console

from samd_gateway.cli import main
from samd_gateway.run_commands import summary
from samd_gateway.tables import devices_table
from samd_protocol.messages import Deterioration, ModelView, News2


@pytest.mark.parametrize(
    "command", [["devices"], ["devices", "watch"], ["runs", "list"], ["runs", "start"], ["runs", "stop", "x"]]
)
def test_a_gateway_that_is_not_there_is_one_sentence(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert main([*command, "--gateway", url]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert url in told
    assert "samd-gateway serve" in told


def test_something_else_that_answers_there(broker_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "--gateway", broker_url]) == 2
    assert "write http://HOST:PORT" in capsys.readouterr().err
    assert main(["devices", "--gateway", broker_url.replace("mqtt", "http")]) == 2
    assert "no gateway answers" in capsys.readouterr().err


def test_a_run_started_and_watched_to_its_end(
    own_broker: str,
    make_gateway: Callable[..., Gateway],
    peers: Callable,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    gateway = make_gateway(own_broker)
    at = ["--gateway", gateway.url]
    assert main(["runs", "start", *at]) == 2
    assert "no server is online" in capsys.readouterr().err
    assert main(["runs", "watch", *at]) == 2
    assert "no run yet" in capsys.readouterr().err

    server = peers(Server(own_broker))
    peers(Device(own_broker, "bed-01"))
    until(lambda: gateway.get("/api/server")["status"] == "online" and gateway.device("bed-01"))
    assert main(["runs", "start", "--rounds", "1", "--quorum", "1", "--seed", "7", "--json", *at]) == 0
    started = json.loads(capsys.readouterr().out)
    assert (started["rounds"], started["quorum"], started["spec"]["seed"]) == (1, 1, 7)
    name = started["id"]
    server.order()
    server.status(name, "training", round=1, rounds=1, replies=1, round_seconds=0.25)
    server.status(name, "done", round=1, rounds=1, model_version=4, released=True, metrics={"macro_f1": 0.5})
    assert main(["runs", "watch", name, *at]) == 0
    told = capsys.readouterr().out
    assert f"{name}: done" in told
    assert "model 4, released" in told
    assert "macro_f1: 0.5000" in told

    assert main(["runs", "start", "--devices", "bed-01", *at]) == 0
    failed = re.match(r"\S+?(?=:)", capsys.readouterr().out).group()
    server.order()
    server.status(failed, "failed", reason="no quorum in round 1")
    assert main(["runs", "watch", "--json", *at]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["reason"] == "no quorum in round 1"
    assert main(["runs", "list", *at]) == 0
    assert failed in capsys.readouterr().out
    assert main(["runs", "stop", failed, *at]) == 2
    assert "has ended already" in capsys.readouterr().err
    described = tmp_path / "run.toml"
    described.write_text(
        'rounds = 3\nquorum = 1\ndevices = ["bed-01"]\n[personalisation]\nmethod = "finetune"'
    )
    assert main(["runs", "start", "--run", str(described), *at]) == 2
    assert "cannot be trained by 'finetune'; choose one of: none" in capsys.readouterr().err
    assert main(["runs", "start", "--run", str(described), "--method", "none", "--json", *at]) == 0
    started = json.loads(capsys.readouterr().out)
    assert (started["rounds"], started["asked"]) == (3, ["bed-01"])
    assert main(["runs", "stop", started["id"], *at]) == 0
    capsys.readouterr()
    described.write_text("round = 3")
    assert main(["runs", "start", "--run", str(described), *at]) == 2
    assert capsys.readouterr().err.startswith(f"samd-gateway: {described}: round is not known; did you mean")
    assert main(["runs", "start", "--strategy", "Krum", *at]) == 2
    assert "Krum as set needs 5 replies" in capsys.readouterr().err
    assert main(["runs", "start", "--rounds", "0", *at]) == 2
    assert capsys.readouterr().err == "samd-gateway: rounds is 0: it must lie between 1 and 10000\n"


def test_devices_as_table_and_as_json(
    broker_url: str, shared_gateway: Gateway, peers: Callable, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    peers(Device(broker_url, name)).assess(4)
    until(lambda: (found := shared_gateway.device(name)) and found["assessment"])
    at = ["--gateway", shared_gateway.url]
    assert main(["devices", "--json", *at]) == 0
    assert name in [each["name"] for each in json.loads(capsys.readouterr().out)["devices"]]
    assert main(["devices", *at]) == 0
    assert name in capsys.readouterr().out
    assert main(["devices", "--gateway", shared_gateway.url, "watch", "--for", "0.1"]) == 0
    assert name in capsys.readouterr().out


def test_the_table_says_what_is_missing_and_what_is_past(
    broker_url: str, shared_gateway: Gateway, peers: Callable, name: str
) -> None:
    device = peers(Device(broker_url, name))
    complete = News2(
        total=7,
        low=7,
        high=7,
        band="high",
        points={
            "respiratory_rate": 3,
            "spo2": 2,
            "supplemental_oxygen": 2,
            "systolic_bp": 0,
            "heart_rate": 0,
            "consciousness": 0,
            "temperature": 0,
        },
        missing=[],
    )
    model = ModelView(severity=1, probabilities=[0.1, 0.6, 0.2, 0.1], version=3)
    device.send(
        f"samd/v1/d/{name}/up/assessment",
        assessment(news2=complete, rule_severity=3, severity=3, model=model, disagreement=True, missing=[]),
    )
    found = until(lambda: (one := shared_gateway.device(name)) and one["assessment"] and one)

    def text(*devices: dict) -> str:
        console = Console(width=200, no_color=True)
        with console.capture() as capture:
            console.print(devices_table(devices))
        return capture.get()

    shown = text(found)
    for cell in ("7 high", "RR3 SpO22 O22 BP0 HR0 C0 T0", "1-4 60%", "disagree"):
        assert cell in shown
    for asked, cell in (
        ({"probability": 0.314, "possible": ["stable"], "calibration": "temperature"}, " 31% "),
        ({"probability": 0.62}, " ~62% "),
        ({"reason": "7 or more is reached already"}, " ? "),
    ):
        ahead = Deterioration(asked_at=datetime.now(UTC), horizon_h=6, version=2, **asked)
        device.send(f"samd/v1/d/{name}/up/assessment", assessment(deterioration=ahead))
        wanted = ahead.probability
        told = until(
            lambda wanted=wanted: (
                (one := shared_gateway.device(name))
                and (said := one["assessment"]["deterioration"])
                and said["probability"] == wanted
                and one
            )
        )
        assert told["assessment"]["deterioration"]["reason"] == ahead.reason
        assert told["assessment"]["deterioration"]["horizon_h"] == 6
        assert cell in text(told)
    device.assess(4)
    partial = until(
        lambda: (one := shared_gateway.device(name)) and one["assessment"]["news2"]["low"] == 4 and one
    )
    shown = text(partial)
    for cell in ("4–9", "C?", "T?", "no model"):
        assert cell in shown


def test_the_summary_of_a_run_names_what_was_refused() -> None:
    told = summary(
        {
            "id": "run-1",
            "state": "failed",
            "reason": "too few",
            "rejected": [{"device": "a", "reason": "too hot"}],
            "history": [],
            "model_version": None,
            "released": False,
            "metrics": {},
        }
    )
    assert told == "run-1: failed, too few\nrejected: a (too hot)"
