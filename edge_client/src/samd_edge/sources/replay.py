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

import msgspec

from samd_data.errors import DataError
from samd_data.plausibility import Rejection
from samd_data.reading import Reading, Recording
from samd_data.table import read_rows
from samd_edge.clock import ScaledClock, wall_now
from samd_edge.sources import SourceError, SourceURL
from samd_edge.sources.extract import recording as extract


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
    if begin.endswith("%"):
        try:
            share = float(begin[:-1])
        except ValueError:
            share = math.nan
        if not 0 <= share <= 100:
            raise SourceError(f"from={begin}: a percentage is 0% to 100%, such as from=70%")
        before = math.ceil(len(readings) * share / 100 - 1e-9)
        return before, readings[min(before, len(readings) - 1)].observed_at
    try:
        moment = datetime.fromisoformat(begin)
    except ValueError:
        raise SourceError(
            f"from={begin}: write a percentage, as in from=70%, or a time, as in from=2026-01-31T08:00:00Z"
        ) from None
    if moment.utcoffset() is None:
        raise SourceError(f"from={begin}: the time has no zone; write it as in 2026-01-31T08:00:00Z")
    first, last = readings[0].observed_at, readings[-1].observed_at
    if not first <= moment <= last:
        raise SourceError(
            f"from={begin}: outside the recording, which lasts from {first.isoformat()} to {last.isoformat()}"
        )
    return sum(reading.observed_at < moment for reading in readings), moment


def open_source(url: SourceURL, *, wall: Callable[[], datetime] = wall_now) -> Replay:
    """Load the recording; raises SourceError or DataError when it cannot be played as asked."""
    url.only("patient", "speed", "from")
    if not url.path:
        raise SourceError("source replay: names no data set; write replay:PATH?patient=N&speed=600")
    try:
        speed = float(url.options.get("speed", "1"))
    except ValueError:
        speed = math.nan
    if not 0 < speed <= 1e6:
        raise SourceError(
            f"speed={url.options['speed']}: it is above 0 and at most 1000000, such as speed=600"
        )
    readings = load(Path(url.path), url.options.get("patient")).readings
    if not readings:
        raise SourceError(f"{url.path}: this patient has no readings; choose another with ?patient=N")
    before, start = split(readings, url.options.get("from", "0%"))
    return Replay(readings[:before], readings[before:], start, speed, wall=wall)


def load(path: Path, patient: str | None) -> Recording:
    """The recording of one patient, oldest reading first; raises DataError."""
    if path.is_file():
        if patient not in (None, path.stem):
            raise SourceError(f"{path}: is the file of one patient; leave ?patient= out, or name its folder")
        with path.open(encoding="utf-8") as stream:
            found = [row for row in read_rows(stream, str(path)) if isinstance(row, Reading)]
        return Recording(path.stem, tuple(sorted(found, key=lambda reading: reading.observed_at)))
    if _is_light(path):
        return extract(path, patient)
    command = [sys.executable, "-m", "samd_edge.sources.extract", str(path), *([patient] if patient else [])]
    done = subprocess.run(command, check=False, capture_output=True)
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason was given"]
        raise DataError(lines[-1])
    return msgspec.msgpack.decode(done.stdout, type=Recording)


def _is_light(path: Path) -> bool:
    """Whether reading it loads no pandas: a folder of recordings; also what is no data set, for its error."""
    from samd_data.datasets import open_dataset

    return bool(open_dataset(path).kind == "recordings")
