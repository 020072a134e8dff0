"""What a release of the client says of itself: ``manifest.json``, canonical JSON, first in its package.

A release is named after its content: version, and the first eight digits of the SHA-256 over everything
that the manifest fixes, so that two releases of one name are the same files. ``signature`` is not part of
that hash: a signature is made over it. A new optional field is passed over by older clients; whatever they
must not pass over is a new ``format``.
"""

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Annotated, Final

import msgspec

from samd_edge.update.running import NAME

FORMAT: Final = 1
FILE: Final = "manifest.json"
LAUNCHER: Final = "bin/samd-edge"
MAX_FILES: Final = 100_000
MAX_MANIFEST_BYTES: Final = 16 * 1024 * 1024
MAX_BYTES: Final = 8 * 1024**3
"""A release with TensorFlow holds 20,000 files and 2 GB."""

_CHUNK: Final = 1024 * 1024

_Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
_Size = Annotated[int, msgspec.Meta(ge=0, le=MAX_BYTES)]


class UpdateError(Exception):
    """An update that cannot be; the text is one line: what, where, what to do."""


class Refused(UpdateError):  # noqa: N818  (an answer, no fault)
    """Not now: the patient, or another release on trial, comes first."""


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a release."""

    size: _Size
    sha256: _Sha256
    executable: bool = False


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A release: for which machine and Python, its files, and the schemas of the stores that it writes.

    ``schemas``: by kind of file in the data directory (``device``, ``store``) the newest schema that this
    release knows. A client cannot open what a newer one has migrated: it decides whether there is a way back.
    """

    format: int = FORMAT
    version: str
    machine: str
    python: str
    schemas: dict[str, int]
    files: dict[str, File]
    signature: str | None = None

    @property
    def sha256(self) -> str:
        """The hash of the release: of everything here but the signature."""
        return hashlib.sha256(encode(msgspec.structs.replace(self, signature=None))).hexdigest()

    @property
    def name(self) -> str:
        """The release's name, and that of its folder."""
        return f"{self.version}-{self.sha256[:8]}"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


class _Format(msgspec.Struct):
    format: int = 0


def encode(manifest: Manifest) -> bytes:
    """The canonical JSON of a manifest."""
    return msgspec.json.encode(manifest, order="sorted")


def decode(data: bytes, where: str) -> Manifest:
    """A manifest that was checked: its paths stay within the release. Raises UpdateError."""
    try:
        found = msgspec.json.decode(data, type=_Format).format
        if found != FORMAT:
            raise UpdateError(
                f"{where}: a release of format {found}; this client reads {FORMAT}: update in steps"
            )
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpdateError(f"{where}: {FILE} cannot be read ({error}); fetch the package anew") from error
    if len(manifest.files) > MAX_FILES or manifest.size > MAX_BYTES:
        raise UpdateError(f"{where}: {len(manifest.files)} files of {manifest.size} bytes are no client")
    for path in manifest.files:
        check_path(path, where)
    if LAUNCHER not in manifest.files or not manifest.files[LAUNCHER].executable:
        raise UpdateError(f"{where}: holds no {LAUNCHER}; this is no package of the client")
    check_name(manifest.name, where)
    return manifest


def check_path(path: str, where: str) -> None:
    """Raises UpdateError for a path that is not plainly one below the release's folder."""
    pure = PurePosixPath(path)
    plain = path == str(pure) and not pure.is_absolute() and path.isprintable() and "\\" not in path
    if not plain or ".." in pure.parts or pure.parts[:1] in ((), (".",), (FILE,)) or len(path) > 500:
        raise UpdateError(f"{where}: the path {path!r} leaves the release's folder; fetch the package anew")


def check_name(name: str, where: str) -> str:
    """Raises UpdateError for a name that is no release's."""
    if not NAME.fullmatch(name):
        raise UpdateError(f"{where}: {name!r} is no name of a release, such as 0.1.0-1a2b3c4d")
    return name


def describe(tree: Path, *, check: Callable[[], None] = lambda: None) -> dict[str, File]:
    """The files below a folder, without its manifest. Raises UpdateError for what is neither file nor folder.

    ``check`` is called before each file: it may raise, to stop.
    """
    found: dict[str, File] = {}
    for folder, folders, names in os.walk(tree):
        folders.sort()
        for name in sorted((*folders, *names)):
            path = Path(folder, name)
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                continue
            if not stat.S_ISREG(mode):
                raise UpdateError(f"{path}: is neither file nor folder; a release holds nothing else")
            relative = path.relative_to(tree).as_posix()
            if relative == FILE:
                continue
            check()
            found[relative] = File(
                size=path.stat().st_size, sha256=digest(path), executable=bool(mode & stat.S_IXUSR)
            )
    return found


def digest(path: Path) -> str:
    """The SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        state = hashlib.sha256()
        while piece := file.read(_CHUNK):
            state.update(piece)
    return state.hexdigest()
