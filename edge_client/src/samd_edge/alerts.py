"""When an alert is raised, escalated, de-escalated and cleared: a pure function over a small state.

Alerts act on the certain end of the NEWS2 range, the total `low`. What is only possible is shown, and never
rings. The levels are those of the chart's response (RCP 2017, chart 2):

=====  ===================  ==================================================================================
level  certain total        the chart's response
=====  ===================  ==================================================================================
3      7 or more            emergency
2      5 or 6               urgent
1      a single input of 3  urgent, by the ward; rings only where the policy says so (`raise_at`)
=====  ===================  ==================================================================================

Going up is immediate. Going down takes two things: the total must have fallen `hysteresis` points below the
threshold of the level, and stayed there for `min_dwell_s`; then the alert goes down to the highest level that
was held meanwhile, or is cleared. A level that has ended does not ring again for its refractory time; a
patient who is still that ill when it is over rings then, so nothing is lost. A higher level is never held up
by a lower one. All times are patient time.

Unknown is never fine: an input that goes missing while an alert is open keeps the points that it had last, so
that a probe that falls off cannot clear an alert. The other inputs may clear it by getting better.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal, cast

import msgspec

from samd_data.severity import severity_of
from samd_protocol.messages import Alert, Severity

THRESHOLDS: Final = {3: 7, 2: 5}
"""The certain total from which a level holds."""

MAX_TOTAL: Final = 20
_SINGLE: Final = 3

Change = Literal["raised", "escalated", "deescalated", "cleared"]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a ward wants to be alerted; `[alerts]` in the configuration. Times in seconds of patient time.

    `raise_at`: the lowest band that rings; "low-medium" adds a single input of 3 points. `hysteresis`: points
    below the threshold before an alert goes down. `min_dwell_s`: for how long. The refractory times: how long
    a level keeps silent after it has ended. That of level 3 is 0: an emergency is not held back unless the
    ward says so. `samd-edge alarms` prints what a policy would have done.
    """

    raise_at: Literal["low-medium", "medium", "high"] = "medium"
    hysteresis: Annotated[int, msgspec.Meta(ge=0, le=4)] = 1
    min_dwell_s: Seconds = 600.0
    ward_refractory_s: Seconds = 3600.0
    urgent_refractory_s: Seconds = 1800.0
    emergency_refractory_s: Seconds = 0.0

    @property
    def lowest(self) -> int:
        """The lowest level that rings."""
        return {"low-medium": 1, "medium": 2, "high": 3}[self.raise_at]

    def refractory(self, level: int) -> timedelta:
        """How long a level keeps silent after it has ended."""
        seconds = (0.0, self.ward_refractory_s, self.urgent_refractory_s, self.emergency_refractory_s)
        return timedelta(seconds=seconds[level])


