"""What a store says of a period: values, what was struck and flagged, judgements and alerts.

Half a million readings fit: numbers are kept in arrays, and only what a person entered as text.
"""

import sqlite3
from array import array
from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Final, Literal

import msgspec

from samd_data.carry import CARRY_SECONDS
from samd_data.reading import FIELDS, SIGNS, VITALS, Reading
from samd_edge import readings
from samd_edge.clock import AHEAD
from samd_edge.report import people
from samd_edge.report.record import SECOND, AlertRow, Artefacts, Entered, History, Run, Series
from samd_protocol.messages import Alert, Severity

_ENTERED: Final = ("supplemental_oxygen", "consciousness")
_BACK_S: Final = CARRY_SECONDS["consciousness"]
"""What was entered so long before a period still holds at its beginning."""

_Total = Annotated[int, msgspec.Meta(ge=0, le=20)]


class _Score(msgspec.Struct):
    low: _Total
    high: _Total
    band: Literal["low", "low-medium", "medium", "high"]


class _Model(msgspec.Struct):
    severity: Severity
    version: int


class _Assessment(msgspec.Struct):
    news2: _Score
    rule_severity: Severity
    rule_severity_possible: Severity
    severity: Severity
    disagreement: bool
    model: _Model | None = None


class _Judged(msgspec.Struct):
    """The part of an assessment's message that is plotted: decoding the rest would take twice as long."""

    device: str
    clock: str
    data: _Assessment


class _Sent(msgspec.Struct):
    """When the wall's clock sealed a message."""

    sent_at: datetime


class _Alerted(msgspec.Struct):
    data: Alert


_readings: Final = msgspec.json.Decoder(Reading)
_judged: Final = msgspec.json.Decoder(_Judged)
_sent: Final = msgspec.json.Decoder(_Sent)
_alerted: Final = msgspec.json.Decoder(_Alerted)


def span(connection: sqlite3.Connection) -> tuple[float, float] | None:
    """The times of the oldest and the newest entry of a store, patient time; None for an empty one."""
    found = connection.execute(
        "SELECT MIN(low), MAX(high) FROM ("
        "SELECT MIN(observed_at) AS low, MAX(observed_at) AS high FROM readings UNION ALL "
        "SELECT MIN(assessed_at), MAX(assessed_at) FROM assessments UNION ALL "
        "SELECT MIN(raised_at), MAX(raised_at) FROM alerts)"
    ).fetchone()
    return None if found[0] is None else (found[0] / SECOND, found[1] / SECOND)


def is_sealed(connection: sqlite3.Connection) -> bool:
    """Whether the admission has ended."""
    return bool(_setting(connection, "sealed", default=False))


def end(connection: sqlite3.Connection, newest: float, now: float) -> float:
    """When a record ends: with its newest entry once the admission has ended, now while it goes on.

    In a replay the patient's clock is not the wall's, and the store knows it by its entries alone: there the
    record ends with the newest of them.
    """
    if newest > now or is_sealed(connection):
        return newest
    row = connection.execute("SELECT assessed_at, body FROM assessments ORDER BY id DESC LIMIT 1").fetchone()
    if row is None:
        return now
    try:
        sent_at = _sent.decode(row[1]).sent_at
    except (msgspec.DecodeError, UnicodeDecodeError):
        return now
    return newest if row[0] / SECOND > sent_at.timestamp() + AHEAD.total_seconds() else now


def read(connection: sqlite3.Connection, store: Path, *, device: str, since: float, until: float) -> History:
    """The history of a period. ``device`` is the name when no judgement tells it."""
    history = History(
        store=store,
        device=device,
        admission=str(_setting(connection, "admission", store.parent.name)),
        spo2_scale=2 if _setting(connection, "spo2_scale", 1) == 2 else 1,
        monitoring_interval_s=_setting(connection, "monitoring_interval_s", None),
        sealed=is_sealed(connection),
        since=since,
        until=until,
        values={name: Series() for name in VITALS},
        flagged={name: Series() for name in VITALS},
        struck={name: Series() for name in VITALS},
        unmeasured={name: array("d") for name in VITALS},
        read_at=array("d"),
        usual_s=_usual_s(connection, until),
    )
    newer = int(connection.execute("PRAGMA user_version").fetchone()[0]) >= 2
    people.read(connection, history, reasons=newer)
    _read_readings(connection, history, _flagged(connection, history) if newer else {})
    if newer:
        _read_artefacts(connection, history)
    _read_assessments(connection, history)
    _read_alerts(connection, history)
    return history


