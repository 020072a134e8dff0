"""How good a released model is, on hours that no device trained on."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from samd_data.features import FeatureSpec, encode, mask_signs
from samd_data.hourly import hourly
from samd_data.reading import Recording
from samd_data.severity import labels
from samd_protocol.bundle import Bundle
from samd_server.graph import Graph
from samd_server.metrics import scores

CARRIED = timedelta(hours=12)
"""The longest that a sign is carried forward: later hours than this after the cut hold no reading from
before it."""

MASK_RATE = 0.3


@dataclass(frozen=True)
class Verdict:
    """Scores on complete rows, and on the same rows with each sign hidden with probability `MASK_RATE`."""

    patients: int
    complete: dict[str, Any]
    masked: dict[str, Any]


def after_cut(recording: Recording, share: float) -> Recording:
    """What lies so far behind the cut that nothing of it was in a training row."""
    count = int(share * len(recording.readings))
    if count >= len(recording.readings):
        return Recording(patient=recording.patient, readings=())
    cut = recording.readings[count].observed_at + CARRIED
    later = tuple(reading for reading in recording.readings if reading.observed_at >= cut)
    return Recording(patient=recording.patient, readings=later)


def judge(bundle: Bundle, recordings: Iterable[Recording], *, seed: int = 0) -> Verdict | None:
    """Pooled over the patients; None where no hour has a label."""
    setting = bundle.manifest.features.labels
    rows: list[NDArray[np.float64]] = []
    truths: list[NDArray[np.int64]] = []
    for recording in recordings:
        if not recording.readings:
            continue
        table = hourly(recording.readings)
        label = labels(table.values, setting)
        rows.append(table.values[label >= 0])
        truths.append(label[label >= 0])
    values = np.concatenate(rows) if rows else np.empty((0, 7))
    truth = np.concatenate(truths) if truths else np.empty(0, dtype=np.int64)
    if not len(truth):
        return None
    spec = FeatureSpec(name=bundle.manifest.features.name, labels=setting)
    graph = Graph(bundle.graph)
    found = []
    for shown in (values, mask_signs(values, MASK_RATE, np.random.default_rng(seed))):
        _, confusion = graph.evaluate(encode(shown, spec), truth, bundle.weights)
        found.append(msgspec.to_builtins(scores(confusion)))
    return Verdict(sum(len(row) > 0 for row in rows), *found)
