"""Weights into a `.keras` archive without TensorFlow. That Keras reads them: test_model_parity.py."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from samd_protocol import bundle
from samd_protocol.errors import BundleError
from samd_server import keras_file


@pytest.fixture
def model(untrained_bundle_path: Path) -> bundle.Bundle:
    return bundle.read(untrained_bundle_path)


def test_the_same_vector_gives_the_same_bytes(model: bundle.Bundle) -> None:
    layers = model.manifest.layers
    other = keras_file.with_weights(model.keras, layers, model.weights + 1)
    assert other != model.keras
    assert keras_file.with_weights(other, layers, model.weights) == model.keras
    assert keras_file.with_weights(model.keras, layers, model.weights + 1) == other
    with zipfile.ZipFile(io.BytesIO(model.keras)) as one, zipfile.ZipFile(io.BytesIO(other)) as two:
        assert one.namelist() == two.namelist() == ["config.json", "metadata.json", "model.weights.h5"]
        assert one.read("config.json") == two.read("config.json")


def test_another_layout_is_refused(model: bundle.Bundle) -> None:
    layers = model.manifest.layers
    with pytest.raises(BundleError, match="layout"):
        keras_file.with_weights(model.keras, layers, model.weights[:-1])
    with pytest.raises(BundleError, match="it holds"):
        keras_file.with_weights(model.keras, layers[2:], model.weights[layers[0].size + layers[1].size :])
    swapped = [layers[0].__class__(name=layers[0].name, shape=layers[0].shape[::-1]), *layers[1:]]
    with pytest.raises(BundleError, match="shape"):
        keras_file.with_weights(model.keras, swapped, model.weights)


@pytest.mark.parametrize("damage", [b"", b"no zip", None])
def test_a_damaged_archive_is_refused(model: bundle.Bundle, damage: bytes | None) -> None:
    data = model.keras[:2000] if damage is None else damage
    with pytest.raises(BundleError, match=r"model\.keras"):
        keras_file.with_weights(data, model.manifest.layers, np.zeros_like(model.weights))
