"""The shapes of the fleet's answers. Times are ISO 8601 in UTC; ages are seconds by the gateway's clock."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from samd_gateway.answers import Answer, DeviceStatus


class FleetRow(Answer):
    """One device in the table. What is null was never told; nothing is filled in.

    Last heartbeat and last data are two facts: a device may be well and its patient's monitor silent.
    """

    name: str
    state: DeviceStatus
    reason: str
    since: datetime | None
    tags: list[str]
    bed: str | None = Field(description="Of the admission that is on it; null without one")
    client_version: str | None
    model_version: int | None
    last_heard: datetime | None
    silent_s: float | None
    heartbeat_at: datetime | None
    last_data: datetime | None = Field(description="When an assessment last came")
    reading_age_s: float | None = Field(
        description="Age of the newest reading: what the device last said plus the time since"
    )
    clock_offset_s: float | None = Field(description="Its clock less the gateway's, at its last message")
    clock_synced: bool | None
    outbox_depth: int | None
    dead_letters: int | None
    memory_available_mb: float | None
    resident_mb: float | None
    disk_free_mb: float | None
    temperature_c: float | None
    load_1m: float | None
    uptime_s: float | None
    certificate_expires_at: datetime | None
    flagged: str | None = Field(description="Why the gateway limits it or doubts it; null while all is well")


class FleetPage(Answer):
    """A page of the table. `counts` are of all that match but for the filter by state."""

    rows: list[FleetRow]
    next: str | None = Field(description="Key of the following page; null on the last one")
    total: int
    counts: dict[DeviceStatus, int]


class TagsOut(Answer):
    """Every tag with how many devices carry it."""

    tags: dict[str, int]


class TaggedOut(Answer):
    changed: int = Field(description="How many pairs of a device and a tag came or went")


class ViewOut(Answer):
    """A saved filter."""

    id: str
    name: str
    owner: str
    shared: bool
    query: dict[str, Any]


class ViewsOut(Answer):
    views: list[ViewOut]


class PlannedOut(Answer):
    """What a bulk action would do to one device; `problem` says why it may not reach it."""

    device: str
    state: DeviceStatus
    problem: str | None


class PlanOut(Answer):
    action: str
    devices: list[PlannedOut]
    reachable: int


class JobDeviceOut(Answer):
    """What became of a bulk action on one device: waiting, or the device's own answer."""

    device: str
    command: str | None
    status: Literal["waiting", "accepted", "rejected", "done", "failed", "expired"]
    reason: str | None


class JobOut(Answer):
    """A bulk action with the result of each device."""

    id: str
    action: str
    actor: str
    created_at: datetime
    counts: dict[str, int]
    devices: list[JobDeviceOut]


class JobsOut(Answer):
    jobs: list[JobOut] = Field(description="The latest first, without the devices")
