"""What a sensor on a living patient can have measured; units; what is told about a value that is rejected.

The ranges are wide on purpose: they drop what no living patient shows and what a sensor writes when it is
off, never what is merely alarming. A value outside becomes missing, and missing is named: it is never
replaced and never counted as normal.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

import msgspec

from samd_data.errors import DataError
from samd_data.reading import CONSCIOUSNESS, FIELDS, VITALS


class Range(NamedTuple):
    """Both ends belong to it. ``reason`` says why the ends stand where they stand."""

    low: float
    high: float
    unit: str
    reason: str


RANGES: Final[dict[str, Range]] = {
    "heart_rate": Range(
        15,
        300,
        "/min",
        "0 is what a monitor writes without a lead; the AV node conducts no more than about 300 beats/min",
    ),
    "respiratory_rate": Range(
        1,
        80,
        "/min",
        "0 and three-digit rates in intensive-care recordings come from an unset or shaken sensor",
    ),
    "spo2": Range(
        30,
        100,
        "%",
        "a share of 100; oximeters are validated down to 70 % (ISO 80601-2-61), and below 30 read noise",
    ),
    "systolic_bp": Range(
        30, 300, "mmHg", "oscillometric cuffs measure about 30 to 270 mmHg, arterial lines to 300"
    ),
    "temperature": Range(
        25,
        45,
        "°C",
        "profound hypothermia below 25 °C is survived only under rewarming; nobody lives above 45 °C",
    ),
    "diastolic_bp": Range(10, 200, "mmHg", "oscillometric cuffs measure about 10 to 220 mmHg"),
}
"""Per vital sign, lowest and highest plausible value. The reason is the source of the numbers; where no
standard sets an end, the oddities of the MIMIC-IV demo did (heart rate 0, respiration above 80, 99 as °C)."""

EARLIEST: Final = datetime(1900, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(3000, 1, 1, tzinfo=UTC)
"""The times at which a patient can have been measured, ``LATEST`` not included. Recordings without names are
dated as late as 2201. Further off, adding some hours or an age to a time would leave the calendar."""

LONGEST_AGE_S: Final = 100 * 365.25 * 86_400.0
"""The oldest value that makes sense, in seconds: a hundred years."""

_FAHRENHEIT: Final = (77.0, 113.0)  # 25 to 45 °C: the two scales do not overlap on a living patient

_REMEDIES: Final = {
    "heart_rate": "check the leads and leave the cell empty if there was no measurement",
    "respiratory_rate": "count the breaths and leave the cell empty if there was no measurement",
    "spo2": "check the probe; give percent, 98 and not 0.98",
    "systolic_bp": "measure again; give mmHg, not kPa",
    "diastolic_bp": "measure again; give mmHg, not kPa",
    "temperature": "measure again; give °C",
    "supplemental_oxygen": "give true or false",
    "consciousness": "give one of A C V P U",
}


class Rejection(msgspec.Struct, frozen=True):
    """A value, or a whole row, that was not taken over.

    ``file``: its name as the user gave it. ``row``: its line in that file, counted from 1 (the header of
    a CSV file is line 1); 0 when it did not come from a file. ``column``: the field or column, "" for a whole
    row. ``value``: what stood there. ``reason``: why it was rejected. ``remedy``: what to do about it.
    ``kind``: "implausible", or "no_signal" where the source itself says that nothing was measured (a probe
    that fell off, a lead that is off, a ``dataAbsentReason``).
    """

    file: str
    row: int
    column: str
    value: str
    reason: str
    remedy: str
    kind: Literal["implausible", "no_signal"] = "implausible"

    def line(self) -> str:
        """One line of text: ``FILE:ROW: column: reason; remedy``."""
        place = f"{self.file}:{self.row}" if self.row else self.file
        parts = [part for part in (place, self.column, f"{self.reason}; {self.remedy}") if part]
        return printable(" ".join(": ".join(parts).split()))  # a value may hold line breaks


def check(field: str, value: object) -> str | None:
    """The reason why ``value`` cannot stand in ``field``, or None when it can.

    Raises ``ValueError`` when ``field`` is no field of a reading.
    """
    if field not in FIELDS:
        raise ValueError(f"{field!r} is no field of a reading; the fields are {', '.join(FIELDS)}")
    if field == "supplemental_oxygen":
        return None if isinstance(value, bool) else f"{shown(value)} is neither true nor false"
    if field == "consciousness":
        known = isinstance(value, str) and value in CONSCIOUSNESS
        return None if known else f"{shown(value)} is not one of A C V P U"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"{shown(value)} is not a number"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is not a number that can be measured"
    limits = RANGES[field]
    if limits.low <= value <= limits.high:
        return None
    reason = f"{shown(value)} is outside {limits.low:g} to {limits.high:g} {limits.unit}"
    if field == "temperature" and _FAHRENHEIT[0] <= value <= _FAHRENHEIT[1]:
        reason += ", and looks like °F"
    if field == "spo2" and 0 < value <= 1:
        reason += ", and looks like a fraction"
    return reason


def check_time(moment: datetime) -> str | None:
    """The reason why nobody can have been measured at ``moment`` (aware), or None."""
    if EARLIEST <= moment < LATEST:
        return None
    return f"{moment.isoformat()} is not in the years {EARLIEST.year} to {LATEST.year - 1}"


def remedy(field: str, value: object = None) -> str:
    """What to do about a ``value`` of ``field`` that was rejected."""
    number = value if field == "temperature" and isinstance(value, (int, float)) else math.nan
    if _FAHRENHEIT[0] <= number <= _FAHRENHEIT[1]:
        return f"convert it: {number:g} °F is {(number - 32) * 5 / 9:.1f} °C"
    return _REMEDIES[field]


def temperature_celsius(value: float, unit: Literal["C", "F"] | None) -> float:
    """A body temperature in °C, unrounded.

    ``unit`` None means that the source does not say: 25 to 45 can only be °C and 77 to 113 only °F, because
    these ranges are the same temperatures and do not overlap. (The emergency demo is in °F by its
    documentation, and 36 of its readings are in °C.) Nothing in between is guessed.

    Raises ``DataError`` when the value is no body temperature in the unit given, or in either.
    """
    if unit not in ("C", "F", None):
        raise ValueError(f"unit is {unit!r}; it is 'C', 'F' or None")
    limits = RANGES["temperature"]
    celsius = limits.low <= value <= limits.high
    fahrenheit = _FAHRENHEIT[0] <= value <= _FAHRENHEIT[1]
    if unit != "F" and celsius:
        return float(value)
    if unit != "C" and fahrenheit:
        return round((value - 32) * 5 / 9, 6)  # without float noise: 100.4 °F is 38
    if unit == "C":
        hint = "it looks like °F: convert it, or give the unit F" if fahrenheit else "measure again"
        raise DataError(f"{value:g} °C is no body temperature (25 to 45 °C); {hint}")
    if unit == "F":
        hint = "it looks like °C: give the unit C" if celsius else "measure again"
        raise DataError(f"{value:g} °F is no body temperature (77 to 113 °F); {hint}")
    raise DataError(f"{value:g} is no body temperature in °C (25 to 45) or °F (77 to 113); measure again")


def clean(
    fields: Mapping[str, object], *, file: str = "", row: int = 0
) -> tuple[dict[str, Any], list[Rejection]]:
    """Sort the fields of one reading into what can be taken over and what cannot.

    ``fields``: field name to value; None is missing and is dropped without a word. Besides ``check``, a
    diastolic pressure at or above the systolic one rejects both: one of the two is wrong, and which cannot
    be told. Raises ``ValueError`` for a name that is no field.
    """
    accepted: dict[str, Any] = {}
    rejections: list[Rejection] = []
    for field, value in fields.items():
        if value is None:
            continue
        reason = check(field, value)
        if reason is None:
            accepted[field] = float(value) if field in VITALS else value  # type: ignore[arg-type]
        else:
            rejections.append(Rejection(file, row, field, shown(value), reason, remedy(field, value)))
    systolic, diastolic = accepted.get("systolic_bp"), accepted.get("diastolic_bp")
    if systolic is not None and diastolic is not None and diastolic >= systolic:
        reason = f"diastolic {diastolic:g} is not below systolic {systolic:g}"
        rejections += [
            Rejection(file, row, field, f"{accepted.pop(field):g}", reason, remedy(field))
            for field in ("systolic_bp", "diastolic_bp")
        ]
    return accepted, rejections


def shown(value: object) -> str:
    """``value`` as a message shows it: on one line, printable, and short."""
    text = printable(" ".join(value[:1000].split())) if isinstance(value, str) else _plain(value)
    text = f"{text[:37]}..." if len(text) > 40 else text
    return f"'{text}'" if isinstance(value, str) else text


def printable(text: str) -> str:
    """``text`` with an escape for each character that is none to look at: a terminal would obey it."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, int) and abs(value) > 10**30:
        return "a number of more than 30 digits"
    return repr(value)
