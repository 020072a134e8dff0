"""From the segments of a parsed HL7 message to readings, and to what was left out with its place.

The values of one time are one reading. Where several methods measured one sign at that time, the better one
counts (an ECG before a pulse, an arterial line before a cuff); two values of the same method that differ are
both left out, because which one is meant cannot be told. What a message takes back (OBX-11 D and W), or
replaces (C), is known by its sign and time, and by its value where that is given.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from samd_data.plausibility import Rejection, clean, shown
from samd_data.reading import Reading
from samd_edge.retraction import Withdrawn
from samd_edge.sources.hl7_message import Place, Problem, kind_of, repetitions_of, text_of
from samd_edge.sources.hl7_values import (
    CORRECTED,
    WITHDRAWN,
    Unusable,
    signs_of,
    status_of,
    time_of,
    value_of,
    withdrawn_value_of,
)
from samd_edge.sources.local_time import LocalZone


class Observed(NamedTuple):
    """The readings of a message, oldest first, what was left out, how many OBX were of a known sign, and what
    is taken back."""

    readings: list[Reading]
    problems: list[Problem]
    num_known: int
    taken_back: list[Withdrawn]


@dataclass(frozen=True, slots=True)
class _Value:
    sign: str
    value: float | bool | str
    rank: int
    at: datetime
    place: Place
    corrected: bool


def observed(message: Any, name: str, *, zone: LocalZone | None, now: datetime) -> Observed:
    """Everything in a message that is of a sign. ``name``: of the source. ``zone``: of times without one."""
    values: list[_Value] = []
    problems: list[Problem] = []
    taken_back: list[Withdrawn] = []
    gone: set[tuple[str, int, datetime, float | bool | str | None]] = set()
    num_known, sequence, order_time = 0, 0, ""
    for segment in message:
        kind = kind_of(segment)
        if kind == "OBR":
            order_time = text_of(segment, 7)
        if kind != "OBX":
            continue
        sequence += 1
        signs = signs_of(segment)
        if not signs:
            continue
        num_known += 1
        sign, rank = signs[0]
        at = None
        try:
            if any(other != sign for other, _ in signs):
                raise Unusable(3, "its codes name two different signs", "send one code", column="")
            at = time_of(text_of(segment, 14) or order_time, zone, now)
            status = status_of(segment)
            if status in WITHDRAWN:
                wrong = withdrawn_value_of(segment, sign)
                taken_back.append(Withdrawn(sign, at, wrong, WITHDRAWN[status]))
                gone.add((sign, rank, at, wrong))
                continue
            if status in CORRECTED:
                taken_back.append(Withdrawn(sign, at, None, CORRECTED[status]))
            value = value_of(segment, sign)
        except Unusable as why:
            problems.append(_problem(name, Place("OBX", sequence, why.field_number), sign, why, at))
        else:
            values.append(_Value(sign, value, rank, at, Place("OBX", sequence, 5), status in CORRECTED))
    values = [value for value in values if (value.sign, value.rank, value.at, value.value) not in gone]
    readings, disputed = _readings(values, name)
    present = {(reading.observed_at, sign) for reading in readings for sign in reading.present()}
    told = [_eased(problem, present) for problem in (*problems, *disputed)]
    return Observed(readings, told, num_known, taken_back)


def patients(message: Any) -> list[str | None]:
    """The identifier of each PID segment: PID-3, of several the medical record number, else the first."""
    return [_identifier(segment) for segment in message if kind_of(segment) == "PID"]


def _identifier(segment: Any) -> str | None:
    found: dict[str, str] = {}
    for identifier, *more in repetitions_of(segment, 3):
        if identifier and identifier != '""':
            found.setdefault(more[3] if len(more) > 3 else "", identifier)
    for kind in ("MR", "PI"):
        if kind in found:
            return found[kind]
    return next(iter(found.values()), text_of(segment, 2) or None)


def _problem(name: str, place: Place, sign: str, why: Unusable, at: datetime | None) -> Problem:
    column = sign if why.column is None else why.column
    file = f"{name} OBX {place.sequence}"
    rejection = Rejection(file, 0, column, why.value, why.reason, why.remedy, kind=why.kind)
    return Problem(rejection, place, why.condition, why.fault, at)


def _eased(problem: Problem, present: set[tuple[datetime, str]]) -> Problem:
    """Where another method measured the same sign at the same time, the sign itself is not in doubt."""
    told = problem.rejection
    if problem.at is None or (problem.at, told.column) not in present:
        return problem
    reason = f"{told.column}: {told.reason} (another value of it was taken)"
    eased = Rejection(told.file, 0, "", told.value, reason, told.remedy, kind=told.kind)
    return problem._replace(rejection=eased)


def _readings(values: Iterable[_Value], name: str) -> tuple[list[Reading], list[Problem]]:
    by_time: defaultdict[datetime, list[_Value]] = defaultdict(list)
    for value in values:
        by_time[value.at].append(value)
    readings: list[Reading] = []
    problems: list[Problem] = []
    for at in sorted(by_time):
        chosen, disputed = _chosen(by_time[at], name)
        problems += disputed
        accepted, rejections = clean({sign: value.value for sign, value in chosen.items()})
        for rejection in rejections:
            why = Unusable(5, rejection.reason, rejection.remedy, value=rejection.value)
            problems.append(_problem(name, chosen[rejection.column].place, rejection.column, why, at))
        if accepted:
            readings.append(Reading(observed_at=at, **accepted))
    return readings, problems


def _chosen(values: list[_Value], name: str) -> tuple[dict[str, _Value], list[Problem]]:
    """One value for each sign, of those of one time."""
    chosen: dict[str, _Value] = {}
    problems: list[Problem] = []
    for sign in dict.fromkeys(value.sign for value in values):
        found = [value for value in values if value.sign == sign]
        best = min(value.rank for value in found)
        found = [value for value in found if value.rank == best]
        found = [value for value in found if value.corrected] or found
        if len({value.value for value in found}) == 1:
            chosen[sign] = found[0]
            continue
        listed = " and ".join(shown(value.value) for value in found[:2])
        why = Unusable(5, f"there are two values of one time, {listed}", "send the one that is meant")
        problems.append(_problem(name, found[0].place, sign, why, found[0].at))
    systolic, diastolic = chosen.get("systolic_bp"), chosen.get("diastolic_bp")
    if systolic and diastolic and systolic.rank != diastolic.rank:
        del chosen["diastolic_bp"]  # one is of the cuff, one of the artery: they are no pair
    return chosen, problems
