"""Values that no body makes: a jump, a flat line. They are kept, flagged with the reason, and not scored.

A value outside the range of the living is rejected before (``samd_data.plausibility``); this module looks at
one value after another.

**Jump.** A value that is further from the last accepted one than a body can move in that time is held back.
A second value near it, measured at least ten seconds later, confirms it: then the patient has changed, not
the sensor, and it is scored. So a true sudden change is late by one reading and ten seconds, and a single
wild value never rings. The limits widen with time, so that readings of every quarter of an hour are never
held back.

==================  =======  ===========  ===================================================================
sign                at once  each minute  why there
==================  =======  ===========  ===================================================================
heart_rate          60       30           a paroxysm adds 60 to 120 within a beat, and stays: it is confirmed
respiratory_rate    20       20           monitors average over 15 to 60 s
spo2                15       30           apnoea takes about 0.5 % a second off (Farmery and Roe 1996)
systolic_bp         60       30           fast boluses of vasopressors and intubation reach about this
diastolic_bp        45       20           as above
temperature         1.5      0.1          cooling on purpose reaches 4 °C an hour; other sites differ by 1 °C
==================  =======  ===========  ===================================================================

**Flat line.** A heart beats a little differently each minute. The very same number for a long time, in many
readings, is a sensor that is stuck, or a heart that is paced, lungs that are ventilated: then the ward takes
the sign off the list (``flat_lines``). The value of a flat line is withdrawn: what it showed is not known.
Saturation and temperature are left out, since healthy ones stand still.

The limits of time and number are set from the recordings of the ICU demo, where both flags are rare: see
``docs/clinical-safety.md``.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from samd_data.reading import VITALS, Reading

Kind = Literal["jump", "flat", "no_signal", "implausible"]


class Limit(NamedTuple):
    """How far a sign moves at once, and how much further with each minute, in its own unit."""

    at_once: float
    per_minute: float


JUMPS: Final[Mapping[str, Limit]] = {
    "heart_rate": Limit(60, 30),
    "respiratory_rate": Limit(20, 20),
    "spo2": Limit(15, 30),
    "systolic_bp": Limit(60, 30),
    "diastolic_bp": Limit(45, 20),
    "temperature": Limit(1.5, 0.1),
}
CONFIRM: Final = timedelta(seconds=10)
"""A value that was held back is confirmed by a second one near it, this much later at the earliest."""

FORGET: Final = timedelta(minutes=15)
"""A value held back this long ago confirms nothing any more."""

FLAT_FIELDS: Final = ("heart_rate", "respiratory_rate", "systolic_bp")


class ArtefactPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[artefacts]`` in the configuration. ``flat_lines``: signs that are watched for standing still; take
    out ``heart_rate`` of a paced patient, ``respiratory_rate`` of a ventilated one. A line is flat after
    ``flat_after_s`` seconds and ``flat_readings`` readings of the same number, both."""

    jumps: bool = True
    flat_lines: tuple[Literal["heart_rate", "respiratory_rate", "systolic_bp"], ...] = FLAT_FIELDS
    flat_after_s: Annotated[float, msgspec.Meta(ge=60, le=86_400)] = 1800.0
    flat_readings: Annotated[int, msgspec.Meta(ge=10, le=1_000_000)] = 100


class Flag(NamedTuple):
    """Why the newest value of a sign is not scored. ``reason`` is for people at the device and may hold the
    value; ``kind`` is what leaves the device. ``since``: of a flat line, when it began."""

    kind: Kind
    reason: str
    at: datetime
    since: datetime | None = None


class _Track:
    """What is remembered of one sign."""

    __slots__ = ("at", "flat_count", "flat_since", "held_at", "held_value", "value")

    def __init__(self) -> None:
        self.value: float | None = None
        self.at: datetime | None = None
        self.held_value: float | None = None
        self.held_at: datetime | None = None
        self.flat_since: datetime | None = None
        self.flat_count = 0


class Screen:
    """Looks at the values of one patient in the order in which they come."""

    def __init__(self, policy: ArtefactPolicy | None = None) -> None:
        self._policy = ArtefactPolicy() if policy is None else policy
        self._tracks = {field: _Track() for field in VITALS}
        self._flat_after = timedelta(seconds=self._policy.flat_after_s)

    def flags(self, reading: Reading) -> dict[str, Flag]:
        """The signs of a reading that must not be scored, with the reason; empty when all may be.

        A value measured before the last accepted one is no news and is not looked at.
        """
        found: dict[str, Flag] = {}
        for field in VITALS:
            value = getattr(reading, field)
            if value is None:
                continue
            at = reading.observed_at
            if reading.ages:
                at -= timedelta(seconds=reading.ages.get(field, 0.0))
            flag = self._look(field, value, at)
            if flag is not None:
                found[field] = flag
        return found

    def forget(self, field: str) -> None:
        """Begin anew with a sign: its last value was wrong, and the next one is no jump from it."""
        if field in self._tracks:
            self._tracks[field] = _Track()

    def _look(self, field: str, value: float, at: datetime) -> Flag | None:
        track = self._tracks[field]
        if track.at is not None and track.value is not None:
            if at <= track.at:
                return None
            if self._policy.jumps and self._jumps(field, track, value, at):
                reason = (
                    f"{field} went from {track.value:g} to {value:g} within "
                    f"{(at - track.at).total_seconds():.0f} s; it counts once a second reading confirms it"
                )
                return Flag("jump", reason, at)
        same = track.value == value
        track.value, track.at = value, at
        track.held_value = track.held_at = None
        if field not in self._policy.flat_lines:
            return None
        if not same or track.flat_since is None:
            track.flat_since, track.flat_count = at, 1
            return None
        track.flat_count += 1
        if track.flat_count < self._policy.flat_readings or at - track.flat_since < self._flat_after:
            return None
        reason = (
            f"{field} has stood at {value:g} for {(at - track.flat_since).total_seconds() / 60:.0f} min in "
            f"{track.flat_count} readings: a stuck sensor? if paced or ventilated, take it off flat_lines"
        )
        return Flag("flat", reason, at, since=track.flat_since)

    def _jumps(self, field: str, track: _Track, value: float, at: datetime) -> bool:
        """Whether a value is held back; one near an earlier one that was held back confirms both."""
        limit = JUMPS[field]
        assert track.value is not None  # noqa: S101  (the caller has looked)
        assert track.at is not None  # noqa: S101
        minutes = (at - track.at).total_seconds() / 60
        if abs(value - track.value) <= limit.at_once + limit.per_minute * minutes:
            return False
        near = (
            track.held_value is not None
            and track.held_at is not None
            and at - track.held_at <= FORGET
            and abs(value - track.held_value) <= limit.at_once / 2
        )
        if not near:
            track.held_value, track.held_at = value, at
            return True
        assert track.held_at is not None  # noqa: S101
        return at - track.held_at < CONFIRM
