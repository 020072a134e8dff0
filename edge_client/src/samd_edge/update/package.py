"""A release as one file: an uncompressed tar, its manifest first; read with suspicion, unpacked beside.

What stands in it is written only if the manifest names it, with the size and the hash that stand there: plain
files, each once, nothing else. Nothing of it runs here.
"""

import errno
import hashlib
import os
import platform
import re
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

from samd_edge.update.layout import PART, Layout
from samd_edge.update.manifest import (
    FILE,
    MAX_BYTES,
    MAX_FILES,
    MAX_MANIFEST_BYTES,
    Manifest,
    UpdateError,
    decode,
)

SPARE: Final = 16 * 1024 * 1024
"""Bytes that must stay free beside the new release: the system writes there too."""
_CHUNK: Final = 1024 * 1024
_BLOCK: Final = 4096
_FAULTS: Final = (OSError, tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError)
"""What a damaged archive raises; a chain of headers that name further headers, the last."""
_ANEW: Final = "fetch the package anew"


def expected(path: Path, given: str | None) -> str:
    """The hash that the package should have: as given, else from FILE.sha256. Raises UpdateError."""
    if given is None:
        beside = path.with_name(f"{path.name}.sha256")
        try:
            given = beside.read_text(encoding="ascii")[:200].split()[0]
        except FileNotFoundError as error:
            raise UpdateError(
                f"{path}: its hash is not known; give --sha256, or put {beside.name} beside it"
            ) from error
        except (OSError, ValueError, IndexError) as error:
            raise UpdateError(f"{beside}: cannot be read as a hash; give --sha256") from error
    if not re.fullmatch(r"[0-9a-f]{64}", given.lower()):
        raise UpdateError(f"{given[:80]!r}: is no SHA-256, which has 64 hexadecimal digits")
    return given.lower()


