"""The image that every device of one kind begins as: built once, then taken from the cache.

Three things are kept apart, since they change at different paces: Debian's archive (by its package list), a
release of the client (by the sources of this workspace), and the image of both (by the two, and by how it is
put together).
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from samd_scripts import release as releases
from samd_scripts.flash import debian, overlay, profiles, raspios, tools
from samd_scripts.flash.assemble import Made, Order
from samd_scripts.flash.cache import Cache, key_of
from samd_scripts.flash.errors import FlashError
from samd_scripts.flash.profiles import PROFILES, PYTHON

ROOT: Final = Path(__file__).resolve().parents[3]
IMAGE: Final = "base.img"
PACKAGES: Final = "packages.json"
INFO: Final = "info.json"
DEBIAN: Final = "debian"

Step = Callable[[str], None]


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """What a base image is."""

    profile: str
    base: str
    release: str
    version: str
    system: str
    root_mib: int
    kernel: str = ""
    cloud_init: bool = False
    firstrun: bool = False

    @property
    def raspios(self) -> bool:
        """Whether it came from Raspberry Pi OS, with a first boot of its own."""
        return self.cloud_init or self.firstrun


@dataclass(frozen=True)
class Base:
    """A base image in the cache."""

    folder: Path
    info: Info

    @property
    def image(self) -> Path:
        return self.folder / IMAGE

    def packages(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = msgspec.json.decode((self.folder / PACKAGES).read_bytes())
        return found


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked for. `base`: "debian", an image of Raspberry Pi OS, or an archive of a root."""

    profile: str = "core"
    base: str = DEBIAN
    mirror: str = debian.MIRROR
    security: str = debian.SECURITY
    refresh: bool = False


def get(wanted: Wanted, cache: Cache, *, step: Step = lambda _text: None, workspace: Path = ROOT) -> Base:
    """The base image, built if need be. Raises FlashError; nothing half-made stays."""
    profile = PROFILES[wanted.profile]
    is_image = raspios.is_image(wanted.base)
    given = None if wanted.base == DEBIAN else given_file(wanted.base)
    tools.require(*tools.IMAGE, *((*tools.BUILD,) if given is None else ()))
    if is_image:
        assert given is not None
        return raspios_base(given, profile, cache, step, workspace)
    archive = given if given is not None else debian_archive(wanted, cache, step)
    release = get_release(cache, profile.extras, PYTHON, step, workspace)
    key = key_of(archive.name if given is None else digest([archive]), release.name, own_digest())

    def make(folder: Path) -> None:
        step(f"putting the image together: client {release_name(release)}")
        _assemble(archive, release, folder, cache=cache, step=step, profile=profile.name, base=wanted.base)

    return opened(cache.get(f"base-{profile.name}", key, "", make))


def opened(folder: Path) -> Base:
    """A base that lies in the cache."""
    return Base(folder, msgspec.json.decode((folder / INFO).read_bytes(), type=Info))


def given_file(name: str) -> Path:
    """The file of --base. Raises FlashError."""
    path = Path(name)
    if not path.is_file():
        raise FlashError(
            f"--base {name}: there is no such file; write debian, an image of Raspberry Pi OS, or an archive "
            "that scripts/flash build --archive made"
        )
    return path.resolve()


def debian_archive(wanted: Wanted, cache: Cache, step: Step) -> Path:
    """Debian's root file system for a profile, as an archive in the cache."""
    packages = PROFILES[wanted.profile].packages
    recipe = (packages, profiles.EXCLUDED, profiles.INCLUDED, profiles.SUITE, wanted.mirror)
    key = key_of(*recipe, digest([Path(debian.__file__)]))
    target = cache.path("debian", key, ".tar")
    if wanted.refresh and target.exists():
        step("the cached archive is made anew")
        target.unlink()
    return cache.get(
        "debian", key, ".tar",
        lambda out: debian.build(packages, out, mirror=wanted.mirror, security=wanted.security, step=step),
    )  # fmt: skip


def get_release(
    cache: Cache, extras: tuple[str, ...], python: str, step: Step, workspace: Path = ROOT
) -> Path:
    """A release of the client, as a folder in the cache."""
    sources = [workspace / "uv.lock", Path(releases.__file__)]
    for folder in releases.PACKAGES.values():
        sources += [workspace / folder / "pyproject.toml", *sorted((workspace / folder / "src").rglob("*.*"))]
    key = key_of(digest(path for path in sources if "__pycache__" not in path.parts), extras, python)

    def make(out: Path) -> None:
        try:
            releases.make_release(workspace, out, python=python, extras=extras, step=step)
        except releases.ReleaseError as error:
            raise FlashError(str(error)) from error

    return cache.get("client", key, "", make)


