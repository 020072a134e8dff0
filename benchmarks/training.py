"""Local training on a device: the graph in the bare interpreter against `keras.Model.fit`.

    python benchmarks/training.py [--data PATH|clif-demo] [--epochs 7] [--out FILE]

Same network, same first weights, same rows in the same order, batch 32, Adam, no masks. Each runs in a
process of its own, which is measured whole: seconds of an epoch (median, the first left out, for Keras
traces its function there), peak resident memory with all imports, and seconds from start to the end of the
first epoch. Keras is given the rows in their order with `shuffle=False`. Two sizes: one patient (about 300
hours) and 4,096 rows. Prints JSON.
"""

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ICU = ROOT.parent / "shared" / "data" / "mimic-iv-demo-2.2"
SIZES = (300, 4096)
LEARNING_RATE = 0.003
TARGET_TIMES, TARGET_MEMORY = 30.0, 0.1


def peak_mb() -> float:
    """Peak resident memory of this process in MB (Linux counts in kB; `ru_maxrss` would start from the
    parent's peak after a fork, so the kernel's own figure of this process is read)."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def worker(kind: str, model: str, rows: str, epochs: int) -> None:
    """One contestant: reads the rows, trains, prints its figures as JSON."""
    started = time.perf_counter()
    import numpy as np

    from samd_protocol import bundle

    given = np.load(rows)
    features, labels, orders = given["features"], given["labels"], given["orders"]
    untrained = bundle.read(Path(model))
    seconds, losses = [], []
    if kind == "litert":
        from samd_server.graph import Graph, TrainState, batches

        graph, state = Graph(untrained.graph), TrainState.fresh(untrained.weights)
        for order in orders[:epochs]:
            begun = time.perf_counter()
            state, loss = graph.train_epoch(
                features=features,
                labels=labels,
                order=batches(order, 32),
                state=state,
                learning_rate=LEARNING_RATE,
            )
            seconds.append(time.perf_counter() - begun)
            losses.append(loss)
        weights = state.weights
    else:
        from samd_server import network

        keras = network.tensorflow().keras
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            path.write_bytes(untrained.keras)
            network_ = keras.models.load_model(path, compile=False)
        network_.compile(keras.optimizers.Adam(LEARNING_RATE), "sparse_categorical_crossentropy")
        for order in orders[:epochs]:
            begun = time.perf_counter()
            history = network_.fit(
                features[order], labels[order], batch_size=32, epochs=1, shuffle=False, verbose=0
            )
            seconds.append(time.perf_counter() - begun)
            losses.append(float(history.history["loss"][0]))
        weights = network.flatten(network_)
    figures = {
        "seconds_per_epoch": statistics.median(seconds[1:]),
        "seconds_first_epoch": seconds[0],
        "seconds_in_all": time.perf_counter() - started,
        "peak_mb": peak_mb(),
        "losses": losses,
        "weights": weights.tolist(),
    }
    print(json.dumps(figures))


def real_rows(data: str | None, count: int, spec: Any) -> tuple[Any, Any, str]:
    """Labelled stay-hours of as many patients as it takes, most readings first; and where they are from."""
    import numpy as np

    from samd_data import severity
    from samd_data.datasets import open_dataset
    from samd_data.features import encode

    source = data or (str(ICU) if ICU.is_dir() else None)
    if source is None:
        rng = np.random.default_rng(0)
        values = rng.normal([85, 19, 96, 118, 75, 37, 0], [18, 5, 2.5, 20, 12, 0.7, 0], (count, 7))
        return encode(values, spec), severity.labels(values, spec.labels).astype("i4"), "made up"
    dataset = open_dataset(source)
    parts: list[Any] = []
    for patient in dataset.patients():
        tables = (table.values for table in dataset.hourly_tables(patient))
        parts.extend(values[severity.labels(values, spec.labels) >= 0] for values in tables)
        if sum(map(len, parts)) >= count:
            break
    values = np.concatenate(parts)[:count]
    return encode(values, spec), severity.labels(values, spec.labels).astype("i4"), dataset.kind


def run(kind: str, model: Path, rows: Path, epochs: int) -> dict[str, Any]:
    """Start one contestant, wait, read its figures."""
    command = [sys.executable, __file__, "--worker", kind, "--model", str(model), "--rows", str(rows)]
    begun = time.perf_counter()
    done = subprocess.run(
        [*command, "--epochs", str(epochs)], check=False, capture_output=True, text=True, timeout=600
    )
    if done.returncode != 0:
        sys.exit(f"{kind} failed:\n{done.stderr}")
    return {**json.loads(done.stdout), "seconds_process": time.perf_counter() - begun}


def compare(count: int, model: Path, data: str | None, epochs: int) -> dict[str, Any]:
    """Both contestants on the same `count` rows."""
    import numpy as np

    from samd_data.features import FeatureSpec

    features, labels, source = real_rows(data, count, FeatureSpec())
    found = len(labels)
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    orders = np.stack([rng.permutation(found) for _ in range(epochs)])
    np.savez(buffer, features=features, labels=labels, orders=orders)
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.npz"
        rows.write_bytes(buffer.getvalue())
        litert, keras = (run(kind, model, rows, epochs) for kind in ("litert", "keras"))
    apart = np.abs(np.subtract(litert.pop("weights"), keras.pop("weights"))).max()
    losses = np.abs(np.subtract(litert.pop("losses"), keras.pop("losses"))).max()
    times = keras["seconds_per_epoch"] / litert["seconds_per_epoch"]
    memory = litert["peak_mb"] / keras["peak_mb"]
    return {
        "rows": found,
        "data": source,
        "steps_per_epoch": -(-found // 32),
        "litert": litert,
        "keras": keras,
        "times_faster": times,
        "memory_share": memory,
        "largest_difference_of_weights": float(apart),
        "largest_difference_of_loss": float(losses),
        "reached": bool(times >= TARGET_TIMES and memory <= TARGET_MEMORY),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", help="recordings (default: the ICU demo beside the project, else made up)")
    parser.add_argument("--epochs", type=int, default=7, help="epochs each, 2 or more (default: 7)")
    parser.add_argument("--model", type=Path, help="an untrained bundle (default: export one)")
    parser.add_argument("--out", type=Path, help="also write the JSON there")
    parser.add_argument("--rows", help=argparse.SUPPRESS)
    parser.add_argument("--worker", choices=("litert", "keras"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.epochs < 2:
        parser.error("the first epoch is a warm-up: give --epochs 2 or more")
    if args.worker:
        worker(args.worker, str(args.model), args.rows, args.epochs)
        return
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or Path(folder) / "model.samd"
        if args.model is None:
            command = [sys.executable, "-m", "samd_server.model_commands", "export", "--out", str(model)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        result = {
            "benchmark": "training",
            "cores": os.cpu_count(),
            "target": {"times_faster": TARGET_TIMES, "memory_share": TARGET_MEMORY},
            "results": [compare(count, model, args.data, args.epochs) for count in SIZES],
        }
    text = json.dumps(result, indent=2)
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
