"""A model as one file, `NAME.samd`: an uncompressed zip of four members.

`manifest.json` is canonical JSON (sorted keys, no spaces) and holds the SHA-256 of the other three, so that
a signature over the manifest, once enrolment exists, covers the whole. Members: `model.tflite` (the graph,
which is the program), `weights.npy` (one flat float32 vector), `model.keras` (the same network for
TensorFlow). Written with fixed times, the same content gives the same bytes, and only those bytes are read:
one content has one file. Reading verifies sizes, names and every hash before anything is handed out;
nothing in a bundle is ever executed as Python. A new optional field of the manifest is passed over by older
programs; whatever they must not pass over is a new `format`.
"""

import hashlib
import io
import math
import os
import re
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from samd_protocol.errors import BundleError

FORMAT = 1
MAX_BYTES = 64 * 1024 * 1024
GRAPH, WEIGHTS, KERAS, MANIFEST = "model.tflite", "weights.npy", "model.keras", "manifest.json"
MEMBERS = (MANIFEST, GRAPH, WEIGHTS, KERAS)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIRECTORY_BYTES = sum(46 + len(name) for name in MEMBERS)
_END = (
    b"PK\x05\x06" + bytes(4) + len(MEMBERS).to_bytes(2, "little") * 2 + _DIRECTORY_BYTES.to_bytes(4, "little")
)


