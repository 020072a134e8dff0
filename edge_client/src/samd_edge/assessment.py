"""From a reading to an assessment: the rule and the model side by side, never one in place of the other.

The rule is NEWS2 over the latest values still valid: a range while inputs are missing, and nothing is filled
in. The model sees the same values, with a mask for what is missing. Whatever happens to the model (a file
that does not fit, a probability that is no number), the rule goes on; then the model's view is None.

Values that no body makes (``artefacts``) are flagged and not scored. What a person observed is not screened.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, cast

import numpy as np
from numpy.typing import NDArray

from samd_data import features, news2, severity
from samd_data.carry import CARRY_SECONDS, Carrier
from samd_data.reading import COLUMNS, FIELDS, Reading, to_row, without
from samd_data.response import interval_s
from samd_data.tasks import SEVERITY, TASKS
from samd_edge.artefacts import ArtefactPolicy, Flag, Kind, Screen
from samd_edge.clock import Clock
from samd_edge.runtime import Graph, GraphError, RuntimeUnavailable
from samd_protocol import messages
from samd_protocol.bundle import Bundle, Manifest

_log = logging.getLogger(__name__)

DISAGREEMENT: Final = 2
"""The rule's certain class and the model's class disagree from this many classes apart."""

TRAINED_SCALE: Final = 1
"""Severity labels score SpO2 by scale 1 (``samd_data.severity.labels``)."""

_SUM_TOLERANCE: Final = 1e-3  # float32 softmax over four classes is off by 1e-7; more is another output


class ModelRefused(Exception):  # noqa: N818  (it is an answer, with its reason)
    """A bundle that must not be used here; the text is one sentence with the reason."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model ready to answer: its graph, the weights in use (global or personal), version, features."""

    graph: Graph
    weights: NDArray[np.float32]
    version: int
    spec: features.FeatureSpec
    personal: bool = False
    task: str = SEVERITY


def refusal(manifest: Manifest, *, allow_untrained: bool = False) -> str | None:
    """Why a bundle cannot be asked on this device, or None when it can."""
    if manifest.task not in TASKS:
        return f"its task is {manifest.task!r}; this client knows {' and '.join(TASKS)}"
    classes = TASKS[manifest.task].classes
    if manifest.classes != list(classes):
        return f"its classes are {', '.join(manifest.classes)}, not {', '.join(classes)}"
    try:
        spec = spec_of(manifest)
    except ModelRefused as error:
        return str(error)
    if manifest.features.size != spec.size:
        return f"its features {spec.name!r} have {manifest.features.size} numbers; here they have {spec.size}"
    if manifest.task == SEVERITY and spec.row_size != len(COLUMNS):
        return f"its features {spec.name!r} are of several hours; severity is asked of the values now"
    if not manifest.trained and not allow_untrained:
        return "it was never trained, its answers are noise; wait for a trained one, or allow it on purpose"
    return None


def spec_of(manifest: Manifest) -> features.FeatureSpec:
    """The features that a bundle asks for; raises ModelRefused for a specification unknown here."""
    try:
        return features.FeatureSpec(name=manifest.features.name, labels=manifest.features.labels)
    except ValueError as error:
        raise ModelRefused(f"{error}; update the client") from error


def load_model(
    bundle: Bundle,
    *,
    weights: NDArray[np.float32] | None = None,
    allow_untrained: bool = False,
    task: str = SEVERITY,
) -> Model:
    """The model of a verified bundle, tried once on an empty row.

    ``weights`` (``float32[P]``) are used in place of the bundle's own, as personal ones are; ``task`` is what
    it will be asked. Raises ModelRefused with the reason, RuntimeUnavailable without an interpreter.
    """
    reason = refusal(bundle.manifest, allow_untrained=allow_untrained)
    if reason is None and bundle.manifest.task != task:
        reason = f"its task is {bundle.manifest.task!r}, not {task!r}"
    if reason is not None:
        raise ModelRefused(f"model {bundle.manifest.name} version {bundle.manifest.version}: {reason}")
    chosen = bundle.weights if weights is None else np.asarray(weights, dtype=np.float32)
    spec = spec_of(bundle.manifest)
    try:
        model = Model(Graph(bundle.graph), chosen, bundle.manifest.version, spec, task=task)
        infer_rows(model, np.full((1, spec.row_size), np.nan))
    except (GraphError, BadOutput) as error:
        raise ModelRefused(
            f"model {bundle.manifest.name} version {bundle.manifest.version}: {error}; fetch it again"
        ) from error
    return model


