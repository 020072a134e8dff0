"""Tracking: numbers alone, no run lost by a tracker that fails; runs listed, shown, compared and drawn."""

import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from samd_protocol.messages import RunOrder, RunSpec
from samd_server import tracking
from samd_server.checkpoint import RunFolder
from samd_server.cli import main
from samd_server.errors import ServerError
from samd_server.tracking import Tracking
from samd_server.tracking.background import Background
from samd_server.tracking.history import all_of, one
from samd_server.tracking.jsonl import JsonLines
from samd_server.tracking.records import Point, metrics_of, points

RECORDS: list[dict[str, Any]] = [
    {
        "event": "counted",
        "label_counts": [3, 2, 1, 0],
        "devices": 2,
        "by_device": {"bed-01": {"label_counts": [2, 1, 0, 0]}, "bed-02": {"label_counts": [1, 1, 1, 0]}},
    },
    {
        "event": "round",
        "round": 1,
        "loss": 1.25,
        "replies": 2,
        "seconds": 0.5,
        "dropped": {"bed-03": "device: Mrs X unplugged it"},
        "by_device": {"bed-01": {"loss": 1.5, "label_counts": [2, 1, 0, 0]}, "bed-02": {"loss": 1.0}},
    },
    {
        "event": "round",
        "round": 2,
        "loss": 0.75,
        "replies": 1,
        "seconds": 0.25,
        "by_device": {"bed-01": {"loss": 0.75}},
    },
    {
        "event": "personalised",
        "method": "ditto",
        "by_device": {
            "bed-01": {"adopted": True, "reason": "no worse", "grid_recall": 0.95, "macro_f1": None}
        },
    },
    {
        "event": "candidate",
        "round": 2,
        "released": True,
        "reason": "it passes",
        "metrics": {"complete": {"macro_f1": 0.5, "recall": {}}},
    },
]


def test_the_numbers_of_a_record_and_nothing_else() -> None:
    assert list(points(RECORDS[1])) == [
        Point(
            None, 1, {"round/loss": 1.25, "round/replies": 2.0, "round/seconds": 0.5, "round/dropped": 1.0}
        ),
        Point("bed-01", 1, {"round/loss": 1.5}),
        Point("bed-02", 1, {"round/loss": 1.0}),
    ]
    assert list(points(RECORDS[3])) == [
        Point("bed-01", 0, {"personalised/adopted": 1.0, "personalised/grid_recall": 0.95})
    ]
    assert list(points(RECORDS[4])) == [
        Point(None, 2, {"candidate/released": 1.0, "candidate/complete_macro_f1": 0.5})
    ]
    assert (
        list(points({"event": "odd", "loss": float("nan"), "by_device": {"a": {"loss": float("inf")}}})) == []
    )


def test_what_a_device_says_is_bounded() -> None:
    said = {
        "personal_loss": 0.5,
        "heart_rate": 80.0,
        "alpha": 1,
        "Mrs X": 1.0,
        "heart\nrate": 80.0,
        "loss": float("nan"),
        "x" * 60: 1.0,
    }
    assert metrics_of(said) == {"personal_loss": 0.5, "alpha": 1.0}
    assert len(metrics_of({f"m{number}": 1.0 for number in range(99)})) == 16


class Broken:
    """A tracker of which a part fails."""

    def __init__(self, at: str) -> None:
        self.at = at
        self.heard: list[str] = []

    def begin(self, run: str, config: Mapping[str, Any]) -> None:
        self._hear("begin")

    def log(self, record: Mapping[str, Any]) -> None:
        self._hear("log")

    def end(self) -> None:
        self._hear("end")

    def _hear(self, what: str) -> None:
        self.heard.append(what)
        if what == self.at:
            raise RuntimeError("no network")


