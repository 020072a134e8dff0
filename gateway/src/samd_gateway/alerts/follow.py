"""What a device's message does to its alert. Pure: from the row on record and the message to the new values.

Order is `(boot, seq)`. A message that is older than what is on record changes nothing but the peak: so
neither a duplicate nor one that was overtaken can bring back what is cleared. A cleared alert that its device
raises again later is open again, and nobody has acknowledged it.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from samd_protocol.messages import Alert

Change = Literal["raised", "escalated", "deescalated", "cleared", "late"]

NOBODY_CAME: dict[str, Any] = {
    "acknowledged_at": None,
    "acknowledged_by": None,
    "note": None,
    "paused_until": None,
    "paused_by": None,
    "pause_reason": None,
}
"""The values of an alert that nobody has acknowledged or paused."""


class Followed(msgspec.Struct, frozen=True):
    """What changes, and how it is called in the history."""

    change: Change
    values: dict[str, Any]


def opened(message: Alert, *, boot: int, seq: int, at: float) -> Followed:
    """The row of an alert that was not known before, by whatever message of it came first."""
    active = message.state != "cleared"
    values: dict[str, Any] = {
        "state": "active" if active else "cleared",
        "severity": message.severity,
        "peak": message.severity,
        "raised_at": at,
        "changed_at": at,
        "cleared_at": None if active else at,
        "step": 0,
        "step_at": None,
        "waiting_since": at if active else None,
        **NOBODY_CAME,
        **_seen(message, boot, seq),
    }
    return Followed(message.state, values)


def follow(row: Mapping[str, Any], message: Alert, *, boot: int, seq: int, at: float) -> Followed:
    """The values that a message changes in a row that is there. `at` is when it came, by our clock."""
    peak = max(row["peak"], message.severity)
    if (boot, seq) <= (row["boot"], row["seq"]):
        return Followed("late", {"peak": peak})
    seen = {"changed_at": at, **_seen(message, boot, seq)}
    if message.state == "cleared":
        if row["state"] == "cleared":
            return Followed("late", {"boot": boot, "seq": seq})
        # its class stays: that of the message is what the patient has come down to
        return Followed("cleared", seen | cleared(at))
    if row["state"] == "cleared":
        values = {"state": "active", "cleared_at": None, "waiting_since": at, "step": 0, "step_at": None}
        values |= {"severity": message.severity, "peak": peak, "reason": None}
        return Followed("raised", seen | NOBODY_CAME | values)
    values = {"severity": message.severity, "peak": peak}
    if message.severity <= row["severity"]:
        return Followed("deescalated", seen | values)
    if row["waiting_since"] is None:  # whoever acknowledged or paused it had seen a lower class
        values |= {**NOBODY_CAME, "waiting_since": at, "step": 0, "step_at": None}
    return Followed("escalated", seen | values)


def cleared(at: float) -> dict[str, Any]:
    """The values of an alert that is over: nobody need come, and nothing is paused."""
    pause = {"paused_until": None, "paused_by": None, "pause_reason": None}
    return {"state": "cleared", "cleared_at": at, "changed_at": at, "waiting_since": None, **pause}


def _seen(message: Alert, boot: int, seq: int) -> dict[str, Any]:
    return {
        "possible": message.possible,
        "news2_low": message.news2_low,
        "news2_high": message.news2_high,
        "observed_at": message.observed_at.timestamp(),
        "boot": boot,
        "seq": seq,
    }
