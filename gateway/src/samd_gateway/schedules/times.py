"""When a schedule is due: a cron expression in a time zone, less its quiet hours. Pure functions.

Cron as Debian has it (by `cronsim`), also where clocks change: a fixed time that the spring leaves out comes
right after the gap, one that the autumn has twice comes once; `*` counts real hours and minutes.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError

from samd_gateway.errors import UsageError

MAX_LENGTH = 120
MAX_QUIET = 10
TRIES = 4000
"""So many times of a cron expression are looked at for one outside the quiet hours: nearly three days of
minutes, and quiet hours are the same on each day."""
HORIZON_YEARS = 30

_SPAN = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]|24):([0-5]\d)")


class Quiet(msgspec.Struct, frozen=True):
    """A part of each day in which nothing begins, in minutes since midnight: from `begin` up to, and without,
    `end`; over midnight where `end` is smaller."""

    begin: int
    end: int

    def holds(self, minute: int) -> bool:
        if self.begin < self.end:
            return self.begin <= minute < self.end
        return minute >= self.begin or minute < self.end


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule's times, checked."""

    cron: str
    timezone: str
    quiet: tuple[Quiet, ...] = ()


def quiet(text: str) -> Quiet:
    """`22:00-06:00` as Quiet. Raises UsageError."""
    found = _SPAN.fullmatch(text)
    if found is not None:
        hours = [int(part) for part in found.groups()]
        begin, end = hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]
        if end <= 1440 and begin != end:
            return Quiet(begin, end)
    raise UsageError(f"quiet hours {text[:20]!r}: write a span of the day, such as 22:00-06:00")


def timing(cron: str, timezone: str, spans: Sequence[str] = ()) -> Timing:
    """Check the three. Raises UsageError, saying which is wrong and how to write it."""
    if len(spans) > MAX_QUIET:
        raise UsageError(f"{len(spans)} spans of quiet hours: at most {MAX_QUIET}")
    zone(timezone)
    if len(cron) > MAX_LENGTH or len(cron.split()) != 5:
        raise UsageError(
            f"cron {cron[:40]!r}: write five fields, minute hour day-of-month month day-of-week, "
            "such as '30 2 * * SAT'"
        )
    try:
        CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC))
    except (CronSimError, ValueError, AssertionError) as error:
        raise UsageError(
            f"cron {cron[:40]!r}: {error or 'is none'}; write minute hour day-of-month month day-of-week, "
            "such as '30 2 * * SAT'"
        ) from error
    return Timing(cron=cron, timezone=timezone, quiet=tuple(quiet(span) for span in spans))


def zone(name: str) -> ZoneInfo:
    """A time zone by its name. Raises UsageError."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise UsageError(f"time zone {name[:40]!r} is not known; write one such as Europe/Berlin") from error


def times(timing: Timing, after: float) -> Iterator[float]:
    """The moments after `after` at which it is due, ascending, in seconds since 1970."""
    place = zone(timing.timezone)
    last = after
    begin = datetime.fromtimestamp(after, place)
    for tried, local in enumerate(CronSim(timing.cron, begin)):
        if tried >= TRIES or local.year > begin.year + HORIZON_YEARS:
            return
        at = local.timestamp()
        # where an hour is had twice, cron names the first one, which may have been before `after`
        if at <= last or any(span.holds(local.hour * 60 + local.minute) for span in timing.quiet):
            continue
        last = at
        yield at


def following(timing: Timing, after: float, count: int = 1) -> list[float]:
    """The next `count` moments; fewer where there are no more."""
    found: list[float] = []
    for at in times(timing, after):
        found.append(at)
        if len(found) == count:
            break
    return found


def next_time(timing: Timing, after: float) -> float:
    """The next moment. Raises UsageError for a schedule that is never due."""
    found = following(timing, after)
    if not found:
        raise UsageError(f"cron {timing.cron!r} is never due outside the quiet hours; change one of the two")
    return found[0]
