"""Table 4: what a round of each method costs on a device, beside the same method in TensorFlow.

Each method and trainer in a process of its own, one after the other: the trainer's own `personal_round` on
300 rows of the ICU demo (a long stay), 5 epochs a round, masks as in a run. The first round is told apart:
the interpreter allocates there, TensorFlow traces its function. Peak memory is of the whole process, with its
imports.
Processor seconds are told beside the clock's, since other work on the machine lengthens only the latter.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from models.cohort import ROOT

ROWS = 300
EPOCHS = 5
ROUNDS = 7
SETTINGS: dict[str, dict[str, float]] = {
    "none": {},
    "fedprox": {"proximal_mu": 0.01},
    "finetune": {},
    "ditto": {"personal_mu": 0.1},
    "fedper": {},
    "fedrep": {},
    "apfl": {},
}


def run(seeds: int = 5) -> dict[str, Any]:
    """Table 4; `seeds` is not used, for nothing is drawn that matters."""
    del seeds
    table: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "model.samd"
        command = [sys.executable, "-m", "samd_server.model_commands", "export", "--out", str(bundle)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        rows = Path(folder) / "rows.npz"
        _write_rows(rows)
        for name in SETTINGS:
            table[name] = {kind: _worker(kind, name, bundle, rows) for kind in ("litert", "tensorflow")}
            light, heavy = table[name]["litert"], table[name]["tensorflow"]
            table[name]["times_faster"] = (
                heavy["processor_seconds_a_round"] / light["processor_seconds_a_round"]
            )
            table[name]["memory_share"] = light["peak_mb"] / heavy["peak_mb"]
            print(f"{name}: {json.dumps(table[name])}", file=sys.stderr, flush=True)
    return {"rows": ROWS, "epochs_a_round": EPOCHS, "rounds": ROUNDS, "methods": table}


def _write_rows(path: Path) -> None:
    import numpy as np

    from models import cohort

    _, devices = cohort.load("severity")
    longest = max(devices, key=len)
    np.savez(path, values=longest.rows.values[:ROWS], labels=longest.rows.labels[:ROWS])


def _worker(kind: str, method: str, bundle: Path, rows: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "models.cost", kind, method, str(bundle), str(rows)]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=600, cwd=ROOT / "benchmarks"
    )
    if done.returncode != 0:
        sys.exit(f"{method} in {kind} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def work(kind: str, name: str, bundle: Path, rows: Path) -> dict[str, Any]:
    """One method in one trainer, measured in this process."""
    import numpy as np

    from samd_data.features import FeatureSpec
    from samd_edge import personalisation
    from samd_edge.trainer.learning import Place, personal_round
    from samd_edge.trainer.rows import Rows
    from samd_protocol import bundle as bundles
    from samd_protocol.tasks import TrainSettings, Update, Vector, encode

    model = bundles.read(bundle)
    given = np.load(rows)
    own = Rows(given["values"], given["labels"])
    trainer: Any
    if kind == "litert":
        from samd_edge.trainer import litert

        trainer = litert.load(model)
    else:
        from samd_edge.trainer import tensorflow

        tensorflow.warm_up()
        trainer = tensorflow.load(model)
    method = personalisation.by_name(name, model.manifest.layers)
    settings = TrainSettings(epochs=EPOCHS, mask_rate=0.15, method=name, **SETTINGS[name])
    weights = model.weights
    state, clock, processor = method.init(weights), [], []
    for number in range(1, ROUNDS + 1):
        began, used = time.perf_counter(), time.process_time()
        update, state, _ = personal_round(
            method,
            trainer,
            own,
            FeatureSpec(),
            state=state,
            weights=weights,
            settings=settings,
            place=Place(0, number, "device"),
            batch_size=model.manifest.batch_size,
        )
        clock.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
        weights = update
    answer = Update(
        task="t",
        run="r",
        round=1,
        device="d",
        kind="train",
        num_examples=len(own),
        weights=Vector.of(weights),
    )
    return {
        "seconds_a_round": statistics.median(clock[1:]),
        "processor_seconds_a_round": statistics.median(processor[1:]),
        "seconds_first_round": clock[0],
        "peak_mb": _peak_mb(),
        "bytes_sent_a_round": len(encode(answer)),
    }


def _peak_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    print(json.dumps(work(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))))
