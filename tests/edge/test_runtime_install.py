"""The device installed alone, into fresh environments: what it brings, and that both interpreters agree.

Builds environments with pip and so needs a package index (or its cache); about a minute each.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samd_protocol import bundle as bundles

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]

COMPUTE = """
import sys
from pathlib import Path
import numpy as np
from samd_edge.runtime import Graph, TrainState, batches
from samd_protocol import bundle as bundles

bundle = bundles.read(Path(sys.argv[1]))
graph = Graph(bundle.graph)
given = np.load(sys.argv[2])
x, y, order = given["x"], given["y"], given["order"]
state, loss = graph.train_epoch(
    features=x, labels=y, order=order, state=TrainState.fresh(bundle.weights), learning_rate=0.01,
    anchor=bundle.weights, mu=0.1, trainable=np.ones_like(bundle.weights), log_prior=given["prior"],
)
_, confusion = graph.evaluate(x, y, bundle.weights)
np.savez(sys.argv[3], p=graph.infer(x, bundle.weights), w=state.weights, loss=loss, confusion=confusion)
resident = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(graph.runtime, int(resident.split()[1]) / 1024)
"""


def interpreter(version: str) -> str | None:
    """A Python of that version: on the path, or among those of pyenv."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [str(path) for path in sorted((root / "versions").glob(f"{version}.*/bin/python"))]
    named = shutil.which(f"python{version}")
    for candidate in [*found, *([named] if named else [])]:
        done = subprocess.run([candidate, "-c", "import venv"], check=False, capture_output=True)
        if done.returncode == 0:
            return candidate
    return None


def install(python: str, folder: Path) -> str:
    """A fresh environment with the device's three packages in it; the path of its Python."""
    subprocess.run([python, "-m", "venv", str(folder)], check=True, capture_output=True)
    own = str(folder / "bin" / "python")
    packages = [str(ROOT / name) for name in ("data", "protocol", "edge_client")]
    done = subprocess.run(
        [own, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return own


def installed(python: str) -> set[str]:
    done = subprocess.run(
        [python, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"],
        check=True,
        capture_output=True,
        text=True,
    )
    return {entry["name"].lower().replace("_", "-") for entry in json.loads(done.stdout)}


def compute(python: str, bundle: Path, given: Path, out: Path) -> tuple[str, float, Any]:
    done = subprocess.run(
        [python, "-c", COMPUTE, str(bundle), str(given), str(out)], check=True, capture_output=True, text=True
    )
    runtime, resident_mb = done.stdout.split()[-2:]
    return runtime, float(resident_mb), np.load(out)


HEAVY = {"tensorflow", "tensorflow-cpu", "flwr", "pandas", "pyarrow", "keras", "scikit-learn", "sqlalchemy"}


def test_alone_it_brings_nothing_heavy(tmp_path: Path, untrained_bundle_path: Path) -> None:
    python = install(sys.executable, tmp_path / "venv")
    names = installed(python)
    assert {"samd-edge", "samd-data", "samd-protocol"} <= names
    assert not names & HEAVY
    assert not {"samd-gateway", "samd-server"} & names
    command = [str(tmp_path / "venv" / "bin" / "samd-edge")]
    assert subprocess.run([*command, "--help"], check=False, capture_output=True).returncode == 0
    done = subprocess.run(
        [
            *command,
            "infer",
            "--model",
            str(untrained_bundle_path),
            "--allow-untrained",
            "--source",
            "-",
            "--json",
        ],
        input=b'{"observed_at": "2026-01-01T12:00:00Z", "heart_rate": 135}\n',
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["news2"]["low"] == 3


def test_the_two_interpreters_agree(tmp_path: Path, untrained_bundle_path: Path) -> None:
    newer = interpreter("3.13")
    if newer is None:
        pytest.skip("no Python 3.13 here")
    if sys.version_info >= (3, 12):
        pytest.skip("this Python has no tflite-runtime to compare with")
    size = bundles.read(untrained_bundle_path).manifest.features.size
    rng = np.random.default_rng(0)
    given = tmp_path / "given.npz"
    np.savez(
        given,
        x=rng.standard_normal((320, size)).astype(np.float32),
        y=rng.integers(0, 4, 320).astype(np.int32),
        order=rng.permutation(320).astype(np.int32),
        prior=np.log([0.1, 0.5, 0.3, 0.1]).astype(np.float32),
    )
    python = install(newer, tmp_path / "venv")
    assert "tflite-runtime" not in installed(python)
    old_name, _, old = compute(sys.executable, untrained_bundle_path, given, tmp_path / "old.npz")
    new_name, resident_mb, new = compute(python, untrained_bundle_path, given, tmp_path / "new.npz")
    assert (old_name, new_name) == ("tflite-runtime", "ai-edge-litert")
    np.testing.assert_allclose(new["p"], old["p"], atol=1e-6)
    np.testing.assert_allclose(new["w"], old["w"], atol=1e-5)
    assert float(new["loss"]) == pytest.approx(float(old["loss"]), abs=1e-5)
    assert np.array_equal(new["confusion"], old["confusion"])
    assert resident_mb < 96
