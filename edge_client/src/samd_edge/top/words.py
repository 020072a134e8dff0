"""Values, ages, points and classes as a person reads them. What is missing is "--"."""

import math
from typing import Final

from samd_data.carry import CARRY_SECONDS
from samd_data.news2 import CHARTS, chart_value
from samd_data.severity import CLASSES
from samd_edge.view import SignView, View

NAMES: Final = {
    "respiratory_rate": "respiration",
    "spo2": "SpO2",
    "supplemental_oxygen": "oxygen",
    "systolic_bp": "systolic",
    "diastolic_bp": "diastolic",
    "heart_rate": "pulse",
    "consciousness": "consciousness",
    "temperature": "temperature",
}
"""Every field, in the order of the chart of the ward."""

CONSCIOUSNESS: Final = {
    "A": "A alert",
    "C": "C confused",
    "V": "V voice",
    "P": "P pain",
    "U": "U unresponsive",
}

LEVELS: Final = {1: "a single 3", 2: "urgent", 3: "emergency"}
"""The levels of the alerts, in the chart's words."""

NOTHING: Final = "--"


def clean(text: str) -> str:
    """Text of others on one line, without anything that a terminal would obey."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def span(seconds: float) -> str:
    """A duration: 12 s, 34 min, 3 h 10 min, 2 d 4 h."""
    whole = max(0, round(seconds))
    if whole < 90:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 90:
        return f"{minutes} min"
    hours = minutes // 60
    if hours < 48:
        return f"{hours} h {minutes % 60:02} min"
    return f"{hours // 24} d {hours % 24} h"


def age(seconds: float | None) -> str:
    """How old a value is."""
    return NOTHING if seconds is None else span(seconds)


def number(field: str, value: float) -> str:
    """A number as the chart prints it, which is also how it is scored."""
    if field in CHARTS:
        return (
            f"{chart_value(field, value):.1f}" if field == "temperature" else f"{chart_value(field, value):g}"
        )
    return f"{math.floor(value + 0.5)}"


def value(sign: SignView) -> str:
    """The newest accepted value with its unit; "--" when there is none."""
    found = sign.value
    if found is None:
        return NOTHING
    if isinstance(found, bool):
        return "on oxygen" if found else "on air"
    if isinstance(found, str):
        return CONSCIOUSNESS.get(found, clean(found))
    return f"{number(sign.field, found)} {sign.unit}".strip()


def marks(points: int | None) -> str:
    """Points as number and symbol: three squares, as many full as there are points."""
    if points is None:
        return NOTHING
    return f"{'■' * points}{'□' * (3 - points)} {points}"


def score(view: View) -> str:
    """The NEWS2 total, or its range, or "--" when nothing was measured."""
    found = view.news2
    if found is None:
        return NOTHING
    return f"{found.low}-{found.high}" if found.total is None else str(found.total)


def severity(view: View) -> tuple[str, str, str]:
    """The severity as a large word, its style, and what must be said with it.

    A range that may be worse than what is certain never reads as if all were known: without any certain
    class the word is "?".
    """
    if view.admission is None:
        return NOTHING, "unknown", "no patient is admitted"
    if view.news2 is None:
        return NOTHING, "unknown", "nothing measured yet"
    possible = max(view.severity, view.rule_severity_possible)
    said = beside_severity(
        view.severity, possible, view.rule_severity, None if view.model is None else view.model.severity
    )
    if possible > view.severity == 0:
        return "?", "unknown", said
    return CLASSES[view.severity].upper(), f"severity-{view.severity}", said


def beside_severity(certain: int, possible: int, rule: int, model: int | None) -> str:
    """What must be said with a class: which other one is possible, or by whom it was judged."""
    if possible > certain == 0:
        return f"none to {CLASSES[possible]}"
    if possible > certain:
        return f"at least; possibly {CLASSES[possible]}"
    if model is None or model < rule:
        return "by the rule"
    return "by the model" if model > rule else "by rule and model"


def state(sign: SignView) -> tuple[str, str]:
    """One word on why a sign is not as it should be, and its style; empty when all is well."""
    if sign.flag is not None:
        return "flagged", "bad"
    if sign.state != "valid":
        return sign.state, "bad"
    return ("due", "warn") if sign.due else ("", "")


def why(sign: SignView) -> str | None:
    """Why the newest of a sign is not scored, as a sentence; None when it is, or was never seen."""
    name = NAMES.get(sign.field, sign.field)
    if sign.flag is not None:
        counts = {
            "valid": f"; the value of {age(sign.age_s)} ago counts",
            "stale": "; the value before it is too old to count",
            "missing": "; nothing of it counts",
        }[sign.state]
        return f"{name} not scored: {clean(sign.flag)}{counts}"
    if sign.state == "stale":
        return (
            f"{name} not scored: {value(sign)} is {age(sign.age_s)} old, "
            f"it counts for {span(CARRY_SECONDS.get(sign.field, 0.0))}"
        )
    return None
