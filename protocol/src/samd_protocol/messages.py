"""Every JSON message of the wire as a msgspec struct, and the table that says which topic carries which.

Field names carry their unit. Nothing here holds a patient's name or record number; raw vital signs stand
only in `Assessment.signs`, which is empty unless the ward has opted in (`share_signs`).
"""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time with its zone; one without a zone is refused when it is read."""

Severity = Literal[0, 1, 2, 3]
"""Class of a NEWS2 total: 0 (0), 1 (1-4), 2 (5-6), 3 (7 or more)."""


class State(msgspec.Struct, frozen=True, kw_only=True, tag="state"):
    """Birth, last will and every change of a device (retained). `connection` counts connects within a boot:
    a will is written at connect, so it is older than the birth of any later connection."""

    status: Literal["online", "sleeping", "updating", "offline"]
    boot_id: str
    connection: int
    client_version: str
    model_version: int | None = None


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, tag="heartbeat"):
    """The device's own health. None means that this machine cannot tell. `disagreements` counts, for this
    admission and this boot, how often rule and model came to stand two classes or more apart; `rejected` the
    values that could not be used; `certificate_expires_at` is the end of the certificate that the device
    shows to the broker."""

    interval_s: float
    uptime_s: float
    load_1m: float | None = None
    memory_available_mb: float | None = None
    resident_mb: float | None = None
    temperature_c: float | None = None
    disk_free_mb: float | None = None
    outbox_depth: int = 0
    dead_letters: int = 0
    reading_age_s: float | None = None
    model_version: int | None = None
    disagreements: int = 0
    rejected: int = 0
    certificate_expires_at: Moment | None = None


class News2(msgspec.Struct, frozen=True, kw_only=True):
    """NEWS2 as it crosses the wire: `total` is null while inputs are missing; then low..high is the range."""

    total: int | None
    low: int
    high: int
    band: str
    points: dict[str, int]
    missing: list[str]


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    """What the model says beside the rule: class, probability of each of the four classes, version;
    `personal` when this patient's own weights said so, which came from that version."""

    severity: Severity
    probabilities: list[float]
    version: int
    personal: bool = False


class Deterioration(msgspec.Struct, frozen=True, kw_only=True):
    """The probability that NEWS2 reaches 7 within `horizon_h` hours after the full hour `asked_at`, by that
    version of the model; null where it was not asked or gave no answer, with the `reason`.

    `calibration`: how the probability was fitted to this patient's own hold-out; `none` with too few cases.
    `possible`: the classes that cannot be ruled out (conformal, at most one miss in ten on such rows); both
    with too few cases to tell, none where the row is unlike any before."""

    asked_at: Moment
    horizon_h: int
    version: int
    probability: float | None = None
    possible: list[Literal["stable", "deteriorates"]] = msgspec.field(default_factory=list)
    calibration: Literal["none", "temperature", "isotonic"] = "none"
    reason: str | None = None


class Assessment(msgspec.Struct, frozen=True, kw_only=True, tag="assessment"):
    """Rule and model side by side. `severity` is the worse of the rule's certain class and the model's.

    `artefacts`: inputs whose newest value is not scored, with the kind: `jump`, `flat`, `no_signal` or
    `implausible`; an older value may still be valid. `due`: inputs that the chart asks for anew;
    `next_due_at`: when the next full set is due (null: the chart asks for continuous monitoring).
    `deterioration` is what was asked at the last full hour; null without a model for it."""

    observed_at: Moment
    news2: News2
    rule_severity: Severity
    rule_severity_possible: Severity
    severity: Severity
    disagreement: bool
    model: ModelView | None = None
    missing: list[str] = msgspec.field(default_factory=list)
    stale: list[str] = msgspec.field(default_factory=list)
    reading_age_s: float = 0.0
    signs: dict[str, float | bool | str] | None = None
    artefacts: dict[str, Literal["jump", "flat", "no_signal", "implausible"]] = msgspec.field(
        default_factory=dict
    )
    due: list[str] = msgspec.field(default_factory=list)
    next_due_at: Moment | None = None
    deterioration: Deterioration | None = None


class Alert(msgspec.Struct, frozen=True, kw_only=True, tag="alert"):
    """A change of the alert state, from the certain end of the range; `possible` is the class of the high
    end, which is shown and never rings."""

    alert_id: str
    state: Literal["raised", "escalated", "deescalated", "cleared"]
    severity: Severity
    observed_at: Moment
    news2_low: int
    news2_high: int
    possible: Severity | None = None


