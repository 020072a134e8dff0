"""In the machine: how long one inference and one training round take, and in how much memory.

    measure.py infer|litert|tensorflow MODEL ROWS EPOCHS

Prints one JSON object. Each part is a process of its own, so that its memory is its own.
"""

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any


def peak_mb() -> float:
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    return int(line.split()[1]) / 1024


def main(part: str, model: str, rows: int, epochs: int) -> dict[str, Any]:
    began = time.perf_counter()
    import numpy as np

    from samd_edge.runtime import TrainState, batches
    from samd_protocol import bundle as bundles

    bundle = bundles.read(Path(model))
    manifest = bundle.manifest
    drawn = np.random.default_rng(0)
    features = drawn.normal(size=(rows, manifest.features.size)).astype("f4")
    labels = drawn.integers(0, len(manifest.classes), rows).astype("i4")
    if part == "tensorflow":
        from samd_edge.trainer import tensorflow as trainer
    else:
        from samd_edge.trainer import litert as trainer  # type: ignore[no-redef]
    trainer.warm_up()
    loaded = trainer.load(bundle)
    ready = time.perf_counter() - began
    if part == "infer":
        seconds = []
        for row in features[:200]:
            start = time.perf_counter()
            loaded.infer(row[None, :], bundle.weights)
            seconds.append(time.perf_counter() - start)
        found = {"median_ms": statistics.median(seconds[1:]) * 1000, "first_ms": seconds[0] * 1000}
    else:
        size = manifest.weights_size
        state = TrainState.fresh(bundle.weights)
        losses = []
        start = time.perf_counter()
        for _ in range(epochs):
            state, loss = loaded.train_epoch(
                features=features,
                labels=labels,
                order=batches(drawn.permutation(rows), manifest.batch_size),
                state=state,
                learning_rate=0.003,
                anchor=bundle.weights,
                mu=0.0,
                trainable=np.ones(size, "f4"),
                log_prior=np.zeros(len(manifest.classes), "f4"),
            )
            losses.append(loss)
        found = {"round_s": time.perf_counter() - start, "first_loss": losses[0], "last_loss": losses[-1]}
    return {"part": part, "rows": rows, "epochs": epochs, "ready_s": ready, "peak_mb": peak_mb(), **found}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
