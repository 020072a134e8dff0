"""The past of one patient: scores, gaps, alerts, and which model judged. Reads only.

Within the time that messages are kept each assessment is a point; where there are more than asked for, a
point is the worst of its span. Beyond, the hours stand that retention has left.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from statistics import median
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from samd_gateway import schema
from samd_gateway.alerts import store as alert_store
from samd_gateway.errors import NotFoundError
from samd_gateway.queries import at, rows
from samd_gateway.ward import admissions
from samd_gateway.ward.answers import ModelChange, Timeline, TimelineGap, TimelinePoint

HOUR_S = 3600.0
LATE_S = 86_400.0
"""An assessment that waited in an outbox is sent for a day."""
READ_AT_ONCE = 200_000
"""Rows of a device that are read at most, the latest: a year of readings every three minutes."""
SHORTEST_GAP_S = 300.0
USUAL_TIMES = 5.0
"""So many times the usual time between two assessments is a gap."""
UNUSUAL_S = HOUR_S
"""What counts as a gap while too few assessments tell what is usual."""


class _News2(msgspec.Struct, frozen=True):
    low: int
    high: int


class _Model(msgspec.Struct, frozen=True):
    severity: int
    version: int
    personal: bool = False


class _Ahead(msgspec.Struct, frozen=True):
    probability: float | None = None


class _Told(msgspec.Struct, frozen=True):
    """The part of an assessment that the line is made of; the rest is not decoded."""

    observed_at: datetime
    news2: _News2
    rule_severity: int
    rule_severity_possible: int
    severity: int
    disagreement: bool
    model: _Model | None = None
    deterioration: _Ahead | None = None


class Scored(msgspec.Struct, frozen=True):
    """An assessment with its time, in seconds since 1970, and its place among the device's messages."""

    at: float
    told: _Told
    place: tuple[int, int] = (0, 0)


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Which messages are of one patient: by time, and by their place among the device's messages."""

    since: float
    until: float
    asked: float
    """From when on was asked for; `since` is not before the admission."""
    after: tuple[int, int] = (-1, -1)
    before: tuple[int, int] | None = None

    def holds(self, place: tuple[int, int]) -> bool:
        return place > self.after and (self.before is None or place < self.before)


def read(
    connection: Connection,
    device: str,
    since: float,
    until: float,
    *,
    most: int = 1000,
    admission: str | None = None,
) -> Timeline:
    """The time line of whoever lies there now, or of a former admission. Raises NotFoundError for one that
    never was on this device."""
    past = admissions.of_device(connection, device)
    window = _window(past, since, until, admission)
    scored = _scored(connection, device, window)
    if scored:
        window = msgspec.structs.replace(window, since=min(window.since, scored[0].at))
    hours = _hours(connection, device, window, scored[0].at if scored else window.until)
    points, span_s = thin(scored, window.since, window.until, most)
    longest = gap_after_s(scored)
    return Timeline(
        device=device,
        since=at(window.since),
        until=at(window.until),
        span_s=span_s,
        gap_after_s=longest,
        points=[*hours, *points],
        gaps=_gaps(hours, scored, longest, window.until),
        alerts=_alerts(connection, device, window),
        model_changes=model_changes(scored),
        admissions=[admissions.answer(row) for row in past],
    )


def _window(past: Sequence[Mapping[str, Any]], since: float, until: float, admission: str | None) -> Window:
    if admission is not None:
        chosen = next((row for row in past if row["id"] == admission), None)
        if chosen is None:
            raise NotFoundError(f"no admission {admission[:64]!r} on this device")
    else:
        chosen = next((row for row in past if row["state"] in admissions.OPEN), None)
    asked = since
    if chosen is not None:
        since = max(since, chosen["admitted_at"])
        if chosen["boot"] is None:  # the device has not taken this patient, so nothing is of them
            return Window(since=min(since, until), until=until, asked=asked, after=(2**63, 0))
        end = None if chosen["end_boot"] is None else (chosen["end_boot"], chosen["end_seq"])
        place = (chosen["boot"], chosen["seq"])
        return Window(since=min(since, until), until=until, asked=asked, after=place, before=end)
    ended = [row for row in past if row["end_boot"] is not None]
    if not ended:
        return Window(since=since, until=until, asked=asked)
    last = max((row["end_boot"], row["end_seq"]) for row in ended)
    began = max(row["discharged_at"] for row in ended)
    return Window(since=min(max(since, began), until), until=until, asked=asked, after=last)


def _scored(connection: Connection, device: str, window: Window) -> list[Scored]:
    """The assessments of the window, in the order of their time."""
    table = schema.messages
    query = (
        select(table.c.boot, table.c.seq, table.c.received_at, table.c.body)
        .where(
            table.c.device == device,
            table.c.kind == "assessment",
            table.c.received_at >= window.since,
            table.c.received_at <= window.until + LATE_S,
        )
        .order_by(table.c.received_at.desc())
        .limit(READ_AT_ONCE)
    )
    decoder = msgspec.json.Decoder(_Told)
    found = []
    for boot, seq, received_at, body in connection.execute(query):
        if not window.holds((boot, seq)):
            continue
        told = decoder.decode(body)
        moment = min(told.observed_at.timestamp(), received_at)
        # the place says whose it is; a device whose clock is behind may date it before the admission
        if window.asked <= moment <= window.until:
            found.append(Scored(moment, told, (boot, seq)))
    found.sort(key=lambda each: (each.at, each.place))
    return found