class Training(msgspec.Struct, frozen=True, kw_only=True, tag="training"):
    """Where a device stands in a run. `first_step_at` is when its trainer began to compute."""

    run: str
    round: int
    phase: Literal["ready", "training", "evaluating", "sent", "failed", "stopped"]
    progress: float = 0.0
    error: str | None = None
    seconds: float | None = None
    first_step_at: Moment | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True, tag="result"):
    """The answer to one command, matched by the command's message id."""

    command: str
    status: Literal["accepted", "rejected", "done", "failed", "expired"]
    reason: str | None = None
    detail: dict[str, Any] = msgspec.field(default_factory=dict)


class Config(msgspec.Struct, frozen=True, kw_only=True, tag="config"):
    """A device's configuration: desired on `dn/config`, reported on `up/config`. Versions only grow."""

    version: int
    heartbeat_s: float | None = None
    share_signs: bool | None = None
    consent_to_training: bool | None = None


class TrainingStart(msgspec.Struct, frozen=True, kw_only=True, tag="training.start"):
    """Ask whether the device takes part in a run; it answers accepted or rejected within a second."""

    run: str
    task: str
    model_version: int
    graph_sha256: str


class TrainingStop(msgspec.Struct, frozen=True, kw_only=True, tag="training.stop"):
    """End the device's part in a run."""

    run: str


class ModelActivate(msgspec.Struct, frozen=True, kw_only=True, tag="model.activate"):
    """Use a version that the device already holds of a task's models."""

    version: int
    task: str = "severity"


class ModelRollback(msgspec.Struct, frozen=True, kw_only=True, tag="model.rollback"):
    """Go back to the version that was active before for a task; the other tasks stay as they are."""

    task: str = "severity"


class Correction(msgspec.Struct, frozen=True, kw_only=True):
    """A wrong value of a reading: it is kept, struck through, with name and reason, and never scored again.

    `observed_at` names the value by its time (null: the newest of `field`), `value` is the right one (null:
    it is only struck)."""

    field: str
    reason: str
    observed_at: Moment | None = None
    value: float | bool | str | None = None


class ObservationAdd(msgspec.Struct, frozen=True, kw_only=True, tag="observation.add"):
    """What a person observed, valid for 12 h or until the next one; or a correction of a wrong reading."""

    by: str
    observed_at: Moment | None = None
    supplemental_oxygen: bool | None = None
    consciousness: Literal["A", "C", "V", "P", "U"] | None = None
    correction: Correction | None = None


class PatientAdmit(msgspec.Struct, frozen=True, kw_only=True, tag="patient.admit"):
    """Begin an admission: a fresh store, with the settings that belong to this patient.

    `monitoring_interval_s`: how often a full set of observations is due at the least, where that is more
    often than the chart asks for."""

    admission: str
    spo2_scale: Literal[1, 2] = 1
    monitoring_interval_s: float | None = None
    consent_to_training: bool = False


class PatientDischarge(msgspec.Struct, frozen=True, kw_only=True, tag="patient.discharge"):
    """End the admission: its store is sealed, then kept, or erased."""

    admission: str
    keep: bool = True


class Report(msgspec.Struct, frozen=True, kw_only=True, tag="report"):
    """Ask for state, configuration and the latest assessment now."""


CommandBody = (
    TrainingStart
    | TrainingStop
    | ModelActivate
    | ModelRollback
    | ObservationAdd
    | PatientAdmit
    | PatientDischarge
    | Report
)


class Command(msgspec.Struct, frozen=True, kw_only=True, tag="command"):
    """One command. A device executes a message id once, and never after `expires_at`."""

    expires_at: Moment
    body: CommandBody


class ModelRelease(msgspec.Struct, frozen=True, kw_only=True, tag="model"):
    """The released model of a task (retained, each task on its own topic): fetch `url`, compare `sha256`,
    then activate."""

    version: int
    sha256: str
    size: int
    url: str
    task: str
    trained: bool


class RunSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a federated training is to do. Deadlines in seconds; `mask_rate` hides signs in training rows.

    `optimizer` is what a device learns by: `adam`, or `sgd` (with learning rates around 0.1).
    `strategy` averages on the server, with `strategy_settings`; `weighting` is what a reply counts by:
    `examples`, or `severe` rows. `method` personalises on the device, with the settings `personal_...` and
    `rehearsal`, see `samd_protocol.tasks.TrainSettings`. What goes together is judged by
    `samd_protocol.runspec`. `name` is a label for people."""

    task: str = "severity"
    rounds: int = 20
    epochs: int = 5
    learning_rate: float = 0.01
    proximal_mu: float = 0.0
    mask_rate: float = 0.15
    logit_adjustment: float = 1.0
    strategy: str = "FedAvg"
    quorum: int = 1
    admission_deadline_s: float = 15.0
    round_deadline_s: float = 60.0
    seed: int = 0
    optimizer: str = "adam"
    name: str = ""
    strategy_settings: dict[str, float] = msgspec.field(default_factory=dict)
    weighting: str = "examples"
    method: str = "none"
    personal_epochs: int = 0
    personal_learning_rate: float = 0.0
    personal_mu: float = 0.0
    personal_alpha: float = 0.5
    personal_alpha_rate: float = 0.0
    rehearsal: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("rounds", 1, 10_000),
            ("epochs", 1, 1_000),
            ("quorum", 1, 100_000),
            ("learning_rate", 1e-8, 10.0),
            ("proximal_mu", 0.0, 1e6),
            ("mask_rate", 0.0, 0.9),
            ("logit_adjustment", 0.0, 4.0),
            ("admission_deadline_s", 0.05, 86_400.0),
            ("round_deadline_s", 0.05, 86_400.0),
            ("personal_epochs", 0, 1_000),
            ("personal_learning_rate", 0.0, 10.0),
            ("personal_mu", 0.0, 1e6),
            ("personal_alpha", 0.0, 1.0),
            ("personal_alpha_rate", 0.0, 1.0),
            ("rehearsal", 0, 10_000),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}: it must lie between {low} and {high}")


class RunOrder(msgspec.Struct, frozen=True, kw_only=True, tag="run.order"):
    """Gateway to server: begin or end a run. `devices` are the admitted ones, sorted."""

    action: Literal["start", "pause", "resume", "stop"]
    run: str
    spec: RunSpec | None = None
    devices: list[str] = msgspec.field(default_factory=list)


class RunStatus(msgspec.Struct, frozen=True, kw_only=True, tag="run.status"):
    """The run now going on (retained). `awaited` counts by coarse reason and names nobody."""

    run: str
    phase: Literal["preparing", "training", "evaluating", "paused", "releasing", "done", "failed", "stopped"]
    round: int = 0
    rounds: int = 0
    quorum: int = 0
    replies: int = 0
    awaited: dict[str, int] = msgspec.field(default_factory=dict)
    dropped: dict[str, int] = msgspec.field(default_factory=dict)
    metrics: dict[str, float] = msgspec.field(default_factory=dict)
    round_seconds: float | None = None
    overhead_seconds: float | None = None
    model_version: int | None = None
    released: bool = False
    reason: str | None = None


class ModelOrder(msgspec.Struct, frozen=True, kw_only=True, tag="model.order"):
    """Gateway to server: make a version of the server's store the released one of its task, be it newer or
    older than the one in use."""

    task: str
    version: int


class ModelAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="model.answer"):
    """Server to gateway: what became of a `ModelOrder`, named by its message id."""

    order: str
    status: Literal["done", "rejected"]
    reason: str = ""


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """The bundle that a new run for another task starts from, and the methods that it can do."""

    task: str
    model_version: int
    graph_sha256: str
    methods: list[str] = msgspec.field(default_factory=list)


class ServerState(msgspec.Struct, frozen=True, kw_only=True, tag="server.state"):
    """Birth and last will of the server (retained). `model` is the bundle that a new run starts from;
    `methods` are the personalisation methods that it can do (empty: an older server, which knows none);
    `others` are the tasks that it trains beside that one."""

    status: Literal["online", "offline"]
    version: str
    model_version: int | None = None
    graph_sha256: str | None = None
    task: str | None = None
    methods: list[str] = msgspec.field(default_factory=list)
    others: list[Served] = msgspec.field(default_factory=list)

    def served(self, task: str) -> Served | None:
        """What a run for a task starts from; None where the server does not train it, or has no model."""
        if self.task in (None, task) and self.model_version is not None and self.graph_sha256 is not None:
            return Served(
                task=task,
                model_version=self.model_version,
                graph_sha256=self.graph_sha256,
                methods=self.methods,
            )
        return next((each for each in self.others if each.task == task), None)


class GatewayState(msgspec.Struct, frozen=True, kw_only=True, tag="gateway.state"):
    """Birth and last will of a gateway (retained)."""

    status: Literal["online", "offline"]
    version: str


class GatewayAlert(msgspec.Struct, frozen=True, kw_only=True, tag="gateway.alert"):
    """A change of an alert, for whoever lets people know: device, class, state, and nothing of the patient.

    `key` is the same whenever this change has to be told again: a receiver drops what it has had. `step` is
    how far up the escalation ladder the alert is; `kind` is `silence` where a device does not report."""

    key: str
    alert: str
    change: Literal["raised", "escalated", "step", "resumed", "acknowledged", "paused", "cleared", "test"]
    changed_at: Moment
    device: str
    kind: Literal["severity", "silence"]
    state: Literal["active", "cleared"]
    severity: Severity
    step: int = 0
    acknowledged: bool = False


Message = (
    State
    | Heartbeat
    | Assessment
    | Alert
    | Training
    | Result
    | Config
    | Command
    | ModelRelease
    | RunOrder
    | RunStatus
    | ModelOrder
    | ModelAnswer
    | ServerState
    | GatewayState
    | GatewayAlert
)


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """How one kind of message travels."""

    topic: str
    message: type
    sender: str
    qos: Literal[0, 1]
    retain: bool
    expires: str
    summary: str


CHANNELS: tuple[Channel, ...] = (
    Channel(
        topic="d/{device}/up/state",
        message=State,
        sender="device",
        qos=1,
        retain=True,
        expires="never",
        summary="Birth, last will and changes of a device",
    ),
    Channel(
        topic="d/{device}/up/heartbeat",
        message=Heartbeat,
        sender="device",
        qos=0,
        retain=False,
        expires="2 intervals",
        summary="The device's own health",
    ),
    Channel(
        topic="d/{device}/up/assessment",
        message=Assessment,
        sender="device",
        qos=1,
        retain=False,
        expires="24 h",
        summary="NEWS2 and the model, side by side",
    ),
    Channel(
        topic="d/{device}/up/alert",
        message=Alert,
        sender="device",
        qos=1,
        retain=False,
        expires="never",
        summary="A change of the alert state, from the outbox",
    ),
    Channel(
        topic="d/{device}/up/training",
        message=Training,
        sender="device",
        qos=1,
        retain=False,
        expires="1 h",
        summary="Where the device stands in a run",
    ),
    Channel(
        topic="d/{device}/up/result",
        message=Result,
        sender="device",
        qos=1,
        retain=False,
        expires="1 h",
        summary="Answer to a command",
    ),
    Channel(
        topic="d/{device}/up/config",
        message=Config,
        sender="device",
        qos=1,
        retain=True,
        expires="never",
        summary="Reported configuration",
    ),
    Channel(
        topic="d/{device}/dn/command",
        message=Command,
        sender="gateway",
        qos=1,
        retain=False,
        expires="its own",
        summary="A command to one device",
    ),
    Channel(
        topic="d/{device}/dn/config",
        message=Config,
        sender="gateway",
        qos=1,
        retain=True,
        expires="never",
        summary="Desired configuration",
    ),
    Channel(
        topic="all/dn/model",
        message=ModelRelease,
        sender="server",
        qos=1,
        retain=True,
        expires="never",
        summary="The released model for severity",
    ),
    Channel(
        topic="all/dn/model/{task}",
        message=ModelRelease,
        sender="server",
        qos=1,
        retain=True,
        expires="never",
        summary="The released model of another task",
    ),
    Channel(
        topic="server/dn/run",
        message=RunOrder,
        sender="gateway",
        qos=1,
        retain=False,
        expires="its own",
        summary="Begin or end a run",
    ),
    Channel(
        topic="server/up/run",
        message=RunStatus,
        sender="server",
        qos=1,
        retain=True,
        expires="never",
        summary="The run now going on",
    ),
    Channel(
        topic="server/dn/model",
        message=ModelOrder,
        sender="gateway",
        qos=1,
        retain=False,
        expires="its own",
        summary="Put a stored version of a model to use",
    ),
    Channel(
        topic="server/up/model",
        message=ModelAnswer,
        sender="server",
        qos=1,
        retain=False,
        expires="1 h",
        summary="Answer to an order about a model",
    ),
    Channel(
        topic="server/up/state",
        message=ServerState,
        sender="server",
        qos=1,
        retain=True,
        expires="never",
        summary="Birth and last will of the server",
    ),
    Channel(
        topic="gateway/{gateway}/state",
        message=GatewayState,
        sender="gateway",
        qos=1,
        retain=True,
        expires="never",
        summary="Birth and last will of a gateway",
    ),
    Channel(
        topic="gateway/{gateway}/alert",
        message=GatewayAlert,
        sender="gateway",
        qos=1,
        retain=False,
        expires="never",
        summary="A change of an alert, where a channel of that kind is set up",
    ),
)
