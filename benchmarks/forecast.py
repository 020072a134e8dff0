"""What asking about deterioration costs the agent's loop: the slices of each full hour, and of a restart.

Two paces of a sensor, a reading a minute and a reading a second, signs that move like the real ones. A
reading that comes while there is work waits for one slice at most, so that the longest slice is what asking
can add to a reading's way. Prints one JSON object, times in milliseconds of the processor (what else runs on
the machine is not counted); `restart_s` is the work of reading the whole past again, between readings.
"""

import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from samd_data.reading import Reading
from samd_data.synthetic import generate
from samd_edge.assessment import Model, load_model
from samd_edge.forecaster import Forecaster
from samd_edge.store import AdmissionStore
from samd_protocol import bundle as bundles
from samd_scripts.network import untrained

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
PACES = {"a_minute": (60.0, 7 * 24), "a_second": (1.0, 24)}
"""Seconds between readings, and hours of them."""


def main() -> int:
    bundle = bundles.read(untrained(task="deterioration"))
    model = load_model(bundle, allow_untrained=True, task="deterioration")
    figures: dict[str, Any] = {"runtime": sys.version.split()[0]}
    for name, (seconds, hours) in PACES.items():
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            figures[name] = measure(Path(folder), model, seconds, hours)
    print(json.dumps(figures, indent=2))
    return 0


def signs(seconds: float, hours: int) -> Iterator[list[Reading]]:
    """The readings of one hour after the other: each sign stays for its hour, and stirs a little."""
    rng = np.random.default_rng(3)
    course = generate(1, hours, 3)[0].readings
    for number in range(hours):
        now = course[number]
        values = {field: getattr(now, field) for field in now.present() if field != "consciousness"}
        steps = int(3600 / seconds)
        stir = rng.normal(0, 0.3, steps)
        yield [
            Reading(
                observed_at=BEGIN + timedelta(hours=number, seconds=seconds * step),
                **{
                    field: value if isinstance(value, bool) else round(float(value + stir[step]), 1)
                    for field, value in values.items()
                },
            )
            for step in range(steps)
        ]


def measure(folder: Path, model: Model, seconds: float, hours: int) -> dict[str, Any]:
    store = AdmissionStore(folder / "admission")
    forecaster = Forecaster(store, model=model)
    each_hour, slices, count = [], [], 0
    for number, readings in enumerate(signs(seconds, hours)):
        store.add_history(readings)
        count += len(readings)
        found = list(work(forecaster, BEGIN + timedelta(hours=number + 1)))
        slices += found
        each_hour.append(sum(found))
    again = list(work(Forecaster(store, model=model), BEGIN + timedelta(hours=hours)))
    store.close()
    return {
        "readings": count,
        "hour_p50_ms": shown(np.median(each_hour)),
        "hour_longest_ms": shown(max(each_hour)),
        "slice_p50_ms": shown(np.median(slices)),
        "slice_p99_ms": shown(np.quantile(slices, 0.99)),
        "slice_longest_ms": shown(max(slices)),
        "restart_s": round(sum(again), 3),
        "restart_slices": len(again),
        "restart_slice_p99_ms": shown(np.quantile(again, 0.99)),
        "restart_slice_longest_ms": shown(max(again)),
    }


def work(forecaster: Forecaster, at: datetime) -> Iterator[float]:
    """The processor's seconds of each slice until there is an answer."""
    for _ in itertools.count():
        began = time.thread_time()
        more = forecaster.work(at)
        yield time.thread_time() - began
        if not more:
            return


def shown(seconds: float) -> float:
    return round(1000 * float(seconds), 3)


if __name__ == "__main__":
    sys.exit(main())
