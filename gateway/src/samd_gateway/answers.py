"""The shapes of the HTTP API's answers, documented by OpenAPI. Times are ISO 8601 in UTC."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

DeviceStatus = Literal["online", "stale", "offline", "unknown"]
RunState = Literal[
    "admitting",
    "handed-over",
    "preparing",
    "training",
    "evaluating",
    "paused",
    "releasing",
    "done",
    "failed",
    "stopped",
]


class Answer(BaseModel):
    """Base: what is not documented is not sent."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class DeteriorationOut(Answer):
    """Whether NEWS2 reaches 7 within the horizon, as the device answered at a full hour."""

    asked_at: datetime
    horizon_h: int
    version: int
    probability: float | None = Field(default=None, description="null where it was not asked; see reason")
    possible: list[str] = Field(default=[], description="Classes that cannot be ruled out (conformal)")
    calibration: str = Field(default="none", description="none (too few cases), temperature or isotonic")
    reason: str | None = None


class AssessmentOut(Answer):
    """The latest assessment as the device sent it, with its age by the gateway's clock."""

    received_at: datetime
    age_s: float = Field(description="Seconds since the reading behind it, growing with each request")
    observed_at: datetime
    news2: dict[str, Any] = Field(
        description="total (null while inputs are missing), low, high, band, points, missing"
    )
    rule_severity: int
    rule_severity_possible: int
    severity: int
    disagreement: bool
    model: dict[str, Any] | None = Field(
        description="severity, probabilities, version, whether the weights are the patient's own; null "
        "without a model"
    )
    missing: list[str]
    stale: list[str]
    reading_age_s: float
    signs: dict[str, float | bool | str] | None = Field(description="null unless the ward shares raw signs")
    artefacts: dict[str, str] = Field(
        default={}, description="Inputs whose newest value is not scored: jump, flat, no_signal, implausible"
    )
    due: list[str] = Field(default=[], description="Inputs that the chart asks for anew")
    next_due_at: datetime | None = Field(
        default=None, description="When the next full set is due; null for continuous monitoring"
    )
    deterioration: DeteriorationOut | None = Field(
        default=None, description="What was asked at the last full hour; null without a model for it"
    )


class HeartbeatOut(Answer):
    """The device's own health, as it last said; null is what it cannot tell."""

    received_at: datetime
    interval_s: float
    uptime_s: float
    load_1m: float | None
    memory_available_mb: float | None
    resident_mb: float | None
    temperature_c: float | None
    disk_free_mb: float | None
    outbox_depth: int
    dead_letters: int
    reading_age_s: float | None
    model_version: int | None
    disagreements: int = Field(
        default=0, description="How often rule and model came to stand two classes or more apart"
    )
    rejected: int = Field(default=0, description="Values that the device could not use")
    certificate_expires_at: datetime | None = None


class AlertOut(Answer):
    """A change of a device's alert state."""

    device: str
    alert_id: str
    state: Literal["raised", "escalated", "deescalated", "cleared"]
    severity: int
    observed_at: datetime
    received_at: datetime
    news2_low: int
    news2_high: int
    possible: int | None = Field(default=None, description="The class of the range's high end")


class TrainingOut(Answer):
    """Where the device stands in a run."""

    received_at: datetime
    run: str
    round: int
    phase: str
    progress: float
    error: str | None
    seconds: float | None
    first_step_at: datetime | None


class FactOut(Answer):
    """One fact of a device, which does not follow from the others."""

    status: Literal["ok", "late", "lost", "unknown"]
    at: datetime | None = Field(description="When it was last told; null for never")
    age_s: float | None = Field(description="Seconds since, or of what was told, by the gateway's clock")
    reason: str


class FactsOut(Answer):
    """Four different facts, of which `state` is the sum of the first two."""

    last_will: FactOut = Field(description="Whether birth or will is its last word")
    heartbeat: FactOut = Field(description="Whether it is heard as often as it promised")
    data: FactOut = Field(description="How old the reading behind its last assessment is")
    source: FactOut = Field(description="How old its monitor's last reading is, by its heartbeat")


class DeviceOut(Answer):
    """One device: its state with the reason, and the latest of each kind that it sent."""

    name: str
    state: DeviceStatus
    reason: str
    since: datetime | None
    reported: str | None = Field(description="What the device (or its will) last said of itself")
    last_heard: datetime | None
    silent_s: float | None = Field(description="Seconds since anything was heard, by the gateway's clock")
    data_age_s: float | None = Field(
        description="Seconds since the latest reading; null without an assessment"
    )
    facts: FactsOut
    client_version: str | None
    model_version: int | None
    boot_id: str | None
    clock_offset_s: float | None = Field(
        description="The device's clock less the gateway's, at its last heartbeat; null while not known"
    )
    clock_synced: bool | None = Field(description="Whether it says itself that its clock can be believed")
    certificate_expires_at: datetime | None = Field(
        description="When the certificate ends that it shows to the broker; null where it uses none"
    )
    flagged: str | None = Field(description="Why it is limited or not believed in some point; null if not")
    flagged_at: datetime | None
    assessment: AssessmentOut | None
    alert: AlertOut | None
    heartbeat: HeartbeatOut | None
    training: TrainingOut | None


