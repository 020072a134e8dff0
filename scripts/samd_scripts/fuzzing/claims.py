"""What the elements of a message say, each by the letter of its format; what is taken must be said by one."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from samd_data.plausibility import Rejection, check
from samd_data.reading import FIELDS, Reading
from samd_edge.retraction import Retraction, Withdrawn
from samd_edge.sources import Item
from samd_scripts.fuzzing.oracle import insist, one_line, sort
from samd_scripts.fuzzing.units import NEAR


class Claim(NamedTuple):
    """One element: what it may mean of which sign, at what time, of whom, by which code; whether it is sure
    that it means one value; and whether it corrects what was said before."""

    field: str
    values: tuple[float | bool | str, ...]
    at: datetime
    subject: str
    code: str
    sure: Callable[[], bool] = lambda: True
    corrected: bool = False


def sorted_out(items: Iterable[Item], *places: str) -> tuple[list[Reading], list[Rejection], list[Withdrawn]]:
    """What a message gives, each item judged: readings, rejections, and what it takes back."""
    plain: list[Reading | Rejection] = []
    withdrawn: list[Withdrawn] = []
    for item in items:
        if isinstance(item, Retraction):
            plain += item.instead
            withdrawn += item.values
            insist(item.values, "a retraction of nothing", item)
        else:
            plain.append(item)
    for one in withdrawn:
        insist(one.field in FIELDS and one.measured_at.tzinfo is UTC, "nothing that was ever said", one)
        one_line(one.reason)
    return *sort(plain, *places), withdrawn


def all_withdrawn(withdrawn: Iterable[Withdrawn], claims: list[Claim]) -> None:
    """What is taken back is named by an element of that sign and time."""
    named = {(claim.field, claim.at) for claim in claims}
    for one in withdrawn:
        insist((one.field, one.measured_at) in named, "what nobody took back", one, claims)


def all_claimed(readings: Iterable[Reading], claims: list[Claim]) -> None:
    """Each value of each reading is claimed, nothing else is by the same code, and all is of one subject."""
    found = [_of(reading, field, claims) for reading in readings for field in reading.present()]
    named = set().union(*found) - {""}
    one_of_all = any(all(subjects & {subject, ""} for subjects in found) for subject in named)
    insist(one_of_all or not named, "readings of two patients", found)


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
            and len(other.values) == 1
            and check(field, other.values[0]) is None
            and other.sure()
        ]
        insist(not against or one.corrected, f"one of two values of {field} was taken", one, against)
    return {one.subject for one in saying}


def _near(given: Any, value: Any) -> bool:
    if isinstance(given, float) and isinstance(value, float):
        return abs(given - value) <= NEAR
    return type(given) is type(value) and given == value
