"""The releases of a device, and the links that say which one is in use.

::

    ROOT/releases/NAME/                   one release, whole: it gets its name when everything is on the disk
    ROOT/current -> releases/NAME         the one in use
    ROOT/previous -> releases/NAME        the one before
    ROOT/trial                            while a new one is on trial (``trial.Trial``)
    ROOT/last-update.json                 how the last update ended (``trial.Outcome``)
    ROOT/.update                          while an update is under way: what `previous` named before

Every change is one rename, and on the disk before the next begins: whenever the power is cut, ``current`` is
a whole release, the old one or the new.
"""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec

from samd_edge.update.manifest import (
    FILE,
    MAX_MANIFEST_BYTES,
    Manifest,
    Refused,
    UpdateError,
    check_name,
    decode,
    describe,
)

LOCK: Final = "lock"
BEGUN: Final = ".update"
PART: Final = ".part"
GONE: Final = ".gone"

Link = Literal["current", "previous"]


class Begun(msgspec.Struct, frozen=True):
    """The release that an update brings, and the one that was `previous` when it began."""

    name: str
    previous: str | None


class Layout:
    """The folder that holds the releases. Nothing is kept in memory: the disk is what is true."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.releases = root / "releases"

    def folder(self, name: str) -> Path:
        """The folder of a release."""
        return self.releases / name

    def named(self, link: Link) -> str | None:
        """The release that a link names; None when there is no such link, or no such release."""
        try:
            name = Path(os.readlink(self.root / link)).name
            check_name(name, str(self.root / link))
        except (OSError, UpdateError):
            return None
        return name if self.folder(name).is_dir() else None

    def current(self) -> str:
        """The release in use. Raises UpdateError where none is."""
        name = self.named("current")
        if name is None:
            raise UpdateError(
                f"{self.root}/current: names no release; this is no device of ours: give --root"
            )
        return name

    def installed(self) -> list[str]:
        """The names of the releases that are whole."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(entry.name for entry in self.releases.iterdir() if not entry.name.startswith("."))
        return []

    def manifest(self, name: str) -> Manifest:
        """What a release says of itself. Raises UpdateError."""
        path = self.folder(name) / FILE
        try:
            with path.open("rb") as file:
                data = file.read(MAX_MANIFEST_BYTES + 1)
        except OSError as error:
            raise UpdateError(f"{path}: cannot be read ({error.strerror}); apply its package anew") from error
        manifest = decode(data[:MAX_MANIFEST_BYTES], str(path))
        if manifest.name != name:
            raise UpdateError(f"{path}: is the manifest of {manifest.name}; apply the package of {name} anew")
        return manifest

    def check(self, name: str) -> Manifest:
        """Every file of a release against its manifest. Raises UpdateError."""
        manifest = self.manifest(name)
        found = describe(self.folder(name))
        if found != manifest.files:
            wrong = sorted(
                path for path in {*found, *manifest.files} if found.get(path) != manifest.files.get(path)
            )
            raise UpdateError(
                f"{self.folder(name)}: {len(wrong)} files are not those of the release ({wrong[0]}); "
                "apply its package anew"
            )
        return manifest

    # -- changes -------------------------------------------------------------------------------------------

    def switch(self, link: Link, name: str | None) -> None:
        """Let a link name another release (None: none), at once and on the disk."""
        path = self.root / link
        if name is None:
            path.unlink(missing_ok=True)
        else:
            beside = self.root / f".{link}.new"
            beside.unlink(missing_ok=True)
            beside.symlink_to(Path("releases") / name)
            beside.replace(path)
        sync_folder(self.root)

    def place(self, part: Path, name: str) -> None:
        """Give a release that was unpacked under a temporary name its own, once it is on the disk."""
        os.sync()  # at once: a sync of each of 4,000 files would take minutes on a card
        for folder, _, names in os.walk(part):
            for file in names:
                _sync(
                    Path(folder, file), os.O_RDONLY
                )  # costs nothing now, and tells what could not be written
            sync_folder(Path(folder))
        part.rename(self.folder(name))
        sync_folder(self.releases)

    def remove(self, name: str) -> None:
        """Remove a release: first its name goes, then its files."""
        gone = self.releases / f".{name}{GONE}"
        shutil.rmtree(gone, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            self.folder(name).rename(gone)
            sync_folder(self.releases)
        shutil.rmtree(gone, ignore_errors=True)

    def tidy(self) -> None:
        """Remove what an update that has ended, or was cut off, has left. Only while none is on trial.

        Kept are the release in use and the one before. `previous` never names the release in use: an update
        that came to nothing had set it so, and what it named before stands in the record of its beginning.
        """
        for left in self.releases.glob(".*"):
            shutil.rmtree(left, ignore_errors=True)
        current, previous = self.named("current"), self.named("previous")
        if previous == current:
            begun = self.begun()
            previous = begun.previous if begun is not None and begun.previous in self.installed() else None
            self.switch("previous", previous)
        for name in self.installed():
            if current is not None and name not in (current, previous):
                self.remove(name)
        self.drop(BEGUN)

    def begin(self, name: str) -> None:
        """Write down what the links name, before an update changes anything."""
        self.write(BEGUN, msgspec.json.encode(Begun(name=name, previous=self.named("previous"))))

    def begun(self) -> "Begun | None":
        """The beginning of the update that is under way or was cut off, as far as it is known."""
        try:
            with (self.root / BEGUN).open("rb") as file:
                return msgspec.json.decode(file.read(4096), type=Begun)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None

    def free(self) -> int:
        """Bytes that may still be written here."""
        found = os.statvfs(self.root)
        return found.f_bavail * found.f_frsize

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, whole and on the disk."""
        path = self.root / name
        beside = self.root / f".{name}.new"
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.chmod(0o644)
        beside.replace(path)
        sync_folder(self.root)

    def drop(self, name: str) -> None:
        """Remove a small file."""
        with contextlib.suppress(FileNotFoundError):
            (self.root / name).unlink()
            sync_folder(self.root)

    @contextlib.contextmanager
    def locked(self, *, wait: bool = False) -> Iterator[None]:
        """Hold the folder for this process. Raises Refused while another has it, unless it waits."""
        path = self.root / LOCK
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UpdateError(_cannot(self.root, error)) from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as error:
                holder = os.read(handle, 20).decode(errors="replace").strip() or "unknown"
                raise Refused(
                    f"{self.root}: another update is under way (process {holder}); wait for its end"
                ) from error
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(handle)  # and with it the lock


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _cannot(root: Path, error: OSError) -> str:
    if error.errno == errno.EROFS:
        return f"{root}: is mounted read-only; run: mount -o remount,rw /"
    if error.errno == errno.ENOENT:
        return f"{root}: there is no such folder; this device was not made by scripts/flash: give --root"
    return f"{root}: cannot be written ({error.strerror}); run as root"
