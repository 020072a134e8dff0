"""The untrained network that a fresh server starts from, built once and kept.

TensorFlow needs ten seconds and more to build it; the same sources and the same lock file give the same
network, so that the file is kept in the user's cache under a hash of them.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from samd_protocol import bundle as bundles
from samd_protocol.errors import BundleError
from samd_scripts.stack import StackError

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("server/src/samd_server", "data/src/samd_data", "protocol/src/samd_protocol")


def untrained(labels: str = "five", cache: Path | None = None, *, task: str = "severity") -> Path:
    """The file for a label setting (`five` or `all`) and a task, built if need be; raises StackError if it
    cannot be."""
    folder = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "samd"
    kind = labels if task == "severity" else f"{task}-{labels}"
    path = folder / f"untrained-{kind}-{_digest()}.samd"
    try:
        bundles.read(path)
    except BundleError:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / "model.samd"
            command = [sys.executable, "-m", "samd_server", "export", "--task", task, "--labels", labels]
            done = subprocess.run(
                [*command, "--out", str(made)],
                check=False,
                capture_output=True,
                text=True,
            )
            if done.returncode != 0:
                raise StackError(f"the untrained network could not be built: {done.stderr.strip()}") from None
            made.replace(path)
    return path


def _digest() -> str:
    digest = hashlib.sha256((ROOT / "uv.lock").read_bytes())
    for source in SOURCES:
        for path in sorted((ROOT / source).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
