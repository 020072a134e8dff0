"""A period of one admission as it stood in the store, in plain numbers. Times are seconds since 1970."""

from array import array
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from samd_edge.database import micros
from samd_protocol.messages import Alert

SECOND = 1_000_000
"""Microseconds, as the store has them."""


@dataclass(slots=True)
class Series:
    """Times in seconds since 1970, and a value at each."""

    times: "array[float]" = field(default_factory=lambda: array("d"))
    values: "array[float]" = field(default_factory=lambda: array("d"))

    def add(self, time: float, value: float) -> None:
        """Append; a value that is only told again (same time, same value) is one value."""
        if self.times and self.times[-1] == time and self.values[-1] == value:
            return
        self.times.append(time)
        self.values.append(value)

    def sort(self) -> None:
        """Order by time: signs with ages of their own may come out of order."""
        if any(later < earlier for earlier, later in pairwise(self.times)):
            ordered = sorted(zip(self.times, self.values, strict=True), key=lambda pair: pair[0])
            self.times = array("d", (time for time, _ in ordered))
            self.values = array("d", (value for _, value in ordered))

    def __len__(self) -> int:
        return len(self.times)


@dataclass(slots=True)
class Entered:
    """A stretch with one value of oxygen or consciousness: first and last time it was told."""

    start: float
    last: float
    value: bool | str


@dataclass(slots=True)
class Run:
    """A stretch of judgements that say the same: first and last time, both ends of NEWS2, band, classes.

    ``model`` is -1 where the model had no view.
    """

    start: float
    last: float
    low: int
    high: int
    band: str
    rule: int
    possible: int
    severity: int
    model: int
    disagreement: bool


@dataclass(frozen=True, slots=True)
class AlertRow:
    """One change of the alert state, at patient time."""

    at: float
    alert: Alert


@dataclass(frozen=True, slots=True)
class Observation:
    """What a person entered: when it was seen, when and by whom entered; whether it was struck since."""

    at: float
    entered_at: float
    by: str
    what: str
    struck: bool
    corrects: bool


@dataclass(frozen=True, slots=True)
class Correction:
    """What was struck: when it was measured, its value, by whom, why, and what stands instead."""

    at: float
    name: str
    value: str
    by: str
    reason: str
    corrected_at: float
    instead: str


@dataclass(frozen=True, slots=True)
class Artefacts:
    """The artefacts of one sign and kind: how many, first and last, and the last reason."""

    field: str
    kind: str
    count: int
    first: float
    last: float
    reason: str


@dataclass(slots=True)
class History:
    """Everything of one admission between ``since`` and ``until`` (seconds since 1970, patient time).

    ``values``, ``flagged``, ``struck``: per sign. ``unmeasured``: times at which a sign could not be used at
    all. ``read_at``: when a reading with a sign that counts came; ``before``: the last such one before
    ``since``. ``usual_s``: the median time between two readings of the admission; None with fewer than two.
    ``runs``: judgements; ``runs[0]`` may begin before ``since``.
    """

    store: Path
    device: str
    admission: str
    spo2_scale: int
    monitoring_interval_s: float | None
    sealed: bool
    since: float
    until: float
    values: dict[str, Series]
    flagged: dict[str, Series]
    struck: dict[str, Series]
    unmeasured: dict[str, "array[float]"]
    read_at: "array[float]"
    before: float | None = None
    usual_s: float | None = None
    oxygen: list[Entered] = field(default_factory=list)
    consciousness: list[Entered] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    alerts: list[AlertRow] = field(default_factory=list)
    observations: list[Observation] = field(default_factory=list)
    corrections: list[Correction] = field(default_factory=list)
    artefacts: list[Artefacts] = field(default_factory=list)
    models: dict[int, tuple[int, float, float]] = field(default_factory=dict)
    origins: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)


def moment(seconds: float) -> datetime:
    """Seconds since 1970 as a time."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def seconds(at: datetime) -> float:
    """A time as seconds since 1970."""
    return micros(at) / SECOND
