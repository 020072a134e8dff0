"""The scripts that a device runs when it starts, here in a folder in place of its root."""

import re
import subprocess
from pathlib import Path

import pytest

from samd_scripts.flash import overlay

SCRIPTS = overlay.HERE / "common/usr/lib/samd"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("boot/firmware", "run/systemd/timesync", "proc/sys/kernel", "etc/samd", "etc/ssh"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "proc/cmdline").write_text("root=LABEL=rootfs quiet\n")
    (tmp_path / "etc/hostname").write_text("bed-01\n")
    (tmp_path / "proc/sys/kernel/hostname").write_text("bed-01\n")
    return tmp_path


def script(root: Path, name: str) -> Path:
    """A script whose absolute paths lie below `root`."""
    text = (SCRIPTS / name).read_text()
    text = re.sub(r"(?<![\w$/}])/(boot|run|proc|etc)/", rf"{root}/\1/", text)
    path = root / name
    path.write_text(text)
    return path


def configure(root: Path, url: str, device: str = "bed-01") -> None:
    (root / "boot/firmware/samd.toml").write_text(
        f'# a comment: mqtts://\ndevice = "{device}"\n\n[broker]\nurl = "{url}"\n'
    )


def waits(path: Path, timeout: float) -> bool:
    """Whether it is still waiting after so long; its end is not waited for."""
    process = subprocess.Popen(["sh", str(path)], stdout=subprocess.DEVNULL)
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        return True
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    return False


def test_without_tls_nothing_is_waited_for(root):
    configure(root, "mqtt://broker.ward")
    assert not waits(script(root, "wait-for-time"), 30)


def test_with_tls_the_time_is_waited_for(root):
    configure(root, "mqtts://broker.ward")
    path = script(root, "wait-for-time")
    assert waits(path, 2)
    process = subprocess.Popen(["sh", str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "wait-for-time: waiting for the time, which TLS needs\n"
    (root / "run/systemd/timesync/synchronized").touch()
    assert process.wait(30) == 0
    process.stdout.close()


def test_the_agent_starts_also_where_no_time_service_answers(root):
    configure(root, "mqtts://broker.ward")
    text = script(root, "wait-for-time").read_text().replace("-ge 300", "-ge 1")
    (root / "short").write_text(text)
    done = subprocess.run(["sh", str(root / "short")], capture_output=True, text=True, timeout=60, check=True)
    assert "no time service answers" in done.stdout


def test_an_emulator_that_has_the_time_says_so(root):
    configure(root, "mqtts://broker.ward")
    (root / "proc/cmdline").write_text("quiet samd.clock=kept\n")
    assert not waits(script(root, "wait-for-time"), 30)


def run_first_boot(root: Path) -> str:
    (root / "etc/samd/first-boot-done").touch()  # the card itself is another matter
    path = script(root, "first-boot")
    done = subprocess.run(["sh", str(path)], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_the_name_is_that_of_the_configuration(root):
    configure(root, "mqtt://x", device="bed-07")
    assert run_first_boot(root) == "first-boot: this device is bed-07\n"
    assert (root / "etc/hostname").read_text() == "bed-07\n"
    assert (root / "proc/sys/kernel/hostname").read_text() == "bed-07\n"
    assert "127.0.1.1\tbed-07\n" in (root / "etc/hosts").read_text()
    assert run_first_boot(root) == ""


@pytest.mark.parametrize("device", ["bed 07", "bed;reboot", "$(reboot)", "", "../x"])
def test_what_is_no_name_changes_none(root, device):
    configure(root, "mqtt://x", device=device)
    assert run_first_boot(root) == ""
    assert (root / "etc/hostname").read_text() == "bed-01\n"


def test_a_missing_configuration_changes_no_name(root):
    assert run_first_boot(root) == ""
    assert (root / "etc/hostname").read_text() == "bed-01\n"