def _setting(connection: sqlite3.Connection, name: str, default: Any) -> Any:
    row = connection.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
    return default if row is None else msgspec.json.decode(row[0])


def _period(history: History, back_s: float = 0.0) -> tuple[int, int]:
    return round((history.since - back_s) * SECOND), round(history.until * SECOND)


# -- readings ------------------------------------------------------------------------------------------------


def _read_readings(connection: sqlite3.Connection, history: History, flagged: Mapping[int, set[str]]) -> None:
    gone = readings.struck(connection)
    struck: dict[int, set[str]] = {}
    for row, name in connection.execute("SELECT reading, field FROM corrections WHERE field IS NOT NULL"):
        struck.setdefault(row, set()).add(name)
    rows = connection.execute(
        "SELECT id, observed_at, origin, struck, body FROM readings WHERE observed_at BETWEEN ? AND ? "
        "ORDER BY observed_at, id",
        _period(history, _BACK_S),
    )
    for row, observed_at, origin, whole, body in rows:
        at = observed_at / SECOND
        inside = at >= history.since
        try:
            reading = _readings.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            history.counts["unreadable readings"] += inside
            continue
        wrong = set(FIELDS) if whole else struck.get(row, set())
        if origin != "observation":
            wrong = wrong | gone.fields(reading)
        flags = flagged.get(row, set())
        if inside:
            history.counts["readings"] += 1
            history.origins[origin] += 1
            history.counts["struck readings"] += bool(whole)
        _take(history, reading, at, wrong, flags, inside=inside)
    for series in (*history.values.values(), *history.flagged.values(), *history.struck.values()):
        series.sort()


def _usual_s(connection: sqlite3.Connection, until: float) -> float | None:
    """The median time between two readings of the whole admission: a period may begin after the last one."""
    times = connection.execute(
        "SELECT DISTINCT observed_at FROM readings WHERE origin != 'observation' AND observed_at <= ? "
        "ORDER BY observed_at",
        (round(until * SECOND),),
    )
    steps = array("q", (later[0] - earlier[0] for earlier, later in pairwise(times)))
    return median(steps) / SECOND if steps else None


def _take(
    history: History, reading: Reading, at: float, wrong: set[str], flags: set[str], *, inside: bool
) -> None:
    counts = False
    for name in VITALS:
        value = getattr(reading, name)
        if value is None:
            continue
        measured = at - reading.ages.get(name, 0.0)
        if name not in wrong and name not in flags:
            counts |= name in SIGNS
        if inside and measured >= history.since:
            kind = history.struck if name in wrong else history.flagged if name in flags else history.values
            kind[name].add(measured, value)
    for name, runs in ((_ENTERED[0], history.oxygen), (_ENTERED[1], history.consciousness)):
        value = getattr(reading, name)
        if value is not None and name not in wrong:
            _enter(runs, at - reading.ages.get(name, 0.0), value)
    if counts and inside:
        history.read_at.append(at)
    elif counts:
        history.before = at


def _enter(runs: list[Entered], at: float, value: bool | str) -> None:
    last = runs[-1] if runs else None
    if last is not None and at < last.last:
        return  # told late: the newer one stands
    if last is not None and last.value == value and at - last.last <= _BACK_S:
        last.last = at
    else:
        runs.append(Entered(at, at, value))


