"""An invented patient: what their monitor, cuff, thermometer and nurse send, true or not.

A scenario is a table of anchors, between which each sign moves in straight lines, and of observations, which
hold until the next. On top lies what makes signs look real: a slow wandering, a quick unrest, and whole
numbers, as monitors send them. The same seed gives the same patient, in every version of Python.
"""

import bisect
import heapq
import math
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NamedTuple

from samd_data.plausibility import Rejection, clean
from samd_data.reading import SIGNS, Consciousness, Reading

NAME: Final = "sim"
"""What stands for the file's name in rejections."""

CUFF_S: Final = 900.0
TEMPERATURE_S: Final = 3600.0
OBSERVED_S: Final = 14_400.0
_QUICK: Final = ("heart_rate", "respiratory_rate", "spo2")


class Anchor(NamedTuple):
    """The signs at one hour, before the unrest."""

    hour: float
    heart_rate: float
    respiratory_rate: float
    spo2: float
    systolic_bp: float
    temperature: float


class Observed(NamedTuple):
    """What a person sees from one hour on."""

    hour: float
    supplemental_oxygen: bool
    consciousness: Consciousness = "A"


class Trouble(NamedTuple):
    """Something that is wrong with a sensor, from one hour to another.

    ``off``: the probe is off, and the monitor says so, after a few numbers that are none. ``flat``: the value
    stands still. ``jumps``: single values far away. ``motion``: values and no signal by turns. ``cuff``: an
    arm that moves, a kinked hose.
    """

    begin: float
    end: float
    field: str
    kind: Literal["off", "flat", "jumps", "motion", "cuff"]


class Unrest(NamedTuple):
    """Standard deviations of what comes on top: a wandering over 20 minutes, an unrest over half a minute."""

    slow: float
    quick: float
    lowest: float
    highest: float
    decimals: int = 0


UNREST: Final[Mapping[str, Unrest]] = {
    "heart_rate": Unrest(1.6, 1.2, 25, 220),
    "respiratory_rate": Unrest(0.6, 0.6, 4, 60),
    "spo2": Unrest(0.25, 0.25, 50, 100),
    "systolic_bp": Unrest(1.8, 1.8, 45, 240),
    "temperature": Unrest(0.04, 0.03, 33, 42, 1),
}
_SLOW_S: Final = 1200.0
_QUICK_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """A course: ``text`` says in one line what happens. Times are hours of the patient's time."""

    name: str
    text: str
    anchors: tuple[Anchor, ...]
    observed: tuple[Observed, ...]
    troubles: tuple[Trouble, ...] = ()


class Timed(NamedTuple):
    """An item and the patient's time at which the sensor sends it."""

    at: datetime
    item: Reading | Rejection


def timeline(
    scenario: Scenario, *, seed: int, start: datetime, hours: float, every: float
) -> Iterator[Timed]:
    """What the sensors send, one sign at a time, oldest first, for ``hours`` from ``start`` (aware) on.

    Heart rate, respiration and saturation every ``every`` seconds, the cuff each quarter of an hour, the
    temperature each hour, oxygen and consciousness every four hours and when they change.
    """
    streams = [_quick(scenario, field, seed, hours * 3600, every) for field in _QUICK]
    streams.append(_cuff(scenario, seed, hours * 3600))
    streams.append(_thermometer(scenario, seed, hours * 3600))
    streams.append(_observations(scenario, hours * 3600))
    return _taken(heapq.merge(*streams, key=lambda sent: sent[0]), start)


Sent = tuple[float, Mapping[str, Any]]
"""Seconds since the start and what is sent: fields of a reading, or ``off``: the field without a signal."""


def _taken(sent: Iterable[Sent], start: datetime) -> Iterator[Timed]:
    """What was sent, as readings and rejections."""
    for second, fields in sent:
        at = start + timedelta(seconds=second)
        if "off" in fields:
            yield Timed(at, _off(fields["off"]))
            continue
        accepted, rejections = clean(fields, file=NAME)
        for rejection in rejections:
            yield Timed(at, rejection)
        if accepted:
            yield Timed(at, Reading(observed_at=at, **accepted))


def _off(field: str) -> Rejection:
    return Rejection(
        NAME, 0, field, "", "the probe is off", "put it on again, and look at the skin", "no_signal"
    )


# -- the sensors ------------------------------------------------------------------------------------------


def _quick(scenario: Scenario, field: str, seed: int, seconds: float, every: float) -> Iterator[Sent]:
    """One sign of the monitor; the three share the interval."""
    true = _Sign(scenario, field, seed)
    dice = random.Random(f"{scenario.name}/{seed}/{field}/trouble")  # noqa: S311  (nothing secret)
    second = every * _QUICK.index(field) / len(_QUICK)
    trouble: Trouble | None = None
    spell: Iterator[Mapping[str, Any] | None] = iter(())
    while second < seconds:
        value = true.at(second)
        now = _trouble(scenario, field, second)
        if now is not trouble and now is not None:
            spell = _spell(field, now, value, dice)
        trouble = now
        sent = None if trouble is None else next(spell)
        yield second, {field: value} if sent is None else sent
        second += every