class Package:
    """An open package whose hash was checked. Raises UpdateError."""

    def __init__(self, path: Path, sha256: str) -> None:
        self.path = path
        self._file = self._open()
        try:
            self._compare(sha256)
            self.manifest = self._manifest()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Package":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def check_fits(self, *, machine: str | None = None, python: str | None = None) -> None:
        """Whether the release is for this machine and this Python. Raises UpdateError."""
        machine = machine or platform.machine()
        python = python or f"{sys.version_info[0]}.{sys.version_info[1]}"
        wanted = self.manifest
        if wanted.machine != machine:
            raise UpdateError(
                f"{self.path}: is for {wanted.machine}, this device is {machine}; "
                f"fetch the package for {machine}"
            )
        if wanted.python != python:
            raise UpdateError(
                f"{self.path}: is for Python {wanted.python}, this device has {python}; "
                f"fetch the package for Python {python}"
            )

    def check_space(self, free: int) -> None:
        """Whether so many free bytes suffice. Raises UpdateError."""
        files = self.manifest.files
        needed = sum(-(-file.size // _BLOCK) * _BLOCK for file in files.values()) + SPARE
        if free < needed:
            raise UpdateError(
                f"{self.path}: needs {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free; "
                "make room and try again"
            )

    def unpack(self, layout: Layout, *, told: Callable[[float], None] = lambda _share: None) -> Path:
        """Unpack under a temporary name, each file compared; nothing is left there when that fails.

        ``told`` hears how much is done, 0 to 1. Raises UpdateError.
        """
        layout.releases.mkdir(exist_ok=True)
        part = layout.releases / f".{self.manifest.name}{PART}"
        shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir(mode=0o755)
            self._unpack(part, told)
        except BaseException as error:
            shutil.rmtree(part, ignore_errors=True)
            if isinstance(error, _FAULTS):
                raise UpdateError(self._broken(error)) from error
            raise
        return part

    # -- reading -------------------------------------------------------------------------------------------

    def _open(self) -> IO[bytes]:
        try:
            if not self.path.is_file():
                raise UpdateError(f"{self.path}: there is no such file")
            return self.path.open("rb")
        except OSError as error:
            raise UpdateError(f"{self.path}: cannot be read ({error.strerror})") from error

    def _compare(self, sha256: str) -> None:
        size = os.fstat(self._file.fileno()).st_size
        if size > MAX_BYTES:
            raise UpdateError(f"{self.path}: {size} bytes are no package of the client")
        state = hashlib.sha256()
        while piece := self._file.read(_CHUNK):
            state.update(piece)
        if state.hexdigest() != sha256:
            raise UpdateError(
                f"{self.path}: its hash is {state.hexdigest()[:16]}..., not {sha256[:16]}...: the file "
                f"({size} bytes) is truncated, damaged or another one; fetch it anew"
            )

    def _archive(self) -> tarfile.TarFile:
        self._file.seek(0)
        return tarfile.open(fileobj=self._file, mode="r|")

    def _manifest(self) -> Manifest:
        try:
            with self._archive() as archive:
                first = archive.next()
                if first is None or first.name != FILE or not _plain(first):
                    raise UpdateError(
                        f"{self.path}: does not begin with {FILE}; this is no package of the client; {_ANEW}"
                    )
                if first.size > MAX_MANIFEST_BYTES:
                    raise UpdateError(f"{self.path}: {FILE} has {first.size} bytes; fetch the package anew")
                return decode(_content(archive, first).read(first.size), str(self.path))
        except _FAULTS as error:
            raise UpdateError(self._broken(error)) from error

    def _unpack(self, part: Path, told: Callable[[float], None]) -> None:
        missing = dict(self.manifest.files)
        total, done, members = max(1, self.manifest.size), 0, 0
        with self._archive() as archive:
            for entry in archive:
                members += 1
                if members > MAX_FILES + 1:
                    raise UpdateError(f"{self.path}: holds too many files; {_ANEW}")
                if not _plain(entry):
                    raise UpdateError(
                        f"{self.path}: {entry.name[:200]!r} is a link or a device, not a file; {_ANEW}"
                    )
                if members == 1:
                    self._write(part / FILE, _content(archive, entry), entry.size, executable=False)
                    continue
                file = missing.pop(entry.name, None)
                if file is None:
                    raise UpdateError(
                        f"{self.path}: {entry.name[:200]!r} does not stand in its manifest, or twice; {_ANEW}"
                    )
                if entry.size != file.size:
                    raise UpdateError(
                        f"{self.path}: {entry.name} has {entry.size} bytes, not {file.size}; {_ANEW}"
                    )
                path = part / entry.name
                path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                content = _content(archive, entry)
                if self._write(path, content, file.size, executable=file.executable) != file.sha256:
                    raise UpdateError(
                        f"{self.path}: {entry.name} does not have the hash of its manifest; {_ANEW}"
                    )
                done += file.size
                told(done / total)
        if missing:
            raise UpdateError(f"{self.path}: {len(missing)} files are missing, as {min(missing)}; {_ANEW}")

    def _write(self, path: Path, content: IO[bytes], size: int, *, executable: bool) -> str:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        state = hashlib.sha256()
        with open(os.open(path, flags, 0o600), "wb") as file:
            left = size
            while left:
                piece = content.read(min(left, _CHUNK))
                if not piece:
                    raise tarfile.ReadError("unexpected end of data")
                state.update(piece)
                file.write(piece)
                left -= len(piece)
            os.fchmod(file.fileno(), 0o755 if executable else 0o644)
        return state.hexdigest()

    def _broken(self, error: Exception) -> str:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"{self.path}: the disk is full; what was unpacked is removed: make room and try again"
        if isinstance(error, OSError):
            return f"{self.path}: cannot be unpacked ({error.strerror})"
        return f"{self.path}: is no whole archive ({error}); {_ANEW}"


def _plain(entry: tarfile.TarInfo) -> bool:
    return entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not entry.issparse()


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(entry)
    if content is None:
        raise tarfile.ReadError(f"{entry.name} has no content")
    return content
