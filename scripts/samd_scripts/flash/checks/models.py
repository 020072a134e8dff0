"""Trained models for the checks: the untrained network, taught on this computer by the graph itself."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np

from samd_data.features import FeatureSpec, encode
from samd_data.hourly import hourly
from samd_data.reading import Recording
from samd_data.severity import labels
from samd_protocol import bundle as bundles
from samd_protocol.bundle import Bundle
from samd_server.graph import Graph, TrainState, batches


def train(
    untrained: Bundle, recordings: Iterable[Recording], out: Path, *, version: int, epochs: int
) -> Bundle:
    """A bundle that learned from these recordings; it is a real model, and no good one."""
    setting = untrained.manifest.features.labels
    rows, truths = [], []
    for recording in recordings:
        table = hourly(recording.readings)
        truth = labels(table.values, setting)
        rows.append(table.values[truth >= 0])
        truths.append(truth[truth >= 0])
    features = encode(
        np.concatenate(rows), FeatureSpec(name=untrained.manifest.features.name, labels=setting)
    )
    truth = np.concatenate(truths).astype("i4")
    drawn = np.random.default_rng(version)
    graph, state = Graph(untrained.graph), TrainState.fresh(untrained.weights)
    for _ in range(epochs):
        order = batches(drawn.permutation(len(truth)), untrained.manifest.batch_size)
        state, _ = graph.train_epoch(
            features=features, labels=truth, order=order, state=state, learning_rate=0.003
        )
    manifest = msgspec.structs.replace(
        untrained.manifest, version=version, trained=True, parent=None,
        provenance={"made_by": "scripts/flash test", "rows": len(truth), "epochs": epochs},
    )  # fmt: skip
    return bundles.write(out, msgspec.structs.replace(untrained, manifest=manifest, weights=state.weights))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
