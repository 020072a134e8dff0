"""Time at the bedside: the wall's, or a patient's time that runs faster in a replay.

Everything that ages (a sign, a carried value, an alert) is counted in patient time. What crosses the wire
is wall time: ``to_wall`` turns the one into the other. For live sources the two are the same.
"""

import ctypes
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, Protocol

AHEAD: Final = timedelta(seconds=60)
"""No two clocks agree: so much after the patient's time a value may be dated. Further ahead it is refused: it
would count as fresh for as long, and everything else would be judged as if it were that late."""

_TIME_ERROR: Final = 5  # adjtimex(2): the kernel was never told the time, or not for too long
_TIMESYNC_MARKER: Final = Path("/run/systemd/timesync/synchronized")


def wall_now() -> datetime:
    """The wall's time, aware, in UTC."""
    return datetime.now(UTC)


class Clock(Protocol):
    """What a source says of time. All times are aware."""

    speed: float
    """Patient seconds per wall second."""

    def now(self) -> datetime:
        """The patient's time."""
        ...

    def to_wall(self, moment: datetime) -> datetime:
        """When the patient's ``moment`` was, or will be, on the wall's clock."""
        ...


class WallClock:
    """Patient time is wall time: every live source."""

    def __init__(self, wall: Callable[[], datetime] = wall_now) -> None:
        self.speed = 1.0
        self._wall = wall

    def now(self) -> datetime:
        return self._wall()

    def to_wall(self, moment: datetime) -> datetime:
        return moment


class ScaledClock:
    """Patient time that was ``start`` when this clock was made, and has run ``speed`` times as fast since.

    Raises ``ValueError`` for a naive start or a speed that is not a positive, finite number.
    """

    def __init__(self, start: datetime, speed: float, wall: Callable[[], datetime] = wall_now) -> None:
        if start.utcoffset() is None:
            raise ValueError("start has no time zone; give it one, for example tzinfo=UTC")
        if not 0 < speed <= 1e6:
            raise ValueError(f"speed is {speed}; it is above 0 and at most 1000000")
        self.speed = speed
        self._start = start
        self._wall = wall
        self._origin = wall()

    def now(self) -> datetime:
        return self._start + (self._wall() - self._origin) * self.speed

    def to_wall(self, moment: datetime) -> datetime:
        return self._origin + (moment - self._start) / self.speed


class DataClock:
    """Follows the data of a file: shows the time of the newest row (``follow``), and runs on from there.

    So each row of an old file is judged at its own time, and what it says ages when the file ends.
    """

    def __init__(self, wall: Callable[[], datetime] = wall_now) -> None:
        self.speed = 1.0
        self._wall = wall
        self._offset: timedelta | None = None

    def follow(self, moment: datetime) -> None:
        """The data has reached ``moment`` (aware); an earlier one changes nothing."""
        offset = moment - self._wall()
        if self._offset is None or offset > self._offset:
            self._offset = offset

    def now(self) -> datetime:
        return self._wall() + (self._offset or timedelta(0))

    def to_wall(self, moment: datetime) -> datetime:
        return moment


@cache  # every message asks, and loading the library takes longer than the call
def _adjtimex() -> Any:
    try:
        return ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None


def _kernel_state() -> int | None:
    """The clock state of adjtimex(2), read only; None where there is no such call."""
    adjtimex = _adjtimex()
    if adjtimex is None:
        return None
    # struct timex has at most 208 bytes on any architecture; modes = 0 asks and changes nothing
    state = int(adjtimex(ctypes.create_string_buffer(512)))
    return None if state < 0 else state


def clock_synced(
    kernel_state: Callable[[], int | None] = _kernel_state, marker: Path = _TIMESYNC_MARKER
) -> Literal["synced", "unsynced"]:
    """Whether this machine's clock is kept by a time service. What cannot be told is "unsynced".

    The kernel knows (a time service tells it, and it forgets after some hours without one); where it cannot
    be asked, the mark that systemd-timesyncd leaves is believed.
    """
    state = kernel_state()
    if state is not None:
        return "unsynced" if state == _TIME_ERROR else "synced"
    return "synced" if marker.exists() else "unsynced"
