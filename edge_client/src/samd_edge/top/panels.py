"""The parts of the picture: each a function from a View and a width to lines of styled text.

A style is a name: ``points-0`` to ``points-3``, ``severity-0`` to ``severity-3``, ``trend`` and ``trend-0``
to ``trend-3``, ``good``, ``warn``, ``bad``, ``unknown``, ``dim``, ``bold``, or "". What a style says by
colour also stands there as a word, a number or a symbol.
"""

import textwrap
from datetime import tzinfo
from typing import Final

from samd_data.severity import CLASSES
from samd_edge.top import words
from samd_edge.top.trends import Line, Span, score_rows, sign_rows
from samd_edge.view import SignView, SourceView, View

_CELLS: Final = (14, 17, 12, 6, 9)
_CELLS_NARROW: Final = (13, 14, 11, 6, 7)
_NARROW: Final = 76
"""Widths of the table's columns (sign, value, age, points, state), and of those on a screen narrower than
so many columns. The trend takes the rest."""

_ENTERED: Final = ("supplemental_oxygen", "consciousness")
_NARROW_BAR: Final = 4
_SHORT_NAME: Final = 16
_ONE_MEASUREMENT_S: Final = 60.0


def head(view: View, width: int, zone: tzinfo | None = None) -> list[Line]:
    """Who and when. Where there is no room, what is as it should be goes first, then the end of the
    admission's name: what warns stays."""
    at = view.at.astimezone(zone)
    admission = (
        "no patient admitted" if view.admission is None else f"admission {words.clean(view.admission)}"
    )
    parts: Line = [
        (words.clean(view.device), "bold"),
        (f"  {admission}", "" if view.admission is not None else "warn"),
        (f"  SpO2 scale {view.spo2_scale}", "warn" if view.spo2_scale == 2 else "dim"),
        (f"  {at:%d %b %H:%M:%S}", ""),
        (("  clock synced", "dim") if view.clock == "synced" else ("  clock NOT synced", "warn")),
    ]
    if view.speed != 1:
        parts.append((f"  replay ×{view.speed:g}", "warn"))
    for part in [part for part in reversed(parts) if part[1] == "dim"]:
        if _length(parts) > width:
            parts.remove(part)
    over = _length(parts) - width
    if over > 0:
        name, style = parts[1]
        parts[1:2] = cut([(name, style)], max(_SHORT_NAME, len(name) - over))
    return [cut(parts, width)]


def situation(view: View, width: int, most: int | None = None) -> list[Line]:
    """Band, when the next observations are due, and the alert, in at most ``most`` lines."""
    lines: list[Line] = []
    if view.news2 is None:
        lines.append([("band --", "unknown")])
    else:
        possible = "" if view.band_high in (None, view.news2.band) else f", possibly {view.band_high}"
        if len(f"band {view.news2.band}{possible}") > width:
            possible = f" to {view.band_high}"
        lines.append([(f"band {view.news2.band}", "bold"), (possible, "")])
    lines.append([_due(view, width)])
    alert = view.alert
    if alert.active:
        level = words.LEVELS.get(alert.severity, "")
        since = f" for {words.span(alert.since_s)}" if alert.since_s is not None else ""
        lines.append(
            [
                (f"▲ ALERT {alert.severity}", f"severity-{min(3, max(0, alert.severity))}"),
                (f" {level}", "bold"),
                (since, ""),
            ]
        )
    else:
        lines.append([("no alert", "dim" if view.admission is not None else "unknown")])
    if alert.waiting:
        lines += wrapped(words.clean(alert.waiting), width, "")
    if most is not None and len(lines) > most:
        text, style = lines[most - 1][-1]
        lines[most - 1 :] = [[(f"{text[: max(0, width - 2)]} …", style)]]
    return [cut(line, width) for line in lines]


def advice(view: View, width: int) -> list[Line]:
    """What the chart asks for."""
    if not view.advice:
        return []
    known = "" if view.news2 is None or view.news2.total is not None else "By what is known: "
    return wrapped(f"{known}{words.clean(view.advice)}", width, "bold")


