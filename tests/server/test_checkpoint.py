"""The files of a run: whole or not there, and a damaged one is told in a sentence."""

import os
from pathlib import Path

import numpy as np
import pytest

from samd_protocol.messages import RunOrder, RunSpec
from samd_protocol.tasks import Vector
from samd_server.checkpoint import Checkpoint, RunFolder, unfinished, write_atomically
from samd_server.errors import RunFailed

POINT = Checkpoint(
    run="run-1",
    round=4,
    weights=Vector.of(np.array([1.5, -2.0], np.float32)),
    label_counts=[1, 2, 3, 4],
    parent_version=7,
)
ORDER = RunOrder(action="start", run="run-1", spec=RunSpec(), devices=["a"])


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "run-1")
    assert folder.load() is None
    folder.save(POINT)
    assert folder.load() == POINT
    assert [path.name for path in folder.path.iterdir()] == ["checkpoint.msgpack"]


def test_an_order_is_begun_once(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "run-1")
    assert folder.begin(ORDER)
    assert not folder.begin(ORDER)
    assert folder.order() == ORDER


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fails(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fails)
            with pytest.raises(OSError, match="No space"):
                write_atomically(path, b"new")
        assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("file", b"old")]


def test_content_and_name_are_on_the_disk_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    write_atomically(tmp_path / "file", b"content")
    assert calls == ["fsync", "replace", "fsync"]


def test_every_damage_of_a_checkpoint_is_told_plainly(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "run-1")
    folder.save(POINT)
    path = folder.path / "checkpoint.msgpack"
    good = path.read_bytes()
    at = good.index(POINT.weights.data)
    for bad in [*(good[:cut] for cut in range(len(good))), good[:at] + b"\xff" + good[at + 1 :]]:
        path.write_bytes(bad)
        with pytest.raises(RunFailed, match="the run cannot go on, start a new one"):
            folder.load()
    RunFolder(tmp_path, "run-2").save(POINT)
    with pytest.raises(RunFailed, match="is of run 'run-1', not of 'run-2'"):
        RunFolder(tmp_path, "run-2").load()


def test_a_damaged_order_is_told_plainly(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "run-1")
    folder.begin(ORDER)
    (folder.path / "order.json").write_bytes(b'{"type":')
    with pytest.raises(RunFailed, match=r"order\.json: cannot be read"):
        folder.order()


def test_half_a_line_does_not_spoil_the_next(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "run-1")
    folder.log(round=1)
    with (folder.path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"round": 2, "lo')
    folder.log(round=2)
    folder.log(round=3)
    lines = (folder.path / "metrics.jsonl").read_text().splitlines()
    assert lines == ['{"round":1}', '{"round": 2, "lo', '{"round":2}', '{"round":3}']


def test_a_stop_outlives_the_process(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "run-1")
    folder.halt(None)
    assert folder.halted is None
    folder.halt("stop")
    assert RunFolder(tmp_path, "run-1").halted == "stop"
    folder.halt(None)
    assert folder.halted is None


def test_unfinished_runs_oldest_first(tmp_path: Path) -> None:
    assert unfinished(tmp_path / "none") == []
    for age, run in enumerate(["c", "a", "b", "ended"]):
        folder = RunFolder(tmp_path, run)
        folder.begin(ORDER)
        os.utime(folder.path / "order.json", (1000 + age, 1000 + age))
    RunFolder(tmp_path, "ended").finish(phase="done")
    RunFolder(tmp_path, "only-stopped").halt("stop")
    assert [folder.run for folder in unfinished(tmp_path)] == ["c", "a", "b"]
