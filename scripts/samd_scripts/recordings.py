"""Which recordings the demo and the benchmarks use: a folder with one CSV per patient, most readings first.

The choice is explicit and never changes silently: `clif-demo` (real, downloaded once), `synthetic`, or the
path of a data set.
"""

from dataclasses import dataclass
from pathlib import Path

from samd_data.datasets import clif_demo, open_dataset
from samd_data.errors import DataError
from samd_data.hourly import hourly
from samd_data.reading import Recording
from samd_data.severity import labels
from samd_data.synthetic import generate
from samd_data.table import write_csv

HISTORY = 0.7
"""The share of a recording that is history on the device; the rest is played as live signs."""


@dataclass(frozen=True)
class Recordings:
    """`taking_part` train together, `others` only judge the result; `folder` holds a CSV for each."""

    kind: str
    folder: Path
    taking_part: list[Recording]
    others: list[Recording]


def prepare(choice: str, folder: Path, patients: int) -> Recordings:
    """Write the recordings of twice as many patients as take part; raises DataError with the remedy."""
    kind, found = _load(choice, 2 * patients)
    if len(found) < 2:
        raise DataError(f"{choice}: {len(found)} patient with readings; at least 2 are needed")
    taking_part = found[:patients] if len(found) > patients else found[: max(1, len(found) // 2)]
    others = found[len(taking_part) :]
    folder.mkdir(parents=True, exist_ok=True)
    for recording in found:
        write_csv(folder / f"{recording.patient}.csv", recording.readings)
    return Recordings(kind, folder, taking_part, others)


def _load(choice: str, patients: int) -> tuple[str, list[Recording]]:
    if choice == "synthetic":
        return "synthetic", list(generate(patients=patients, hours=240, seed=1))
    path = clif_demo() if choice == "clif-demo" else Path(choice)
    dataset = open_dataset(path)
    names = dataset.patients()[:patients]
    return dataset.kind, [dataset.recording(name) for name in names]


def usual_labels(recordings: Recordings) -> str:
    """`all` where at least half of the patients' hours tell all seven inputs, else `five`."""
    tables = [hourly(recording.readings).values for recording in recordings.taking_part]
    whole = sum(int((labels(values, "all") >= 0).sum()) for values in tables)
    return "all" if 2 * whole >= sum(map(len, tables)) > 0 else "five"
