"""The shapes of alerts, of what was done to them, and of who is told, as the API shows them."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from samd_gateway.answers import Answer

AlertState = Literal["active", "cleared"]
AlertKind = Literal["severity", "silence"]


class AlertRow(Answer):
    """One alert, from raised to cleared."""

    id: str
    device: str
    kind: AlertKind = Field(description="severity: raised by the device; silence: by the gateway, of it")
    source_id: str | None = Field(description="The device's own id of it")
    state: AlertState
    severity: int = Field(description="1 to 3; of a cleared alert its last one")
    peak: int = Field(description="The highest severity that it had")
    possible: int | None = Field(description="The class of the range's high end, which never rings")
    news2_low: int | None
    news2_high: int | None
    reason: str | None
    observed_at: datetime | None
    raised_at: datetime
    changed_at: datetime
    cleared_at: datetime | None
    acknowledged: bool
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    note: str | None
    paused: bool
    paused_until: datetime | None
    paused_by: str | None
    pause_reason: str | None
    step: int = Field(description="How far up the escalation ladder it is")
    step_at: datetime | None
    waiting_since: datetime | None = Field(
        description="From when the ladder counts; null while it is acknowledged, paused or cleared"
    )


class AlertPage(Answer):
    """Alerts, in the order asked for; `next` is the value of `before` for the next page."""

    alerts: list[AlertRow]
    next: str | None
    active: int = Field(description="How many are active")
    unacknowledged: int = Field(description="How many of those nobody has acknowledged")


class AlertChange(Answer):
    """Something that became of an alert, and by whom."""

    at: datetime
    actor: str = Field(description="A user, `device`, or `system`")
    change: str
    detail: dict[str, Any]


class AlertDetail(Answer):
    """One alert with all that became of it and who was told, the oldest first."""

    alert: AlertRow
    changes: list[AlertChange]
    notifications: list["NotificationOut"]


class AlertOutcome(Answer):
    """What became of one alert of a request for many."""

    id: str
    outcome: Literal["acknowledged", "already", "changed", "unknown"] = Field(
        description="changed: it has become more severe than what was seen; look at it again"
    )
    detail: str | None = None


class AlertOutcomes(Answer):
    outcomes: list[AlertOutcome]


class ChannelOut(Answer):
    """A way in which people are told."""

    name: str
    kind: Literal["webhook", "email", "mqtt"]
    enabled: bool
    min_severity: int
    step: int = Field(description="Of the ladder, from which on it is told")
    config: dict[str, Any] = Field(description="Secrets are named by their file and never shown")
    created_at: datetime
    pending: int
    failing: str | None = Field(description="Why its latest attempt failed; null while all is well")


class ChannelsOut(Answer):
    channels: list[ChannelOut]


class NotificationOut(Answer):
    """One state of one alert, on its way to one channel."""

    id: int
    alert: str
    event: str
    channel: str
    state: Literal["pending", "delivered", "given-up"]
    attempts: int
    created_at: datetime
    next_at: datetime | None
    delivered_at: datetime | None
    error: str | None


class NotificationsOut(Answer):
    notifications: list[NotificationOut]


class TestedOut(Answer):
    """A test of a channel that was delivered."""

    channel: str
    delivered: bool
    remark: str | None


class AlertRules(Answer):
    """When silence counts, and the escalation ladder; times in seconds."""

    silence: dict[str, Any]
    ladder: dict[str, Any]
