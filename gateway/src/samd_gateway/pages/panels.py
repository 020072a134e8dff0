"""The panels of the patient's page as HTML, made of texts and escaped values. Pure.

Times are left to the browser, which knows its zone: `<time data-time="SECONDS">`.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from samd_gateway.alerts.answers import AlertRow
from samd_gateway.pages.advice import advice
from samd_gateway.pages.chart import CLASSES
from samd_gateway.pages.shell import escaped
from samd_gateway.pages.texts import Texts
from samd_gateway.ward.answers import Because, Timeline, TimelinePoint, WardCard

ROWS = 200


def moment(at: datetime | None) -> str:
    """A time, in UTC until the browser has put it into its zone."""
    if at is None:
        return ""
    return (
        f'<time datetime="{at.isoformat()}" data-time="{at.timestamp():.0f}">{at:%Y-%m-%d %H:%M} UTC</time>'
    )


def span(seconds: float, t: Texts) -> str:
    """A length of time in words."""
    s = int(seconds)
    if s < 60:
        return t("shell.age.s", n=s)
    if s < 3600:
        return t("shell.age.min", n=s // 60)
    if s < 86_400:
        return t("shell.age.h", h=s // 3600, min=s % 3600 // 60)
    return t("shell.age.d", d=s // 86_400, h=s % 86_400 // 3600)


def advised(card: WardCard | None, t: Texts) -> str:
    """What the chart asks for now."""
    certain, possible = (None, None) if card is None else advice(card)
    if certain is None:
        return f"<p>{escaped(t('patient.advice.none'))}</p>"
    parts = [f'<p class="patient-advice">{escaped(t(f"patient.advice.{certain}"))}</p>']
    if possible is not None:
        worst = t("patient.advice.possible", advice=t(f"patient.advice.{possible}"))
        parts.append(f"<p>{escaped(worst)}</p>")
    parts.append(f'<p class="samd-note">{escaped(t("patient.advice.source"))}</p>')
    return "".join(parts)


def why(card: WardCard | None, t: Texts) -> str:
    """Rule beside model, and the reasons where they differ."""
    if card is None or card.model is None or card.rule_severity is None:
        return f"<p>{escaped(t('patient.why.no_model'))}</p>"
    bars = "".join(
        f'<tr><th scope="row">{escaped(name)}</th>'
        f'<td class="bar"><span style="inline-size: {100 * share:.0f}%"></span></td>'
        f"<td>{100 * share:.0f} %</td><td>{escaped(_rule_mark(card, number, t))}</td></tr>"
        for number, (name, share) in enumerate(zip(CLASSES, card.model.probabilities, strict=False))
    )
    heads = "".join(
        f'<th scope="col">{escaped(t(f"patient.why.{name}"))}</th>' for name in ("class", "share")
    )
    table = (
        f'<table class="samd-table patient-classes"><thead><tr>{heads}<th></th>'
        f'<th scope="col">{escaped(t("patient.why.rule"))}</th></tr></thead><tbody>{bars}</tbody></table>'
    )
    if not card.why_differ:
        return f"<p>{escaped(t('patient.why.agree'))}</p>{table}"
    reasons = "".join(f"<li>{escaped(because(each, t))}</li>" for each in card.why_differ)
    return f"<ul>{reasons}</ul>{table}"


def _rule_mark(card: WardCard, number: int, t: Texts) -> str:
    if number == card.rule_severity:
        return t("patient.why.certain")
    low, high = card.rule_severity or 0, card.rule_severity_possible or 0
    return t("patient.why.possible") if low < number <= high else ""


def because(reason: Because, t: Texts) -> str:
    """A reason in the reader's language; in English where its text is not known."""
    if not t.has(reason.key) or (not reason.arguments and "{" in t(reason.key)):
        return reason.text
    values: dict[str, Any] = dict(reason.arguments)
    for name in ("severity", "possible"):
        if isinstance(values.get(name), int) and 0 <= values[name] < len(CLASSES):
            values[name] = CLASSES[values[name]]
    if isinstance(values.get("points"), dict):
        scored = [f"{_sign(name, t)} {points}" for name, points in values["points"].items()]
        values["points"] = ", ".join(scored) or t("ward.why.no_points")
    if isinstance(values.get("signs"), list):
        values["signs"] = ", ".join(_sign(name, t) for name in values["signs"])
    if isinstance(values.get("probability"), float):
        values["probability"] = f"{100 * values['probability']:.0f} %"
    if isinstance(values.get("probabilities"), list):
        shares = zip(CLASSES, values["probabilities"], strict=False)
        values["probabilities"] = ", ".join(f"{name}: {100 * share:.0f} %" for name, share in shares)
    try:
        return t(reason.key, **values)
    except (KeyError, IndexError, ValueError):
        return reason.text


