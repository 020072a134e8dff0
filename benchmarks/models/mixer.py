"""A dense mixer over time, tried beside the plain dense network on "history-v1".

The window (points, values and masks of each input, six hours side by side) passes one small dense layer that
is the same for every input; its outputs join the other features in the first layer. So the network need not
learn for each sign anew what a rise is. Everything else is as in `samd_server.network`.
"""

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from models.cohort import ROOT
from models.shapes import SEEDS, Shape
from samd_data import history
from samd_data.features import FeatureSpec
from samd_edge.runtime import Graph
from samd_protocol.bundle import Layer

MIXED = 3
"""Outputs per series of six hours."""


def layers(spec: FeatureSpec, hidden: tuple[int, ...], classes: int) -> list[Layer]:
    """Kernel and bias of the mixer, three kernels and a bias of the first layer, then as ever."""
    now, series = FeatureSpec(labels=spec.labels).size, 3 * len(spec.inputs)
    rest = spec.size - now - series * history.WINDOW
    first = hidden[0]
    made = [
        Layer(name="mixer/kernel", shape=[history.WINDOW, MIXED], part="body"),
        Layer(name="mixer/bias", shape=[MIXED], part="body"),
        Layer(name="now/kernel", shape=[now, first], part="body"),
        Layer(name="mixed/kernel", shape=[series * MIXED, first], part="body"),
        Layer(name="rest/kernel", shape=[rest, first], part="body"),
        Layer(name="dense_1/bias", shape=[first], part="body"),
    ]
    widths = [*hidden, classes]
    for number, (rows, columns) in enumerate(itertools.pairwise(widths), start=2):
        part: Any = "head" if number == len(widths) else "body"
        made.append(Layer(name=f"dense_{number}/kernel", shape=[rows, columns], part=part))
        made.append(Layer(name=f"dense_{number}/bias", shape=[columns], part=part))
    return made


def forward(tf: Any, relu: Any, parts: Any, x: Any) -> Any:
    """Logits [B, C] of rows [B, F]."""
    from samd_server import network

    kernel, bias, now, mixed, rest, first_bias = parts[:6]
    begins = now.shape[0]
    ends = begins + mixed.shape[0] // kernel.shape[1] * history.WINDOW
    window = tf.reshape(x[:, begins:ends], [-1, history.WINDOW])
    over_time = tf.reshape(relu(tf.matmul(window, kernel) + bias), [-1, mixed.shape[0]])
    here = tf.matmul(x[:, :begins], now) + tf.matmul(x[:, ends:], rest)
    return network.dense(tf, relu, parts[6:], relu(here + tf.matmul(over_time, mixed) + first_bias))


def shape(spec: FeatureSpec, hidden: tuple[int, ...], classes: int) -> Shape:
    """The network, exported once and kept below `.samd/bench`; Glorot-uniform first weights by seed."""
    layout = layers(spec, hidden, classes)
    path = ROOT / ".samd" / "bench" / f"mixer-{spec.size}-{'-'.join(map(str, hidden))}-{classes}.tflite"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        arguments = [str(path), spec.labels, ",".join(map(str, hidden)), str(classes)]
        done = subprocess.run(
            [sys.executable, "-m", "models.mixer", *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
            cwd=ROOT / "benchmarks",
        )
        if done.returncode != 0:
            sys.exit(f"the mixer could not be exported:\n{done.stderr}")
    return Shape(Graph(path.read_bytes()), layout, [_first(layout, spec, seed) for seed in range(SEEDS)])


def _first(layout: list[Layer], spec: FeatureSpec, seed: int) -> Any:
    rng = np.random.default_rng([seed, 31])
    joined = sum(layer.shape[0] for layer in layout[2:5])
    parts = []
    for layer in layout:
        if len(layer.shape) == 1:
            parts.append(np.zeros(layer.shape))
            continue
        rows, columns = layer.shape
        rows = joined if layer in layout[2:5] else rows
        limit = np.sqrt(6 / (rows + columns))
        parts.append(rng.uniform(-limit, limit, layer.shape).ravel())
    return np.concatenate(parts).astype(np.float32)


def _export(path: str, labels: Any, hidden: str, classes: str) -> None:
    from samd_server import export

    spec = FeatureSpec("history-v1", labels)
    layout = layers(spec, tuple(int(width) for width in hidden.split(",")), int(classes))
    graph = export.build_graph(layout, export.BATCH_SIZE, inputs=spec.size, forward=forward)
    part = Path(path).with_suffix(".part")
    part.write_bytes(graph)
    part.replace(path)


if __name__ == "__main__":
    _export(*sys.argv[1:])
