"""When a sensor's measurement was taken. Its messages carry no time, or a local time without a zone.

A measurement without a time was just taken: sensors that keep measurements must stamp them. A stamped one
may be hours old, for cuffs and thermometers send what they have kept when somebody comes near. Its stamp is
placed by the sensor's own clock, where that can be read; else by the ``zone`` of the configuration. Where
neither is known it is refused: nothing tells the stamp of another zone from a measurement that is hours old.
"""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from samd_edge.clock import AHEAD
from samd_edge.sources.ble_decoders import Measurement
from samd_edge.sources.local_time import LocalZone


class Undatable(NamedTuple):
    """Why nobody can say how old a measurement is, and what to do about it."""

    reason: str
    remedy: str


def taken_at(
    measurement: Measurement, arrived: datetime, *, ahead: timedelta | None, zone: LocalZone | None
) -> datetime | Undatable:
    """When it was taken, in UTC and never after ``arrived``: a stamp that is a little ahead is taken as now.

    ``ahead``: how far the sensor's clock, read on this connection, is ahead of UTC; None if it has none.
    """
    set_clock = "set the clock of the sensor"
    if not measurement.stamped:
        if measurement.stored:
            return Undatable(
                "the measurement comes from the sensor's memory, without a time", "measure again"
            )
        return arrived
    if not measurement.clock_set:
        return Undatable("the sensor's clock was not set when it measured", set_clock)
    if measurement.taken_at is None:
        return Undatable("the time stamp of the measurement is no date", set_clock)
    try:
        if ahead is not None:
            moment = measurement.taken_at.replace(tzinfo=UTC) - ahead
        elif zone is not None:
            moment = zone.in_utc(measurement.taken_at)
        else:
            return Undatable(
                "the measurement carries the time of a clock whose zone is not known: it may be hours old",
                "say the zone of the sensor's clock, as in ble:?zone=Europe/Berlin, or zone=local for that "
                "of this machine",
            )
    except (ValueError, OverflowError):
        return Undatable("the time stamp of the measurement is no date", set_clock)
    if moment > arrived + AHEAD:
        minutes = (moment - arrived) / timedelta(minutes=1)
        return Undatable(f"the measurement is dated {minutes:.0f} minutes in the future", set_clock)
    return min(moment, arrived)
