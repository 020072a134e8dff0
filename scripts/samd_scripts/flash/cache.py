"""What was built once, kept by its content: a file is named after the hash of everything that made it.

A file appears under its name when it is whole, never before. Two builds of one thing wait for each other.
The four of a kind that were used last are kept.
"""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from samd_scripts.flash.errors import FlashError

KEPT: Final = 4


def default_folder() -> Path:
    """``samd-flash`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or ""
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "samd-flash"


def key_of(*parts: object) -> str:
    """16 hex digits of the hash over the parts, whatever their types."""
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:16]


class Cache:
    """A folder of files by kind and key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FlashError(
                f"{folder}: cannot be used as cache ({error.strerror}); name another by --cache"
            ) from error

    def path(self, kind: str, key: str, suffix: str = "") -> Path:
        return self.folder / f"{kind}-{key}{suffix}"

    def get(self, kind: str, key: str, suffix: str, make: Callable[[Path], None]) -> Path:
        """The file (or folder); `make(path)` writes it under the name that it is given, if need be."""
        target = self.path(kind, key, suffix)
        with self._lock(target):
            if not target.exists():
                with whole(target) as partial:
                    make(partial)
                self._prune(kind, suffix, target)
            with contextlib.suppress(OSError):
                os.utime(target)
        return target

    @contextlib.contextmanager
    def _lock(self, target: Path) -> Iterator[None]:
        with (self.folder / f".{target.name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _prune(self, kind: str, suffix: str, new: Path) -> None:
        found = [path for path in self.folder.glob(f"{kind}-*{suffix}") if path != new]
        for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT - 1 :]:
            remove(path)


@contextlib.contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A name beside `target` to write to; it becomes `target` at the end, and is gone after any failure.

    Left-overs of a process that was killed are removed by the next one that writes the same target.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for old in target.parent.glob(f".{target.name}.*.part"):
        pid = old.name.split(".")[-2]
        if not pid.isdigit() or not Path("/proc", pid).exists():
            remove(old)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield partial
        partial.replace(target)
    except OSError as error:
        if error.filename is None or str(partial) in str(error.filename) or error.errno == 28:
            raise FlashError(f"{target}: cannot be written ({error.strerror})") from error
        raise
    finally:
        remove(partial)


def remove(path: Path) -> None:
    """A file or a folder, if it is there."""
    import shutil

    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
