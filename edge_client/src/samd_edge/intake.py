"""What comes out of the sources, on its way to the admission: counted, refused where it cannot be true."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from samd_data.plausibility import Rejection, check_time, printable
from samd_data.reading import FIELDS, Reading
from samd_edge.admission import Admission
from samd_edge.clock import AHEAD, Clock
from samd_edge.retraction import Retraction
from samd_edge.sources.several import Sources
from samd_edge.sources.surroundings import NO_PATIENT, WRONG_PATIENT

log = logging.getLogger(__name__)

_COLUMNS: Final = (*FIELDS, "observed_at")
_WHOSE: Final = {text.partition("; ")[0]: text for text in (WRONG_PATIENT, NO_PATIENT)}  # they hold no value
_NOBODY: Final = "a reading came while no patient is admitted: it belongs to nobody"


class Intake:
    """Takes the readings of the sources, one at a time. Used within the agent's loop."""

    def __init__(self, source: Sources, admission: Callable[[], Admission | None]) -> None:
        self._source = source
        self._admission = admission
        self.rejected: Counter[str] = Counter()

    async def run(self) -> None:
        """Until the sources have ended. Gives way after each item: the loop has other work."""
        count = 0
        async for item in self._source:
            if isinstance(item, Rejection):
                self.reject(item)
            elif isinstance(item, Retraction):
                self.retract(item)
            else:
                count += self.take(item)
            await asyncio.sleep(0)
        log.info("the source ended after %d readings", count)

    def take(self, reading: Reading) -> bool:
        """One reading; whether it was taken."""
        admission = self._admission()
        if admission is None:
            self._count("no patient", _NOBODY)
            return False
        late = ahead(reading, self._source.clock)
        if late is not None:
            self.reject(late)
            return False
        admission.take(reading)
        return True

    def retract(self, retraction: Retraction) -> None:
        """What a source takes back, with its readings instead."""
        admission = self._admission()
        if admission is None:
            self._count("no patient", _NOBODY)
            return
        late = [(reading, ahead(reading, self._source.clock)) for reading in retraction.instead]
        timely = tuple(reading for reading, reason in late if reason is None)
        for rejection in admission.retract(msgspec.structs.replace(retraction, instead=timely)):
            self._count("taken back", f"{retraction.by}: what it took back, or corrected, was never taken")
            admission.reject(rejection)
        for _, reason in late:
            if reason is not None:
                self.reject(reason)

    def reject(self, rejection: Rejection) -> None:
        """Count by column. Values are vital signs and stay out of the log, and so does what else a sender may
        write as it likes: the names of its columns, the place within its message."""
        place = Path(rejection.file).name
        source = printable(place if rejection.row else place.partition(" ")[0]) or "source"
        column = rejection.column if rejection.column in _COLUMNS else "row"
        if rejection.reason in _WHOSE:
            self._count(rejection.reason, f"{source}: {_WHOSE[rejection.reason]}; nothing of it was taken")
        elif rejection.kind == "no_signal":
            self._count(f"{column}: no signal", f"{source}: there was no signal for {column!r}")
        else:
            self._count(column, f"{source}: a value in {column!r} was rejected as implausible or unreadable")
        admission = self._admission()
        if admission is not None:
            admission.reject(rejection)

    def _count(self, what: str, text: str) -> None:
        self.rejected[what] += 1
        if self.rejected[what] == 1:
            log.warning("%s; further ones are counted", text)


def ahead(reading: Reading, clock: Clock) -> Rejection | None:
    """Why a reading from the future, or from before all medicine, is refused, or None."""
    impossible = check_time(reading.observed_at)
    if impossible is not None:  # hours and ages are added to it and taken off it
        return _untimely(reading, impossible)
    by = reading.observed_at - clock.now()
    if by <= AHEAD:
        return None
    return _untimely(reading, f"its time lies {by.total_seconds():.0f} s in the future")


def _untimely(reading: Reading, reason: str) -> Rejection:
    remedy = "set the clock of the sensor, or the source's zone"
    return Rejection("source", 0, "observed_at", reading.observed_at.isoformat(), reason, remedy)
