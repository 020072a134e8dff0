"""What every data set can be asked."""

from abc import ABC, abstractmethod
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from samd_data.hourly import HourlyTable, hourly
from samd_data.plausibility import Rejection
from samd_data.reading import Recording


class Stay(NamedTuple):
    """One stay of a patient, from admission to discharge, both aware."""

    start: datetime
    end: datetime


class Dataset(ABC):
    """Recordings of several patients.

    ``kind``: which reader it is. ``path``: where it lies. ``rejections``: the values that were not taken
    over, in the order of the files.
    """

    kind: str
    path: Path
    rejections: list[Rejection]

    @abstractmethod
    def patients(self) -> list[str]:
        """All patients with a reading: most readings first, ties by name."""

    @abstractmethod
    def recording(self, patient: str) -> Recording:
        """The readings of one patient, all stays one after the other. Raises ``KeyError`` if unknown."""

    def stays(self, patient: str) -> list[Stay]:
        """The stays of a patient as the source records them, oldest first; empty where it does not."""
        del patient
        return []

    def hourly_tables(self, patient: str) -> list[HourlyTable]:
        """One table per recorded stay; where stays are not recorded, one table of the whole recording."""
        readings = self.recording(patient).readings
        stays = self.stays(patient)
        if not stays:
            return [hourly(readings)]
        return [hourly(readings, start=stay.start, end=stay.end) for stay in stays]