class DevicesOut(Answer):
    devices: list[DeviceOut]


class RefusalOut(Answer):
    device: str
    reason: str | None


class AwaitedOut(Answer):
    device: str
    reason: str


class RoundOut(Answer):
    """One round, as the server reported it."""

    round: int
    started_at: datetime
    updated_at: datetime
    replies: int
    awaited: dict[str, int]
    dropped: dict[str, int]
    metrics: dict[str, float]
    round_seconds: float | None
    overhead_seconds: float | None


class RunOut(Answer):
    """One run. `waiting` says in one sentence what it waits for; `awaited` names whom, if known."""

    id: str
    state: RunState
    reason: str | None = Field(description="Why it ended as it did")
    waiting: str | None
    spec: dict[str, Any]
    quorum: int
    asked: list[str]
    accepted: list[str]
    rejected: list[RefusalOut]
    admitted: list[str] = Field(description="The devices that were handed to the server")
    awaited: list[AwaitedOut]
    awaited_counts: dict[str, int] = Field(description="As the server counts them, by coarse reason")
    round: int
    rounds: int
    replies: int
    dropped: dict[str, int]
    metrics: dict[str, float]
    history: list[RoundOut]
    start_version: int
    model_version: int | None
    released: bool
    created_at: datetime
    handed_over_at: datetime | None
    stop_requested_at: datetime | None
    updated_at: datetime
    finished_at: datetime | None


class RunsOut(Answer):
    runs: list[RunOut]
    current: str | None


class CommandOut(Answer):
    """A command that was sent. Its answer appears in `GET /api/devices/{name}/results`."""

    id: str
    device: str
    type: str
    expires_at: datetime


class ResultOut(Answer):
    """A command and what became of it; `status` null means that no answer has come (yet)."""

    command: str
    device: str
    type: str
    issued_at: datetime
    expires_at: datetime
    status: Literal["accepted", "rejected", "done", "failed", "expired"] | None
    reason: str | None
    detail: dict[str, Any]
    answered_at: datetime | None


class ResultsOut(Answer):
    results: list[ResultOut]


class ModelOut(Answer):
    """A model file that the gateway serves."""

    name: str
    version: int
    parent: int | None
    task: str
    trained: bool
    classes: list[str]
    features: dict[str, Any]
    metrics: dict[str, Any]
    provenance: dict[str, Any]
    sha256: str
    graph_sha256: str
    size: int
    url: str


class ModelsOut(Answer):
    models: list[ModelOut]


class VersionOut(Answer):
    """A version of a task's model: where it came from, how good it is, what became of it."""

    task: str
    version: int
    parent: int | None
    trained: bool
    in_use: bool = Field(description="The server releases it now")
    released: bool = Field(description="It passed the gate, or was given as the first model")
    reason: str | None = Field(description="Why it was released or kept")
    run: str | None
    metrics: dict[str, Any]
    sha256: str | None = Field(description="null while its file is at the server alone")
    devices: int | None = Field(description="How many devices assess by it; null where that is not told")


class VersionsOut(Answer):
    versions: list[VersionOut]


class ReleaseOut(Answer):
    """An order to the server to make a version the released one, with its answer."""

    id: int
    at: datetime
    actor: str
    task: str
    version: int
    action: Literal["release", "rollback"]
    status: Literal["waiting", "done", "rejected", "expired"]
    reason: str | None
    answered_at: datetime | None


class ReleasesOut(Answer):
    releases: list[ReleaseOut]


class ServerOut(Answer):
    """The Flower server, as it last said; `unknown` if it was never heard of."""

    status: Literal["online", "offline", "unknown"]
    reason: str
    version: str | None
    model_version: int | None
    graph_sha256: str | None
    task: str | None
    methods: list[str] = Field(description="Personalisation methods that its model can be trained by")
    others: list[dict[str, Any]] = Field(
        default=[],
        description="Tasks that it trains beside that one, each with its model",
    )
    since: datetime | None
    run: dict[str, Any] | None = Field(description="The last status of a run that it published")


class HealthOut(Answer):
    """`ok` only if every part is; else each part says what is wrong, to who is signed in."""

    status: Literal["ok", "unhealthy"]
    broker: str
    database: str
    ingest: str
    queue: int | None
    version: str | None


class Problem(BaseModel):
    """RFC 9457: what went wrong, for programs and for people."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    detail: str
