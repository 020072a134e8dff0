"""What the tests of all packages share: where the real recordings lie, and untrained bundles."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = (
    "server/src/samd_server/network.py",
    "server/src/samd_server/export.py",
    "server/src/samd_server/keras_file.py",
    "data/src/samd_data/features.py",
    "data/src/samd_data/history.py",
    "data/src/samd_data/news2.py",
    "data/src/samd_data/severity.py",
    "data/src/samd_data/tasks.py",
    "protocol/src/samd_protocol/bundle.py",
    "uv.lock",
)


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell that starts something in the background lets it ignore Ctrl-C, and so do its children: without
    this the tests of Ctrl-C would fail there."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def untrained_bundle_path(pytestconfig: pytest.Config) -> Path:
    """An untrained bundle of the default network, seed 0. Treat it as read-only."""
    return _exported(pytestconfig, "severity")


@pytest.fixture(scope="session")
def untrained_deterioration_path(pytestconfig: pytest.Config) -> Path:
    """The same for the task deterioration."""
    return _exported(pytestconfig, "deterioration")


def _exported(config: pytest.Config, task: str) -> Path:
    """A bundle kept in pytest's cache under a hash of the sources that make it: only the first run needs
    TensorFlow."""
    digest = hashlib.sha256(task.encode())
    for source in SOURCES:
        digest.update((ROOT / source).read_bytes())
    assert config.cache is not None, "the tests need pytest's cache provider"
    path = config.cache.mkdir("samd-bundles") / f"untrained-{digest.hexdigest()[:20]}.samd"
    if not path.is_file():
        command = [sys.executable, "-m", "samd_server.model_commands", "export", "--task", task]
        command += ["--out", str(path), "--force"]
        made = subprocess.run(command, check=False, capture_output=True, text=True, timeout=240)
        assert made.returncode == 0, f"the export failed:\n{made.stderr}"
    return path


def _real_data(name: str) -> Path:
    root = Path(os.environ.get("SAMD_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not (root / name).is_dir():
        pytest.skip(f"{root / name} is not there; set SAMD_TEST_DATA to the folder that holds it")
    return root / name


@pytest.fixture(scope="session")
def icu_folder() -> Path:
    return _real_data("mimic-iv-demo-2.2")


@pytest.fixture(scope="session")
def ed_folder() -> Path:
    return _real_data("mimic-iv-ed-demo-2.2")
