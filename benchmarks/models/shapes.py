"""The exported graph of a network, and the first weights of each seed; TensorFlow in a process of its own."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.cohort import ROOT
from samd_edge.runtime import Floats, Graph
from samd_protocol.bundle import Layer
from samd_server import network

SEEDS = 5
_CODE = """
import sys, numpy as np
from samd_server import export, network
size, classes, seeds = map(int, sys.argv[1:4])
hidden, out = sys.argv[4:]
widths = [int(width) for width in hidden.split("-") if width]
graph = export.build_graph(network.layers(size, widths, classes), export.BATCH_SIZE)
first = [network.flatten(network.build(size, widths, classes, seed)) for seed in range(seeds)]
np.savez(out, graph=np.frombuffer(graph, np.uint8), weights=np.stack(first))
"""


class Shape(NamedTuple):
    """`layers`: the layout; `weights`: float32[P] of each seed."""

    graph: Graph
    layers: list[Layer]
    weights: list[Floats]


def shape(size: int, hidden: tuple[int, ...], classes: int) -> Shape:
    """The network of these widths, exported once and kept below `.samd/bench`."""
    name = "-".join(map(str, hidden))
    path = ROOT / ".samd" / "bench" / f"graph-{size}-{name}-{classes}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"part-{path.name}")
        arguments = [str(size), str(classes), str(SEEDS), name, str(part)]
        done = subprocess.run(
            [sys.executable, "-c", _CODE, *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if done.returncode != 0:
            sys.exit(f"the network could not be exported:\n{done.stderr}")
        Path(part).replace(path)
    kept = np.load(path)
    return Shape(Graph(kept["graph"].tobytes()), network.layers(size, hidden, classes), list(kept["weights"]))
