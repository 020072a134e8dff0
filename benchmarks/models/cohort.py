"""The ICU demo as devices hold it: one per patient, one admission per stay."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samd_data import deterioration, history, severity, splits
from samd_data.datasets import open_dataset
from samd_data.features import FeatureSpec, encode
from samd_data.hourly import hourly
from samd_edge.runtime import Floats, Ints
from samd_edge.trainer.rows import Rows, thin

ROOT = Path(__file__).parents[2]
ICU = ROOT.parent / "shared" / "data" / "mimic-iv-demo-2.2"
PURGE = timedelta(hours=6)


@dataclass(frozen=True)
class Device:
    """The labelled hours of one patient: `rows` as its trainer holds them, their features float32[N, F],
    `hours`, and for the peers the low end of the NEWS2 total now, int64[N]."""

    name: str
    rows: Rows
    features: Floats
    hours: NDArray[np.datetime64]
    totals: NDArray[np.int64]

    @property
    def labels(self) -> Ints:
        """int32[N]."""
        return self.rows.labels

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> "Device":
        """Some of its hours."""
        return Device(
            self.name,
            Rows(self.rows.values[rows], self.rows.labels[rows]),
            self.features[rows],
            self.hours[rows],
            self.totals[rows],
        )

    def cut(self, share: float) -> tuple["Device", "Device"]:
        """The first `share` of its hours and the rest, six hours purged on both sides of the cut."""
        if not len(self):
            return self, self
        first, rest = splits.by_time(self.hours, share, PURGE)
        return self.take(first), self.take(rest)


def load(task: str, path: Path | str = ICU) -> tuple[FeatureSpec, list[Device]]:
    """Every patient with a labelled hour, in the order of their names; `task` severity or deterioration."""
    spec = FeatureSpec("signs-v1" if task == "severity" else "history-v1")
    dataset = open_dataset(path)
    devices = []
    for name in sorted(dataset.patients()):
        readings = dataset.recording(name).readings
        stays = dataset.stays(name)
        spans = [[r for r in readings if stay.start <= r.observed_at < stay.end] for stay in stays]
        parts = []
        for span in spans if stays else [list(readings)]:
            table = hourly(thin(span))
            if task == "severity":
                labels, rows = severity.labels(table.values, spec.labels), table.values
            else:
                labels, rows = deterioration.labels(table, spec.labels), history.rows(table)
            known = labels >= 0
            low, _ = deterioration.low_totals(table.values, spec.labels)
            parts.append((rows[known], labels[known], table.hours[known], low[known]))
        rows, labels, hours, low = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        if len(labels):
            order = np.argsort(hours, kind="stable")
            devices.append(
                Device(
                    name,
                    Rows(rows[order], labels[order].astype(np.int32)),
                    encode(rows[order], spec),
                    hours[order],
                    low[order],
                )
            )
    return spec, devices


def joined(devices: list[Device]) -> Device:
    """All hours in one place, as centralised training needs them."""
    return Device(
        "all",
        Rows(
            np.concatenate([device.rows.values for device in devices]),
            np.concatenate([device.rows.labels for device in devices]),
        ),
        np.concatenate([device.features for device in devices]),
        np.concatenate([device.hours for device in devices]),
        np.concatenate([device.totals for device in devices]),
    )


def folds(devices: list[Device], number: int, seed: int) -> list[tuple[list[Device], list[Device]]]:
    """Training and test patients of each fold."""
    names = [device.name for device in devices]
    return [
        ([devices[i] for i in train], [devices[i] for i in test])
        for train, test in splits.by_patient(names, number, seed)
    ]
