"""``replay:PATH?patient=N&speed=600&from=70%``: a recording, played as if it happened now.

``PATH`` is a data set that ``samd_data.datasets`` knows, a folder of recordings, or one file of readings.
``from`` is where live play begins: a percentage of the patient's readings (default 0%), or an ISO 8601 time
in the recording. What lies before it is history. The whole recording is shifted so that this moment is now,
and runs ``speed`` times as fast from there (default 1).
"""

import asyncio
import math
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from samd_data.errors import DataError
from samd_data.plausibility import Rejection, printable
from samd_data.reading import Reading, Recording
from samd_data.table import read_rows
from samd_edge.clock import ScaledClock, wall_now
from samd_edge.sources import SourceError, SourceURL
from samd_edge.sources.surroundings import Surroundings

_ENDINGS: Final = (".csv", ".jsonl", ".ndjson")


class Replay:
    """One patient's readings on a clock of their own.

    ``past`` and ``future`` are in the recording's time; ``start`` is the recording's moment that becomes now.
    """

    def __init__(
        self,
        past: Sequence[Reading],
        future: Sequence[Reading],
        start: datetime,
        speed: float,
        *,
        wall: Callable[[], datetime] = wall_now,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        begun = wall()
        self.clock = ScaledClock(begun, speed, wall)
        self._shift = begun - start
        self._past = past
        self._future = future
        self._wall = wall
        self._sleep = sleep

    def history(self) -> Iterator[Reading]:
        return (shifted(reading, self._shift) for reading in self._past)

    async def __aiter__(self) -> AsyncIterator[Reading | Rejection]:
        for original in self._future:
            reading = shifted(original, self._shift)
            due = self.clock.to_wall(reading.observed_at)
            # Never early: a reading from the future would be left out of the assessment as unknown.
            while (left := (due - self._wall()).total_seconds()) > 0:
                await self._sleep(left)
            yield reading

    async def aclose(self) -> None:
        self._future = ()


def shifted(reading: Reading, shift: timedelta) -> Reading:
    """The same reading at another time; ages stay."""
    return msgspec.structs.replace(reading, observed_at=reading.observed_at + shift)


def split(readings: Sequence[Reading], begin: str) -> tuple[int, datetime]:
    """Where live play begins: the number of readings before it, and its moment.

    ``begin`` is a percentage of the readings, or an ISO time with a zone. Raises SourceError for another
    text, or a time that is not within the recording.
    """
    told = printable(begin)
    if begin.endswith("%"):
        try:
            share = float(begin[:-1])
        except ValueError:
            share = math.nan
        if not 0 <= share <= 100:
            raise SourceError(f"from={told}: a percentage is 0% to 100%, such as from=70%")
        before = math.ceil(len(readings) * share / 100 - 1e-9)
        return before, readings[min(before, len(readings) - 1)].observed_at
    try:
        moment = datetime.fromisoformat(begin)
    except ValueError:
        raise SourceError(
            f"from={told}: write a percentage, as in from=70%, or a time, as in from=2026-01-31T08:00:00Z"
        ) from None
    if moment.utcoffset() is None:
        raise SourceError(f"from={told}: the time has no zone; write it as in 2026-01-31T08:00:00Z")
    first, last = readings[0].observed_at, readings[-1].observed_at
    if not first <= moment <= last:
        raise SourceError(
            f"from={told}: outside the recording, which lasts from {first.isoformat()} to {last.isoformat()}"
        )
    return sum(reading.observed_at < moment for reading in readings), moment


def open_source(url: SourceURL, around: Surroundings) -> Replay:
    """Load the recording; raises SourceError or DataError when it cannot be played as asked."""
    url.only("patient", "speed", "from")
    if not url.path:
        raise SourceError("source replay: names no data set; write replay:PATH?patient=N&speed=600")
    given = {**url.options, **{name: str(value) for name, value in url.table.items()}}
    try:
        speed = float(given.get("speed", "1"))
    except ValueError:
        speed = math.nan
    if not 0 < speed <= 1e6:
        raise SourceError(f"speed={given['speed']}: it is above 0 and at most 1000000, such as speed=600")
    readings = load(Path(url.path), given.get("patient")).readings
    if not readings:
        raise SourceError(f"{url.path}: this patient has no readings; choose another with ?patient=N")
    before, start = split(readings, given.get("from", "0%"))
    return Replay(readings[:before], readings[before:], start, speed, wall=around.wall)


def load(path: Path, patient: str | None) -> Recording:
    """The recording of one patient, oldest reading first; raises DataError."""
    file = path if path.is_file() else _file_of(path, patient)
    if file is not None:
        if patient not in (None, file.stem):
            raise SourceError(f"{file}: is the file of one patient; leave ?patient= out, or name its folder")
        return Recording(file.stem, read_file(file))
    if not path.exists() and str(path) != "clif-demo":  # the one data set that is known by its name
        raise SourceError(
            f"{path}: there is no such file or folder; see 'samd-data datasets' for what can be had"
        )
    command = [sys.executable, "-m", "samd_edge.sources.extract", str(path), *([patient] if patient else [])]
    done = subprocess.run(command, check=False, capture_output=True)
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"{path}: cannot be read"]
        raise DataError(lines[-1])
    return msgspec.msgpack.decode(done.stdout, type=Recording)


def read_file(file: Path) -> tuple[Reading, ...]:
    """The readings of one file, oldest first; what is not plausible in it is left out. Raises DataError."""
    try:
        with file.open(encoding="utf-8", errors="replace", newline="") as stream:
            found = [row for row in read_rows(stream, str(file)) if isinstance(row, Reading)]
    except OSError as error:
        raise SourceError(f"{file}: cannot be read ({error.strerror}); check its mode") from error
    return tuple(sorted(found, key=lambda reading: reading.observed_at))


def _file_of(folder: Path, patient: str | None) -> Path | None:
    """The patient's own file in a folder of recordings: the others need not be read at all."""
    if patient is None or Path(patient).name != patient:
        return None
    return next((file for end in _ENDINGS if (file := folder / f"{patient}{end}").is_file()), None)