_Length = Annotated[int, msgspec.Meta(ge=1, le=MAX_BYTES // 4)]


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of the flat weight vector, in order. `part` says what personalisation may keep apart.

    The shape is bounded: the product of a million large numbers would be computed for hours."""

    name: str
    shape: Annotated[list[_Length], msgspec.Meta(max_length=16)]
    part: Literal["body", "head"] = "body"

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """Which features the graph takes, by the name of their specification, and how its labels were made."""

    name: str
    labels: Literal["five", "all"]
    size: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle says of itself. `version` 0 is an export that was never trained.

    `batch_size` is fixed in the graph: the converter wants a batch of static size inside the loop.
    """

    format: int = FORMAT
    name: str
    version: int
    parent: int | None = None
    task: str
    trained: bool
    features: Features
    classes: list[str]
    layers: list[Layer]
    batch_size: int = 32
    hashes: dict[str, str] = msgspec.field(default_factory=dict)
    metrics: dict[str, Any] = msgspec.field(default_factory=dict)
    provenance: dict[str, Any] = msgspec.field(default_factory=dict)
    signature: str | None = None

    @property
    def weights_size(self) -> int:
        return sum(layer.size for layer in self.layers)


class _Format(msgspec.Struct):
    format: int = 0


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """A verified bundle in memory. `sha256` is that of the file's bytes."""

    manifest: Manifest
    graph: bytes
    weights: NDArray[np.float32]
    keras: bytes
    sha256: str = ""
    size: int = 0

    @property
    def graph_sha256(self) -> str:
        return self.manifest.hashes[GRAPH]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pack(bundle: Bundle) -> bytes:
    """The bundle as the bytes of a file; hashes are filled in. Raises BundleError for weights that do not
    fit the layout or are not finite."""
    weights = np.ascontiguousarray(bundle.weights, dtype="<f4")
    _check_weights(weights, bundle.manifest)
    members = {
        GRAPH: bundle.graph,
        WEIGHTS: _npy_header(weights.size) + weights.tobytes(),
        KERAS: bundle.keras,
    }
    manifest = msgspec.structs.replace(
        bundle.manifest, hashes={name: _digest(data) for name, data in members.items()}
    )
    return _archive({MANIFEST: msgspec.json.encode(manifest, order="sorted"), **members})


def _archive(members: dict[str, bytes]) -> bytes:
    """The one zip file that holds these members: order, times and attributes are fixed.

    Written out by hand (APPNOTE 6.3, 4.3): a device compares these bytes with those that another version of
    Python wrote, and the standard library does not promise that they stay the same.
    """
    files, directory = bytearray(), bytearray()
    for name in MEMBERS:
        data = members[name]
        # version 2.0, no flags, stored, midnight of 1 January 1980, checksum, sizes, no extra field
        common = struct.pack("<5H3L2H", 20, 0, 0, 0, 33, zlib.crc32(data), len(data), len(data), len(name), 0)
        # made on Unix; no comment, first disk, binary; mode 0600; where the member begins
        place = struct.pack("<3H2L", 0, 0, 0, 0o600 << 16, len(files))
        directory += b"PK\x01\x02" + struct.pack("<H", 3 << 8 | 20) + common + place + name.encode()
        files += b"PK\x03\x04" + common + name.encode() + data
    return bytes(files + directory + _END + struct.pack("<LH", len(files), 0))


def _npy_header(size: int) -> bytes:
    """What numpy writes before `size` float32 values; written out, so that reading parses nothing."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({size},), }}"
    return b"\x93NUMPY\x01\x00v\x00" + text.ljust(117).encode() + b"\n"


def unpack(data: bytes, *, where: str = "bundle") -> Bundle:
    """Read and verify a bundle. Raises BundleError for anything that is not exactly one."""
    if len(data) > MAX_BYTES:
        raise BundleError(f"{where}: {len(data)} bytes, a bundle has at most {MAX_BYTES}")
    # Looked at before the zip is opened: a directory of a million members would fill the memory.
    if data[-22:-6] != _END or data[-42:-38] == b"PK\x06\x07":
        raise BundleError(f"{where}: no bundle, or a truncated one; fetch it again")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            if sorted(info.filename for info in infos) != sorted(MEMBERS):
                raise BundleError(
                    f"{where}: its members are not those of a bundle ({', '.join(MEMBERS)}); fetch it again"
                )
            if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
                raise BundleError(f"{where}: a bundle is not compressed; fetch it again")
            if sum(info.file_size for info in infos) > len(data):
                raise BundleError(f"{where}: its members claim more than the file holds; fetch it again")
            members = {info.filename: archive.read(info) for info in infos}
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise BundleError(f"{where}: no bundle, or a truncated one ({error}); fetch it again") from error
    if _archive(members) != data:
        raise BundleError(f"{where}: the zip around its members was damaged or changed; fetch it again")
    manifest = _manifest(members[MANIFEST], where)
    for name in (GRAPH, WEIGHTS, KERAS):
        if manifest.hashes.get(name) != _digest(members[name]):
            raise BundleError(f"{where}: {name} does not match its hash; it was damaged or changed")
    header = _npy_header(manifest.weights_size)
    if (
        not members[WEIGHTS].startswith(header)
        or len(members[WEIGHTS]) != len(header) + 4 * manifest.weights_size
    ):
        raise BundleError(
            f"{where}: {WEIGHTS} is no flat vector, the layout needs {manifest.weights_size} float32 values"
        )
    weights = np.frombuffer(members[WEIGHTS], dtype="<f4", offset=len(header))
    _check_weights(weights, manifest, where)
    return Bundle(
        manifest=manifest,
        graph=members[GRAPH],
        weights=weights.astype(np.float32),
        keras=members[KERAS],
        sha256=_digest(data),
        size=len(data),
    )


def _manifest(data: bytes, where: str) -> Manifest:
    try:
        number = msgspec.json.decode(data, type=_Format).format
        if number != FORMAT:
            raise BundleError(f"{where}: format {number}, this program reads {FORMAT}; update the client")
        manifest = msgspec.json.decode(data, type=Manifest)
        # Compared as plain JSON, so that a field which this program does not know is kept.
        canonical = msgspec.json.encode(msgspec.json.decode(data), order="sorted")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{where}: its manifest cannot be read ({error})") from error
    if canonical != data:
        raise BundleError(f"{where}: its manifest is not canonical; it was changed after it was written")
    return manifest


def _check_weights(weights: NDArray[Any], manifest: Manifest, where: str = "bundle") -> None:
    if weights.dtype != np.dtype("<f4") or weights.shape != (manifest.weights_size,):
        raise BundleError(
            f"{where}: weights of shape {weights.shape} and type {weights.dtype}, "
            f"the layout needs {manifest.weights_size} float32 values"
        )
    if not np.isfinite(weights).all():
        raise BundleError(f"{where}: its weights hold values that are not finite")


def write(path: Path, bundle: Bundle) -> Bundle:
    """Write a bundle so that a reader sees the old file or the whole new one; returns it as read back."""
    data = pack(bundle)
    written = unpack(data, where=str(path))  # before the old file goes: what cannot be read is not written
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return written


def read(path: Path, *, sha256: str | None = None) -> Bundle:
    """Read and verify a file; with `sha256`, its whole content must match. Raises BundleError."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise BundleError(f"{path}: {size} bytes, a bundle has at most {MAX_BYTES}")
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror or error})") from error
    if sha256 is not None and (not _SHA256.fullmatch(sha256) or _digest(data) != sha256):
        raise BundleError(f"{path}: does not match the announced hash; it was damaged or changed")
    return unpack(data, where=str(path))
