"""Schedules over HTTP."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from samd_gateway.access.actor import Actor
from samd_gateway.access.http import needs
from samd_gateway.api_runs import RunRequest
from samd_gateway.gateway import Gateway
from samd_gateway.problems import documented
from samd_gateway.queries import at
from samd_gateway.schedules.answers import ScheduleOut, SchedulesOut, TimesOut
from samd_gateway.schedules.service import Wanted
from samd_gateway.schedules.times import MAX_LENGTH, MAX_QUIET, following, timing

PRINTABLE = r"^[^\x00-\x1f\x7f]+$"

Text = Annotated[str, Field(min_length=1, max_length=120, pattern=PRINTABLE)]
Cron = Annotated[str, Field(min_length=9, max_length=MAX_LENGTH, description="minute hour day month weekday")]
Zone = Annotated[str, Field(min_length=1, max_length=64, description="Such as Europe/Berlin")]
Spans = Annotated[
    list[Annotated[str, Field(max_length=11)]],
    Field(max_length=MAX_QUIET, description="Parts of the day in which nothing begins: 22:00-06:00"),
]
Tag = Annotated[str, Field(min_length=1, max_length=64, pattern=PRINTABLE)]
Id = Annotated[str, Path(min_length=1, max_length=16, pattern=r"^[A-Za-z0-9]+$")]

EXAMPLE: dict[str, Any] = {
    "name": "every night",
    "cron": "30 2 * * *",
    "timezone": "Europe/Berlin",
    "quiet": ["06:00-22:00"],
    "run": {"rounds": 20, "quorum": 8},
}


class ScheduleRequest(BaseModel):
    """A run that begins by the clock."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE]})

    name: Text
    cron: Cron
    timezone: Zone = "UTC"
    quiet: Spans = []
    run: RunRequest = Field(
        default_factory=lambda: RunRequest.model_validate({}), description="As for POST /api/runs"
    )
    tag: Tag | None = Field(None, description="Ask only devices with this tag, in place of run.devices")
    enabled: StrictBool = True


class ScheduleChange(BaseModel):
    """What is to be changed; what is left out stays."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"enabled": False}]})

    name: Text | None = None
    cron: Cron | None = None
    timezone: Zone | None = None
    quiet: Spans | None = None
    run: RunRequest | None = None
    tag: Tag | None = Field(None, description="null for no tag")
    enabled: StrictBool | None = None

    def changes(self) -> dict[str, Any]:
        """Fields of `Wanted`. Raises UsageError."""
        names = ("name", "cron", "timezone", "quiet", "enabled")
        found = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.run is not None:
            found |= {"spec": self.run.spec(), "devices": self.run.devices}
        if "tag" in self.model_fields_set:
            found["tag"] = self.tag
        return found


def router(gateway: Gateway) -> APIRouter:
    """The routes below /api/schedules."""
    api = APIRouter(prefix="/api/schedules", tags=["schedules"])
    read = [Depends(needs("read"))]
    may_run = Annotated[Actor, Depends(needs("runs"))]
    schedules = gateway.schedules

    @api.get("", dependencies=read, responses=documented(401, 403, 503))
    def every() -> SchedulesOut:
        """Every schedule with its next times, the next that is due first."""
        return SchedulesOut(schedules=schedules.all())

    @api.get("/times", dependencies=read, responses=documented(401, 403, 422, 503))
    def preview(
        cron: Annotated[str, Query(min_length=9, max_length=MAX_LENGTH, examples=["30 2 * * SAT"])],
        timezone: Annotated[str, Query(min_length=1, max_length=64)] = "UTC",
        quiet: Annotated[list[str] | None, Query(max_length=MAX_QUIET)] = None,
        count: Annotated[int, Query(ge=1, le=50)] = 5,
    ) -> TimesOut:
        """When a schedule would be due; nothing is kept. Empty where the quiet hours leave nothing."""
        found = following(timing(cron, timezone, quiet or ()), gateway.now(), count)
        return TimesOut(times=[at(each) for each in found])

    @api.post("", status_code=201, responses=documented(401, 403, 422, 503))
    def add(request: ScheduleRequest, actor: may_run) -> ScheduleOut:
        """Begin runs by the clock. It is due in its time zone, also where clocks change."""
        wanted = Wanted(
            name=request.name,
            cron=request.cron,
            timezone=request.timezone,
            quiet=request.quiet,
            spec=request.run.spec(),
            devices=request.run.devices,
            tag=request.tag,
            enabled=request.enabled,
        )
        return schedules.add(actor, wanted)

    @api.get("/{schedule}", dependencies=read, responses=documented(401, 403, 404, 422, 503))
    def one(schedule: Id) -> ScheduleOut:
        """One schedule."""
        return schedules.one(schedule)

    @api.patch("/{schedule}", responses=documented(401, 403, 404, 422, 503))
    def change(schedule: Id, request: ScheduleChange, actor: may_run) -> ScheduleOut:
        """Change it, switch it off (`enabled`: false), or on."""
        return schedules.change(actor, schedule, request.changes())

    @api.delete(
        "/{schedule}", status_code=204, response_class=Response, responses=documented(401, 403, 404, 422, 503)
    )
    def remove(schedule: Id, actor: may_run) -> None:
        """Remove it; runs that it began go on."""
        schedules.remove(actor, schedule)

    return api
