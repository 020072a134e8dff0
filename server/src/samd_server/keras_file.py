"""Write a flat weight vector into a `.keras` archive, without TensorFlow.

The archive is a zip of `metadata.json`, `config.json` and `model.weights.h5`. The server that releases a
model has no TensorFlow loaded, so the arrays are exchanged inside the HDF5 file; names, configuration and
structure stay as Keras wrote them. Times are fixed: the same vector gives the same bytes.
"""

import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samd_protocol.bundle import Layer
from samd_protocol.errors import BundleError
from samd_server import network

_WEIGHTS, _METADATA, _CONFIG = "model.weights.h5", "metadata.json", "config.json"
_SHARED = "shared_object_id"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def with_weights(keras: bytes, layers: Sequence[Layer], vector: NDArray[np.float32]) -> bytes:
    """The archive with the weights of `vector` (float32[P], laid out as `layers`).

    Raises BundleError for an archive whose arrays are not those of the layout.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(keras)) as archive:
            members = {name: archive.read(name) for name in sorted(archive.namelist())}
        members[_WEIGHTS] = _exchange(members[_WEIGHTS], layers, np.asarray(vector, dtype=np.float32))
        members[_METADATA] = _undated(members[_METADATA])
        members[_CONFIG] = _renumbered(members[_CONFIG])
    except (zipfile.BadZipFile, KeyError, OSError, ValueError) as error:
        raise BundleError(f"model.keras does not fit the layout of its weights ({error})") from error
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)
    return out.getvalue()


def _undated(metadata: bytes) -> bytes:
    said = json.loads(metadata)
    said["date_saved"] = "1980-01-01@00:00:00"
    return json.dumps(said, sort_keys=True).encode()


def _renumbered(config: bytes) -> bytes:
    """Objects that are shared are numbered by their address in memory; number them as they come instead."""
    numbers: dict[int, int] = {}

    def walk(item: Any) -> Any:
        if isinstance(item, dict):
            return {
                key: numbers.setdefault(value, len(numbers) + 1)
                if key == _SHARED and isinstance(value, int)
                else walk(value)
                for key, value in item.items()
            }
        return [walk(value) for value in item] if isinstance(item, list) else item

    return json.dumps(walk(json.loads(config))).encode()


def _exchange(data: bytes, layers: Sequence[Layer], vector: NDArray[np.float32]) -> bytes:
    import h5py  # type: ignore[import-untyped]

    arrays = network.unflatten(vector, layers)
    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+") as file:
        stored = _arrays(file)
        names = [layer.name for layer in layers]
        if sorted(stored) != sorted(names):
            raise ValueError(f"it holds {', '.join(sorted(stored))}, not {', '.join(names)}")
        for layer, array in zip(layers, arrays, strict=True):
            target = stored[layer.name]
            if list(target.shape) != layer.shape:
                raise ValueError(f"{layer.name} has the shape {target.shape}, not {layer.shape}")
            target[...] = array
    return buffer.getvalue()


def _arrays(file: Any) -> dict[str, Any]:
    """The arrays by the names of the layout: `dense_1/kernel` is variable 0 of the layer, its bias 1.

    Keras names the groups by class and number ("dense", "dense_1", ...) in some versions and by layer in
    others; each group of variables carries the layer's own name as an attribute.
    """
    found: dict[str, Any] = {}
    for key, group in file["layers"].items():
        variables = group["vars"]
        name = str(variables.attrs.get("name", key))
        for number, kind in (("0", "kernel"), ("1", "bias")):
            if number in variables:
                found[f"{name}/{kind}"] = variables[number]
    return found
