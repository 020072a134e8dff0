"""What must hold of everything that a decoder gives, whatever it was given."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import numpy as np

from samd_data.carry import CARRY_SECONDS, Carrier
from samd_data.news2 import points_table, score
from samd_data.plausibility import RANGES, Rejection
from samd_data.reading import COLUMNS, CONSCIOUSNESS, FIELDS, VITALS, Reading, to_row
from samd_scripts.fuzzing import chart
from samd_scripts.fuzzing.target import Wrong

LONGEST_LINE: Final = 1000
"""Characters of an error: it is shown to people and written into a log."""

T = TypeVar("T")


def insist(holds: object, text: str, *shown: object) -> None:
    """Raises ``Wrong`` unless it holds."""
    if not holds:
        raise Wrong(": ".join([text, *(repr(item)[:500] for item in shown)]))


def one_line(text: str, *places: str, longest: int = LONGEST_LINE) -> None:
    """An error is one line that can be printed, not too long, and names its place."""
    insist(text.strip(), "an error without words")
    insist(text.isprintable(), "an error that is not one printable line", text)
    insist(len(text) <= longest, f"an error of {len(text)} characters", text)
    for place in places:
        insist(place in text, f"an error that does not name {place!r}", text)


def attempt(
    decode: Callable[[], T],
    *errors: type[Exception],
    places: Iterable[str] = (),
    longest: int = LONGEST_LINE,
) -> T | None:
    """What a decoder gives, or None for an error that it documents, whose text is looked at; anything else
    that it raises goes through."""
    try:
        return decode()
    except errors as error:
        one_line(str(error), *places, longest=longest)
        return None


def sort(items: Iterable[Reading | Rejection], *places: str) -> tuple[list[Reading], list[Rejection]]:
    """Readings and rejections, each of which was judged."""
    readings: list[Reading] = []
    rejections: list[Rejection] = []
    for item in items:
        if isinstance(item, Reading):
            judge(item)
            readings.append(item)
        else:
            insist(isinstance(item, Rejection), "neither a reading nor a rejection", item)
            told(item, *places)
            rejections.append(item)
    return readings, rejections


def told(rejection: Rejection, *places: str) -> None:
    """A rejection is one line with its place, a reason and a remedy."""
    one_line(rejection.line(), *places)
    insist(rejection.reason.strip(), "a rejection without a reason", rejection)
    insist(rejection.remedy.strip(), "a rejection without a remedy", rejection)
    insist(rejection.kind in ("implausible", "no_signal"), "a rejection of no known kind", rejection)


def judge(reading: Reading, *, at_once: bool = True) -> None:
    """A reading is aware of its time, plausible in every value, and scores as the chart says.

    ``at_once``: its values come from one measurement, and not from several that were carried on."""
    insist(isinstance(reading.observed_at, datetime), "no time", reading)
    insist(reading.observed_at.tzinfo is UTC, "a time that is not in UTC", reading)
    for field in VITALS:
        number = getattr(reading, field)
        if number is None:
            continue
        insist(type(number) is float and math.isfinite(number), f"{field} is no finite float", reading)
        low, high, *_ = RANGES[field]
        insist(low <= number <= high, f"an implausible {field}", reading)
    systolic, diastolic = reading.systolic_bp, reading.diastolic_bp
    if at_once and systolic is not None and diastolic is not None:
        insist(diastolic < systolic, "diastolic not below systolic", reading)
    insist(reading.supplemental_oxygen in (None, True, False), "no oxygen of ours", reading)
    insist(reading.consciousness is None or reading.consciousness in CONSCIOUSNESS, "no such letter", reading)
    for field, age in reading.ages.items():
        insist(field in FIELDS and getattr(reading, field) is not None, "an age of nothing", reading)
        insist(math.isfinite(age) and age >= 0, "an age that is none", reading)
    _scores(reading)
    _carried(reading)


def _scores(reading: Reading) -> None:
    row = to_row(reading)[np.newaxis]
    for scale in (1, 2):
        found = score(reading, spo2_scale=scale)
        told_of = chart.Expected(
            total=found.total,
            low=found.low,
            high=found.high,
            band=found.band,
            band_high=found.band_high,
            missing=frozenset(found.missing),
            points=found.points,
        )
        wanted = chart.expected(reading, scale)
        insist(told_of in wanted, f"a wrong score on scale {scale}", reading, told_of, wanted)
        table = points_table(row, spo2_scale=scale)[0].tolist()
        insist(table == [found.points.get(field, -1) for field in COLUMNS], "a table that disagrees", reading)


def _carried(reading: Reading) -> None:
    """Stale is never fresh: right after it was taken, each value stands there unless it is too old."""
    carrier = Carrier()
    carrier.update(reading)
    known = carrier.snapshot(reading.observed_at)
    for field in FIELDS:
        given = getattr(reading, field)
        age = reading.ages.get(field, 0.0)
        if abs(age - CARRY_SECONDS[field]) < 1e-5:  # times are kept to the microsecond
            continue
        wanted = given if age <= CARRY_SECONDS[field] else None
        insist(getattr(known, field) == wanted, f"a carried {field} that is wrong", reading, known)


def numbers_in(tree: Any) -> Iterable[float]:
    """Every number in a JSON tree; ``float`` of whole numbers too large for one is infinite."""
    waiting = [tree]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
        elif isinstance(item, (int, float)) and not isinstance(item, bool):
            yield as_float(item)


def as_float(number: float) -> float:
    """As a float; what is too large for one is infinite."""
    try:
        return float(number)
    except OverflowError:
        return math.copysign(math.inf, number)


def parsed(text: str | bytes, *, unique: bool = False) -> Any:
    """JSON by the standard library: another parser than the product's. ``ValueError`` when it is none; with
    ``unique``, also when an object holds a key twice."""
    try:
        return json.loads(text, object_pairs_hook=_once if unique else None)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


def same(found: Any, given: Any, place: str = "") -> None:
    """What was decoded is what stood there. ``found`` may lack keys that are not known, and may have keys
    that were left out (they have their defaults); numbers and times may be written in another way."""
    if isinstance(found, Mapping):
        insist(isinstance(given, Mapping), f"{place}: an object out of something else", found, given)
        for key in found.keys() & given.keys():
            same(found[key], given[key], f"{place}.{key}")
    elif isinstance(found, (list, tuple)):
        insist(
            isinstance(given, (list, tuple)) and len(found) == len(given), f"{place}: a list", found, given
        )
        for index, (one, other) in enumerate(zip(found, given, strict=True)):
            same(one, other, f"{place}[{index}]")
    elif isinstance(found, bool) or found is None:
        insist(found is given, f"{place}: another value", found, given)
    elif isinstance(found, (int, float)):
        number = isinstance(given, (int, float)) and not isinstance(given, bool)
        insist(number and (found == given or found == as_float(given)), f"{place}: a number", found, given)
    elif found != given:
        insist(_same_moment(found, given), f"{place}: another value", found, given)


def _same_moment(found: Any, given: Any) -> bool:
    """Whether both texts are the same time, to the microsecond that a time is kept to."""
    try:
        one, other = datetime.fromisoformat(found.upper()), datetime.fromisoformat(given.upper())
        return abs(one - other) <= timedelta(microseconds=1)
    except (AttributeError, TypeError, ValueError):
        return False
