"""What a person reads when the machine lacks something: one plain sentence with the remedy, exit code 2."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A fresh clone's scripts and lock file, without a `.venv`."""
    for part in ("scripts", "uv.lock", "pyproject.toml", "data/pyproject.toml"):
        target = tmp_path / part
        target.parent.mkdir(parents=True, exist_ok=True)
        source = ROOT / part
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    return tmp_path


def run_check(clone: Path, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", str(clone / "scripts" / "check")],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": str(folder), "HOME": str(clone)} | env,
    )


def tools(folder: Path, **programs: str) -> Path:
    """A PATH that holds the usual tools and these programs alone."""
    folder.mkdir()
    for name in ("bash", "cat", "cksum", "dirname", "tail"):
        found = shutil.which(name)
        assert found
        os.symlink(found, folder / name)
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def test_no_python(clone, tmp_path):
    done = run_check(clone, tools(tmp_path / "bin"))
    assert done.returncode == 2
    assert done.stderr.startswith("No Python 3.11, 3.12 or 3.13 was found.")
    assert len(done.stderr.splitlines()) == 1


def test_python_too_old(clone, tmp_path):
    done = run_check(clone, tools(tmp_path / "bin", python3="#!/bin/bash\nexit 1\n"))
    assert done.returncode == 2
    assert "was found" in done.stderr


def test_python_without_venv(clone, tmp_path):
    no_venv = f'#!/bin/bash\ncase "$2" in *ensurepip*) exit 1;; esac\nexec "{sys.executable}" "$@"\n'
    done = run_check(clone, tools(tmp_path / "bin", python3=no_venv))
    assert done.returncode == 2
    assert done.stderr == (
        "python3 has no venv module. Install it (Debian: apt-get install python3-venv), then try again.\n"
    )


@pytest.mark.long
def test_no_network(clone, tmp_path):
    bin_folder = tools(tmp_path / "bin", python3=f'#!/bin/bash\nexec "{sys._base_executable}" "$@"\n')
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
    done = run_check(clone, bin_folder, **nowhere)
    assert done.returncode == 2
    assert "uv could not be installed: is there a network?" in done.stderr