def table(view: View, width: int, *, hours: float, height: int = 1, worst_first: bool = False) -> list[Line]:
    """A line per sign: value, age, points, state, trend; with a ``height`` of 2 or more the trend has so many
    rows, and its extremes stand below the value. Diastolic pressure stands beside the systolic one."""
    cells = _CELLS if width >= _NARROW else _CELLS_NARROW
    room = max(0, width - sum(cells) - len(cells))
    span = f"trend of {hours:g} h"
    lines: list[Line] = [[(_row(cells, "", "value", "age", "pts", ""), "dim"), *cut([(span, "dim")], room)]]
    signs = {sign.field: sign for sign in view.signs}
    fields = [field for field in words.NAMES if field != "diastolic_bp"]
    if worst_first:
        fields.sort(key=lambda field: _rank(signs.get(field)))
    for field in fields:
        sign = signs.get(field) or SignView(
            field=field, unit="", value=None, age_s=None, points=None, state="missing"
        )
        trend: list[Line] = [[]]
        if field not in _ENTERED:
            trend = sign_rows(
                field,
                sign.trend,
                seconds=hours * 3600,
                width=room,
                height=height,
                spo2_scale=view.spo2_scale,
            )
        beside = signs.get("diastolic_bp") if field == "systolic_bp" else None
        lines += _block(
            _sign(sign, beside, cells, admitted=view.admission is not None),
            trend,
            _row(cells, "", _extremes(sign), "", "", ""),
        )
    score: Line = [(_row(cells, "NEWS2", words.score(view), "", "", ""), "bold")]
    now = view.news2
    points = list(view.score_trend)
    if now is not None:
        points.append((0.0, now.low, now.high, view.severity))
    rows = score_rows(points, seconds=hours * 3600, width=room, height=height)
    lines += _block(score, rows, _row(cells, "", "", "", "", ""))
    return [cut(line, width) for line in lines]


def model(view: View, width: int, *, one_line: bool) -> list[Line]:
    """The model beside the rule; probabilities as bars."""
    if view.model is None:
        version = "" if view.model_version is None else f" version {view.model_version}"
        absent: Line = [(f"model{version} has no view", "unknown")]
        lines = [absent] if one_line or view.news2 is None else [_rule(view), absent]
        return [cut(line, width) for line in lines]
    said = view.model
    head: Line = [
        (f"model {said.version} says ", ""),
        (f" {CLASSES[said.severity]} ", f"severity-{said.severity}"),
    ]
    shares = list(zip(CLASSES, said.probabilities, strict=False))
    if one_line:
        for name, share in shares:
            head.append((f"  {name} {share:.0%} ", "bold" if name == CLASSES[said.severity] else ""))
            head.append((_bar(share, _NARROW_BAR), "trend"))
        return [cut(head, width)]
    lines = [_rule(view), head]
    room = max(4, width - 16)
    lines += [
        [
            (f"  {name:<7} {share:>4.0%} ", "bold" if name == CLASSES[said.severity] else ""),
            (_bar(share, room), "trend"),
        ]
        for name, share in shares
    ]
    return [cut(line, width) for line in lines]


def _rule(view: View) -> Line:
    certain, possible = view.rule_severity, view.rule_severity_possible
    if possible > certain == 0:
        return [("rule says ", ""), (f"? none to {CLASSES[possible]}", "bold")]
    more = f" possibly {CLASSES[possible]}" if possible > certain else ""
    return [("rule says ", ""), (f" {CLASSES[certain]} ", f"severity-{certain}"), (more, "")]


