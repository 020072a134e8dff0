"""Alerts over HTTP: listed, acknowledged, paused, escalated; and the rules of silence and of the ladder."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from samd_gateway import settings
from samd_gateway.access.actor import Actor
from samd_gateway.access.http import needs
from samd_gateway.alerts import channel_store, store
from samd_gateway.alerts.answers import (
    AlertDetail,
    AlertKind,
    AlertOutcomes,
    AlertPage,
    AlertRow,
    AlertRules,
)
from samd_gateway.alerts.desk import AT_ONCE
from samd_gateway.alerts.rules import LADDER, SILENCE, Ladder, Silence
from samd_gateway.errors import NotFoundError, UsageError
from samd_gateway.gateway import Gateway
from samd_gateway.moments import Moment
from samd_gateway.problems import documented

Reader = Annotated[Actor, Depends(needs("read"))]
Nurse = Annotated[Actor, Depends(needs("ward"))]
Setter = Annotated[Actor, Depends(needs("settings"))]
AlertId = Annotated[str, Path(min_length=1, max_length=64, examples=["8c1f0a52d94e6b7310fa"])]
Id = Annotated[str, Field(min_length=1, max_length=64)]
Words = Annotated[str, Field(min_length=1, max_length=500)]


class AcknowledgeRequest(BaseModel):
    """Which alerts somebody knows of. `seen` is the severity that was looked at: one that has become worse
    since is not acknowledged."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"ids": ["8c1f0a52d94e6b7310fa"], "note": "on my way"}]},
    )

    ids: list[Id] = Field(min_length=1, max_length=AT_ONCE)
    note: str | None = Field(None, max_length=500)
    seen: dict[Id, int] = Field({}, max_length=AT_ONCE)


class PauseRequest(BaseModel):
    """Until when an alert rests, and why: an end, or seconds from now."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"for_s": 1800, "reason": "in theatre"}]}
    )

    until: Moment | None = None
    for_s: float | None = Field(None, ge=60, le=86_400)
    reason: Words


class EscalateRequest(BaseModel):
    """Why more help is called for."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"reason": "needs a doctor"}]})

    reason: Words


class RulesRequest(BaseModel):
    """Rules to be set; those that are left out stay as they are."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"ladder": {"severity_3": [300, 900]}, "silence": {"after_s": 60}}]},
    )

    silence: dict[str, Any] = {}
    ladder: dict[str, Any] = {}


def router(gateway: Gateway) -> APIRouter:
    """The routes below /api/alerts, and /api/alert-rules."""
    api = APIRouter(prefix="/api", tags=["alerts"])
    desk = gateway.alerts

    @api.get("/alerts", responses=documented(422))
    def page(
        _actor: Reader,
        *,
        state: Literal["active", "cleared", "all"] = "active",
        acknowledged: bool | None = None,
        device: Annotated[str | None, Query(max_length=80)] = None,
        kind: AlertKind | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
        before: Annotated[str | None, Query(max_length=64, description="`next` of the page before")] = None,
    ) -> AlertPage:
        """The active alerts, the worst first; or cleared ones, or all, the latest first."""
        with gateway.database.read() as connection:
            found = desk.page(
                connection,
                state=None if state == "all" else state,
                acknowledged=acknowledged,
                device=device,
                kind=kind,
                limit=limit,
                before=before,
            )
            active, unacknowledged = store.counts(connection)
        following = found[-1].id if len(found) == limit else None
        return AlertPage(alerts=found, next=following, active=active, unacknowledged=unacknowledged)

    @api.post("/alerts/acknowledge", responses=documented(422))
    def acknowledge(actor: Nurse, request: AcknowledgeRequest) -> AlertOutcomes:
        """Say that somebody knows of these alerts; what became of each."""
        return AlertOutcomes(outcomes=desk.acknowledge(request.ids, actor, request.note, seen=request.seen))

    @api.get("/alerts/{alert}", responses=documented(404))
    def detail(_actor: Reader, alert: AlertId) -> AlertDetail:
        """One alert, with all that became of it and who was told."""
        with gateway.database.read() as connection:
            row = store.find(connection, alert)
            if row is None:
                raise NotFoundError(f"no alert {alert[:64]!r} here; GET /api/alerts lists them")
            return AlertDetail(
                alert=store.answer(row),
                changes=store.history(connection, alert),
                notifications=channel_store.of_alert(connection, alert),
            )

    @api.post("/alerts/{alert}/pause", responses=documented(404, 409, 422))
    def pause(actor: Nurse, alert: AlertId, request: PauseRequest) -> AlertRow:
        """Let an alert rest until a time, for a reason. It comes back by itself, and at once if it becomes
        more severe."""
        if (request.until is None) == (request.for_s is None):
            raise UsageError("give either until or for_s")
        end = gateway.now() + (request.for_s or 0.0) if request.until is None else _seconds(request.until)
        return desk.pause(alert, actor, until=end, reason=request.reason)

    @api.post("/alerts/{alert}/resume", responses=documented(404, 409, 422))
    def resume(actor: Nurse, alert: AlertId) -> AlertRow:
        """End a pause before its time."""
        return desk.resume(alert, actor)

    @api.post("/alerts/{alert}/escalate", responses=documented(404, 409, 422))
    def escalate(actor: Nurse, alert: AlertId, request: EscalateRequest) -> AlertRow:
        """Call for more help now: the next step of the ladder."""
        return desk.escalate(alert, actor, request.reason)

    @api.get("/alert-rules")
    def rules(_actor: Reader) -> AlertRules:
        """When silence counts, and the escalation ladder."""
        with gateway.database.read() as connection:
            return AlertRules(
                silence=msgspec.to_builtins(settings.get(connection, SILENCE, Silence())),
                ladder=msgspec.to_builtins(settings.get(connection, LADDER, Ladder())),
            )

    @api.put("/alert-rules", responses=documented(422))
    def set_rules(actor: Setter, request: RulesRequest) -> AlertRules:
        """Change them."""
        with gateway.database.write() as connection:
            for key, default, wanted in (
                (SILENCE, Silence(), request.silence),
                (LADDER, Ladder(), request.ladder),
            ):
                if wanted:
                    held = msgspec.to_builtins(settings.get(connection, key, default))
                    settings.put(
                        connection,
                        key,
                        _changed(key, held, wanted, type(default)),
                        default,
                        actor=actor,
                        now=gateway.now(),
                    )
        return rules(actor)

    return api


def _changed(
    key: str, held: dict[str, Any], wanted: dict[str, Any], kind: type[Silence] | type[Ladder]
) -> Silence | Ladder:
    unknown = sorted(set(wanted) - set(held))
    if unknown:
        raise UsageError(f"{key}: there is no {unknown[0][:64]!r}; there are {', '.join(held)}")
    try:
        return msgspec.convert(held | wanted, type=kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"{key}: {error}") from error


def _seconds(moment: datetime) -> float:
    return moment.timestamp()
