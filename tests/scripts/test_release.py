"""A release that is made of this workspace: for the device's processor, whole, the same bytes each time."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from samd_edge.update.layout import Layout
from samd_edge.update.manifest import LAUNCHER
from samd_edge.update.package import Package
from samd_scripts.release import ReleaseError, make_release, pack

ROOT = Path(__file__).parents[2]
AARCH64, X86_64 = 183, 62
"""`e_machine` of an ELF file."""


def test_bad_input_is_told_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(
        ReleaseError, match="armv7l: no release is made for this machine; aarch64 and x86_64 are"
    ):
        make_release(ROOT, tmp_path / "tree", machine="armv7l")
    with pytest.raises(ReleaseError, match="exists already"):
        make_release(ROOT, tmp_path)
    with pytest.raises(ReleaseError, match="uv build --quiet failed: "):
        make_release(tmp_path, tmp_path / "tree")
    assert list(tmp_path.iterdir()) == [], "nothing half done is left"


@pytest.mark.long
def test_a_release_for_another_processor(tmp_path: Path) -> None:
    steps: list[str] = []
    first = make_release(ROOT, tmp_path / "a" / "tree", machine="aarch64", python="3.11", step=steps.append)
    second = make_release(ROOT, tmp_path / "b" / "other", machine="aarch64", python="3.11")
    assert len(steps) == 3
    one, other = pack(tmp_path / "a" / "tree", tmp_path), pack(tmp_path / "b" / "other", tmp_path / "b")
    assert (one.path.name, one.sha256) == (other.path.name, other.sha256)
    assert first == second
    libraries = [path for path in (tmp_path / "a").rglob("*") if ".so" in path.suffixes and path.is_file()]
    assert len(libraries) > 10
    machines = {int.from_bytes(path.read_bytes()[18:20], "little") for path in libraries}
    assert machines == {AARCH64}
    site = tmp_path / "a" / "tree" / "site"
    for name in (
        "samd_edge",
        "samd_data",
        "samd_protocol",
        "msgspec",
        "paho",
        "numpy",
        "tflite_runtime",
        "hl7",
    ):
        assert (site / name).is_dir(), name
    for name in ("tensorflow", "flwr", "pandas", "pip"):
        assert not (site / name).exists(), name
    places = [str(ROOT).encode(), str(tmp_path).encode()]
    for path in site.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(place in data for place in places), f"{path} tells where it was made"


@pytest.mark.long
@pytest.mark.skipif(platform.machine() != "x86_64", reason="runs the release, which is one for x86_64")
def test_a_release_for_this_machine_runs_out_of_its_package(tmp_path: Path) -> None:
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    make_release(ROOT, tmp_path / "tree", machine="x86_64", python=python)
    packed = pack(tmp_path / "tree", tmp_path / "out")
    layout = Layout(tmp_path / "root")
    layout.releases.mkdir(parents=True)
    with Package(packed.path, packed.sha256) as package:
        package.check_fits()
        layout.place(package.unpack(layout), package.manifest.name)
    launcher = layout.folder(packed.manifest.name) / LAUNCHER
    # the Python of this machine, without this environment: what is missing in the release is missing
    bare = str(Path(sys.base_prefix, "bin"))
    environment = {"PATH": f"{bare}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(
        [str(launcher), "update", "self-test"], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"release": packed.manifest.name, "news2": 19}
    layout.check(packed.manifest.name)