class BadOutput(Exception):  # noqa: N818
    """The graph answered with something that is no set of probabilities, one per class."""


def infer(model: Model, snapshot: Reading) -> NDArray[np.float64]:
    """Probabilities ``float64[4]`` for one reading; what is missing is masked.

    Raises GraphError or BadOutput when they cannot be had.
    """
    probabilities: NDArray[np.float64] = infer_rows(model, to_row(snapshot)[np.newaxis])[0]
    return probabilities


def infer_rows(model: Model, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities ``float64[N, C]`` of rows ``float64[N, model.spec.row_size]``, NaN = missing.

    Raises GraphError or BadOutput when they cannot be had.
    """
    out = model.graph.infer(features.encode(rows, model.spec), model.weights).astype(np.float64)
    if out.shape != (len(rows), len(TASKS[model.task].classes)):
        raise BadOutput(f"the graph answered with the shape {out.shape}")
    if not np.isfinite(out).all():
        raise BadOutput("the graph answered with values that are not numbers")
    if out.min() < 0 or (np.abs(out.sum(axis=1) - 1) > _SUM_TOLERANCE).any():
        raise BadOutput("the graph answered with values that are no probabilities")
    return out


@dataclass(frozen=True, slots=True)
class ModelJudgement:
    """The model's class, the probability of each of the four, and the version that said so; ``personal``
    when by weights of this patient's own."""

    severity: int
    probabilities: tuple[float, ...]
    version: int
    personal: bool = False


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is known of the patient at one time; all times are patient time.

    ``at``: the time asked for. ``observed_at``: when the newest value was measured (``at`` when there is
    none). ``snapshot``: the values still valid, each with its age in seconds. ``news2``: the rule's score or
    range. ``rule_severity`` is the class of its low end, which is certain, ``rule_severity_possible`` that of
    its high end. ``severity``: the worse of the certain class and the model's. ``missing``: inputs never
    seen; ``stale``: inputs seen, but too long ago. Both are without a value. ``model_error``: why there is no
    model's view although a model is in use. ``artefacts``: fields whose newest value is not scored, with the
    kind; an older value may still be valid. ``due``: inputs that the chart asks for anew, oldest or missing;
    ``next_due_at``: when the next full set is due, None for continuous monitoring.
    """

    at: datetime
    observed_at: datetime
    snapshot: Reading
    news2: news2.Score
    rule_severity: int
    rule_severity_possible: int
    model: ModelJudgement | None
    model_error: str | None
    severity: int
    disagreement: bool
    missing: tuple[str, ...]
    stale: tuple[str, ...]
    artefacts: Mapping[str, Kind]
    due: tuple[str, ...]
    next_due_at: datetime | None

    @property
    def ages(self) -> dict[str, float]:
        """Seconds since each value still valid was measured."""
        return self.snapshot.ages


class Assessor:
    """Holds what is valid of one admission and judges it; one instance per admission.

    ``spo2_scale``, ``model`` and ``monitoring_interval_s`` may be exchanged at any time; the last one is how
    often a full set of observations is due at the least (None: as the chart asks). Raises ``ValueError`` for
    another scale.
    """

    def __init__(
        self,
        *,
        spo2_scale: Literal[1, 2] = 1,
        model: Model | None = None,
        monitoring_interval_s: float | None = None,
        artefacts: ArtefactPolicy | None = None,
    ) -> None:
        if spo2_scale not in (1, 2):
            raise ValueError(f"spo2_scale is {spo2_scale!r}; it is 1 or 2")
        self.spo2_scale = spo2_scale
        self.model = model
        self.monitoring_interval_s = monitoring_interval_s
        self.model_failures = 0
        self._artefacts = ArtefactPolicy() if artefacts is None else artefacts
        self._last_error: str | None = None
        self.forget()

    def forget(self) -> None:
        """Begin anew, as if nothing had been measured: before the readings are taken over again."""
        self._carrier = Carrier()
        self._screen = Screen(self._artefacts)
        self._flags: dict[str, Flag] = {}
        self._newest: datetime | None = None

    def forget_fields(self, fields: Collection[str]) -> None:
        """Begin anew with some fields: what was known of them was wrong, or is taken over again."""
        for field in fields:
            self._carrier.withdraw(field, datetime.min.replace(tzinfo=UTC))
            self._screen.forget(field)
            self._flags.pop(field, None)
        held = [found[0] for field in FIELDS if (found := self._carrier.latest(field)) is not None]
        self._newest = max(held, default=None)

    @property
    def flags(self) -> Mapping[str, Flag]:
        """Per field, why its newest value is not scored."""
        return self._flags

    def latest(self, field: str) -> tuple[datetime, object] | None:
        """When the newest accepted value of a field was measured, and that value, however old."""
        return self._carrier.latest(field)

    @property
    def newest(self) -> datetime | None:
        """When the newest value was measured, scored or not; None before the first."""
        return self._newest

    def take(self, reading: Reading, *, observed: bool = False) -> dict[str, Flag]:
        """Take over the values of a reading without a judgement, and say which of them are not scored.

        ``observed``: a person entered it, so it is not screened.
        """
        flags = {} if observed else self._screen.flags(reading)
        for field, flag in flags.items():
            self._flags[field] = flag
            if flag.since is not None:
                self._carrier.withdraw(field, flag.since)
        if flags:
            reading = without(reading, flags)
        self._carrier.update(reading)
        newest: datetime | None = None
        for field in reading.present():
            measured_at = reading.observed_at - timedelta(seconds=reading.ages.get(field, 0.0))
            newest = measured_at if newest is None else max(newest, measured_at)
            if field in self._flags and measured_at >= self._flags[field].at:
                del self._flags[field]
        if newest is not None:
            self._newest = newest if self._newest is None else max(newest, self._newest)
        return flags

    def flag(self, field: str, kind: Kind, reason: str, at: datetime) -> bool:
        """A value could not be used at all, or its sensor says that there is none; whether that is news."""
        if field not in FIELDS:
            return False
        known = self._flags.get(field)
        self._flags[field] = Flag(kind, reason, at)
        return known is None or known.kind != kind

    def update(self, reading: Reading, at: datetime) -> Judgement:
        """Take over a reading and judge what is valid at ``at`` (aware, patient time)."""
        self.take(reading)
        return self.assess(at)

    def assess(self, at: datetime) -> Judgement:
        """Judge what is valid at ``at`` without a new reading: values age, and become stale."""
        snapshot = self._carrier.snapshot(at)
        score = news2.score(snapshot, spo2_scale=self.spo2_scale)
        due, next_due_at = self._due(score, at)
        for field in [field for field, flag in self._flags.items() if _over(field, flag, at)]:
            del self._flags[field]
        certain = severity.severity_of(score.low)
        model, model_error = self._ask_model(snapshot)
        return Judgement(
            at=at,
            observed_at=at if self._newest is None else self._newest,
            snapshot=snapshot,
            news2=score,
            rule_severity=certain,
            rule_severity_possible=severity.severity_of(score.high),
            model=model,
            model_error=model_error,
            severity=certain if model is None else max(certain, model.severity),
            disagreement=model is not None and abs(model.severity - certain) >= DISAGREEMENT,
            missing=self._carrier.missing(at),
            stale=self._carrier.stale(at),
            artefacts={field: flag.kind for field, flag in self._flags.items()},
            due=due,
            next_due_at=next_due_at,
        )

    def _due(self, score: news2.Score, at: datetime) -> tuple[tuple[str, ...], datetime | None]:
        """The inputs that are due, and when the next full set is: an interval after its oldest input."""
        every = interval_s(score.low, score.band)
        if self.monitoring_interval_s is not None and every is not None:
            every = min(every, self.monitoring_interval_s)
        due: list[str] = []
        first: datetime | None = None
        for field in COLUMNS:
            held = self._carrier.latest(field)
            valid_s = CARRY_SECONDS[field] if every is None else min(every, CARRY_SECONDS[field])
            moment = at if held is None else held[0] + timedelta(seconds=valid_s)
            if held is None or moment <= at:
                due.append(field)
            first = moment if first is None else min(first, moment)
        return tuple(due), None if every is None else first

    def _ask_model(self, snapshot: Reading) -> tuple[ModelJudgement | None, str | None]:
        model = self.model
        if model is None:
            return None, None
        if all(getattr(snapshot, field) is None for field in model.spec.inputs):
            return None, "nothing that the model reads is known"
        if self.spo2_scale != TRAINED_SCALE:
            # It would call the saturation that is right for this patient a severe one.
            return None, f"the model learned SpO2 scale {TRAINED_SCALE}, this patient is on {self.spo2_scale}"
        try:
            probabilities = infer(model, snapshot)
        except (GraphError, BadOutput, RuntimeUnavailable, ValueError) as error:
            self.model_failures += 1
            reason = str(error)
            if reason != self._last_error:  # once, not per reading: it would fill the card
                _log.error("model version %d gives no answer: %s; the rule goes on", model.version, reason)
            self._last_error = reason
            return None, reason
        self._last_error = None
        view = ModelJudgement(
            int(probabilities.argmax()), tuple(probabilities.tolist()), model.version, model.personal
        )
        return view, None


def to_message(judgement: Judgement, clock: Clock, share_signs: bool) -> messages.Assessment:
    """The judgement as it crosses the wire: times and ages by the wall, signs only with ``share_signs``."""
    score = judgement.news2
    observed_at = clock.to_wall(judgement.observed_at)
    age = (clock.to_wall(judgement.at) - observed_at).total_seconds()
    return messages.Assessment(
        observed_at=observed_at,
        news2=news2_of(score),
        rule_severity=_class(judgement.rule_severity),
        rule_severity_possible=_class(judgement.rule_severity_possible),
        severity=_class(judgement.severity),
        disagreement=judgement.disagreement,
        model=view_of_model(judgement.model),
        missing=list(judgement.missing),
        stale=list(judgement.stale),
        reading_age_s=max(age, 0.0),
        signs=signs_of(judgement.snapshot) if share_signs else None,
        artefacts=dict(judgement.artefacts),
        due=list(judgement.due),
        next_due_at=None if judgement.next_due_at is None else clock.to_wall(judgement.next_due_at),
    )


def _over(field: str, flag: Flag, at: datetime) -> bool:
    """Whether a flag is so old that a value of its time would be stale anyway."""
    return (at - flag.at).total_seconds() > CARRY_SECONDS[field]


def news2_of(score: news2.Score) -> messages.News2:
    """The score as it crosses the wire."""
    return messages.News2(
        total=score.total,
        low=score.low,
        high=score.high,
        band=score.band,
        points=dict(score.points),
        missing=list(score.missing),
    )


def view_of_model(view: ModelJudgement | None) -> messages.ModelView | None:
    """The model's view as it crosses the wire."""
    if view is None:
        return None
    return messages.ModelView(
        severity=_class(view.severity),
        probabilities=list(view.probabilities),
        version=view.version,
        personal=view.personal,
    )


def signs_of(snapshot: Reading) -> dict[str, float | bool | str]:
    """The values that are there, by field."""
    return {field: getattr(snapshot, field) for field in FIELDS if getattr(snapshot, field) is not None}


def _class(value: int) -> messages.Severity:
    return cast("messages.Severity", value)
