"""The demo as a person starts it: it runs through, and Ctrl-C leaves nothing behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from samd_scripts.stack import wait_until

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def running_demo(out: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    demo = subprocess.Popen(
        [sys.executable, "-m", "samd_scripts.demo", "--data", "synthetic", "--out", str(out), *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT / "scripts"), "COLUMNS": "200"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with demo:
        try:
            yield demo
        finally:
            demo.kill()


def test_it_runs_to_its_summary(tmp_path):
    with running_demo(tmp_path / "out", "--patients", "2", "--rounds", "3", "--watch", "1") as demo:
        output, _ = demo.communicate(timeout=240)
    assert demo.returncode == 0, output
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["data"] == "synthetic"
    assert len(summary["round_seconds"]) == 3
    for verdict in summary["verdicts"].values():
        assert verdict["complete"]["rows"] == verdict["masked"]["rows"] > 0
    assert {"agent", "trainer", "gateway", "server", "broker"} <= set(summary["peak_memory_mb"])


@pytest.mark.parametrize("moment", ["broker.log", "bed-02.log", "server.log"])
def test_ctrl_c_ends_every_process(tmp_path, moment):
    logs = tmp_path / "out" / "logs"
    with running_demo(tmp_path / "out", "--patients", "2", "--keep") as demo:

        def reached() -> bool:
            assert demo.poll() is None, demo.stdout.read()
            return (logs / moment).exists()

        wait_until(reached, timeout=120, what=moment)
        children = psutil.Process(demo.pid).children(recursive=True)
        assert children
        os.kill(demo.pid, signal.SIGINT)
        output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 130, output
    _, left = psutil.wait_procs(children, timeout=15)
    assert not left


def test_a_folder_without_recordings_is_refused(tmp_path):
    demo = subprocess.run(
        [sys.executable, "-m", "samd_scripts.demo", "--data", str(tmp_path), "--out", str(tmp_path / "out")],
        env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert demo.returncode == 2
    assert demo.stderr.count("\n") == 1
    assert str(tmp_path) in demo.stderr
