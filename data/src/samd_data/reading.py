"""A reading: the vital signs of one patient at one time.

Units: ``heart_rate`` and ``respiratory_rate`` per minute, ``spo2`` in percent, ``systolic_bp`` and
``diastolic_bp`` in mmHg, ``temperature`` in °C. ``supplemental_oxygen`` is yes or no, ``consciousness``
one of A (alert), C (new confusion), V (voice), P (pain), U (unresponsive). Anything may be missing, and
missing is ``None`` here and NaN in a row, never 0.
"""

import math
from collections.abc import Collection
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

SIGNS: Final[tuple[str, ...]] = ("heart_rate", "respiratory_rate", "spo2", "systolic_bp", "temperature")
"""The five scored signs that a sensor measures, in the order of every table."""

COLUMNS: Final[tuple[str, ...]] = (*SIGNS, "supplemental_oxygen", "consciousness")
"""All inputs of NEWS2: the columns of a row."""

VITALS: Final[tuple[str, ...]] = (*SIGNS, "diastolic_bp")
"""Everything that is a number. Diastolic pressure is recorded and shown but not scored."""

FIELDS: Final[tuple[str, ...]] = (*VITALS, "supplemental_oxygen", "consciousness")
"""Everything that a reading may hold."""

Consciousness = Literal["A", "C", "V", "P", "U"]
CONSCIOUSNESS: Final[tuple[Consciousness, ...]] = ("A", "C", "V", "P", "U")


class Reading(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The vital signs of one patient at one time.

    ``observed_at`` is aware and kept in UTC. ``ages`` tells, per present field, how many seconds before
    ``observed_at`` the value was measured; a field that is not in it was measured at ``observed_at``.

    Raises ``ValueError`` (``msgspec.ValidationError`` while decoding) for a naive time, a value that is not
    a finite number, an unknown consciousness, or an age that is negative or of no field. What is finite
    but impossible is the business of ``plausibility``.
    """

    observed_at: datetime
    heart_rate: float | None = None
    respiratory_rate: float | None = None
    spo2: float | None = None
    systolic_bp: float | None = None
    diastolic_bp: float | None = None
    temperature: float | None = None
    supplemental_oxygen: bool | None = None
    consciousness: Consciousness | None = None
    ages: dict[str, float] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        offset = self.observed_at.utcoffset()
        if offset is None:
            raise ValueError("observed_at has no time zone; give it one, for example tzinfo=UTC")
        if offset or self.observed_at.tzinfo is not UTC:
            msgspec.structs.force_setattr(self, "observed_at", self.observed_at.astimezone(UTC))
        for field in VITALS:
            value = getattr(self, field)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"{field} is {value!r}; it is a number, or None when missing")  # noqa: TRY004
            if not math.isfinite(value):
                raise ValueError(f"{field} is {value}; a missing value is None, never NaN or infinite")
        if not (self.supplemental_oxygen is None or isinstance(self.supplemental_oxygen, bool)):
            raise ValueError(f"supplemental_oxygen is {self.supplemental_oxygen!r}; it is a bool, or None")
        if not (self.consciousness is None or self.consciousness in CONSCIOUSNESS):
            raise ValueError(f"consciousness is {self.consciousness!r}; it is one of A C V P U, or None")
        for field, age in self.ages.items():
            if field not in FIELDS:
                raise ValueError(f"ages names {field!r}, which is no field of a reading")
            if not (math.isfinite(age) and age >= 0):
                raise ValueError(f"the age of {field} is {age}; it is seconds, 0 or more")

    def present(self) -> tuple[str, ...]:
        """The fields that have a value, in the order of ``FIELDS``."""
        return tuple(field for field in FIELDS if getattr(self, field) is not None)


class Recording(msgspec.Struct, frozen=True):
    """The readings of one patient, oldest first.

    Raises ``ValueError`` when the readings are out of order; equal times are allowed.
    """

    patient: str
    readings: tuple[Reading, ...]

    def __post_init__(self) -> None:
        times = [reading.observed_at for reading in self.readings]
        if any(later < earlier for earlier, later in pairwise(times)):
            raise ValueError(f"the readings of {self.patient} are out of order; sort them by observed_at")


def without(reading: Reading, fields: Collection[str]) -> Reading:
    """The same reading without the values of some fields."""
    ages = {field: age for field, age in reading.ages.items() if field not in fields}
    return msgspec.structs.replace(reading, ages=ages, **dict.fromkeys(fields))


def to_row(reading: Reading) -> NDArray[np.float64]:
    """The reading as ``float64[7]`` in the order of ``COLUMNS``.

    NaN is missing; oxygen is 0 or 1; consciousness is 0 for A and 1 for C, V, P and U, which score alike.
    """
    row = np.full(len(COLUMNS), np.nan)
    for column, field in enumerate(SIGNS):
        value = getattr(reading, field)
        if value is not None:
            row[column] = value
    if reading.supplemental_oxygen is not None:
        row[5] = float(reading.supplemental_oxygen)
    if reading.consciousness is not None:
        row[6] = 0.0 if reading.consciousness == "A" else 1.0
    return row
