"""One OBX segment: which sign it is of, its value in the unit of that sign, and its time.

A value counts only when everything around it says so: its code (LOINC or MDC, also in the alternate triplet),
its type, its unit, its status (OBX-11), its flags (OBX-8: IHE PCD-01 marks test and demo data, questionable
and missing values there) and its time (OBX-14, else OBR-7; the time of the message is none of observation).
"""

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final, Literal

from samd_data import plausibility
from samd_data.plausibility import shown
from samd_edge.clock import AHEAD
from samd_edge.sources.codes import (
    System,
    UnitError,
    UnknownUnitError,
    consciousness_of,
    field_of,
    in_unit,
    oxygen_of,
    rank_of,
)
from samd_edge.sources.hl7_message import parts_of, repetitions_of, text_of
from samd_edge.sources.local_time import LocalZone

_SYSTEMS: Final[dict[str, System]] = {"LN": "loinc", "LOINC": "loinc", "MDC": "mdc"}
_TIME: Final = re.compile(
    r"([0-9]{4})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})(?:([0-9]{2})(?:\.([0-9]{1,6})[0-9]*)?)?"
    r"(?:([+-])([0-9]{2})([0-9]{2}))?"
)
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)")
_NULL: Final = '""'
_TEXTS: Final = ("ST", "TX", "IS", "ID")
_CODED: Final = ("CE", "CWE", "CNE")

# OBX-11, HL7 table 0085
_RESULT: Final = frozenset({"", "F", "C", "P", "R", "A", "B", "S", "V"})  # some monitors leave it out
_NO_RESULT: Final = frozenset({"X", "I", "N", "O", "U"})  # U: final, the value is not sent again
WITHDRAWN: Final = {"D": "the sender withdraws the value", "W": "the sender marks the value as wrong"}
CORRECTED: Final = {"C": "the sender corrects the value"}

# OBX-8: the measurement status of ISO/IEEE 11073-10201 and the null flavours, both as IHE PCD sends them;
# < and > are of HL7 table 0078
_NO_VALUE: Final = frozenset({"INV", "NAV", "NI", "NA", "OFF", "MSK", "OTH", "NAN", "PINF", "NINF"})
_UNSOUND: Final = {
    "QUES": "the value is questionable",
    "EARLY": "the value is a first estimate",
    "ERLY": "the value is a first estimate",
    "BUSY": "the measurement goes on",
    "CAL": "the sensor is being calibrated",
    "<": "the value is below what the sensor measures",
    ">": "the value is above what the sensor measures",
}
_INVENTED: Final = {"TEST": "the value is test data", "DEMO": "the value is demonstration data"}


