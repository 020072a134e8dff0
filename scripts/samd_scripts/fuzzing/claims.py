"""What the elements of a message say, each by the letter of its format; what is taken must be said by one."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from samd_data.plausibility import check
from samd_data.reading import Reading
from samd_scripts.fuzzing.oracle import insist
from samd_scripts.fuzzing.units import NEAR


class Claim(NamedTuple):
    """One element: what it may mean of which sign, at what time, of whom, by which code; whether it is sure
    that it means one value; and whether it corrects what was said before."""

    field: str
    values: tuple[float | bool | str, ...]
    at: datetime
    subject: str
    code: str
    sure: bool = True
    corrected: bool = False


def all_claimed(readings: Iterable[Reading], claims: list[Claim]) -> set[str]:
    """Each value of each reading is claimed, and by the same code nothing else is; the subjects of it all."""
    return {
        subject
        for reading in readings
        for field in reading.present()
        for subject in _of(reading, field, claims)
    }


def _of(reading: Reading, field: str, claims: list[Claim]) -> set[str]:
    given = getattr(reading, field)
    of_time = [one for one in claims if (one.field, one.at) == (field, reading.observed_at)]
    saying = [one for one in of_time if any(_near(given, value) for value in one.values)]
    insist(saying, f"a {field} out of nowhere", given, of_time)
    for one in saying:
        against = [
            other
            for other in of_time
            if other.code == one.code
            and other not in saying
            and other.sure
            and len(other.values) == 1
            and check(field, other.values[0]) is None
        ]
        insist(not against or one.corrected, f"one of two values of {field} was taken", one, against)
    return {one.subject for one in saying}


def _near(given: Any, value: Any) -> bool:
    if isinstance(given, float) and isinstance(value, float):
        return abs(given - value) <= NEAR
    return type(given) is type(value) and given == value
