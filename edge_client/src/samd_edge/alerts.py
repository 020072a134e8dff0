"""When an alert is raised, escalated and cleared: a pure function over a small state.

Alerts act on the certain end of the NEWS2 range: on the class of `low`. What is only possible is shown, and
never rings. An alert is raised at class 2 (a total of 5 or more: urgent response), escalated at a rise to
class 3 (7 or more: emergency response), and cleared below class 2.

Unknown is never fine: an input that goes missing while an alert is open keeps the points that it had last, so
that a probe that falls off cannot clear an alert. The other inputs may clear it by getting better.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, Literal, cast

import msgspec

from samd_data.severity import severity_of
from samd_protocol.messages import Alert, Severity

RAISE_AT: Final = 2
ESCALATE_AT: Final = 3


class AlertState(msgspec.Struct, frozen=True):
    """The alert now open: its id (empty for none), its class, and the last points of each input."""

    alert_id: str = ""
    severity: int = 0
    points: dict[str, int] = msgspec.field(default_factory=dict)

    @property
    def active(self) -> bool:
        return bool(self.alert_id)


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What an assessment tells the alerts: both ends of NEWS2 and the points of each input that is there."""

    low: int
    high: int
    points: Mapping[str, int]
    observed_at: datetime


def step(state: AlertState, seen: Seen, new_id: Callable[[], str]) -> tuple[AlertState, Alert | None]:
    """The state after an assessment, and the alert message that it causes, if any."""
    certain = severity_of(seen.low)
    if not state.active:
        if certain < RAISE_AT:
            return state, None
        opened = AlertState(new_id(), certain, dict(seen.points))
        return opened, _message(opened, "raised", seen)
    held = {**state.points, **seen.points}
    known = max(certain, severity_of(min(20, max(seen.low, sum(held.values())))))
    if known < RAISE_AT:
        return AlertState(), _message(AlertState(state.alert_id, known), "cleared", seen)
    if certain >= ESCALATE_AT > state.severity:
        risen = AlertState(state.alert_id, certain, held)
        return risen, _message(risen, "escalated", seen)
    return AlertState(state.alert_id, min(state.severity, known), held), None


def _message(state: AlertState, change: Literal["raised", "escalated", "cleared"], seen: Seen) -> Alert:
    return Alert(
        alert_id=state.alert_id,
        state=change,
        severity=cast("Severity", state.severity),
        observed_at=seen.observed_at,
        news2_low=seen.low,
        news2_high=seen.high,
    )


def ended(state: AlertState, observed_at: datetime) -> Alert:
    """The message that closes an open alert because the admission ends, not because the patient is better:
    its class stays, and the range is what was last certain up to everything."""
    low = min(20, sum(state.points.values()))
    return _message(state, "cleared", Seen(low=low, high=20, points={}, observed_at=observed_at))
