"""From a reading to its committed assessment, in the agent's own path: judge, commit, alert, outbox.

Three paces on one device folder, rule and model together: readings that change no alert; readings of which
each raises or clears an alert, which is synced to the disk before it is handed on; and the same judgement
without any store, as the floor. Prints one JSON object, times in milliseconds.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from samd_data.reading import Reading
from samd_edge.admission import Admission, Record
from samd_edge.alerts import Policy
from samd_edge.artefacts import ArtefactPolicy
from samd_edge.assessment import Assessor, Model, load_model
from samd_edge.device_db import DeviceDb
from samd_edge.outbox import Outbox
from samd_protocol import bundle as bundles
from samd_protocol.envelope import Sealer
from samd_scripts.network import untrained

COUNT = 3000
WELL = {"heart_rate": 80.0, "respiratory_rate": 16.0, "spo2": 97.0, "systolic_bp": 120.0, "temperature": 37.0}
ILL = {"heart_rate": 140.0, "respiratory_rate": 28.0, "spo2": 88.0, "systolic_bp": 85.0, "temperature": 39.5}
KNOWN: dict[str, Any] = {"supplemental_oxygen": False, "consciousness": "A"}


class Now:
    """A clock that stands where the newest reading is."""

    def __init__(self) -> None:
        self.moment = datetime.now(UTC)
        self.speed = 1.0

    def now(self) -> datetime:
        return self.moment

    def to_wall(self, moment: datetime) -> datetime:
        return moment


def main() -> int:
    model = load_model(bundles.read(untrained()), allow_untrained=True)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        figures = {
            "judgement_alone": assessor(model),
            "to_committed_assessment": agent(Path(folder) / "plain", model, lambda _: WELL),
            "with_an_alert_each": agent(Path(folder) / "alerts", model, lambda k: ILL if k % 2 else WELL),
            "runtime": sys.version.split()[0],
        }
    figures["an_alert_adds_ms_p50"] = round(
        figures["with_an_alert_each"]["p50_ms"] - figures["to_committed_assessment"]["p50_ms"], 3
    )
    print(json.dumps(figures, indent=2))
    return 0


def assessor(model: Model) -> dict[str, float]:
    clock, judge = Now(), Assessor(spo2_scale=1, model=model)
    return measure(clock, lambda reading: judge.update(reading, reading.observed_at), lambda _: WELL)


def agent(folder: Path, model: Model, signs: Callable[[int], dict[str, float]]) -> dict[str, float]:
    folder.mkdir()
    clock, db = Now(), DeviceDb(folder)
    admission = Admission(
        Record(id="bench"),
        folder,
        outbox=Outbox(db, max_rows=10 * COUNT),
        handed=None,
        sealer=Sealer("bed-01", 1),
        clock=clock,
        wall=clock.now,
        share_signs=lambda: False,
        direct=lambda _topic, _payload: None,
        model=model,
        policy=Policy(hysteresis=0, min_dwell_s=0, urgent_refractory_s=0),
        artefacts=ArtefactPolicy(jumps=False),
    )
    try:
        return measure(clock, admission.take, signs)
    finally:
        admission.close()
        db.close()


def measure(
    clock: Now, take: Callable[[Reading], object], signs: Callable[[int], dict[str, float]]
) -> dict[str, float]:
    wall, cpu = [], []
    for number in range(COUNT):
        clock.moment += timedelta(seconds=1)
        given = {field: value + number % 3 / 10 for field, value in signs(number).items()}  # no flat line
        reading = msgspec.convert({"observed_at": clock.moment} | KNOWN | given, Reading)
        began, used = time.perf_counter(), time.process_time()
        take(reading)
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - used)
    half = COUNT // 10
    return {
        "readings": COUNT - half,
        "p50_ms": round(float(np.percentile(wall[half:], 50)) * 1e3, 3),
        "p99_ms": round(float(np.percentile(wall[half:], 99)) * 1e3, 3),
        "p99_cpu_ms": round(float(np.percentile(cpu[half:], 99)) * 1e3, 3),
    }


if __name__ == "__main__":
    sys.exit(main())
