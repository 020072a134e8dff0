"""A release of the client for a device: its folder, and its package for ``samd-edge update apply``.

``make_release`` fills a folder with what a device runs: ``site/`` (the workspace's own wheels and the locked
dependencies, compiled for the device's Python; nothing of the device's processor is run), ``bin/samd-edge``
and ``manifest.json``. ``pack`` writes it as one file. The same commit gives the same bytes: versions and
hashes come from the lock file, times and owners are fixed. The package is not compressed, so that this holds
for each zlib, and because Debian's Python 3.11 has no zstd.
"""

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from samd_edge.update.manifest import FILE, LAUNCHER, Manifest, UpdateError, describe, digest, encode

PLATFORMS: Final = {"aarch64": "aarch64-manylinux_2_36", "x86_64": "x86_64-manylinux_2_36"}
"""By machine, as uv names them; 2.36 is the C library of Debian 12."""
PACKAGES: Final = {"samd-data": "data", "samd-protocol": "protocol", "samd-edge": "edge_client"}
_UNSTABLE: Final = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json")
"""Files of an installation that tell where and how it was made; nothing reads them on a device."""

LAUNCH: Final = """\
#!/bin/sh
# Runs the client of this release, wherever its folder stands, with nothing of another one on its path.
set -e
release=$(readlink -f "$0")
release=${{release%/bin/*}}
export SAMD_RELEASE="${{release##*/}}" PYTHONPATH="$release/site"
export PYTHONNOUSERSITE=1 PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1
exec python{python} -m samd_edge "$@"
"""


class ReleaseError(Exception):
    """A release that cannot be made; the text is one line."""


@dataclass(frozen=True)
class Package:
    """A package that was written: its file, and the hash that stands in ``FILE.sha256`` beside it."""

    path: Path
    sha256: str
    manifest: Manifest


def make_release(
    workspace: Path,
    tree: Path,
    *,
    machine: str = "aarch64",
    python: str = "3.11",
    extras: Sequence[str] = ("sources",),
    step: Callable[[str], None] = lambda _text: None,
) -> Manifest:
    """Fill the folder ``tree``, which must not exist yet, with a release of the workspace's client.

    ``extras`` are those of samd-edge: "sources" for every source, "tensorflow" for the reference trainer.
    Raises ReleaseError; nothing is left under the name ``tree`` then.
    """
    if machine not in PLATFORMS:
        raise ReleaseError(f"{machine}: no release is made for this machine; {' and '.join(PLATFORMS)} are")
    if tree.exists():
        raise ReleaseError(f"{tree}: exists already; give another folder, or remove it")
    uv = find_uv()
    tree.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{tree.name}.", dir=tree.parent) as temporary:
        work = Path(temporary)
        release = work / "release"
        site = release / "site"
        site.mkdir(parents=True)
        step("building the wheels of the workspace")
        version = _own_wheels(uv, workspace, work / "wheels")
        step(f"installing the locked dependencies for {machine}, Python {python}")
        _dependencies(uv, workspace, work / "locked.txt", extras)
        target = ("--python-platform", PLATFORMS[machine], "--python-version", python, "--target", str(site))
        install = (uv, "pip", "install", "--quiet", "--no-config", "--no-deps", *target)
        locked = ("--require-hashes", "--only-binary", ":all:", "--requirement", str(work / "locked.txt"))
        _run(*install, *locked)
        _run(*install, *(str(wheel) for wheel in sorted((work / "wheels").glob("*.whl"))))
        step("compiling")
        _clean(site)
        _compile(uv, site, python)
        manifest = seal(release, version=version, machine=machine, python=python, schemas=schemas())
        release.rename(tree)
    return manifest


def seal(tree: Path, *, version: str, machine: str, python: str, schemas: Mapping[str, int]) -> Manifest:
    """Give a folder with a ``site/`` its launcher (unless it has one) and its manifest: a release."""
    launcher = tree / LAUNCHER
    if not launcher.exists():
        launcher.parent.mkdir(exist_ok=True)
        launcher.write_text(LAUNCH.format(python=python))
    for folder, _, names in os.walk(tree):
        Path(folder).chmod(0o755)
        for name in names:
            path = Path(folder, name)
            path.chmod(0o755 if path == launcher else 0o644)
    manifest = Manifest(
        version=version, machine=machine, python=python, schemas=dict(schemas), files=describe(tree)
    )
    (tree / FILE).write_bytes(encode(manifest))
    (tree / FILE).chmod(0o644)
    return manifest


