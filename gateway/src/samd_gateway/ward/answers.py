"""The shapes of the ward as the API and the pages show it."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from samd_gateway.alerts.answers import AlertRow
from samd_gateway.answers import Answer, DeviceStatus


class Because(Answer):
    """One reason as a key of the texts and what stands in it, with the sentence in English."""

    key: str
    arguments: dict[str, Any]
    text: str


class News2Out(Answer):
    """`total` is null while inputs are missing; then it lies between low and high."""

    total: int | None
    low: int
    high: int
    band: str
    points: dict[str, int]
    missing: list[str]


class CardModel(Answer):
    """What the model says beside the rule."""

    severity: int
    probabilities: list[float]
    version: int
    personal: bool = Field(description="By this patient's own weights, which came from that version")


class CardDeterioration(Answer):
    """The probability that NEWS2 reaches 7 within the horizon."""

    probability: float | None = Field(description="null where it was not asked; see reason")
    possible: list[str]
    calibration: str
    asked_at: datetime
    horizon_h: int
    version: int = Field(description="Of the model that was asked")
    reason: str | None


class WardCard(Answer):
    """One patient as the ward sees them. Where `current` is false the score is of the past: `why_not_current`
    says why, and it must not be shown as the present."""

    device: str
    pseudonym: str | None = Field(description="null for a patient admitted at the device itself")
    admission_state: Literal["pending", "active"] | None
    bed: str
    ward: str
    spo2_scale: int | None
    state: DeviceStatus
    state_reason: str
    state_since: datetime | None
    current: bool = Field(description="Whether the score is of the present")
    why_not_current: Because | None
    news2: News2Out | None = Field(description="null before the first assessment")
    rule_severity: int | None = Field(description="What is certain: the class of the range's low end")
    rule_severity_possible: int | None = Field(description="The class of the range's high end")
    model: CardModel | None
    severity: int | None = Field(description="The worse of rule and model")
    disagreement: bool
    why_differ: list[Because]
    deterioration: CardDeterioration | None
    trend: list[tuple[float, int, int]] = Field(
        description="Seconds since 1970, low and high of NEWS2, over the last 24 h, the worst of each span"
    )
    signs: dict[str, float | bool | str] | None = Field(description="null unless the ward shares raw signs")
    age_s: float | None = Field(description="Seconds since the last reading; null without an assessment")
    observed_at: datetime | None
    next_due_at: datetime | None = Field(description="null for continuous monitoring, or when not known")
    due: list[str]
    overdue: bool
    stale: list[str]
    missing: list[str]
    artefacts: dict[str, str]
    alert: AlertRow | None = Field(description="The open alert that weighs most")
    risk: list[float] = Field(description="The key by which cards are sorted, the greatest first")
    certain: bool = Field(description="Whether the present class is known: current, and low and high agree")


class WardOut(Answer):
    """The cards, those that need somebody first."""

    cards: list[WardCard]
    total: int
    at: datetime


class TimelinePoint(Answer):
    """One assessment, or the worst of a span of them."""

    at: datetime
    low: int
    high: int
    rule_severity: int | None
    rule_severity_possible: int | None
    severity: int | None
    model_severity: int | None
    probability: float | None = Field(description="Of deterioration, as last asked by then")
    disagreement: bool
    model_version: int | None
    count: int = Field(description="How many assessments it stands for")


class TimelineGap(Answer):
    """A time without any assessment, longer than is usual for this device."""

    since: datetime
    until: datetime | None = Field(description="null where it still lasts")


class ModelChange(Answer):
    """From when on another version, or the patient's own weights, judged."""

    at: datetime
    before: int | None
    after: int | None
    personal: bool


class Timeline(Answer):
    """The past of one patient."""

    device: str
    since: datetime
    until: datetime
    span_s: float | None = Field(description="What one point stands for; null where each is one assessment")
    gap_after_s: float = Field(description="From how long on a time without an assessment is a gap here")
    points: list[TimelinePoint]
    gaps: list[TimelineGap]
    alerts: list[AlertRow]
    model_changes: list[ModelChange]
    admissions: list["AdmissionOut"] = Field(description="Of this device, the latest first")


class AdmissionOut(Answer):
    """One patient on one device."""

    id: str
    device: str
    bed: str
    ward: str
    spo2_scale: int
    monitoring_interval_s: float | None
    consent_to_training: bool
    state: Literal["pending", "active", "refused", "ended"]
    reason: str | None
    admitted_at: datetime
    admitted_by: str
    discharged_at: datetime | None
    discharged_by: str | None


class CommandOutcome(Answer):
    """A command to a device and what it answered; `status` null means that no answer has come yet."""

    command: str
    device: str
    type: str
    status: Literal["accepted", "rejected", "done", "failed", "expired"] | None
    reason: str | None
