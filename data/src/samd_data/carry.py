"""How long a value stays valid, and the latest values that are still valid at a given time.

Signs are taken every few minutes to hours, each at its own pace. A ``Carrier`` keeps the newest value of
each field and hands it out with its age, until it is too old: then it is stale, which is missing.
"""

from datetime import datetime, timedelta
from typing import Any, Final

from samd_data.reading import COLUMNS, FIELDS, Reading

_HOUR: Final = 3600.0

CARRY_SECONDS: Final[dict[str, float]] = {
    "heart_rate": 3 * _HOUR,
    "respiratory_rate": 3 * _HOUR,
    "spo2": 3 * _HOUR,
    "systolic_bp": 3 * _HOUR,
    "diastolic_bp": 3 * _HOUR,
    "temperature": 12 * _HOUR,  # charted every 4 h even in intensive care, and slow to change
    "supplemental_oxygen": 12 * _HOUR,  # entered by a person, about once a shift
    "consciousness": 12 * _HOUR,
}
"""Seconds for which a value stays valid after it was measured; valid up to and including this age."""

AHEAD_SECONDS: Final = 5.0
"""A value measured up to this much after the time asked for counts as measured then: no two clocks agree."""


class Carrier:
    """The newest value of each field of one patient.

    ``update`` may be called in any order of time: a value replaces another only if it was measured at the
    same time or later. The same time replaces, so that a correction of a reading takes effect.
    """

    def __init__(self) -> None:
        self._latest: dict[str, tuple[datetime, Any]] = {}

    def update(self, reading: Reading) -> None:
        """Take over each value of ``reading`` that is newer than what is held; honours its ``ages``."""
        for field in FIELDS:
            value = getattr(reading, field)
            if value is None:
                continue
            measured_at = reading.observed_at - timedelta(seconds=reading.ages.get(field, 0.0))
            held = self._latest.get(field)
            if held is None or measured_at >= held[0]:
                self._latest[field] = (measured_at, value)

    def withdraw(self, field: str, since: datetime) -> None:
        """Forget the value of ``field`` if it was measured at ``since`` or later: it proved to be wrong."""
        held = self._latest.get(field)
        if held is not None and held[0] >= since:
            del self._latest[field]

    def latest(self, field: str) -> tuple[datetime, Any] | None:
        """When the newest value of ``field`` was measured, and that value, however old; None if never."""
        return self._latest.get(field)

    def snapshot(self, at: datetime) -> Reading:
        """What is known at ``at`` (aware): each value still valid, with its age; the rest is None.

        A value measured after ``at`` (by more than ``AHEAD_SECONDS``) was not known then and is left out.
        """
        present: dict[str, Any] = {}
        ages: dict[str, float] = {}
        for field, (measured_at, value) in self._latest.items():
            age = (at - measured_at).total_seconds()
            if -AHEAD_SECONDS <= age <= CARRY_SECONDS[field]:
                present[field] = value
                ages[field] = max(age, 0.0)
        return Reading(observed_at=at, ages=ages, **present)

    def stale(self, at: datetime) -> tuple[str, ...]:
        """The inputs of NEWS2 that had a value which is too old at ``at``."""
        return tuple(
            field
            for field in COLUMNS
            if field in self._latest and (at - self._latest[field][0]).total_seconds() > CARRY_SECONDS[field]
        )

    def missing(self, at: datetime) -> tuple[str, ...]:
        """The inputs of NEWS2 that had no value by ``at``; stale ones are told by ``stale``."""
        return tuple(
            field
            for field in COLUMNS
            if field not in self._latest or (at - self._latest[field][0]).total_seconds() < -AHEAD_SECONDS
        )