def _spell(
    field: str, trouble: Trouble, first: float, dice: random.Random
) -> Iterator[Mapping[str, Any] | None]:
    """What the sensor sends in a trouble, without end; None for the true value; it was ``first`` before."""
    if trouble.kind == "off":
        yield {field: 0.0}
        yield {field: 127.0}  # oximeters write 127 for "no data", until they have noticed
    while True:
        yield _wrong(field, trouble, first, dice)


def _wrong(field: str, trouble: Trouble, first: float, dice: random.Random) -> Mapping[str, Any] | None:
    if trouble.kind == "off":
        return {"off": field}
    if trouble.kind == "flat":
        return {field: first}
    if trouble.kind == "jumps" and dice.random() < 0.02:
        return {field: {"heart_rate": 205.0, "respiratory_rate": 58.0, "spo2": 55.0}[field]}
    if trouble.kind == "motion" and dice.random() < 0.5:
        return {"off": field} if dice.random() < 0.7 else {field: float(dice.randint(50, 79))}
    return None


def _cuff(scenario: Scenario, seed: int, seconds: float) -> Iterator[Sent]:
    true = _Sign(scenario, "systolic_bp", seed)
    dice = random.Random(f"{scenario.name}/{seed}/cuff")  # noqa: S311
    second, wrong = 1.0, 0
    while second < seconds:
        systolic = true.at(second)
        diastolic = float(round(0.6 * systolic + dice.gauss(0, 2)))
        if _trouble(scenario, "systolic_bp", second) is not None and dice.random() < 0.6:
            # a moving arm, a kinked hose, and a pump that gave up
            systolic, diastolic = ((systolic + 130, 190.0), (80.0, 85.0), (0.0, 0.0))[wrong % 3]
            wrong += 1
        yield second, {"systolic_bp": systolic, "diastolic_bp": diastolic}
        second += CUFF_S


def _thermometer(scenario: Scenario, seed: int, seconds: float) -> Iterator[Sent]:
    true = _Sign(scenario, "temperature", seed)
    second = 2.0
    while second < seconds:
        yield second, {"temperature": true.at(second)}
        second += TEMPERATURE_S


def _observations(scenario: Scenario, seconds: float) -> Iterator[Sent]:
    """Every four hours, and when something changes."""
    rounds = {OBSERVED_S * number for number in range(math.ceil(seconds / OBSERVED_S))}
    for second in sorted(rounds | {each.hour * 3600 for each in scenario.observed}):
        if second < seconds:
            now = [each for each in scenario.observed if each.hour * 3600 <= second][-1]
            yield (
                second,
                {"supplemental_oxygen": now.supplemental_oxygen, "consciousness": now.consciousness},
            )


def _trouble(scenario: Scenario, field: str, second: float) -> Trouble | None:
    hour = second / 3600
    return next(
        (each for each in scenario.troubles if each.field == field and each.begin <= hour < each.end), None
    )


class _Sign:
    """The true value of one sign; asked for at times that only grow."""

    def __init__(self, scenario: Scenario, field: str, seed: int) -> None:
        column = 1 + SIGNS.index(field)
        self._hours = [anchor.hour for anchor in scenario.anchors]
        self._levels = [float(anchor[column]) for anchor in scenario.anchors]
        self._unrest = UNREST[field]
        self._dice = random.Random(f"{scenario.name}/{seed}/{field}")  # noqa: S311
        self._slow = self._dice.gauss(0, 1)
        self._quick = self._dice.gauss(0, 1)
        self._second = 0.0

    def at(self, second: float) -> float:
        """The value as a monitor shows it."""
        passed = second - self._second
        self._second = second
        self._slow = self._next(self._slow, passed / _SLOW_S)
        self._quick = self._next(self._quick, passed / _QUICK_S)
        unrest = self._unrest
        value = self._level(second / 3600) + unrest.slow * self._slow + unrest.quick * self._quick
        return float(round(min(max(value, unrest.lowest), unrest.highest), unrest.decimals))

    def _next(self, before: float, times: float) -> float:
        """A step of an Ornstein-Uhlenbeck process with variance 1, ``times`` its memory later."""
        memory = math.exp(-times)
        return memory * before + math.sqrt(1 - memory * memory) * self._dice.gauss(0, 1)

    def _level(self, hour: float) -> float:
        after = bisect.bisect_right(self._hours, hour)
        if after == len(self._hours):
            return self._levels[-1]
        begin, end = self._hours[after - 1], self._hours[after]
        first, last = self._levels[after - 1], self._levels[after]
        return first + (last - first) * (hour - begin) / (end - begin)
