"""The device in figures: how long one assessment takes, and what agent and trainer weigh.

    assess     one reading to a judgement, rule and model, µs (p50, p99); the rule alone, the graph
    agent      resident memory and start of a process that imported what the agent needs and inferred
    trainer    peak memory of the worker after a round of 20 epochs, and how long it takes to be ready

Prints one JSON object. Memory is measured in processes of their own.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from samd_data.reading import Reading

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)

AGENT = """
import os, sys, time
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
began = time.perf_counter()
from datetime import UTC, datetime
from pathlib import Path
import samd_edge.run_command
import samd_edge.agent, samd_edge.link, samd_edge.store, samd_edge.outbox, samd_edge.sources.replay
from samd_data.reading import Reading
from samd_edge.assessment import Assessor, load_model
from samd_protocol import bundle as bundles
imported = time.perf_counter() - began
model = load_model(bundles.read(Path(sys.argv[1])), allow_untrained=True)
assessor = Assessor(model=model)
at = datetime(2026, 1, 1, tzinfo=UTC)
for _ in range(1000):
    assert assessor.update(Reading(observed_at=at, heart_rate=70.0, spo2=95.0), at).model is not None
fields = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
resident, peak = (int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
print(model.graph.runtime, imported, resident, peak)
"""


def readings(count: int) -> list[Reading]:
    """A reading a minute of every sign, oxygen and consciousness now and then."""
    rng = np.random.default_rng(0)
    return [
        Reading(
            observed_at=BEGIN + timedelta(minutes=minute),
            heart_rate=float(rng.integers(45, 135)),
            respiratory_rate=float(rng.integers(9, 27)),
            spo2=float(rng.integers(89, 100)),
            systolic_bp=float(rng.integers(85, 150)),
            temperature=float(rng.integers(350, 395)) / 10,
            supplemental_oxygen=bool(minute % 2) if minute % 60 == 0 else None,
            consciousness="A" if minute % 60 == 0 else None,
        )
        for minute in range(count)
    ]


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50 and p99 in µs."""
    p50, p99 = np.percentile(seconds, [50, 99]) * 1e6
    return {"p50_us": round(float(p50), 1), "p99_us": round(float(p99), 1)}


def measure_assess(model_file: Path, count: int) -> dict[str, Any]:
    """Time of one assessment in this process."""
    from samd_data.features import FeatureSpec
    from samd_edge.assessment import Assessor, load_model, to_message
    from samd_edge.clock import WallClock
    from samd_protocol import bundle as bundles

    model = load_model(bundles.read(model_file), allow_untrained=True)
    assert isinstance(model.spec, FeatureSpec)
    given = readings(count)
    found: dict[str, Any] = {"runtime": model.graph.runtime}
    for name, chosen in (("rule_and_model", model), ("rule_alone", None)):
        assessor, spent = Assessor(model=chosen), []
        for reading in given:
            began = time.perf_counter()
            assessor.update(reading, reading.observed_at)
            spent.append(time.perf_counter() - began)
        found[name] = percentiles(spent[100:])
    assessor, spent = Assessor(model=model), []
    for reading in given:
        judgement = assessor.update(reading, reading.observed_at)
        began = time.perf_counter()
        msgspec.json.encode(to_message(judgement, WallClock(), False))
        spent.append(time.perf_counter() - began)
    found["to_json"] = percentiles(spent[100:])
    row = np.zeros((1, model.spec.size), dtype=np.float32)
    spent = []
    for _ in range(count):
        began = time.perf_counter()
        model.graph.infer(row, model.weights)
        spent.append(time.perf_counter() - began)
    found["bare_graph"] = percentiles(spent[100:])
    return found


def measure_agent(model_file: Path, times: int = 3) -> dict[str, Any]:
    """Memory and import time of what the agent loads, in fresh processes."""
    runs = [
        subprocess.run(
            [sys.executable, "-c", AGENT, str(model_file)], check=True, capture_output=True, text=True
        ).stdout.split()
        for _ in range(times)
    ]
    return {
        "runtime": runs[0][0],
        "import_s": round(statistics.median(float(run[1]) for run in runs), 3),
        "resident_mb": round(max(float(run[2]) for run in runs), 1),
        "peak_mb": round(max(float(run[3]) for run in runs), 1),
    }


def measure_trainer(model_file: Path, hours: int = 240, epochs: int = 20) -> dict[str, Any]:
    """Peak memory and times of the worker, fed as the agent feeds it."""
    from samd_edge.store import AdmissionStore
    from samd_edge.trainer import frames
    from samd_protocol import bundle as bundles
    from samd_protocol.tasks import Task, TrainSettings, Vector, decode_update
    from samd_protocol.tasks import encode as encode_task

    bundle = bundles.read(model_file)
    with tempfile.TemporaryDirectory() as folder:
        store = AdmissionStore(Path(folder) / "admission")
        store.add_history(readings(hours * 60))
        store.close()
        task = Task(
            id="bench",
            run="bench",
            round=1,
            device="bench",
            kind="train",
            graph_sha256=bundle.graph_sha256,
            deadline_s=60.0,
            weights=Vector.of(bundle.weights),
            settings=TrainSettings(epochs=epochs, mask_rate=0.15),
        )
        began = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-m", "samd_edge.trainer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None

            def hear() -> Any:
                body = frames.read_body(process.stdout)  # type: ignore[arg-type]
                assert body is not None
                return frames.decode_from_trainer(body)

            def say(message: Any) -> None:
                assert process.stdin is not None
                process.stdin.write(frames.encode(message))
                process.stdin.flush()

            assert isinstance(hear(), frames.Ready)
            ready_s = time.perf_counter() - began
            say(frames.Prepare(bundle=str(model_file), store=str(store.path)))
            prepared = hear()
            assert prepared.error is None, prepared.error
            say(frames.Work(task=encode_task(task)))
            while not isinstance(message := hear(), frames.Done):
                pass
            update = decode_update(message.update)
            assert update.error is None, update.error
            status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            peak = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
            process.stdin.close()
    return {
        "peak_mb": round(peak, 1),
        "ready_s": round(ready_s, 3),
        "prepare_s": round(prepared.seconds, 3),
        "readings": hours * 60,
        "rows": update.num_examples,
        "epochs": epochs,
        "round_s": round(update.seconds, 4),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Time of an assessment; memory of agent and trainer. JSON.")
    parser.add_argument("--model", type=Path, help="a bundle; without it one is exported (needs TensorFlow)")
    parser.add_argument("--count", type=int, default=20_000, help="assessments to time (default 20000)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model
        if model is None:
            model = Path(folder) / "model.samd"
            export = [sys.executable, "-m", "samd_server", "export", "--out", str(model)]
            subprocess.run(export, check=True, stdout=subprocess.DEVNULL)
        result = {
            "machine": platform.machine(),
            "python": platform.python_version(),
            "assess": measure_assess(model, arguments.count),
            "agent": measure_agent(model),
            "trainer": measure_trainer(model),
        }
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
