"""The shapes of the API's answers about schedules."""

from datetime import datetime
from typing import Any

from pydantic import Field

from samd_gateway.answers import Answer


class ScheduleOut(Answer):
    """A run that begins by the clock, what became of it the last time, and when it is due next."""

    id: str
    name: str
    cron: str
    timezone: str
    quiet: list[str]
    spec: dict[str, Any]
    devices: list[str] | None = Field(description="Whom it asks; null for all that are online then")
    tag: str | None = Field(description="Only devices with this tag that are online then")
    enabled: bool
    created_at: datetime
    created_by: str
    next_at: datetime | None = Field(description="null while it is disabled")
    following: list[datetime] = Field(description="The next times, as they stand")
    last_at: datetime | None = Field(description="When it was last due")
    last_run: str | None
    last_outcome: str | None = Field(description="started, or why no run began")


class SchedulesOut(Answer):
    schedules: list[ScheduleOut]


class TimesOut(Answer):
    """When a schedule would be due."""

    times: list[datetime]