def _sign(name: str, t: Texts) -> str:
    return t(f"ward.signs.{name}") if t.has(f"ward.signs.{name}") else name


def note(past: Timeline, t: Texts) -> str:
    """What a point stands for, and who was admitted."""
    lines = []
    if not past.points:
        lines.append(t("patient.chart.nothing"))
    if past.span_s is not None:
        lines.append(t("patient.chart.worst", span=span(past.span_s, t)))
    text = "".join(f"<p>{escaped(line)}</p>" for line in lines)
    for stay in past.admissions[-3:]:
        who = escaped(
            t("patient.admitted", pseudonym=stay.id, user=stay.admitted_by, bed=stay.bed, ward=stay.ward)
        )
        text += f"<p>{moment(stay.admitted_at)} {who}</p>"
    return text


def described(past: Timeline, t: Texts) -> str:
    """The plot in one sentence, for those who do not see it; the table below has its figures."""
    if not past.points:
        return t("patient.chart.nothing")
    return t(
        "patient.chart.described",
        n=len(past.points),
        low=min(point.low for point in past.points),
        high=max(point.high for point in past.points),
        alerts=len(past.alerts),
        gaps=len(past.gaps),
    )


def alerts(past: Timeline, t: Texts) -> str:
    """The alerts of this time, the latest first."""
    if not past.alerts:
        return f"<p>{escaped(t('patient.alerts.none'))}</p>"
    heads = [t(f"patient.alerts.{name}") for name in ("raised", "what", "cleared", "noticed")]
    latest = sorted(past.alerts, key=lambda alert: alert.raised_at, reverse=True)[:ROWS]
    rows = [
        (
            moment(alert.raised_at),
            escaped(_alert(alert, t)),
            moment(alert.cleared_at) or escaped(t("patient.alerts.active")),
            _noticed(alert, t),
        )
        for alert in latest
    ]
    return table_of(heads, rows, label=t("patient.alerts.title"))


def _alert(alert: AlertRow, t: Texts) -> str:
    kind = t(f"patient.chart.alert.{alert.kind}", severity=CLASSES[alert.peak])
    return kind if not alert.reason else f"{kind}: {alert.reason}"


def _noticed(alert: AlertRow, t: Texts) -> str:
    parts = []
    if alert.acknowledged:
        said = t("ward.alert.acknowledged", user=alert.acknowledged_by or "")
        parts.append(f"{escaped(said)} {moment(alert.acknowledged_at)}")
    if alert.note:
        parts.append(f"“{escaped(alert.note)}”")
    if alert.pause_reason:
        said = t("patient.alerts.paused", user=alert.paused_by or "", reason=alert.pause_reason)
        parts.append(f"{escaped(said)} {moment(alert.paused_until)}")
    if alert.step:
        parts.append(escaped(t("ward.alert.step", step=alert.step)))
    return "<br>".join(parts) or escaped(t("ward.alert.waiting") if alert.state == "active" else "–")


def summary(past: Timeline, t: Texts) -> str:
    """What is above the table."""
    return escaped(t("patient.table.title", n=min(len(past.points), ROWS)))


def table(past: Timeline, t: Texts) -> str:
    """The plot as a table, the latest first."""
    names = ("time", "score", "rule", "model", "probability", "version")
    rows = [_row(point) for point in reversed(past.points[-ROWS:])]
    shown = table_of([t(f"patient.table.{name}") for name in names], rows, label=t("patient.table.label"))
    lasting = escaped(t("patient.table.lasting"))
    gaps = "".join(f"<li>{moment(gap.since)} – {moment(gap.until) or lasting}</li>" for gap in past.gaps)
    listed = f"<h3>{escaped(t('patient.table.gaps'))}</h3><ul>{gaps}</ul>" if gaps else ""
    return shown + listed


def table_of(heads: Sequence[str], rows: Iterable[Sequence[str]], *, label: str) -> str:
    """A table that scrolls within its frame. The heads are texts; the cells are HTML, escaped already."""
    head = "".join(f'<th scope="col">{escaped(name)}</th>' for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<div class="samd-scroll" tabindex="0" role="region" aria-label="{escaped(label)}">'
        f'<table class="samd-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _row(point: TimelinePoint) -> tuple[str, ...]:
    return (
        moment(point.at),
        str(point.low) if point.low == point.high else f"{point.low}–{point.high}",
        _class(point.rule_severity),
        _class(point.model_severity),
        "" if point.probability is None else f"{100 * point.probability:.0f} %",
        "" if point.model_version is None else f"v{point.model_version}",
    )


def _class(number: int | None) -> str:
    return "" if number is None else escaped(CLASSES[number])
