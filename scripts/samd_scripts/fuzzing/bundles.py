"""A model as one file (`samd_protocol.bundle`)."""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable
from typing import Any, Final

import msgspec
import numpy as np

from samd_protocol import bundle as bundles
from samd_protocol.bundle import GRAPH, KERAS, MANIFEST, MEMBERS, WEIGHTS, Bundle, Features, Layer, Manifest
from samd_protocol.errors import BundleError
from samd_scripts.fuzzing.choices import Choices
from samd_scripts.fuzzing.json_parts import changed
from samd_scripts.fuzzing.oracle import attempt, insist, parsed, same
from samd_scripts.fuzzing.target import Target

_WHERE: Final = "NAME.samd"


def _model(values: bytes = b"") -> Bundle:
    """A bundle of a few hundred bytes."""
    weights = np.frombuffer(values.ljust(20, b"\x00")[:20], "<f4").astype(np.float32)
    return Bundle(
        manifest=Manifest(
            name="severity",
            version=3,
            task="severity",
            trained=True,
            features=Features(name="signs", labels="five", size=2),
            classes=["0", "1-4", "5-6", "7 or more"],
            layers=[Layer(name="dense", shape=[2, 2]), Layer(name="head", shape=[1], part="head")],
        ),
        graph=b"TFL3",
        weights=weights,
        keras=b"PK",
    )


def _unpack(data: bytes) -> Bundle | None:
    return attempt(lambda: bundles.unpack(data, where=_WHERE), BundleError, places=[_WHERE])


def check_bundle(data: bytes) -> None:
    """Any bytes: what is accepted is the one file of its content, hashed as it says."""
    found = _unpack(data)
    if found is None:
        return
    insist(found.sha256 == hashlib.sha256(data).hexdigest() and found.size == len(data), "another hash")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    insist(sorted(members) == sorted(MEMBERS), "other members", sorted(members))
    insist((found.graph, found.keras) == (members[GRAPH], members[KERAS]), "another graph")
    for name, digest in found.manifest.hashes.items():
        if name in members:
            insist(hashlib.sha256(members[name]).hexdigest() == digest, "a hash that is not checked", name)
    weights = np.load(io.BytesIO(members[WEIGHTS]), allow_pickle=False)
    insist(np.array_equal(weights, found.weights) and np.isfinite(weights).all(), "other weights")
    insist(weights.shape == (found.manifest.weights_size,), "weights that do not fit", weights.shape)
    same(parsed(msgspec.json.encode(found.manifest)), parsed(members[MANIFEST]))


def check_bundle_written(data: bytes) -> None:
    """One byte changed: refused. Made anew around a changed manifest: refused, or taken as it stands."""
    choices = Choices(data)
    model = _model(choices.rest(20))
    written = attempt(lambda: bundles.pack(model), BundleError)
    if written is None:
        insist(not np.isfinite(model.weights).all(), "a model that cannot be written", model.weights)
        return
    insist(np.isfinite(model.weights).all(), "weights that are no numbers are written", model.weights)
    read = bundles.unpack(written, where=_WHERE)
    insist(read.weights.tobytes() == model.weights.tobytes(), "other weights", model.weights)
    insist(msgspec.structs.replace(read.manifest, hashes={}) == model.manifest, "another manifest", read)
    match choices.below(4):
        case 0:
            at = choices.below(len(written))
            damaged = bytearray(written)
            damaged[at] ^= choices.between(1, 255)
            insist(_unpack(bytes(damaged)) is None, f"byte {at} is changed and nothing is said")
        case 1:
            cut = choices.below(len(written))
            insist(_unpack(written[:cut]) is None, f"cut to {cut} bytes and nothing is said")
        case 2:
            members = _members(written)
            members[choices.pick(MEMBERS)] = choices.rest(60)
            check_bundle(_zip(members))
        case _:
            members = _members(written)
            tree = json.loads(members[MANIFEST])
            if choices.flag():
                tree["layers"] = [
                    {"name": "a", "part": "body", "shape": [2 ** choices.below(64)] * choices.below(600)}
                ]
            members[MANIFEST] = _canonical(changed(choices, tree))
            check_bundle(_zip(members))


def _canonical(text: str) -> bytes:
    """As the product writes JSON, where that can be; else as it is."""
    try:
        return msgspec.json.encode(msgspec.json.decode(text), order="sorted")
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return text.encode("utf-8", "replace")


def _members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _zip(members: dict[str, bytes]) -> bytes:
    """The zip as the product makes it, by the standard library."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in MEMBERS:
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            info.external_attr = 0o600 << 16
            archive.writestr(info, members[name])
    return file.getvalue()


def _seeds() -> Iterable[bytes]:
    written = bundles.pack(_model())
    yield written
    yield written[:-1]
    members = _members(written)
    tree: Any = json.loads(members[MANIFEST])
    tree["layers"][0]["shape"] = [2**63 - 1] * 300  # a size of thousands of digits
    yield _zip({**members, MANIFEST: _canonical(json.dumps(tree))})


TARGETS: Final = (
    Target(
        name="bundle",
        about="a model file: any bytes",
        check=check_bundle,
        seeds=_seeds,
        words=(*MEMBERS, b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", *Manifest.__struct_fields__),
    ),
    Target(
        name="bundle-written",
        about="a model file, one byte, one member or one part of its manifest changed",
        check=check_bundle_written,
        choices=True,
    ),
)
