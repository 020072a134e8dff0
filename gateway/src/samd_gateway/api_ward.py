"""The ward over HTTP: cards, time lines, and what people do at the bedside."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from samd_gateway.access.actor import Actor
from samd_gateway.access.http import needs
from samd_gateway.gateway import Gateway
from samd_gateway.moments import Moment
from samd_gateway.problems import documented
from samd_gateway.queries import at
from samd_gateway.ward.answers import CommandOutcome, Timeline, WardCard, WardOut

Reader = Annotated[Actor, Depends(needs("read"))]
Nurse = Annotated[Actor, Depends(needs("ward"))]
Device = Annotated[str, Path(min_length=1, max_length=80, examples=["bed-01"])]
Wait = Annotated[float, Query(ge=0, le=60, description="Seconds to wait for the device's answer")]
DAY_S = 86_400.0


class AdmitRequest(BaseModel):
    """A patient by pseudonym, with the settings that belong to them."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"bed": "12 A", "ward": "ward-3", "spo2_scale": 1}]},
    )

    admission: str | None = Field(
        None, min_length=1, max_length=63, description="A pseudonym, used once; left out, one is drawn"
    )
    bed: str = Field("", max_length=64)
    ward: str = Field("", max_length=64)
    spo2_scale: Literal[1, 2] = Field(1, description="By prescription")
    monitoring_interval_s: float | None = Field(None, ge=60, le=86_400)
    consent_to_training: StrictBool = False


class DischargeRequest(BaseModel):
    """Whether the device keeps its store, sealed, or erases it."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"keep": True}]})

    keep: StrictBool = True


class ObserveRequest(BaseModel):
    """What no sensor sees."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"consciousness": "A", "supplemental_oxygen": False}]},
    )

    consciousness: Literal["A", "C", "V", "P", "U"] | None = None
    supplemental_oxygen: StrictBool | None = None
    observed_at: Moment | None = Field(None, description="Left out, now")


class CorrectRequest(BaseModel):
    """A wrong value is struck; the right one stands in its place, if it is known."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"field": "temperature", "value": 37.2, "reason": "typing error"}]},
    )

    field: str = Field(min_length=1, max_length=64)
    value: bool | float | str | None = Field(None, description="Left out, the value is only struck")
    reason: str = Field(min_length=1, max_length=500)
    observed_at: Moment | None = Field(None, description="Of the wrong value; left out, the newest")


def router(gateway: Gateway) -> APIRouter:
    """The routes below /api/ward."""
    api = APIRouter(prefix="/api/ward", tags=["ward"])
    ward = gateway.ward

    def answered(command: str, wait_s: float) -> CommandOutcome:
        return ward.result(command, wait_s)

    @api.get("", responses=documented(422))
    def cards(
        _actor: Reader,
        *,
        ward_name: Annotated[str | None, Query(alias="ward", max_length=64)] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    ) -> WardOut:
        """The patients, those that need somebody first."""
        found, total = ward.page(ward=ward_name, limit=limit)
        return WardOut(cards=found, total=total, at=at(gateway.now()))

    @api.get("/{device}", responses=documented(404))
    def card(_actor: Reader, device: Device) -> WardCard:
        """The card of one patient."""
        return ward.card(device)

    @api.get("/{device}/timeline", responses=documented(404, 422))
    def timeline(
        _actor: Reader,
        device: Device,
        *,
        since: Annotated[Moment | None, Query(description="Left out, a day before `until`")] = None,
        until: Annotated[Moment | None, Query(description="Left out, now")] = None,
        points: Annotated[int, Query(ge=10, le=5000)] = 1000,
        admission: Annotated[str | None, Query(max_length=64, description="A former one")] = None,
    ) -> Timeline:
        """Scores, gaps, alerts and changes of the model, of who lies there now or of a former admission."""
        end = _seconds(until, gateway.now())
        return ward.timeline(device, _seconds(since, end - DAY_S), end, points=points, admission=admission)

    @api.post("/{device}/admit", responses=documented(404, 409, 422, 503))
    def admit(actor: Nurse, device: Device, request: AdmitRequest, *, wait_s: Wait = 10.0) -> CommandOutcome:
        """Begin an admission. The outcome is the device's own answer."""
        command = ward.admit(
            actor,
            device,
            admission=request.admission,
            bed=request.bed,
            ward=request.ward,
            spo2_scale=request.spo2_scale,
            monitoring_interval_s=request.monitoring_interval_s,
            consent_to_training=request.consent_to_training,
        )
        return answered(command, wait_s)

    @api.post("/{device}/discharge", responses=documented(404, 409, 422, 503))
    def discharge(
        actor: Nurse, device: Device, request: DischargeRequest, *, wait_s: Wait = 10.0
    ) -> CommandOutcome:
        """End the admission."""
        return answered(ward.discharge(actor, device, keep=request.keep), wait_s)

    @api.post("/{device}/observe", responses=documented(404, 422, 503))
    def observe(
        actor: Nurse, device: Device, request: ObserveRequest, *, wait_s: Wait = 10.0
    ) -> CommandOutcome:
        """Enter consciousness and oxygen, under one's own name."""
        command = ward.observe(
            actor,
            device,
            consciousness=request.consciousness,
            supplemental_oxygen=request.supplemental_oxygen,
            observed_at=request.observed_at,
        )
        return answered(command, wait_s)

    @api.post("/{device}/correct", responses=documented(404, 422, 503))
    def correct(
        actor: Nurse, device: Device, request: CorrectRequest, *, wait_s: Wait = 10.0
    ) -> CommandOutcome:
        """Strike a wrong value, under one's own name."""
        command = ward.correct(
            actor,
            device,
            field=request.field,
            value=request.value,
            reason=request.reason,
            observed_at=request.observed_at,
        )
        return answered(command, wait_s)

    return api


def _seconds(moment: datetime | None, default: float) -> float:
    return default if moment is None else moment.timestamp()