class Unusable(Exception):  # noqa: N818  (an outcome, told as a ``Problem``)
    """Why an OBX gives no value: the field of the segment, the reason, the remedy; see ``Problem``.

    ``column``: of the rejection, where it is not the sign itself that is in doubt.
    """

    def __init__(
        self,
        field_number: int,
        reason: str,
        remedy: str,
        *,
        value: str = "",
        condition: str = "102",
        fault: bool = True,
        kind: Literal["implausible", "no_signal"] = "implausible",
        column: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.field_number = field_number
        self.reason = reason
        self.remedy = remedy
        self.value = value
        self.condition = condition
        self.fault = fault
        self.kind = kind
        self.column = column


def signs_of(segment: Any) -> list[tuple[str, int]]:
    """The signs that the codes of OBX-3 name, each with the rank of its method; the first triplet first."""
    found = []
    parts = parts_of(segment, 3, 6)
    for code, text, system in (parts[:3], parts[3:6]):
        known = _SYSTEMS.get(system.upper())
        if known is None:
            continue
        for name in (code, text) if known == "mdc" else (code,):
            sign = field_of(known, name)
            if sign is not None:
                found.append((sign, rank_of(known, name)))
    return found


def status_of(segment: Any) -> str:
    """OBX-11."""
    return text_of(segment, 11).upper()


def withdrawn_value_of(segment: Any, sign: str) -> float | bool | str | None:
    """Which value a segment takes back, where it says so in a way that can be read."""
    try:
        return _measured(segment, sign)
    except Unusable:
        return None


def value_of(segment: Any, sign: str) -> float | bool | str:
    """The value in the unit of its sign, and plausible. Raises Unusable."""
    _check_status(status_of(segment))
    for flag, *_ in repetitions_of(segment, 8):
        _check_flag(flag.upper())
    return _measured(segment, sign)


def _measured(segment: Any, sign: str) -> float | bool | str:
    values = repetitions_of(segment, 5)
    if len(values) > 1:
        raise Unusable(5, "there are several values in one observation", "send each in an OBX of its own")
    kind, parts = text_of(segment, 2).upper(), values[0] if values else []
    if not any(parts) or parts[0] == _NULL:
        raise _no_signal(5, "there is no value")
    if sign == "consciousness":
        return _consciousness(kind, parts)
    number = _number(kind, parts)
    try:
        value = _converted(sign, number, parts_of(segment, 6, 6))
        if sign == "supplemental_oxygen":
            return oxygen_of(value)
    except UnitError as error:
        raise Unusable(6, error.reason, error.remedy, value=shown(number), condition="103") from error
    reason = plausibility.check(sign, value)
    if reason is not None:
        raise Unusable(5, reason, plausibility.remedy(sign, value), value=shown(value))
    return value


def _no_signal(field_number: int, reason: str) -> Unusable:
    return Unusable(field_number, reason, "check the sensor", condition="101", fault=False, kind="no_signal")


def _check_status(status: str) -> None:
    if status in _RESULT:
        return
    if status in _NO_RESULT:
        raise _no_signal(11, f"the sender has no value (status {status})")
    raise Unusable(11, f"the status {shown(status)} is not known", "send F for a result", condition="103")


def _check_flag(flag: str) -> None:
    if flag in _NO_VALUE:
        raise _no_signal(8, f"the sender has no value (flag {flag})")
    if flag in _UNSOUND:
        raise Unusable(8, _UNSOUND[flag], "wait for a sound one", fault=False)
    if flag in _INVENTED:
        raise Unusable(8, _INVENTED[flag], "end that mode of the monitor")


def _number(kind: str, parts: list[str]) -> float:
    if kind == "SN":  # comparator ^ number ^ separator ^ number
        if parts[0] not in ("", "=") or any(parts[2:]):
            raise Unusable(5, f"{shown(' '.join(parts))} is a bound or a ratio", "send one number, as NM")
        text = parts[1] if len(parts) > 1 else ""
    elif kind == "NM" or kind in _TEXTS:
        if any(parts[1:]):
            raise Unusable(5, "the value has several parts", "send one number, as NM")
        text = parts[0]
    else:
        raise Unusable(2, f"the type {shown(kind)} is no number", "send the value as NM")
    if not _NUMBER.fullmatch(text):
        remedy = "send the number alone, as NM, and the unit in OBX-6"
        raise Unusable(5, f"{shown(text)} is no number", remedy, value=shown(text))
    return float(text)


def _converted(sign: str, number: float, written: list[str]) -> float:
    """In the sign's unit. OBX-6 may name it up to four times (code, text, and alternates): all must agree."""
    units = [unit for unit in (*written[:2], *written[3:5]) if unit]
    results: set[float] = set()
    unknown: UnitError | None = None
    for unit in units or [""]:
        try:
            results.add(in_unit(sign, number, unit))
        except UnknownUnitError as error:
            unknown = unknown or error
    if len(results) > 1:
        raise UnitError("the units contradict each other", "send one unit")
    if not results and unknown is not None:
        raise unknown
    return results.pop()


def _consciousness(kind: str, parts: list[str]) -> str:
    if kind not in (*_CODED, *_TEXTS):
        raise Unusable(2, f"the type {shown(kind)} is no answer", "send one of A C V P U, as CWE or ST")
    answers = (*parts[:2], *parts[3:5]) if kind in _CODED else parts[:1]
    found = consciousness_of(*answers)
    if found is None:
        value = shown(next((answer for answer in answers if answer), ""))
        remedy = "send one of A C V P U, or its LOINC or SNOMED CT code"
        raise Unusable(5, f"{value} is no level of consciousness that is known", remedy, value=value)
    return found


def time_of(text: str, zone: LocalZone | None, now: datetime) -> datetime:
    """The time of OBX-14 or OBR-7 in UTC; ``zone`` is that of times without an offset. Raises Unusable."""
    if not text or text == _NULL:
        raise _no_time("there is no time of observation", "send OBX-14 or OBR-7")
    match = _TIME.fullmatch(text)
    if match is None:
        raise _no_time(f"{shown(text)} is no time", "send YYYYMMDDHHMMSS with an offset, as in +0100")
    year, month, day, hour, minute, second, fraction, sign, hours, minutes = match.groups()
    if sign is None and zone is None:
        raise _no_time(f"{shown(text)} has no offset from UTC", "send one, or set zone for this source")
    try:
        moment = datetime(  # noqa: DTZ001  (it gets its zone below)
            int(year),
            int(month),
            int(day),
            int(hour),
            int(minute),
            int(second or 0),
            int((fraction or "0").ljust(6, "0")),
        )
        if sign is None and zone is not None:
            moment = zone.in_utc(moment)
        else:  # (``hl7.parse_datetime`` takes -0030 for +0030)
            offset = timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1)
            moment = moment.replace(tzinfo=timezone(offset)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise _no_time(f"{shown(text)} is no time", "set the clock of the sender") from error
    if moment - now > AHEAD:
        ahead = (moment - now).total_seconds()
        remedy = "set the clock of the sender, or the zone of this source"
        raise _no_time(f"its time lies {ahead:.0f} s in the future", remedy)
    return moment


def _no_time(reason: str, remedy: str) -> Unusable:
    return Unusable(14, reason, remedy, column="observed_at")