class AlertState(msgspec.Struct, frozen=True):
    """The alert now: its id (empty for none), its level, and the last points of each input.

    `since`: when its level was reached. `better_since`, `better_level`: since when the patient has been
    better than the level, and the highest level held since. `ended`: per level (as text), when it last ended.
    """

    alert_id: str = ""
    severity: int = 0
    points: dict[str, int] = msgspec.field(default_factory=dict)
    since: datetime | None = None
    better_since: datetime | None = None
    better_level: int = 0
    ended: dict[str, datetime] = msgspec.field(default_factory=dict)

    @property
    def active(self) -> bool:
        return bool(self.alert_id)


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What an assessment tells the alerts: both ends of NEWS2 and the points of each input that is there.

    `at` is the patient's time of the judgement; `observed_at` is the wall's, for the message.
    """

    low: int
    high: int
    points: Mapping[str, int]
    at: datetime
    observed_at: datetime


def step(
    state: AlertState, seen: Seen, new_id: Callable[[], str], policy: Policy
) -> tuple[AlertState, Alert | None]:
    """The state after an assessment, and the alert message that it causes, if any."""
    level = _ringing(state, seen, policy)
    if not state.active:
        if level == 0:
            return state, None
        opened = AlertState(new_id(), level, dict(seen.points), since=seen.at, ended=state.ended)
        return opened, _message(opened, "raised", seen)
    held = {**state.points, **seen.points}
    if level > state.severity:
        risen = AlertState(state.alert_id, level, held, since=seen.at, ended=state.ended)
        return risen, _message(risen, "escalated", seen)
    known = min(MAX_TOTAL, max(seen.low, sum(held.values())))
    kept = _kept(known, held, state.severity, policy)
    if kept >= state.severity:
        return _replace(state, points=held, better_since=None, better_level=0), None
    better_since = state.better_since or seen.at
    better_level = max(kept, state.better_level if state.better_since else 0)
    if seen.at - better_since < timedelta(seconds=policy.min_dwell_s):
        return _replace(state, points=held, better_since=better_since, better_level=better_level), None
    left = {str(each): seen.at for each in range(better_level + 1, state.severity + 1)}
    ended = {**state.ended, **left}
    if better_level == 0:
        closed = AlertState(state.alert_id, severity_of(known))
        return AlertState(ended=ended), _message(closed, "cleared", seen)
    down = AlertState(state.alert_id, better_level, held, since=seen.at, ended=ended)
    return down, _message(down, "deescalated", seen)


def waiting(state: AlertState, seen: Seen, policy: Policy) -> str | None:
    """What the alert waits for, in words; None when it waits for nothing."""
    level = _level(seen.low, seen.points, policy)
    if level > max(state.severity, _ringing(state, seen, policy)):
        left = (_silent_until(state, level, policy) - seen.at).total_seconds()
        return f"level {level} keeps silent for another {_span(left)}"
    if state.active and state.better_since is not None:
        left = policy.min_dwell_s - (seen.at - state.better_since).total_seconds()
        what = f"goes down to level {state.better_level}" if state.better_level else "is cleared"
        return f"{what} in {_span(max(left, 0.0))} if it stays like this"
    return None


def ended(state: AlertState, observed_at: datetime) -> Alert:
    """The message that closes an open alert because the admission ends, not because the patient is better:
    its class stays, and the range is what was last certain up to everything."""
    low = min(MAX_TOTAL, sum(state.points.values()))
    seen = Seen(low=low, high=MAX_TOTAL, points={}, at=observed_at, observed_at=observed_at)
    return _message(state, "cleared", seen)


def _level(total: int, points: Mapping[str, int], policy: Policy) -> int:
    """The level that rings for a certain total and its points; 0 for none."""
    found = next((level for level, threshold in THRESHOLDS.items() if total >= threshold), 0)
    if not found and _SINGLE in points.values():
        found = 1
    return found if found >= policy.lowest else 0


def _ringing(state: AlertState, seen: Seen, policy: Policy) -> int:
    """The highest level that holds and does not have to keep silent; 0 for none."""
    levels = range(_level(seen.low, seen.points, policy), policy.lowest - 1, -1)
    return next((level for level in levels if _silent_until(state, level, policy) <= seen.at), 0)


def _kept(total: int, points: Mapping[str, int], severity: int, policy: Policy) -> int:
    """The highest level, up to the present one, that a total still holds with the hysteresis."""
    for level in range(severity, policy.lowest - 1, -1):
        if level in THRESHOLDS and total >= THRESHOLDS[level] - policy.hysteresis:
            return level
        if level == 1 and _SINGLE in points.values():
            return level
    return 0


def _silent_until(state: AlertState, level: int, policy: Policy) -> datetime:
    """When a level may ring again after it has ended."""
    end = state.ended.get(str(level))
    return datetime.min.replace(tzinfo=UTC) if end is None else end + policy.refractory(level)


def _replace(state: AlertState, **values: object) -> AlertState:
    return msgspec.structs.replace(state, **values)


def _message(state: AlertState, change: Change, seen: Seen) -> Alert:
    return Alert(
        alert_id=state.alert_id,
        state=change,
        severity=cast("Severity", state.severity),
        observed_at=seen.observed_at,
        news2_low=seen.low,
        news2_high=seen.high,
        possible=cast("Severity", severity_of(seen.high)),
    )


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
