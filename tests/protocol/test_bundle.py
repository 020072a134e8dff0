"""The bundle: one content has one file, and whatever differs from it is never loaded."""

import contextlib
import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
import threading
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samd_protocol import bundle
from samd_protocol.bundle import GRAPH, KERAS, MANIFEST, MEMBERS, WEIGHTS, Bundle, Features, Layer, Manifest
from samd_protocol.errors import BundleError

LAYERS = [Layer(name="body/kernel", shape=[3, 2]), Layer(name="head/bias", shape=[2], part="head")]


def made(**changes: Any) -> Bundle:
    """A small bundle; `changes` are those of its manifest."""
    manifest = Manifest(
        name="severity",
        version=3,
        parent=2,
        task="severity",
        trained=True,
        features=Features(name="signs-v1", labels="five", size=3),
        classes=["none", "low", "medium", "high"],
        layers=LAYERS,
        metrics={"macro_f1": 0.75, "recall": [1.0, 0.5]},
        provenance={"seed": 0},
    )
    return Bundle(
        manifest=msgspec.structs.replace(manifest, **changes),
        graph=b"TFL3" + bytes(range(64)),
        weights=np.linspace(-1, 1, 8, dtype=np.float32),
        keras=b"keras" * 9,
    )


PACKED = bundle.pack(made())


