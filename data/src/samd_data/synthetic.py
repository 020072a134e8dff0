"""Made-up recordings that move like real ones, for demonstrations, tests and load.

Each sign is the patient's own level, plus a slow wandering, plus the scatter of single measurements, plus
what an episode of deterioration adds: heart and breathing faster, saturation and pressure lower, temperature
mostly higher, consciousness clouded and oxygen given at its height. Levels, wandering (an AR(1) process per
hour), scatter and how often a sign is charted were fitted to the 100 patients of the MIMIC-IV demo
(``hourly``). Oxygen, consciousness and the shape of an episode are assumptions.

How close, 600 patients of 120 hours (seed 5) against the demo, hourly rows after carrying forward:

====================  ===============  ===============  ===================
sign                  mean             sd               lag-1 correlation
====================  ===============  ===============  ===================
heart rate            89.4 (90.6)      17.5 (18.5)      .87 (.88)
respiratory rate      19.8 (20.1)      5.1 (5.4)        .60 (.62)
SpO2                  96.9 (96.7)      2.7 (3.0)        .62 (.67)
systolic pressure     116.1 (116.0)    19.3 (20.3)      .71 (.73)
temperature           36.95 (36.96)    0.51 (0.55)      .92 (.91)
====================  ===============  ===============  ===================

Severity 12.8 / 66.9 / 13.8 / 6.6 % (13.1 / 63.8 / 16.8 / 6.3 %); charted in 95.6, 95.3, 93.5, 91.0 and
28.7 % of hours (95.6, 95.3, 93.6, 91.0, 28.7 %). The next hour has the same class in 64 % (65.5 %). Less
like the demo: extremes are rarer, signs move together only in episodes, and every recording is gapless.

Nothing learned from these recordings says anything about patients.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from samd_data.reading import SIGNS, Consciousness, Reading, Recording


class Course(NamedTuple):
    """How one sign moves, in its own unit."""

    level: float  # mean of the patients' own levels
    between: float  # their standard deviation
    wandering: float  # standard deviation of the slow part
    memory: float  # its correlation from one hour to the next
    scatter: float  # standard deviation of single measurements
    episode: float  # what an episode adds at its height
    charted: float  # share of hours with a value
    lowest: float
    highest: float
    decimals: int


COURSES: Final = {
    "heart_rate": Course(88.3, 12.5, 8.0, 0.90, 6.0, 27.0, 0.956, 30, 190, 0),
    "respiratory_rate": Course(19.2, 2.9, 2.0, 0.90, 3.2, 8.0, 0.953, 5, 50, 0),
    "spo2": Course(97.3, 1.6, 1.9, 0.84, 1.8, -4.0, 0.936, 70, 100, 0),
    "systolic_bp": Course(117.5, 13.0, 8.5, 0.89, 10.5, -22.0, 0.910, 50, 230, 0),
    "temperature": Course(36.9, 0.28, 0.36, 0.89, 0.18, 0.7, 0.287, 34.0, 41.0, 1),
}

_OBSERVED_EVERY_HOURS: Final = 6  # oxygen and consciousness, by a person
_EPISODES_PER_HOUR: Final = 1 / 400
_FIRST_READING: Final = datetime(2026, 1, 1, tzinfo=UTC)


def generate(patients: int, hours: int, seed: int, *, start: datetime = _FIRST_READING) -> list[Recording]:
    """``patients`` recordings of ``hours`` hours each, one reading an hour, from ``start`` (aware) on.

    The same seed gives the same recordings (with the same numpy), and patient number k is the same
    however many there are. The first patient and every third after it deteriorates for certain, the others by
    chance.
    With 10 patients of 72 hours all four classes of severity occurred for each of 60 seeds.

    Raises ``ValueError`` for fewer than 1 patient or hour, or a negative seed.
    """
    if patients < 1 or hours < 1 or seed < 0:
        raise ValueError("patients and hours are 1 or more, and the seed is 0 or more")
    if start.utcoffset() is None:
        raise ValueError("start has no time zone; give it one, for example tzinfo=UTC")
    width = max(3, len(str(patients)))
    return [
        Recording(f"synthetic-{number + 1:0{width}d}", _readings(number, hours, seed, start))
        for number in range(patients)
    ]


def _readings(number: int, hours: int, seed: int, start: datetime) -> tuple[Reading, ...]:
    rng = np.random.default_rng([seed, number])
    illness = _illness(hours, rng, certain=number % 3 == 0)
    fever = rng.random() < 0.8  # else the sepsis that cools
    signs = {field: _sign(COURSES[field], hours, illness, rng) for field in SIGNS}
    if not fever:
        signs["temperature"] = signs["temperature"] - 2 * COURSES["temperature"].episode * illness
    pulse_pressure = rng.normal(53, 8) + rng.normal(0, 6, hours)
    on_oxygen = rng.random() < 0.4
    charted = {field: rng.random(hours) < COURSES[field].charted for field in SIGNS}
    charted["temperature"] = _every_four_hours(hours, COURSES["temperature"].charted, rng)
    minutes = rng.integers(0, 10, hours)

    readings = []
    for hour in range(hours):
        present: dict[str, Any] = {}
        for field in SIGNS:
            if charted[field][hour]:
                course = COURSES[field]
                value = min(max(signs[field][hour], course.lowest), course.highest)
                present[field] = round(float(value), course.decimals)
        if "systolic_bp" in present:
            systolic = present["systolic_bp"]
            present["diastolic_bp"] = float(
                round(max(20.0, min(systolic - pulse_pressure[hour], systolic - 10)))
            )
        if hour % _OBSERVED_EVERY_HOURS == 0:
            present["supplemental_oxygen"] = bool(on_oxygen or illness[hour] > 0.5)
            present["consciousness"] = _consciousness(float(illness[hour]))
        if present:
            observed_at = start + timedelta(hours=hour, minutes=int(minutes[hour]))
            readings.append(Reading(observed_at=observed_at, **present))
    return tuple(readings)


def _illness(hours: int, rng: np.random.Generator, *, certain: bool) -> NDArray[np.float64]:
    """The course of illness in ``float64[hours]``: 0 is the patient's own normal, 1 an episode's height."""
    illness = np.zeros(hours)
    begins = np.flatnonzero(rng.random(hours) < _EPISODES_PER_HOUR).tolist()
    if certain:
        begins.append(int(hours * rng.uniform(0.3, 0.6)))
    for begin in begins:
        rise, stay, fall = rng.uniform(4, 10), rng.uniform(2, 8), rng.uniform(6, 16)
        height = rng.uniform(0.7, 1.3)
        after = np.arange(hours) - begin
        shape = np.interp(after, [0, rise, rise + stay, rise + stay + fall], [0, 1, 1, 0])
        illness = np.maximum(illness, height * shape)
    return illness


def _sign(
    course: Course, hours: int, illness: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    wandering = np.empty(hours)
    wandering[0] = rng.normal()
    steps = rng.normal(0, np.sqrt(1 - course.memory**2), hours)
    for hour in range(1, hours):
        wandering[hour] = course.memory * wandering[hour - 1] + steps[hour]
    level = rng.normal(course.level, course.between)
    scatter = rng.normal(0, course.scatter, hours)
    values: NDArray[np.float64] = level + course.wandering * wandering + scatter + course.episode * illness
    return values


def _every_four_hours(hours: int, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Temperature is charted every four hours, and now and then between."""
    charted: NDArray[np.bool_] = rng.random(hours) < (share - 0.25) / 0.75
    charted[::4] = True
    return charted


def _consciousness(illness: float) -> Consciousness:
    if illness < 0.8:
        return "A"
    return "C" if illness < 1.2 else "V"
