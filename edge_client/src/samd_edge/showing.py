"""Draws the view of a running agent: what `samd-edge top` asks for."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from samd_data.plausibility import RANGES
from samd_data.reading import COLUMNS, FIELDS
from samd_data.response import advice
from samd_edge import forecast
from samd_edge.admission import Admission
from samd_edge.assessment import Judgement, news2_of, view_of_model
from samd_edge.clock import clock_synced
from samd_edge.update.running import running_version
from samd_edge.view import AlertView, SignView, SourceView, View

if TYPE_CHECKING:
    from samd_edge.agent import Agent

_UNITS: Final = {field: limits.unit for field, limits in RANGES.items()}


def view_of(agent: "Agent", hours: float) -> View:
    """The view now, with trends of so many hours."""
    admission = agent.admission
    device = View(
        at=agent.wall(),
        device=agent.device,
        client_version=running_version(),
        admission=None,
        speed=agent.source.clock.speed,
        clock=clock_synced(),
        alert=AlertView(active=False, severity=0),
        link_up=agent.link.up,
        link=agent.link.told(),
        outbox_depth=agent.outbox.depth,
        dead_letters=agent.outbox.dead_letters,
        model_version=None if agent.model is None else agent.model.version,
        sources=_sources(agent),
    )
    if admission is None:
        return device
    now = admission.now()
    judgement = admission.assessor.assess(now)
    score = judgement.news2
    known = bool(judgement.snapshot.present() or judgement.stale)
    since = now - timedelta(hours=hours)
    due = judgement.next_due_at
    return msgspec.structs.replace(
        device,
        admission=admission.record.id,
        spo2_scale=admission.record.spo2_scale,
        news2=news2_of(score) if known else None,
        band_high=score.band_high if known else None,
        rule_severity=judgement.rule_severity,
        rule_severity_possible=judgement.rule_severity_possible,
        severity=judgement.severity,
        model=view_of_model(judgement.model),
        model_error=judgement.model_error,
        deterioration=forecast.to_message(admission.forecaster.latest, agent.source.clock),
        disagreement=judgement.disagreement,
        disagreements=admission.disagreements,
        signs=[_sign(admission, judgement, field, now, since) for field in FIELDS],
        score_trend=admission.trends.scores(now, since),
        advice=advice(score.low, score.band) if known else "",
        next_due_s=None if due is None else (due - now).total_seconds(),
        alert=_alert(admission, now),
    )


def _sign(admission: Admission, judgement: Judgement, field: str, now: datetime, since: datetime) -> SignView:
    held = admission.assessor.latest(field)
    flag = admission.assessor.flags.get(field)
    valid = getattr(judgement.snapshot, field) is not None
    value = None if held is None else held[1]
    if not (value is None or isinstance(value, (bool, float, str))):
        raise TypeError(f"{field} holds {type(value).__name__}")
    return SignView(
        field=field,
        unit=_UNITS.get(field, ""),
        value=value,
        age_s=None if held is None else max(0.0, (now - held[0]).total_seconds()),
        points=judgement.news2.points.get(field),
        state="valid" if valid else "missing" if held is None else "stale",
        due=field in judgement.due,
        flag=None if flag is None else flag.reason,
        trend=admission.trends.sign(field, now, since) if field not in COLUMNS[5:] else [],
    )


def _alert(admission: Admission, now: datetime) -> AlertView:
    alert = admission.alert
    return AlertView(
        active=alert.active,
        severity=alert.severity,
        since_s=None if alert.since is None else max(0.0, (now - alert.since).total_seconds()),
        waiting=admission.waiting(),
    )


def _sources(agent: "Agent") -> list[SourceView]:
    wall = agent.wall()
    return [
        SourceView(
            name=status.name,
            readings=status.readings,
            rejected=status.rejected,
            last_s=None if status.last_at is None else max(0.0, (wall - status.last_at).total_seconds()),
            ended=status.ended,
            error=status.error,
        )
        for status in agent.source.status
    ]
