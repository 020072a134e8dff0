"""The page around the picture: numbers and tables as text, put into the template with every name escaped."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Any, Final

from samd_data.plausibility import RANGES
from samd_data.severity import CLASSES
from samd_edge.report.gaps import CONTINUOUS_S, USUAL_TIMES, Gap, class_times, gaps, held
from samd_edge.report.record import History, moment
from samd_edge.top.words import LEVELS, NAMES, beside_severity, clean, number, span
from samd_protocol.messages import Alert

MARK: Final = '<meta name="generator" content="samd-edge report">'
"""Stands in every page that this command wrote: only such a file is overwritten without being asked."""

MOST_ROWS: Final = 40
"""Rows of a table; of more the newest are shown, and how many were left out."""

_KINDS: Final = {
    "jump": "a jump that no body makes",
    "flat": "a line that stood still",
    "no_signal": "no signal",
    "implausible": "unusable value",
}
_STATES: Final = {
    "raised": "▲ raised",
    "escalated": "▲ escalated",
    "deescalated": "▽ de-escalated",
    "cleared": "▽ cleared",
}


@dataclass(frozen=True, slots=True)
class Table:
    """The newest rows, and how many older ones are not shown."""

    rows: Sequence[Any]
    left_out: int


def render(
    history: History, svg: str, *, asked_since: datetime, generated_at: datetime, version: str, zone: tzinfo
) -> str:
    """The page as HTML. Raises ImportError without Jinja2."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("samd_edge.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = _Text(zone)
    missing = gaps(history)
    return environment.get_template("page.html.j2").render(
        mark=Markup(MARK),  # noqa: S704  (our own, as is the picture)
        picture=Markup(svg),  # noqa: S704
        running=Markup(  # noqa: S704  (nothing but escapes is left of it)
            _css_string(
                f"{clean(history.device)}, admission {clean(history.admission)}, "
                f"{text.full(history.since)} to {text.full(history.until)}; "
                "research software, no certified medical device"
            )
        ),
        title=f"{clean(history.device)}, {clean(history.admission)}",
        device=clean(history.device),
        admission=clean(history.admission),
        sealed=history.sealed,
        spo2_scale=history.spo2_scale,
        monitoring=None if history.monitoring_interval_s is None else span(history.monitoring_interval_s),
        since=text.full(history.since),
        until=text.full(history.until),
        asked_since=None
        if moment(history.since) - asked_since < timedelta(minutes=1)
        else asked_since.astimezone(zone).strftime("%d %b %Y %H:%M"),
        zone=generated_at.astimezone(zone).strftime("UTC%z").replace("UTC+0000", "UTC"),
        generated_at=generated_at.astimezone(zone).strftime("%d %b %Y %H:%M:%S"),
        version=version,
        empty=history.counts["readings"] == 0,
        unjudged=history.counts["assessments"] == 0 and history.counts["readings"] > 0,
        last=_last(history, text),
        highest=_highest(history, text),
        silent=_silent(history, missing, text),
        open_alert=_open_alert(history, text),
        classes=_classes(history),
        signs=_signs(history, text),
        counts=_counts(history),
        models=[
            (version_, count, text.short(first), text.short(last))
            for version_, (count, first, last) in sorted(history.models.items())
        ],
        alerts=_newest(
            [
                {
                    "at": text.short(row.at),
                    "state": _STATES[row.alert.state],
                    "level": _level(row.alert),
                    "score": _range(row.alert.news2_low, row.alert.news2_high),
                }
                for row in history.alerts
                if row.at >= history.since
            ]
        ),
        gaps=_newest(
            [
                {
                    "start": "before anything was read" if gap.start is None else text.short(gap.start),
                    "end": text.short(gap.end) + (", the end" if gap.end == history.until else ""),
                    "long": "" if gap.start is None else span(gap.end - gap.start),
                    "allowed": span(gap.allowed_s),
                }
                for gap in missing
            ]
        ),
        continuous=span(CONTINUOUS_S),
        usual=None if history.usual_s is None else span(history.usual_s),
        usual_times=f"{USUAL_TIMES:g}",
        observations=_newest(
            [
                {
                    "at": text.short(row.at),
                    "what": row.what,
                    "by": row.by,
                    "entered_at": text.short(row.entered_at),
                    "struck": row.struck,
                    "corrects": row.corrects,
                }
                for row in history.observations
            ]
        ),
        corrections=_newest(
            [
                {
                    "at": text.short(row.at),
                    "name": row.name,
                    "value": row.value,
                    "instead": row.instead,
                    "by": row.by,
                    "reason": row.reason or "no reason was kept",
                    "corrected_at": text.short(row.corrected_at),
                }
                for row in history.corrections
            ]
        ),
        artefacts=[
            {
                "name": NAMES.get(row.field, clean(row.field)),
                "kind": _KINDS.get(row.kind, clean(row.kind)),
                "count": row.count,
                "first": text.short(row.first),
                "last": text.short(row.last),
                "reason": clean(row.reason),
            }
            for row in history.artefacts
        ],
    )