def notes(view: View, width: int, most: int | None = None) -> list[Line]:
    """What must be known beside the numbers, the weightiest first; at most ``most`` lines, then a count."""
    found: list[list[Line]] = []
    if view.disagreement and view.model is not None:
        found.append(
            wrapped(
                f"! rule and model disagree: the rule is certain of {CLASSES[view.rule_severity]}, the model "
                f"says {CLASSES[view.model.severity]} ({_times(view.disagreements)} so far)",
                width,
                "warn",
            )
        )
    if view.model_error is not None:
        found.append(wrapped(f"! the model has no view: {words.clean(view.model_error)}", width, "warn"))
    for sign in view.signs:
        reason = words.why(sign)
        if reason is not None:
            found.append(wrapped(f"! {reason}", width, "bad"))
    missing = [sign.field for sign in view.signs if sign.state == "missing" and sign.field != "diastolic_bp"]
    if missing and view.admission is not None:
        enter = " (press o to enter)" if any(field in _ENTERED for field in missing) else ""
        names = ", ".join(words.NAMES.get(field, field) for field in missing)
        found.append(wrapped(f"! never measured here: {names}{enter}", width, "bad"))
    due = [words.NAMES.get(sign.field, sign.field) for sign in view.signs if sign.due]
    if due:
        found.append(wrapped(f"due now: {', '.join(due)}", width, "warn"))
    if view.model is None and view.model_error is None and view.admission is not None:
        found.append(wrapped("no model in use: the rule alone judges", width, "dim"))
    lines = [line for block in found for line in block]
    if most is None or len(lines) <= most:
        return lines
    kept: list[Line] = lines[: max(0, most - 1)]
    return [*kept, cut([(f"… {len(lines) - len(kept)} more lines: enlarge the window", "bold")], width)]


def system(view: View, width: int, most: int | None = None) -> list[Line]:
    """Link, outbox, dead letters, model version, and each source with its last reading."""
    version = words.NOTHING if view.model_version is None else str(view.model_version)
    parts: Line = [
        ("link up", "good") if view.link_up else ("link DOWN", "bad"),
        (f"outbox {view.outbox_depth}", "" if view.outbox_depth == 0 else "warn"),
        (f"dead letters {view.dead_letters}", "" if view.dead_letters == 0 else "bad"),
        (f"model {version}", ""),
        (f"client {words.clean(view.client_version)}", "dim"),
    ]
    down = [] if view.link_up else [(words.clean(view.link), "bad")]
    if most is None:
        lines = _flow(parts, width)
        lines += [line for text, style in down for line in wrapped(f"  {text}", width, style)]
    else:
        lines = [cut(_spaced([*parts, *down]), width)]
    for source in view.sources:
        last = _last(source, view.speed)
        told: Line = [
            (words.clean(source.name), ""),
            (last, "" if source.last_s is not None else "warn"),
            (f"{source.readings} readings", "dim"),
            (f"{source.rejected} rejected", "dim" if source.rejected == 0 else "warn"),
        ]
        if source.error is not None:
            told.insert(1, (f"FAILED: {words.clean(source.error)}", "bad"))
        elif source.ended:
            told.insert(1, ("ENDED", "warn"))
        lines += _flow(told, width) if most is None else [cut(_spaced(told), width)]
    if not view.sources:
        lines.append([("no source", "warn")])
    if most is None or len(lines) <= most:
        return lines
    more = f"… {len(lines) - most + 1} more sources: enlarge the window"
    return [*lines[: most - 1], cut([(more, "warn")], width)]


def plain(lines: list[Line]) -> list[str]:
    """The text alone."""
    return ["".join(text for text, _ in line).rstrip() for line in lines]


def wrapped(text: str, width: int, style: str) -> list[Line]:
    """A sentence over as many lines as it needs, the following ones indented."""
    return [[(line, style)] for line in textwrap.wrap(text, max(20, width), subsequent_indent="  ")]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _length(line: Line) -> int:
    return sum(len(text) for text, _ in line)


def _last(source: SourceView, speed: float) -> str:
    """When a source read last: in the patient's time, as every other age, where that is not the wall's."""
    if source.last_s is None:
        return "no reading" if source.ended else "no reading yet"
    wall = words.span(source.last_s)
    if speed != 1:
        return f"last {words.span(source.last_s * speed)} ago, patient's time (wall: {wall})"
    return f"last {wall} ago (wall clock)" if source.ended else f"last {wall} ago"