def pack(tree: Path, out: Path) -> Package:
    """Write a release's folder as ``samd-edge-NAME.tar`` into the folder ``out``, and its hash beside it.

    The manifest comes first, so that a device knows what to expect before it unpacks anything; then the files
    in the order of their paths.
    """
    import msgspec

    manifest = msgspec.json.decode((tree / FILE).read_bytes(), type=Manifest)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"samd-edge-{manifest.name}.tar"
    partial = path.with_name(f".{path.name}.part")
    try:
        with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as archive:
            _add(archive, FILE, encode(manifest), executable=False)
            for name, file in sorted(manifest.files.items()):
                _add(archive, name, (tree / name).read_bytes(), executable=file.executable)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sha256 = digest(path)
    path.with_name(f"{path.name}.sha256").write_text(f"{sha256}  {path.name}\n")
    return Package(path, sha256, manifest)


def schemas() -> dict[str, int]:
    """The schemas of the stores that the client of this workspace writes."""
    from samd_edge import device_db, store

    return {"device": len(device_db.MIGRATIONS), "store": len(store.MIGRATIONS)}


def find_uv() -> str:
    """The uv of this environment, else that of the path. Raises ReleaseError."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise ReleaseError("uv is missing; run scripts/test once, or: pip install 'uv>=0.11,<1'")
    return found


def _add(archive: tarfile.TarFile, name: str, data: bytes, *, executable: bool) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    entry.mode = 0o755 if executable else 0o644
    archive.addfile(entry, io.BytesIO(data))


def _own_wheels(uv: str, workspace: Path, out: Path) -> str:
    for folder in PACKAGES.values():
        _run(uv, "build", "--quiet", "--wheel", "--out-dir", str(out), str(workspace / folder))
    wheel = next(out.glob("samd_edge-*.whl"))
    return wheel.name.split("-")[1]


def _dependencies(uv: str, workspace: Path, out: Path, extras: Sequence[str]) -> None:
    wanted = [word for extra in extras for word in ("--extra", extra)]
    _run(
        uv, "export", "--quiet", "--locked", "--package", "samd-edge", "--no-dev", "--no-emit-workspace",
        "--format", "requirements.txt", "--output-file", str(out), "--directory", str(workspace), *wanted,
    )  # fmt: skip


def _clean(site: Path) -> None:
    for name in ("bin", ".lock"):
        path = site / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for info in site.glob("*.dist-info"):
        for name in _UNSTABLE:
            (info / name).unlink(missing_ok=True)


def _compile(uv: str, site: Path, python: str) -> None:
    """Compile by a Python of the device's version: imports on a Pi are five times faster.

    Never checked against the sources, which nobody changes in a release; with a fixed seed, without which the
    order of a constant set changes from one compilation to the next.
    """
    if sys.version_info[:2] == tuple(int(part) for part in python.split(".")):
        interpreter = sys.executable
    else:
        found = subprocess.run(
            (uv, "python", "find", "--no-project", python), capture_output=True, text=True, check=False
        )
        if found.returncode:
            raise ReleaseError(
                f"Python {python} is needed to compile for it; run: uv python install {python}"
            )
        interpreter = found.stdout.strip()
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    # some packages carry templates that are no Python: compileall goes on and says so by its exit code
    subprocess.run(
        (interpreter, "-m", "compileall", "-q", "-j", "1", "--invalidation-mode", "unchecked-hash",
         "-s", str(site), "-p", "site", str(site)),
        env=environment, check=False, capture_output=True,
    )  # fmt: skip
    if not list(site.glob("samd_edge/__pycache__/*.pyc")):
        raise ReleaseError(f"{interpreter}: nothing was compiled; is it a whole Python {python}?")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = re.sub(r"\x1b\[[0-9;]*m", "", " ".join(lines[-3:]))
        raise ReleaseError(f"{' '.join(command[:3])} failed: {reason or f'exit code {done.returncode}'}")


__all__ = [
    "Package", "ReleaseError", "UpdateError", "find_uv", "make_release", "pack", "schemas", "seal",
]  # fmt: skip