def test_a_tracker_that_fails_is_left_out_and_the_lines_are_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken, sound = Broken("log"), Broken("never")
    several = Tracking(JsonLines(RunFolder(tmp_path, "run-1")), broken, sound)
    several.begin("run-1", {})
    with caplog.at_level(logging.WARNING):
        for record in RECORDS:
            several.log(record)
    several.end()
    assert broken.heard == ["begin", "log"]
    assert sound.heard == ["begin", *["log"] * 5, "end"]
    assert [record.getMessage() for record in caplog.records] == [
        "Broken fails (RuntimeError: no network); this run goes on without it, its metrics.jsonl is whole"
    ]
    lines = (tmp_path / "run-1" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == [record["event"] for record in RECORDS]


def test_a_tracker_that_hangs_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    goes_on = threading.Event()

    class Hanging(Broken):
        def log(self, record: Mapping[str, Any]) -> None:
            goes_on.wait(20)

    behind = Background(Hanging("never"), patience_s=0.05)
    behind.begin("run-1", {})
    for record in RECORDS:
        behind.log(record)
    with caplog.at_level(logging.WARNING):
        behind.end()
    assert [record.getMessage() for record in caplog.records] == [
        "Hanging has not written all within 0.05 s; the run's metrics.jsonl is whole"
    ]
    goes_on.set()


def test_an_unknown_tracker_is_refused_before_the_server_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ServerError, match="tracking 'mlflow' is not known; choose of: tensorboard, wandb"):
        tracking.check(["mlflow"])
    assert main(["run", "--track", "mlflow", "--data", str(tmp_path)]) == 2
    assert "choose of: tensorboard, wandb" in capsys.readouterr().err


def test_one_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'tensorboardX'", name="tensorboardX")

    monkeypatch.setattr(tracking, "import_module", absent)
    with pytest.raises(ServerError, match=r"needs tensorboardX: pip install 'samd-server\[tracking\]'"):
        tracking.check(["tensorboard"])


# -- reading them again ------------------------------------------------------------------------------------


def finished(data: Path, run: str, spec: RunSpec, records: list[dict[str, Any]], **result: Any) -> None:
    folder = RunFolder(data / "runs", run)
    folder.begin(RunOrder(action="start", run=run, spec=spec, devices=["bed-01", "bed-02"]))
    for record in records:
        folder.log(**record)
    if result:
        folder.finish(**result)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    spec = RunSpec(name="Ditto", method="ditto", personal_mu=0.1, strategy="FedAdam")
    finished(
        tmp_path,
        "run-a",
        spec,
        RECORDS,
        phase="done",
        reason="it passes",
        released=True,
        model_version=4,
        metrics={"complete_macro_f1": 0.5},
    )
    finished(tmp_path, "run-b", RunSpec(), RECORDS[:2])
    with (tmp_path / "runs" / "run-b" / "metrics.jsonl").open("a") as file:
        file.write('{"event": "round", "rou')  # a crash in the middle of a line
    return tmp_path


def test_a_history_holds_what_the_folder_says(data: Path) -> None:
    first, second = all_of(data)
    assert first.curve("round/loss") == ([1, 2], [1.25, 0.75])
    assert first.curve("round/loss", "bed-01") == ([1, 2], [1.5, 0.75])
    assert first.devices == ["bed-01", "bed-02"]
    assert (first.phase, second.phase) == ("done", "going on")
    assert second.curve("round/loss") == ([1], [1.25])
    assert first.spec["method"] == "ditto"


def test_a_round_done_again_counts_as_done_last(data: Path) -> None:
    RunFolder(data / "runs", "run-b").log(
        event="round", round=1, loss=1.5, replies=2, seconds=0.5, dropped={}
    )
    assert one(data, "run-b").curve("round/loss") == ([1], [1.5])