def _hours(connection: Connection, device: str, window: Window, until: float) -> list[TimelinePoint]:
    """The hours before the oldest message that is kept."""
    table = schema.assessment_hours
    query = (
        select(table)
        .where(table.c.device == device, table.c.hour >= window.since, table.c.hour + HOUR_S <= until)
        .order_by(table.c.hour)
        .limit(10_000)
    )
    return [
        TimelinePoint(
            at=at(row["hour"]),
            low=row["low_max"],
            high=row["high_max"],
            rule_severity=None,
            rule_severity_possible=None,
            severity=row["severity_max"],
            model_severity=row["model_severity_max"],
            probability=row["probability_max"],
            disagreement=row["disagreements"] > 0,
            model_version=None,
            count=row["count"],
        )
        for row in rows(connection, query)
        if row["low_max"] is not None and row["high_max"] is not None
    ]


def thin(
    scored: Sequence[Scored], since: float, until: float, most: int
) -> tuple[list[TimelinePoint], float | None]:
    """At most `most` points, and what one stands for in seconds: the worst of its span, none left out."""
    if len(scored) <= most:
        return [_point([each]) for each in scored], None
    span_s = (until - since) / most
    spans: dict[int, list[Scored]] = {}
    for each in scored:
        spans.setdefault(min(int((each.at - since) / span_s), most - 1), []).append(each)
    return [_point(spans[number]) for number in sorted(spans)], span_s


def _point(scored: Sequence[Scored]) -> TimelinePoint:
    worst = max(scored, key=lambda each: (each.told.news2.low, each.told.news2.high, each.at))
    newest = scored[-1].told
    asked = [
        each.told.deterioration.probability
        for each in scored
        if each.told.deterioration is not None and each.told.deterioration.probability is not None
    ]
    models = [each.told.model for each in scored if each.told.model is not None]
    return TimelinePoint(
        at=at(worst.at),
        low=worst.told.news2.low,
        high=max(each.told.news2.high for each in scored),
        rule_severity=max(each.told.rule_severity for each in scored),
        rule_severity_possible=max(each.told.rule_severity_possible for each in scored),
        severity=max(each.told.severity for each in scored),
        model_severity=max((model.severity for model in models), default=None),
        probability=max(asked, default=None),
        disagreement=any(each.told.disagreement for each in scored),
        model_version=None if newest.model is None else newest.model.version,
        count=len(scored),
    )


def gap_after_s(scored: Sequence[Scored]) -> float:
    """From how long on a time without an assessment is a gap, by what is usual here."""
    between = [later.at - each.at for each, later in pairwise(scored)]
    between = [seconds for seconds in between if seconds > 0]
    if len(between) < 3:
        return UNUSUAL_S
    return max(SHORTEST_GAP_S, USUAL_TIMES * median(between))


def _gaps(
    hours: Sequence[TimelinePoint], scored: Sequence[Scored], longest: float, until: float
) -> list[TimelineGap]:
    # an hour of retention holds its assessments somewhere within it
    spans = [(point.at.timestamp(), point.at.timestamp() + HOUR_S) for point in hours]
    spans += [(each.at, each.at) for each in scored]
    if not spans:
        return []
    found = [
        TimelineGap(since=at(end), until=at(begin))
        for (_, end), (begin, _) in pairwise(spans)
        if begin - end > longest
    ]
    if until - spans[-1][1] > longest:
        found.append(TimelineGap(since=at(spans[-1][1]), until=None))
    return found


def model_changes(scored: Iterable[Scored]) -> list[ModelChange]:
    """From when on another version, or other weights, judged; the first one seen is no change."""
    found: list[ModelChange] = []
    held: tuple[int | None, bool] | None = None
    for each in scored:
        model = each.told.model
        now = (None, False) if model is None else (model.version, model.personal)
        if held is not None and now != held:
            found.append(ModelChange(at=at(each.at), before=held[0], after=now[0], personal=now[1]))
        held = now
    return found


def _alerts(connection: Connection, device: str, window: Window) -> list[Any]:
    table = schema.alerts
    query = (
        select(table)
        .where(
            table.c.device == device,
            table.c.raised_at <= window.until,
            (table.c.cleared_at.is_(None)) | (table.c.cleared_at >= window.since),
        )
        .order_by(table.c.raised_at)
        .limit(1000)
    )
    # `late` rows and those without a place (raised here, of a silence) are of whoever lay there at the time
    return [
        alert_store.answer(row)
        for row in rows(connection, query)
        if row["kind"] == "silence" or window.holds((row["boot"], row["seq"])) or row["boot"] < 0
    ]
