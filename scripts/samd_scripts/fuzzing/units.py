"""Units once more, from their definitions, to hold the product's conversions against."""

from collections.abc import Callable
from decimal import Decimal
from typing import Final

from samd_scripts.fuzzing.choices import Choices, number
from samd_scripts.fuzzing.oracle import insist

Convert = Callable[[Decimal], Decimal]

MMHG_PER_KPA: Final = Decimal("760") / Decimal("101.325")  # a standard atmosphere in both
MMHG_PER_CMH2O: Final = Decimal("0.0980665") * MMHG_PER_KPA

_SAME: Final[Convert] = lambda value: value  # noqa: E731
_RATE: Final[dict[str, Convert]] = {"/min": _SAME, "1/min": _SAME, "Hz": lambda value: value * 60}
_PRESSURE: Final[dict[str, Convert]] = {
    "mm[Hg]": _SAME,
    "mmHg": _SAME,
    "kPa": lambda value: value * MMHG_PER_KPA,
    "cm[H2O]": lambda value: value * MMHG_PER_CMH2O,
}
UNITS: Final[dict[str, dict[str, Convert]]] = {
    "heart_rate": {**_RATE, "{beats}/min": _SAME},
    "respiratory_rate": {**_RATE, "{breaths}/min": _SAME},
    "spo2": {"%": _SAME},
    "systolic_bp": _PRESSURE,
    "diastolic_bp": _PRESSURE,
    "temperature": {
        "Cel": _SAME,
        "[degF]": lambda value: (value - 32) * 5 / 9,
        "K": lambda value: value - Decimal("273.15"),
    },
}
_BACK: Final[dict[str, Convert]] = {
    "Hz": lambda value: value / 60,
    "kPa": lambda value: value / MMHG_PER_KPA,
    "cm[H2O]": lambda value: value / MMHG_PER_CMH2O,
    "[degF]": lambda value: value * 9 / 5 + 32,
    "K": lambda value: value + Decimal("273.15"),
}
NEAR: Final = 2e-6
"""Conversions are rounded to six places."""


def in_some_unit(choices: Choices, field: str) -> tuple[str, str]:
    """A plausible value of a field as the text of a number, and the unit that it is in."""
    unit = choices.pick(list(UNITS[field]))
    value = Decimal(number(choices, field))
    if unit in _BACK:
        value = round(_BACK[unit](value), 4)
    return f"{value:f}", unit


def stated(field: str, value: float, unit: object) -> list[float]:
    """What a number in a unit may mean: one value for a unit that is known here, else that of any unit, since
    units are spelt in many ways."""
    known = UNITS[field]
    converts = [known[unit]] if isinstance(unit, str) and unit in known else list(known.values())
    return [float(convert(Decimal(repr(float(value))))) for convert in converts]


def means(field: str, given: float, value: object, unit: object) -> None:
    """A value that was taken is that number in that unit."""
    insist(isinstance(value, (int, float)) and not isinstance(value, bool), f"{field} is no number", value)
    assert isinstance(value, (int, float))
    possible = stated(field, value, unit)
    insist(any(abs(given - one) <= NEAR for one in possible), f"another {field}", given, value, unit)