def test_list_show_and_compare_as_json(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--data", str(data), "--json"]
    assert main(["runs", "list", *at]) == 0
    listed = json.loads(capsys.readouterr().out)["runs"]
    assert [(run["run"], run["phase"], run["round"], run["loss"]) for run in listed] == [
        ("run-a", "done", 2, 0.75),
        ("run-b", "going on", 1, 1.25),
    ]
    assert main(["runs", "show", "run-a", *at]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["metrics"] == {"complete_macro_f1": 0.5}
    assert shown["spec"]["strategy"] == "FedAdam"
    assert {"device": "bed-02", "round": 1, "values": {"round/loss": 1.0}} in shown["points"]
    assert main(["runs", "compare", "run-a", "run-b", *at]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert compared["differing"] == {
        "strategy": ["FedAdam", "FedAvg"],
        "name": ["Ditto", ""],
        "method": ["ditto", "none"],
        "personal_mu": [0.1, 0.0],
    }
    assert compared["figures"] == {
        "phase": ["done", "going on"],
        "loss": [0.75, 1.25],
        "complete_macro_f1": [0.5, None],
    }


def test_list_show_and_compare_for_people(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--data", str(data)]
    assert main(["runs", "list", *at]) == 0
    assert "run-a  done     round   2  loss 0.7500  FedAdam, ditto  Ditto\n" in capsys.readouterr().out
    assert main(["runs", "show", "run-a", *at]) == 0
    told = capsys.readouterr().out
    assert told.startswith("run-a: done, it passes\n")
    assert "round    2  loss 0.7500\n" in told
    assert main(["runs", "compare", "run-a", "run-b", *at]) == 0
    assert "-" in capsys.readouterr().out.splitlines()[-1]


def test_curves_as_a_picture_and_a_page(data: Path, tmp_path: Path) -> None:
    png, page = tmp_path / "curves.png", tmp_path / "runs.html"
    for command in (["show", "run-a"], ["compare", "run-a", "run-b"]):
        assert main(["runs", *command, "--data", str(data), "--png", str(png), "--html", str(page)]) == 0
        assert png.read_bytes().startswith(b"\x89PNG\r\n")
        text = page.read_text()
        assert "<svg" in text
        assert "complete_macro_f1" in text
        assert "http-equiv" not in text
        assert "<script" not in text


def test_a_name_in_a_page_is_text(tmp_path: Path) -> None:
    finished(tmp_path, "run-a", RunSpec(name="<script>alert(1)</script>"), RECORDS)
    page = tmp_path / "runs.html"
    assert main(["runs", "show", "run-a", "--data", str(tmp_path), "--html", str(page)]) == 0
    assert "<script" not in page.read_text()
    assert "&lt;script&gt;" in page.read_text()


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["list"], "holds no run"),
        (["show", "run-z"], "'run-z': no run of that name"),
        (["compare", "run-a"], "compare takes two runs or more"),
        (["compare", "run-a", "run-"], "'run-': 2 runs begin so; write more of the name"),
    ],
)
def test_what_cannot_be_shown_says_why(
    command: list[str], reason: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = tmp_path / "empty" if command == ["list"] else data
    assert main(["runs", *command, "--data", str(at)]) == 2
    told = capsys.readouterr().err
    assert reason in told
    assert told.count("\n") == 1


# -- the libraries themselves ------------------------------------------------------------------------------


def test_tensorboard_files_hold_the_curves(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    (tracker,) = tracking.open_trackers(["tensorboard"], tmp_path)
    tracker.begin("run-1", {"spec": {"rounds": 2}})
    for record in RECORDS:
        tracker.log(record)
    tracker.end()

    def scalars(name: str) -> list[tuple[str, int, float]]:
        (file,) = (tmp_path / "tensorboard" / name).iterdir()
        data, found, at = file.read_bytes(), [], 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            event = Event.FromString(data[at + 12 : at + 12 + size])
            at += size + 16
            found += [
                (value.tag, event.step, value.simple_value)
                for value in event.summary.value
                if value.HasField("simple_value")
            ]
        return found

    assert [each for each in scalars("server") if each[0] == "round/loss"] == [
        ("round/loss", 1, 1.25),
        ("round/loss", 2, 0.75),
    ]
    assert ("round/loss", 1, 1.0) in scalars("device-bed-02")
    whole = b"".join(file.read_bytes() for file in tmp_path.rglob("events*"))
    assert b"Mrs X" not in whole
    assert b"no worse" not in whole


def test_wandb_is_offline_and_holds_one_run_for_the_server_and_one_per_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    from samd_server.tracking.wandb import mode

    (tracker,) = tracking.open_trackers(["wandb"], tmp_path)
    tracker.begin("run-1", {"spec": {"rounds": 2}})
    for record in RECORDS:
        tracker.log(record)
    tracker.end()
    files = sorted(tmp_path.rglob("*.wandb"))
    assert sorted(file.name for file in files) == [
        "run-run-1-bed-01.wandb",
        "run-run-1-bed-02.wandb",
        "run-run-1-server.wandb",
    ]
    assert all(file.parent.name.startswith("offline-run-") for file in files)
    whole = b"".join(file.read_bytes() for file in files)
    assert b"round/loss" in whole
    assert b"label_counts" in whole
    for never in (b"Mrs X", b"no worse", b"it passes"):
        assert never not in whole
    assert mode({}) == "offline"
    assert mode({"WANDB_API_KEY": "x"}) == "online"
    assert mode({"WANDB_API_KEY": "x", "WANDB_MODE": "offline"}) == "offline"