def release_name(release: Path) -> str:
    """The name that a release has on a device."""
    return str(_manifest(release).name)


def _manifest(release: Path) -> Any:
    from samd_edge.update.manifest import FILE, Manifest

    return msgspec.json.decode((release / FILE).read_bytes(), type=Manifest)


def _assemble(
    archive: Path, release: Path, folder: Path, *, cache: Cache, step: Step, profile: str, base: str
) -> None:
    work = cache.folder / f".assemble.{os.getpid()}"
    remove_as_root(work)
    work.mkdir()
    folder.mkdir()
    name = release_name(release)
    order = Order(
        archive=str(archive), release=str(release), name=name, image=str(folder / IMAGE), work=str(work),
        packages=str(folder / PACKAGES),
    )  # fmt: skip
    try:
        made = msgspec.json.decode(_in_process(order, step), type=Made)
    finally:
        remove_as_root(work)
    info = Info(
        profile=profile,
        base=DEBIAN if base == DEBIAN else Path(base).name,
        release=name,
        version=_manifest(release).version,
        system="Debian 12",
        root_mib=made.root_mib,
        kernel=made.kernel,
    )
    (folder / INFO).write_bytes(msgspec.json.encode(info))


def _in_process(order: Order, step: Step) -> str:
    """Run `assemble` as root, or as root of a user namespace; returns its result."""
    command = tools.as_root([sys.executable, "-m", "samd_scripts.flash.assemble"])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    last = ""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            process.stdin.write(msgspec.json.encode(order).decode())
            process.stdin.close()
            for line in process.stdout:
                last = line
                if not line.startswith("{"):
                    step(line.strip())
            said = process.stderr.read()
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise FlashError(tools.told(said, process.returncode))
    return last


def remove_as_root(folder: Path) -> None:
    """Remove a folder that may hold files of several users."""
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        tools.run(*tools.as_root(["rm", "-rf", "--one-file-system", str(folder)]))


def digest(paths: Iterable[Path]) -> str:
    """The hash of files with their names."""
    state = hashlib.sha256()
    for path in paths:
        if path.is_file():
            state.update(path.name.encode())
            with path.open("rb") as file:
                state.update(hashlib.file_digest(file, "sha256").digest())
    return state.hexdigest()


def own_digest() -> str:
    """The hash of what decides how an image is put together."""
    here = Path(__file__).parent
    own = [here / f"{name}.py" for name in ("assemble", "disk", "initrd", "overlay", "raspios", "sbom")]
    return digest([*own, *sorted(overlay.HERE.rglob("*"))])


def raspios_base(given: Path, profile: profiles.Profile, cache: Cache, step: Step, workspace: Path) -> Base:
    """A base from the image of Raspberry Pi OS that the user gave."""
    step(f"reading {given.name}")
    key_given = digest([given])

    def make(folder: Path) -> None:
        folder.mkdir()
        image = folder / IMAGE
        raspios.unpack(given, image, step=step)
        system = raspios.look_at(image, named=given)
        release = get_release(cache, profile.extras, system.python, step, workspace)
        name = release_name(release)
        step(f"putting client {name} into {system.name}")
        root_mib = raspios.furnish(image, system, release, name)
        (folder / PACKAGES).write_bytes(raspios.packages(image, release))
        info = Info(
            profile=profile.name, base=given.name, release=name, version=_manifest(release).version,
            system=system.name, root_mib=root_mib, cloud_init=system.cloud_init,
            firstrun=not system.cloud_init,
        )  # fmt: skip
        (folder / INFO).write_bytes(msgspec.json.encode(info))

    key = key_of(key_given, profile.extras, own_digest(), _workspace_digest(workspace))
    return opened(cache.get(f"base-{profile.name}", key, "", make))


def _workspace_digest(workspace: Path) -> str:
    sources = [workspace / "uv.lock"]
    for folder in releases.PACKAGES.values():
        sources += sorted((workspace / folder / "src").rglob("*.py"))
    return digest(sources)