class _Text:
    """Times as text, in one zone."""

    def __init__(self, zone: tzinfo) -> None:
        self._zone = zone

    def full(self, at: float) -> str:
        return moment(at).astimezone(self._zone).strftime("%d %b %Y %H:%M")

    def short(self, at: float) -> str:
        return moment(at).astimezone(self._zone).strftime("%d %b %H:%M:%S")


def _css_string(text: str) -> str:
    """Text as a string of CSS, which has other rules than HTML: every character is escaped by its number."""
    return '"' + "".join(f"\\{ord(sign):06x}" for sign in text) + '"'


def _newest(rows: list[dict[str, Any]]) -> Table:
    return Table(rows[-MOST_ROWS:], max(0, len(rows) - MOST_ROWS))


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"


def _level(alert: Alert) -> str:
    """The level of an open alert; a cleared one has none, it carries the class of the patient."""
    if alert.state == "cleared":
        return f"none; severity {CLASSES[alert.severity]}"
    return f"{alert.severity} {LEVELS.get(alert.severity, '')}".strip()


def _last(history: History, text: _Text) -> dict[str, Any] | None:
    """The judgement that stands at the end; None when none does."""
    stands = held(history)
    if not stands or stands[-1].end < history.until:
        return None
    run = stands[-1].run
    possible = max(run.severity, run.possible)
    unknown = run.severity == 0 < possible
    return {
        "score": _range(run.low, run.high),
        "ranged": run.high > run.low,
        "band": run.band,
        "severity": "?" if unknown else CLASSES[run.severity],
        "said": beside_severity(run.severity, possible, run.rule, None if run.model < 0 else run.model),
        "style": "open" if unknown else str(run.severity),
        "at": text.short(run.last),
    }


def _silent(history: History, missing: Sequence[Gap], text: _Text) -> str | None:
    """That nothing is read any more, when the period ends in a gap."""
    if not missing or missing[-1].end < history.until:
        return None
    last = missing[-1]
    if last.start is None:
        return "no reading at all"
    return f"no reading since {text.short(last.start)}: {span(last.end - last.start)} until the end"


def _highest(history: History, text: _Text) -> dict[str, str] | None:
    stands = held(history)
    if not stands:
        return None
    top = max(stands, key=lambda each: (each.run.low, each.run.high))
    return {"score": _range(top.run.low, top.run.high), "at": text.short(top.start)}


def _open_alert(history: History, text: _Text) -> dict[str, Any] | None:
    if not history.alerts or history.alerts[-1].alert.state == "cleared":
        return None
    last = history.alerts[-1]
    return {
        "level": last.alert.severity,
        "word": LEVELS.get(last.alert.severity, ""),
        "at": text.short(last.at),
    }


def _classes(history: History) -> list[tuple[str, str, str]]:
    """(style, class, how long) of every class that stood at all."""
    names = {
        **{str(number): name for number, name in enumerate(CLASSES)},
        "open": "none or worse, too little was known",
        "unjudged": "no judgement stood",
    }
    return [
        (style, names[style], span(seconds))
        for style, seconds in class_times(history).items()
        if seconds >= 1
    ]


def _signs(history: History, text: _Text) -> list[dict[str, Any]]:
    rows = []
    for name in NAMES:
        if name not in history.values:
            continue
        series = history.values[name]
        row: dict[str, Any] = {
            "name": NAMES[name],
            "unit": RANGES[name].unit,
            "count": len(series),
            "flagged": len(history.flagged[name]),
            "struck": len(history.struck[name]),
            "lowest": "--",
            "highest": "--",
            "last": "--",
            "last_at": "--",
        }
        if len(series):
            row |= {
                "lowest": number(name, min(series.values)),
                "highest": number(name, max(series.values)),
                "last": number(name, series.values[-1]),
                "last_at": text.short(series.times[-1]),
            }
        rows.append(row)
    return rows


def _counts(history: History) -> list[tuple[str, int, str]]:
    """(what, how many, a word of explanation); those of damage only where there is any."""
    counts = history.counts
    live, past = history.origins["live"], history.origins["history"]
    rows = [
        ("readings", counts["readings"], f"{live} live, {past} of a recording's past"),
        ("observations by people", history.origins["observation"], ""),
        ("judgements", counts["assessments"], ""),
        ("values flagged as artefacts", counts["artefacts"], "kept, not scored"),
        ("times that a value was rejected", counts["rejected"], "repeats in a row are counted once"),
        ("corrections", counts["corrections"], f"{counts['struck readings']} whole readings"),
        ("disagreements", counts["disagreements"], "rule and model two classes or more apart"),
    ]
    odd = {
        "clock set back": ("times that the clock was set back", "judgements overlap there"),
        "unsynced": ("judgements with an unsynced clock", "their times may be wrong"),
        "unreadable readings": ("readings that cannot be read", "damaged"),
        "unreadable assessments": ("judgements that cannot be read", "damaged, or of another version"),
        "unreadable alerts": ("alerts that cannot be read", "damaged, or of another version"),
    }
    rows += [(name, counts[key], why) for key, (name, why) in odd.items() if counts[key]]
    return rows
