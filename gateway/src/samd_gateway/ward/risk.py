"""In which order the cards stand, and whether a score is of the present. Pure.

What is certain comes first, then what is possible, and unknown is never fine: a patient of whom nothing is
known now may be as ill as can be, so they stand above everybody who is certainly well. A patient who was ill
when last heard of stands just below those who are as ill now.
"""

from typing import Any

import msgspec

from samd_gateway.states import DeviceState
from samd_gateway.tables import span

WORST = 3
CALLED = 2
"""From this class on the chart asks for an urgent response."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How old a reading may be before its score is of the past; `continuous_s` where the chart asks for
    monitoring without a break."""

    reading_age_s: float = 3600.0
    continuous_s: float = 600.0

    def limit(self, *, continuous: bool) -> float:
        return min(self.reading_age_s, self.continuous_s) if continuous else self.reading_age_s


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What the order of the cards depends on. `certain` and `possible` are None before any assessment."""

    current: bool
    certain: int | None
    possible: int | None
    model: int | None = None
    low: int = 0
    high: int = 20
    probability: float | None = None
    waiting: bool = False
    """An alert that nobody has acknowledged."""


def risk(standing: Standing) -> list[float]:
    """The key, the greatest first: certain class, possible class, unknown, an alert that waits, the
    probability of deterioration, the score."""
    certain, possible = standing.certain or 0, WORST
    if standing.current and standing.possible is not None:
        possible = max(standing.possible, standing.model or 0)
    called = float(certain) if certain >= CALLED else 0.0
    if called and not standing.current:
        called -= 0.5
    return [
        called,
        float(possible),
        0.0 if standing.current else 1.0,
        1.0 if standing.waiting else 0.0,
        # missing is never zero: as likely as not
        0.5 if standing.probability is None else standing.probability,
        float(standing.low),
        float(standing.high),
    ]


def not_current(
    state: DeviceState | None, age_s: float | None, limits: Limits, *, continuous: bool
) -> tuple[str, dict[str, Any], str] | None:
    """Why a score is not of the present, as a key, its arguments and a sentence; None when it is."""
    if age_s is None:
        return ("ward.not_current.none", {}, "there is no assessment yet")
    if state is None or state.state == "unknown":
        return ("ward.not_current.unknown", {"age_s": age_s}, "it is not known whether its device lives")
    if state.state != "online":
        return (
            f"ward.not_current.{state.state}",
            {"age_s": age_s},
            f"its device is {state.state}; the last reading was {span(age_s)} ago",
        )
    limit_s = limits.limit(continuous=continuous)
    if age_s > limit_s:
        return (
            "ward.not_current.old",
            {"age_s": age_s, "limit_s": limit_s},
            f"the last reading was {span(age_s)} ago, and {span(limit_s)} is the limit here",
        )
    return None