def members(data: bytes = PACKED) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(*files: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip as `bundle.pack` writes it, of any members."""
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", method) as archive:
        warnings.simplefilter("ignore", UserWarning)  # a name twice, on purpose
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, method)
    return out.getvalue()


def rewritten(change: Callable[[dict[str, Any]], None] | None = None, **changed: bytes) -> bytes:
    """The bundle with other members and hashes that fit them: what somebody who knows the format can make."""
    found = {
        **members(),
        **{{"graph": GRAPH, "weights": WEIGHTS}[key]: data for key, data in changed.items()},
    }
    manifest = msgspec.json.decode(found[MANIFEST])
    manifest["hashes"] = {name: hashlib.sha256(found[name]).hexdigest() for name in (GRAPH, WEIGHTS, KERAS)}
    if change is not None:
        change(manifest)
    found[MANIFEST] = msgspec.json.encode(manifest, order="sorted")
    return zipped(*((name, found[name]) for name in MEMBERS))


def npy(values: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, values, **options)
    return out.getvalue()


def refused(data: bytes, match: str | None = None) -> None:
    with pytest.raises(BundleError, match=match) as caught:
        bundle.unpack(data, where="model.samd")
    assert str(caught.value).startswith("model.samd: ")
    assert "\n" not in str(caught.value)


def test_a_bundle_comes_back_the_same() -> None:
    read = bundle.unpack(PACKED)
    assert msgspec.structs.replace(read.manifest, hashes={}) == made().manifest
    assert (read.graph, read.keras) == (made().graph, made().keras)
    assert read.weights.tobytes() == made().weights.tobytes()
    assert read.weights.dtype == np.float32
    assert read.weights.flags.writeable
    assert read.sha256 == hashlib.sha256(PACKED).hexdigest()
    assert read.size == len(PACKED)
    assert read.graph_sha256 == hashlib.sha256(made().graph).hexdigest()
    assert read.manifest.weights_size == 8


def test_the_same_content_gives_the_same_bytes() -> None:
    assert bundle.pack(made()) == PACKED == bundle.pack(bundle.unpack(PACKED))
    assert bundle.pack(made(provenance={"seed": 1})) != PACKED
    turned = {"recall": [1.0, 0.5], "macro_f1": 0.75}
    assert bundle.pack(made(metrics=turned)) == PACKED, "the order of keys makes no difference"


def test_the_bytes_are_the_same_under_every_version_of_python_and_numpy() -> None:
    assert hashlib.sha256(PACKED).hexdigest() == (
        "d704cdba14fbb88994a03e7616811cc3e6fcfaff7eb57e82a3b913ec281a1106"
    )


def test_anybody_can_open_it() -> None:
    with zipfile.ZipFile(io.BytesIO(PACKED)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == list(MEMBERS)
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
    assert np.load(io.BytesIO(members()[WEIGHTS]), allow_pickle=False).tolist() == made().weights.tolist()


@pytest.mark.parametrize("size", [1, 9, 10, 1588, 99_999, 1_000_000])
def test_the_weights_are_written_as_numpy_writes_them(size: int) -> None:
    values = np.zeros(size, np.float32)
    packed = bundle.pack(
        msgspec.structs.replace(made(layers=[Layer(name="all", shape=[size])]), weights=values)
    )
    assert members(packed)[WEIGHTS] == npy(values)
    assert bundle.unpack(packed).weights.shape == (size,)


def test_a_changed_byte_is_refused_wherever_it_stands() -> None:
    data = bytearray(PACKED)
    for place in range(len(data)):
        data[place] ^= 1 << place % 8
        refused(bytes(data))
        data[place] = PACKED[place]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(PACKED) - 1), st.integers(1, 255))
def test_any_change_of_a_byte_is_refused(place: int, difference: int) -> None:
    data = bytearray(PACKED)
    data[place] ^= difference
    refused(bytes(data))


@settings(max_examples=80, deadline=None)
@given(st.integers(0, len(PACKED) - 1), st.binary(min_size=1, max_size=30))
def test_what_is_cut_out_put_in_or_put_after_is_refused(place: int, extra: bytes) -> None:
    refused(PACKED[:place])
    refused(PACKED[place + 1 :])
    refused(PACKED[:place] + PACKED[place + len(extra) :])
    refused(PACKED[:place] + extra + PACKED[place:])
    refused(PACKED + extra)
    refused(extra + PACKED)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_refused(noise: bytes) -> None:
    refused(noise)
    refused(noise + PACKED[-22:])
    refused(b"PK\x03\x04" + noise + b"PK\x05\x06" + bytes(18))


def test_members_too_many_missing_twice_renamed_or_turned_round_are_refused() -> None:
    files = [(name, members()[name]) for name in MEMBERS]
    assert bundle.unpack(zipped(*files))
    refused(zipped(*files, ("extra.py", b"import os")), "bundle")
    refused(zipped(*files[:3]), "bundle")
    refused(zipped(*files[:3], files[2]), "members")
    refused(zipped(*files[:3], ("../model.keras", files[3][1])), "bundle")
    refused(zipped(*files[:3], ("/model.keras", files[3][1])), "bundle")
    refused(zipped(*files[:3], ("MODEL.KERAS", files[3][1])), "members")
    refused(zipped(*files, files[3]), "bundle")
    refused(zipped(*reversed(files)), "zip")
    refused(zipped(), "bundle")


def test_a_compressed_member_is_refused() -> None:
    files = [(name, members()[name]) for name in MEMBERS]
    refused(zipped(*files, method=zipfile.ZIP_DEFLATED), "not compressed")
    refused(zipped(*files, method=zipfile.ZIP_BZIP2), "not compressed")
    bomb = [(name, bytes(30_000_000) if name == KERAS else data) for name, data in files]
    packed = zipped(*bomb, method=zipfile.ZIP_DEFLATED)
    assert len(packed) < 100_000
    refused(packed, "not compressed")


def test_members_that_claim_more_than_the_file_holds_are_refused() -> None:
    data = bytearray(PACKED)
    start = data.rindex(
        b"PK\x01\x02"
    )  # the directory's entry of the last member: its sizes stand at 20 and 24
    struct.pack_into("<LL", data, start + 20, 2**31, 2**31)
    refused(bytes(data), "claim more")


def test_a_directory_of_a_million_members_is_not_read() -> None:
    directory = (b"PK\x01\x02" + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"x") * 1_000_000
    count_and_size = [
        struct.pack("<HHL", 0xFFFF, 0xFFFF, len(directory)),
        struct.pack("<HHL", 4, 4, len(directory)),  # a false count, which the zip library does not look at
        PACKED[-14:-6],  # false both, and the truth in the records of zip64 before it
    ]
    far = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 10**6, 10**6, len(directory), 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(directory), 1)
    for claim in count_and_size:
        end = b"PK\x05\x06" + bytes(4) + claim + bytes(6)
        for data in (directory + end, directory + far + locator + end):
            tracemalloc.start()
            try:
                refused(data, "bundle")
                _, peak_bytes = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak_bytes < 1_000_000


@pytest.mark.parametrize("name", [GRAPH, WEIGHTS, KERAS])
def test_a_member_that_does_not_match_its_hash_is_refused(name: str) -> None:
    files = {**members(), name: members()[name][:-1] + b"\x01"}
    refused(zipped(*((each, files[each]) for each in MEMBERS)), f"{name} does not match its hash")


def test_a_hash_that_is_missing_or_wrong_is_refused() -> None:
    def without(manifest: dict[str, Any]) -> None:
        del manifest["hashes"][KERAS]

    def upper(manifest: dict[str, Any]) -> None:
        manifest["hashes"][KERAS] = manifest["hashes"][KERAS].upper()

    for change in (without, upper):
        refused(rewritten(change), "does not match its hash")


@pytest.mark.parametrize(
    "weights",
    [
        npy(np.zeros(7, np.float32)),
        npy(np.zeros(9, np.float32)),
        npy(np.zeros((8, 1), np.float32)),
        npy(np.zeros((2, 4), np.float32)),
        npy(np.zeros(8, np.float64)),
        npy(np.zeros(8, ">f4")),
        npy(np.zeros(8, np.int32)),
        npy(np.zeros((), np.float32)),
        npy(np.array([1.0] * 8, dtype=object), allow_pickle=True),
        npy(np.zeros(8, np.float32)) + b"more",
        npy(np.zeros(8, np.float32))[:-1],
        pickle.dumps(np.zeros(8, np.float32)),
        zipped(("arr.npy", npy(np.zeros(8, np.float32)))),
        b"",
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'shape': (9999999999999,), }",
    ],
    ids=range(15),
)
def test_weights_that_are_not_the_vector_of_the_layout_are_refused(weights: bytes) -> None:
    refused(rewritten(weights=weights), "the layout needs 8 float32 values")


def test_a_pickle_in_the_weights_is_never_run(tmp_path: Path) -> None:
    witness = tmp_path / "ran"

    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(witness),))

    for weights in (
        pickle.dumps(Harmful()),
        npy(np.array([Harmful()], dtype=object), allow_pickle=True),
    ):
        refused(rewritten(weights=weights))
    assert not witness.exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_neither_written_nor_read(value: float) -> None:
    weights = made().weights.copy()
    weights[5] = value
    with pytest.raises(BundleError, match="not finite"):
        bundle.pack(msgspec.structs.replace(made(), weights=weights))
    refused(rewritten(weights=npy(weights)), "not finite")


@pytest.mark.parametrize("shape", [(7,), (9,), (8, 1), ()])
def test_weights_that_do_not_fit_are_not_written(shape: tuple[int, ...]) -> None:
    with pytest.raises(BundleError, match="needs 8 float32 values"):
        bundle.pack(msgspec.structs.replace(made(), weights=np.zeros(shape, np.float32)))


@pytest.mark.parametrize(
    "shape",
    [
        [-2, -4],
        [0],
        [2**32, 2**32],
        [2**62, 4, 2],
        [2**63 - 1] * 300,  # more digits than Python prints
        [2**24] * 100_000,  # hours, if it were computed
    ],
)
def test_a_layout_whose_size_would_run_over_is_refused(shape: list[int]) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["layers"] = [{"name": "all", "shape": shape, "part": "body"}]

    refused(rewritten(change))


def test_a_later_format_asks_for_a_later_program() -> None:
    def later(manifest: dict[str, Any]) -> None:
        manifest.clear()
        manifest.update(format=2, everything="else")

    refused(rewritten(later), "format 2, this program reads 1; update the client")


def test_an_unknown_field_is_passed_over_and_an_optional_one_may_be_absent() -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["later"] = {"b": 1, "a": 2.0}
        del manifest["signature"]

    assert bundle.unpack(rewritten(change)).manifest.version == 3


@pytest.mark.parametrize("name", ["name", "version", "task", "trained", "features", "classes", "layers"])
def test_a_manifest_without_a_field_is_refused(name: str) -> None:
    refused(rewritten(lambda manifest: manifest.pop(name)), "manifest cannot be read")


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b'"version":3', b'"version": 3'),
        lambda data: b" " + data,
        lambda data: data + b"\n",
        lambda data: data.replace(b'"version":3', b'"version":3,"version":3'),
        lambda data: b'{"zzz":1,' + data[1:],
        lambda data: data.replace(b'"severity"', b'"s\\u0065verity"'),
    ],
)
def test_a_manifest_that_is_not_canonical_is_refused(change: Callable[[bytes], bytes]) -> None:
    files = {**members(), MANIFEST: change(members()[MANIFEST])}
    assert files[MANIFEST] != members()[MANIFEST]
    refused(zipped(*((name, files[name]) for name in MEMBERS)), "not canonical")


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"null", b"[]", b"\xff", b"[" * 100_000, b'{"format":1}', b'{"format":"1"}']
)
def test_a_manifest_that_is_none_is_refused(text: bytes) -> None:
    files = {**members(), MANIFEST: text}
    refused(zipped(*((name, files[name]) for name in MEMBERS)))


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.samd"
    with path.open("wb") as file:
        file.truncate(10 * 1024**3)  # 10 GiB, with nothing in it
    with pytest.raises(BundleError, match="a bundle has at most"):
        bundle.read(path)
    refused(bytes(bundle.MAX_BYTES + 1), "a bundle has at most")


def test_what_is_read_was_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model.samd"
    written = bundle.write(path, made())
    assert path.read_bytes() == PACKED
    assert path.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in path.parent.iterdir()] == ["model.samd"]
    read = bundle.read(path, sha256=written.sha256)
    assert read.sha256 == written.sha256
    assert read.manifest == written.manifest


@pytest.mark.parametrize("sha256", ["", "0" * 64, "x", hashlib.sha256(PACKED).hexdigest().upper()])
def test_a_file_that_was_not_announced_is_refused(tmp_path: Path, sha256: str) -> None:
    path = tmp_path / "model.samd"
    path.write_bytes(PACKED)
    with pytest.raises(BundleError, match="does not match the announced hash"):
        bundle.read(path, sha256=sha256)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.samd"):
        with pytest.raises(BundleError, match="cannot be read"):
            bundle.read(path)
    (tmp_path / "empty.samd").write_bytes(b"")
    with pytest.raises(BundleError, match="no bundle"):
        bundle.read(tmp_path / "empty.samd")


def test_what_cannot_be_read_back_does_not_replace_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.samd"
    bundle.write(path, made())
    too_large = msgspec.structs.replace(made(), keras=bytes(bundle.MAX_BYTES))
    with pytest.raises(BundleError, match="at most"):
        bundle.write(path, too_large)
    assert path.read_bytes() == PACKED
    assert [each.name for each in tmp_path.iterdir()] == ["model.samd"]


def test_a_disk_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.samd"
    bundle.write(path, made())

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        bundle.write(path, made(version=4))
    assert path.read_bytes() == PACKED
    assert [each.name for each in tmp_path.iterdir()] == ["model.samd"]


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "model.samd"
    bundle.write(path, made(version=1))
    ended = threading.Event()

    def write() -> None:
        for version in range(2, 60):
            bundle.write(path, made(version=version))
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    while not ended.is_set():
        seen.append(bundle.read(path).manifest.version)
    writer.join()
    assert seen == sorted(seen)
    assert bundle.read(path).manifest.version == 59


WRITER = """
import sys
from pathlib import Path
import msgspec
from samd_protocol import bundle
path = Path(sys.argv[1])
item = bundle.read(path)
print("ready", flush=True)
for version in range(10**9):
    manifest = msgspec.structs.replace(item.manifest, version=version)
    bundle.write(path, msgspec.structs.replace(item, manifest=manifest))
"""


def test_a_writer_that_is_killed_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "model.samd"
    bundle.write(path, made())
    for _ in range(2):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        with contextlib.closing(writer.stdout):  # type: ignore[type-var]
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            first = bundle.read(path).sha256
            while bundle.read(path).sha256 == first:
                pass
            writer.kill()
            assert writer.wait(30) == -9
        assert bundle.read(path).manifest.name == "severity"