def _due(view: View, width: int) -> Span:
    if view.news2 is None:
        return "next observations --", "unknown"
    if view.next_due_s is None:
        return "monitor without a break", "bold"
    if view.next_due_s < 0:
        late = f"OVERDUE by {words.span(-view.next_due_s)}"
        return (f"observations {late}" if len(late) + 13 <= width else late), "bad"
    early = f"observations in {words.span(view.next_due_s)}"
    return (f"next {early}" if len(early) + 5 <= width else early), ""


def _rank(sign: SignView | None) -> int:
    """Worst first: by points; what is not known stands before what is fine."""
    if sign is None or sign.points is None:
        return -1
    return -sign.points * 2


def _row(cells: tuple[int, ...], *texts: str) -> str:
    return "".join(f"{_cell(text, width)} " for text, width in zip(texts, cells, strict=True))


def _cell(text: str, width: int) -> str:
    return f"{text if len(text) <= width else f'{text[: width - 1]}…':<{width}}"


def _sign(sign: SignView, beside: SignView | None, cells: tuple[int, ...], *, admitted: bool) -> Line:
    shown = words.value(sign)
    if beside is not None and _together(sign, beside):
        shown = f"{shown.removesuffix(' mmHg')}/{words.value(beside)}"
    word, tone = words.state(sign) if admitted else ("", "")
    texts = (
        (words.NAMES.get(sign.field, sign.field), "bold"),
        (shown, "" if sign.state == "valid" else "dim"),
        (words.age(sign.age_s), "dim"),
        (words.marks(sign.points), "unknown" if sign.points is None else f"points-{sign.points}"),
        (word, tone),
    )
    line: Line = []
    for (text, style), width in zip(texts, cells, strict=True):
        line += [(_cell(text, width), style), (" ", "")]
    return line


def _together(sign: SignView, beside: SignView) -> bool:
    """Whether two values are one measurement: both valid, and of one time."""
    if sign.age_s is None or beside.age_s is None or not sign.state == beside.state == "valid":
        return False
    return abs(sign.age_s - beside.age_s) <= _ONE_MEASUREMENT_S


def _extremes(sign: SignView) -> str:
    values = [value for _, value in sign.trend]
    if not values:
        return ""
    return f"{words.number(sign.field, min(values))} to {words.number(sign.field, max(values))}"


def _block(first: Line, trend: list[Line], second: str) -> list[Line]:
    """A sign's cells beside its trend; from three rows on, an empty row sets it off from the next one."""
    blank = " " * len(second)
    lines = [[*first, *trend[0]]]
    lines += [
        [(second if row == 1 else blank, "dim"), *drawn] for row, drawn in enumerate(trend[1:], start=1)
    ]
    if len(trend) > 2:
        lines.append([])
    return lines


def _bar(share: float, width: int) -> str:
    full = max(0, min(width, round(share * width)))
    return "█" * full + "·" * (width - full)


def _spaced(parts: Line) -> Line:
    return [(text if place == 0 else f"  {text}", style) for place, (text, style) in enumerate(parts)]


def _flow(parts: Line, width: int) -> list[Line]:
    """The parts on as few lines as hold them whole."""
    lines: list[Line] = [[]]
    for part in parts:
        if lines[-1] and sum(len(text) + 2 for text, _ in lines[-1]) + len(part[0]) > width:
            lines.append([])
        lines[-1].append(part)
    return [cut(_spaced(line), width) for line in lines]


def cut(line: Line, width: int) -> Line:
    """The line within the width; what does not fit ends with an ellipsis."""
    left, kept = width, Line()
    for text, style in line:
        if len(text) > left:
            if left > 0:
                kept.append((f"{text[: left - 1]}…", style))
            return kept
        kept.append((text, style))
        left -= len(text)
    return kept
