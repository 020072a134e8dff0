"""`samd-edge doctor`: each check against the real thing, broken and whole."""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from samd_edge import device_db
from samd_edge import doctor_command as doctor
from samd_edge.doctor_command import Check, check_broker, check_clock, check_disk, check_model, check_runtime
from samd_protocol import bundle as bundles
from samd_protocol.broker import Broker


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def broker_url() -> Iterator[str]:
    """The embedded broker, as it is typed."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "samd_gateway", "broker", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "the broker ended"
                assert time.monotonic() < deadline, "the broker does not answer"
        yield f"mqtt://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=30)


def statuses(checks: Any) -> list[tuple[str, str]]:
    return [(check.name, check.status) for check in checks]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "samd_edge", "doctor", *arguments], capture_output=True, text=True, check=False
    )


def test_all_is_well(broker_url: str, tmp_path: Path, untrained_bundle_path: Path) -> None:
    os.chmod(tmp_path, 0o700)
    done = run(
        "--broker", broker_url, "--data-dir", str(tmp_path), "--model", str(untrained_bundle_path), "--json"
    )
    assert done.returncode == 0, done.stdout
    report = json.loads(done.stdout)
    assert report["ok"] is True
    found = {(check["name"], check["status"]) for check in report["checks"]}
    assert {("broker", "ok"), ("mqtt", "ok"), ("disk", "ok"), ("runtime", "ok"), ("model", "ok")} <= found
    assert ("model", "warn") in found, "it was never trained"
    assert all(
        check["remedy"]
        for check in report["checks"]
        if check["name"] == "clock" and check["status"] == "warn"
    )
    assert list(tmp_path.iterdir()) == []


def test_without_a_broker_it_fails_with_the_remedy(tmp_path: Path) -> None:
    done = run("--broker", f"mqtt://127.0.0.1:{free_port()}", "--data-dir", str(tmp_path))
    assert done.returncode == 1
    line = next(line for line in done.stdout.splitlines() if line.startswith("fail"))
    assert "does not answer" in line
    assert "samd-gateway broker" in line
    assert "Traceback" not in done.stderr


def test_the_clock() -> None:
    assert check_clock(lambda: "synced").status == "ok"
    unsynced = check_clock(lambda: "unsynced")
    assert unsynced.status == "warn"
    assert unsynced.remedy


def test_a_broker_that_answers(broker_url: str) -> None:
    assert statuses(check_broker(Broker(url=broker_url))) == [("broker", "ok"), ("mqtt", "ok")]


def test_a_port_that_speaks_no_mqtt() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"mqtt://127.0.0.1:{server.getsockname()[1]}"
        checks = list(check_broker(Broker(url=url), timeout_s=0.3))
    assert statuses(checks) == [("broker", "ok"), ("mqtt", "fail")]
    assert "no answer" in checks[1].text


@pytest.mark.parametrize(
    "broker",
    [
        Broker(url="http://example.org"),
        Broker(url="mqtt://user:secret@127.0.0.1"),
        Broker(username="x", password_file="/nowhere"),
    ],
)
def test_a_broker_that_cannot_be(broker: Broker) -> None:
    (check,) = check_broker(broker)
    assert check.status == "fail"
    assert "secret@" not in check.text


def test_a_disk_that_others_can_read(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o750)  # noqa: S103  (too open is what is tested)
    assert ("disk", "warn") in statuses(check_disk(tmp_path))
    os.chmod(tmp_path, 0o700)
    assert set(statuses(check_disk(tmp_path))) == {("disk", "ok")}


def test_what_holds_the_folders_of_devices_may_be_seen_by_others(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for name in ("bed-01", "bed-02"):
        (tmp_path / name).mkdir(mode=0o700)
        (tmp_path / name / device_db.FILE).touch()
    assert statuses(check_disk(tmp_path)) == [("disk", "ok"), ("disk", "ok")]
    (tmp_path / "bed-02").chmod(0o750)
    warned = next(iter(check_disk(tmp_path)))
    assert warned.text == f"{tmp_path / 'bed-02'} has mode 750: others can read it"


def test_a_folder_that_is_not_there_yet_is_judged_by_its_parent(tmp_path: Path) -> None:
    assert set(statuses(check_disk(tmp_path / "a" / "b"))) == {("disk", "ok")}
    assert list(tmp_path.iterdir()) == []


def test_a_full_and_a_slow_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chmod(tmp_path, 0o700)
    monkeypatch.setattr(doctor, "LOW_MB", 1e12)
    monkeypatch.setattr(doctor, "SLOW_SYNC_S", 0.0)
    assert statuses(check_disk(tmp_path)) == [("disk", "warn"), ("disk", "warn")]
    monkeypatch.setattr(doctor, "FULL_MB", 1e12)
    assert statuses(check_disk(tmp_path))[0] == ("disk", "fail")


def test_a_disk_that_cannot_be_written() -> None:
    checks = list(check_disk(Path("/proc/nowhere")))
    assert checks[-1].status == "fail"
    assert "--data-dir" in checks[-1].remedy


def test_the_runtime_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    (check,) = check_runtime()
    assert check.status == "ok"
    assert "numpy" in check.text
    monkeypatch.setenv("SAMD_RUNTIME", "torch")
    (check,) = check_runtime()
    assert check.status == "fail"


def test_a_model_trained_untrained_and_damaged(untrained_bundle_path: Path, tmp_path: Path) -> None:
    assert statuses(check_model(untrained_bundle_path)) == [
        ("model", "ok"),
        ("model", "warn"),
        ("model", "ok"),
    ]
    bundle = bundles.read(untrained_bundle_path)
    trained = msgspec.structs.replace(bundle.manifest, trained=True, version=1)
    bundles.write(tmp_path / "trained.samd", msgspec.structs.replace(bundle, manifest=trained))
    assert statuses(check_model(tmp_path / "trained.samd")) == [("model", "ok"), ("model", "ok")]
    other = msgspec.structs.replace(trained, task="deterioration")
    bundles.write(tmp_path / "other.samd", msgspec.structs.replace(bundle, manifest=other))
    assert ("model", "fail") in statuses(check_model(tmp_path / "other.samd"))
    (tmp_path / "damaged.samd").write_bytes(untrained_bundle_path.read_bytes()[:-1])
    assert statuses(check_model(tmp_path / "damaged.samd")) == [("model", "fail")]


def test_a_warning_alone_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "check_clock", lambda: Check("clock", "warn", "unsynced", "sync it"))
    monkeypatch.setattr(doctor, "check_broker", lambda broker: iter(()))
    parser = argparse.ArgumentParser()
    doctor.add_parsers(parser.add_subparsers())
    arguments = parser.parse_args(["doctor", "--data-dir", str(tmp_path)])
    assert arguments.function(arguments) == 0
    assert "warn  clock     unsynced; sync it" in capsys.readouterr().out


def test_a_model_for_the_other_task_is_asked_its_own_question(make_bundle: Any) -> None:
    assert statuses(check_model(make_bundle(1, task="deterioration"))) == [("model", "ok"), ("model", "ok")]
