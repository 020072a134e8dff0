"""Run by test_model_parity.py in a process of its own: what Keras makes of the same rows.

python keras_reference.py INPUT.npz MODEL.samd RELEASED.keras OUTPUT.npz
"""

import io
import sys
import tempfile
from pathlib import Path

import numpy as np

from samd_protocol import bundle
from samd_server import export, network
from samd_server.keras_trainer import KerasTrainer


def predict(keras: bytes, features: np.ndarray) -> np.ndarray:
    tf = network.tensorflow()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(keras)
        return np.asarray(tf.keras.models.load_model(path, compile=False)(features))


def main(rows: str, model: str, released: str, out: str) -> None:
    given = dict(np.load(rows))
    untrained = bundle.read(Path(model))
    layers = untrained.manifest.layers
    results = {
        "untrained": predict(untrained.keras, given["features"]),
        "released": predict(Path(released).read_bytes(), given["features"]),
    }
    for name, options in (
        ("plain", {}),
        ("full", {"mu": 0.1, "log_prior": given["log_prior"]}),
        ("head", {"part": "head", "log_prior": given["log_prior"]}),
        ("body", {"part": "body", "mu": 0.1}),
    ):
        trainer = KerasTrainer(layers, untrained.weights, learning_rate=0.01, **options)
        results[f"loss_{name}"] = np.float64(
            trainer.epoch(given["features"], given["labels"], given["order"])
        )
        results[f"weights_{name}"] = trainer.weights
    tiny = network.layers(1, (), 4)
    results["tiny"] = np.frombuffer(export.build_graph(tiny, 2), dtype=np.uint8)
    again = export.build_graph(layers, untrained.manifest.batch_size)
    results["same_graph"] = np.bool_(again == untrained.graph)
    buffer = io.BytesIO()
    np.savez(buffer, **results)
    Path(out).write_bytes(buffer.getvalue())


if __name__ == "__main__":
    main(*sys.argv[1:])
