"""An image as a person makes it, in an emulated machine, against a real stack. Minutes: test --all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from samd_scripts.flash import debian, tools

ROOT = Path(__file__).resolve().parents[2]
MISSING = [tool for tool in (*tools.BUILD, *tools.IMAGE, *tools.EMULATE) if tools.find(tool) is None]

pytestmark = [
    pytest.mark.system,
    pytest.mark.long,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(not debian.KEYRING.exists(), reason="not installed: debian-archive-keyring"),
    pytest.mark.skipif(os.geteuid() != 0, reason="binfmt_misc is registered by root alone"),
]


def flash(*arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT / 'scripts'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    }
    return subprocess.run(
        [sys.executable, "-m", "samd_scripts.flash", *arguments],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of profile core, from the user's own cache: the first time Debian is installed."""
    out = tmp_path_factory.mktemp("flash") / "bed-01.img"
    made = flash("device", "--name", "bed-01", "--server", "10.0.2.2", "--out", str(out), "--json")
    assert made.returncode == 0, made.stderr
    return out


def test_what_lies_beside_an_image_is_true(image):
    sha256, name = (image.with_name(f"{image.name}.sha256")).read_text().split()
    assert name == image.name
    assert tools.run("sha256sum", image).split()[0] == sha256
    document = json.loads(image.with_suffix(".cdx.json").read_text())
    names = {part["name"] for part in document["components"]}
    assert {"systemd", "samd-edge", "numpy", "raspi-firmware"} <= names
    assert all(part["version"] for part in document["components"])
    entries = json.loads(image.with_name("os_list.json").read_text())["os_list"]
    assert [(one["name"], one["extract_sha256"], one["extract_size"]) for one in entries] == [
        ("samd bed-01", sha256, image.stat().st_size)
    ]


def test_all_checks_pass_in_the_emulated_machine(image):
    done = flash("test", str(image), "--data", "synthetic", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert [(check["check"], check["passed"]) for check in record["checks"]] == [
        (n, True) for n in range(1, 8)
    ]


def test_the_board_of_a_pi_boots_and_infers(image):
    done = flash("test", str(image), "--machine", "raspi3b", "--data", "synthetic", "--json")
    assert done.returncode == 0, done.stderr


def test_a_damaged_image_fails_the_first_check(image, tmp_path):
    from samd_scripts.flash.disk import copy_sparse, open_disk

    broken = tmp_path / "broken.img"
    copy_sparse(image, broken)
    open_disk(broken).root.remove(["/opt/samd/current"])
    done = flash("test", str(broken), "--data", "synthetic", "--steps", "1", "--json")
    assert done.returncode != 0