def _flagged(connection: sqlite3.Connection, history: History) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for row, name in connection.execute(
        "SELECT a.reading, a.field FROM artefacts a JOIN readings r ON r.id = a.reading "
        "WHERE r.observed_at BETWEEN ? AND ?",
        _period(history, _BACK_S),
    ):
        found.setdefault(row, set()).add(name)
    return found


def _read_artefacts(connection: sqlite3.Connection, history: History) -> None:
    period = _period(history)
    # With MIN beside MAX SQLite may take another column from the row of either: the last reason is asked for.
    for name, kind, count, first, last, reason in connection.execute(
        "SELECT field, kind, COUNT(*), MIN(observed_at), MAX(observed_at), (SELECT reason FROM artefacts l "
        "WHERE l.field = a.field AND l.kind = a.kind AND l.observed_at BETWEEN ?1 AND ?2 "
        "ORDER BY l.observed_at DESC, l.id DESC LIMIT 1) FROM artefacts a "
        "WHERE observed_at BETWEEN ?1 AND ?2 GROUP BY field, kind ORDER BY field, kind",
        period,
    ):
        history.artefacts.append(Artefacts(name, kind, count, first / SECOND, last / SECOND, reason))
        where = "rejected" if kind in ("no_signal", "implausible") else "artefacts"
        history.counts[where] += count
    for name, at in connection.execute(
        "SELECT field, observed_at FROM artefacts WHERE reading IS NULL AND observed_at BETWEEN ? AND ? "
        "ORDER BY observed_at",
        period,
    ):
        if name in history.unmeasured:
            history.unmeasured[name].append(at / SECOND)


# -- judgements and alerts -----------------------------------------------------------------------------------


def _read_assessments(connection: sqlite3.Connection, history: History) -> None:
    before = connection.execute(
        "SELECT assessed_at, body FROM assessments WHERE assessed_at < ? ORDER BY id DESC LIMIT 1",
        (_period(history)[0],),
    ).fetchall()
    for assessed_at, body in before:
        _judge(history, assessed_at / SECOND, body, inside=False)
    for assessed_at, body in connection.execute(
        "SELECT assessed_at, body FROM assessments WHERE assessed_at BETWEEN ? AND ? ORDER BY id",
        _period(history),
    ):
        _judge(history, assessed_at / SECOND, body, inside=True)
    if history.counts["clock set back"]:
        history.runs.sort(key=lambda run: run.start)


def _judge(history: History, at: float, body: bytes, *, inside: bool) -> None:
    try:
        found = _judged.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        history.counts["unreadable assessments"] += inside
        return
    said = found.data
    history.device = found.device
    last = history.runs[-1] if history.runs else None
    model = -1 if said.model is None else said.model.severity
    run = Run(
        at,
        at,
        said.news2.low,
        said.news2.high,
        said.news2.band,
        said.rule_severity,
        said.rule_severity_possible,
        said.severity,
        model,
        said.disagreement,
    )
    if inside:
        history.counts["assessments"] += 1
        history.counts["unsynced"] += found.clock != "synced"
        was = last is not None and last.disagreement
        history.counts["disagreements"] += said.disagreement and not was
        if said.model is not None:
            count, first, _ = history.models.get(said.model.version, (0, at, at))
            history.models[said.model.version] = (count + 1, first, at)
    back = last is not None and at < last.last
    history.counts["clock set back"] += back
    if last is not None and not back and _same(last, run):
        last.last = at
    else:
        history.runs.append(run)


def _same(one: Run, other: Run) -> bool:
    return (one.low, one.high, one.band, one.severity, one.model, one.rule, one.possible) == (
        other.low,
        other.high,
        other.band,
        other.severity,
        other.model,
        other.rule,
        other.possible,
    )


def _read_alerts(connection: sqlite3.Connection, history: History) -> None:
    for raised_at, body in connection.execute(
        "SELECT raised_at, body FROM alerts WHERE raised_at <= ? ORDER BY id", (_period(history)[1],)
    ):
        try:
            row = AlertRow(raised_at / SECOND, _alerted.decode(body).data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            history.counts["unreadable alerts"] += 1
            continue
        history.alerts.append(row)
