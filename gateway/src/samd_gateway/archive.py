"""The archive of a backup: compressed tar, a manifest of hashes first. Written in one stream and read in one,
never further than the manifest says."""

import gzip
import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal

import msgspec

from samd_gateway import migrations
from samd_gateway.errors import UsageError

FORMAT = 1
MANIFEST = "manifest.json"
MANIFEST_BYTES = 16 << 20
SQLITE, DUMP = "database.sqlite3", "database.dump"
COMPRESSION = 3
CHUNK = 1 << 20

Progress = Callable[[str, int, int], None]
"""What is being done, how much of it is done, and of how much."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the archive."""

    path: str
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What the archive holds, and of which program it is."""

    format: int
    created_at: datetime
    gateway: str
    version: str
    revision: str
    database: Literal["sqlite", "postgresql"]
    files: list[Entry]

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.files)


def quiet(_what: str, _done: int, _total: int) -> None:
    """Tells nobody of the progress."""


def is_member(name: str) -> bool:
    """Whether a name can be that of an archive's file: `models/NAME` or a plain name."""
    above, _, last = name.rpartition("/")
    plain = bool(last) and len(last) <= 200 and last.isprintable() and last.isascii()
    return above in ("", "models") and plain and not last.startswith(".") and "\\" not in last


def entry_of(name: str, path: Path) -> Entry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Entry(path=name, size=file.tell(), sha256=digest)


def pack(file: IO[bytes], manifest: Manifest, paths: Mapping[str, Path], progress: Progress) -> None:
    with (
        gzip.GzipFile(fileobj=file, mode="wb", compresslevel=COMPRESSION, filename="", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        content = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
        _add(archive, MANIFEST, len(content), manifest, io.BytesIO(content))
        done = 0
        for entry in manifest.files:
            with paths[entry.path].open("rb") as source:
                _add(archive, entry.path, entry.size, manifest, source)
            done += entry.size
            progress("archive", done, manifest.size)


def _add(archive: tarfile.TarFile, name: str, size: int, manifest: Manifest, source: IO[bytes]) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    member.mtime = int(manifest.created_at.timestamp())
    archive.addfile(member, source)


# reading one


def read(archive: Path, staging: Path | None, *, progress: Progress = quiet) -> Manifest:
    """Check a whole archive, every hash in it; with `staging`, put its files there. Raises UsageError."""
    try:
        with (
            archive.open("rb") as file,
            gzip.GzipFile(fileobj=file, mode="rb") as packed,
            tarfile.open(fileobj=packed, mode="r|") as members,
        ):
            manifest = _read_manifest(archive, members)
            _check(archive, manifest, staging)
            _read_files(archive, members, manifest, staging, progress)
            if len(packed.read(CHUNK)) == CHUNK:  # to the end, whose checksum is of the whole
                raise UsageError(f"{archive}: holds more than its manifest says; use another")
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise UsageError(f"{archive}: no backup, or a damaged one ({error}); use another") from error
    return manifest


def _read_manifest(archive: Path, members: tarfile.TarFile) -> Manifest:
    first = members.next()
    if first is None or first.name != MANIFEST or not first.isreg() or first.size > MANIFEST_BYTES:
        raise UsageError(f"{archive}: no backup of a gateway; samd-gateway backup writes one")
    file = members.extractfile(first)
    content = b"" if file is None else file.read()
    try:
        return msgspec.json.decode(content, type=Manifest)
    except msgspec.DecodeError as error:
        raise UsageError(f"{archive}: its manifest cannot be read ({error}); use another backup") from error


def _check(archive: Path, manifest: Manifest, staging: Path | None) -> None:
    if manifest.format != FORMAT or not migrations.knows(manifest.revision):
        raise UsageError(
            f"{archive}: of another program (version {manifest.version[:32]!r}, tables of revision "
            f"{manifest.revision[:32]!r}); restore it with that one"
        )
    names = [entry.path for entry in manifest.files]
    copy = SQLITE if manifest.database == "sqlite" else DUMP
    if copy not in names or len(set(names)) < len(names) or not all(map(is_member, names)):
        raise UsageError(f"{archive}: its manifest names files that no backup holds; use another")
    if staging is not None and manifest.size > shutil.disk_usage(staging).free:
        raise UsageError(
            f"{staging.parent}: {manifest.size} bytes do not fit there; make room, and try again"
        )


def _read_files(
    archive: Path, members: tarfile.TarFile, manifest: Manifest, staging: Path | None, progress: Progress
) -> None:
    waiting = {entry.path: entry for entry in manifest.files}
    done = 0
    while (member := members.next()) is not None:
        entry = waiting.pop(member.name, None)
        if entry is None or not member.isreg() or member.size != entry.size:
            raise UsageError(f"{archive}: {member.name[:80]!r} is not what its manifest says; use another")
        source: Any = members.extractfile(member)
        target = Path(os.devnull) if staging is None else staging / entry.path
        if staging is not None:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with open(target, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                file.write(chunk)
                done += len(chunk)
                progress("files", done, manifest.size)
            if staging is not None:
                file.flush()
                os.fsync(file.fileno())
        if digest.hexdigest() != entry.sha256:
            raise UsageError(f"{archive}: {entry.path} is damaged (its hash differs); use another backup")
    if waiting:
        raise UsageError(f"{archive}: {min(waiting)} is missing in it; use another backup")
