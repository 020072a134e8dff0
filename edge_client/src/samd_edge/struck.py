"""The values that were struck, known by field, time and value: wherever else they stand, they do not count.

One measurement may come in several readings: sent again, grouped in another way, or carried along with its
age by a monitor that repeats its last cuff pressure with each message.
"""

from bisect import bisect_left, insort
from datetime import timedelta
from typing import Final

from samd_data.reading import FIELDS, Reading
from samd_edge.database import micros

_JITTER: Final = 1_000_000
"""Microseconds: an age is often told in whole seconds, so the time of one measurement wanders by as much."""


class Struck:
    """Empty at first; ``add`` what is struck."""

    def __init__(self) -> None:
        self._times: dict[tuple[str, float | bool | str], list[int]] = {}

    def add(self, reading: Reading, field: str | None) -> None:
        """A field of a reading was struck, or (None) all of it."""
        for name in FIELDS if field is None else (field,):
            value = getattr(reading, name)
            if value is not None:
                insort(self._times.setdefault((name, value), []), _measured_at(reading, name))

    def fields(self, reading: Reading) -> set[str]:
        """The fields of a reading of a source that hold a value which was struck."""
        if not self._times:
            return set()
        return {name for name in FIELDS if self._holds(reading, name)}

    def _holds(self, reading: Reading, name: str) -> bool:
        times = self._times.get((name, getattr(reading, name)))
        if not times:
            return False
        at = _measured_at(reading, name)
        slack = _JITTER if reading.ages.get(name) else 0
        nearest = bisect_left(times, at - slack)
        return nearest < len(times) and times[nearest] <= at + slack


def _measured_at(reading: Reading, name: str) -> int:
    return micros(reading.observed_at - timedelta(seconds=reading.ages.get(name, 0.0)))
