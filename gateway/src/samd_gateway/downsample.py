"""The past with fewer rows: assessments become hours, the health of five minutes becomes that of an hour.

Rows move: what is added to an hour is deleted in the same transaction, so that each counts once, whenever the
program is killed, however often it runs and however late a row came.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, and_, bindparam, case, func, literal, select

from samd_gateway import schema
from samd_gateway.health_buckets import GREATEST, LEAST
from samd_gateway.upserts import insert

HOUR_S = 3600
SPAN_S = 300
MAXIMA = ("low_max", "high_max", "severity_max", "model_severity_max", "probability_max")


class _News2(msgspec.Struct, frozen=True):
    low: int
    high: int


class _Model(msgspec.Struct, frozen=True):
    severity: int


class _Ahead(msgspec.Struct, frozen=True):
    probability: float | None = None


class _Told(msgspec.Struct, frozen=True):
    """The part of an assessment that an hour keeps."""

    observed_at: datetime
    news2: _News2
    severity: int
    disagreement: bool
    model: _Model | None = None
    deterioration: _Ahead | None = None


def hour_of(seconds: float) -> float:
    """The begin of the hour, UTC."""
    return seconds // HOUR_S * HOUR_S


def hour_row(device: str, received_at: float, body: str) -> dict[str, Any]:
    """One assessment as an hour of its own. It counts for the hour in which the patient was observed; one
    from the future for that in which it came."""
    try:
        told = msgspec.json.decode(body, type=_Told)
    except msgspec.DecodeError:  # of a version that told less: it was there, and that is all that is known
        nothing = dict.fromkeys(MAXIMA)
        return {"device": device, "hour": hour_of(received_at), "count": 1, "disagreements": 0} | nothing
    return {
        "device": device,
        "hour": hour_of(min(told.observed_at.timestamp(), received_at)),
        "count": 1,
        "low_max": told.news2.low,
        "high_max": told.news2.high,
        "severity_max": told.severity,
        "model_severity_max": None if told.model is None else told.model.severity,
        "probability_max": None if told.deterioration is None else told.deterioration.probability,
        "disagreements": int(told.disagreement),
    }


def add(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two parts of one hour as one; a figure that neither has stays null."""
    total = dict(one)
    for name in ("count", "disagreements"):
        total[name] += other[name]
    for name in MAXIMA:
        total[name] = max((row[name] for row in (one, other) if row[name] is not None), default=None)
    return total


def fold_assessments(connection: Connection, until: float, limit: int) -> int:
    """Move at most `limit` of the oldest assessments received before `until` into their hours; how many."""
    table = schema.messages
    query = (
        select(table.c.device, table.c.id, table.c.received_at, table.c.body)
        .where(table.c.kind == "assessment", table.c.received_at < until)
        .order_by(table.c.received_at)
        .limit(limit)
    )
    found = connection.execute(query).all()
    hours: dict[tuple[str, float], dict[str, Any]] = {}
    for device, _id, received_at, body in found:
        row = hour_row(device, received_at, body)
        key = (device, row["hour"])
        hours[key] = add(hours[key], row) if key in hours else row
    if found:
        connection.execute(_merge(connection, schema.assessment_hours), list(hours.values()))
        delete_keys(connection, table, [(row.device, row.id) for row in found])
    return len(found)


def fold_health(connection: Connection, until: float, devices: int) -> int:
    """Move the five-minute rows of the oldest hour that ended before `until` into rows of an hour, of at
    most so many devices; how many rows."""
    table = schema.health
    oldest = connection.scalar(select(func.min(table.c.at)).where(table.c.span_s == SPAN_S))
    if oldest is None or hour_of(oldest) + HOUR_S > until:
        return 0
    hour = hour_of(oldest)
    these = (table.c.span_s == SPAN_S) & (table.c.at >= hour) & (table.c.at < hour + HOUR_S)
    names = connection.scalars(
        select(table.c.device).where(these).distinct().order_by(table.c.device).limit(devices)
    ).all()
    these &= (table.c.device >= names[0]) & (table.c.device <= names[-1])
    columns = ("device", "at", "span_s", "beats", *GREATEST, *LEAST)
    hours = (
        select(
            table.c.device,
            literal(hour),
            literal(HOUR_S),
            func.sum(table.c.beats),
            *(func.max(table.c[name]) for name in GREATEST),
            *(func.min(table.c[name]) for name in LEAST),
        )
        .where(these)
        .group_by(table.c.device)
    )
    connection.execute(_merge(connection, table).from_select(list(columns), hours))
    return connection.execute(table.delete().where(these)).rowcount


def delete_keys(connection: Connection, table: Table, keys: Sequence[Sequence[Any]]) -> None:
    """Delete the rows of these primary keys."""
    columns = list(table.primary_key)
    these = and_(*(column == bindparam(f"key_{column.name}") for column in columns))
    rows = [{f"key_{column.name}": part for column, part in zip(columns, key, strict=True)} for key in keys]
    connection.execute(table.delete().where(these), rows)


def _merge(connection: Connection, table: Table) -> Any:
    """Insert an hour, or add to what is there of it."""
    statement = insert(connection, table)
    new, old = statement.excluded, table.c
    changed: dict[str, Any] = {}
    for column in table.columns:
        name = column.name
        if column.primary_key:
            continue
        if name in ("beats", "count", "disagreements"):
            changed[name] = old[name] + new[name]
            continue
        better = old[name] <= new[name] if name in LEAST else old[name] >= new[name]
        kept = old[name].is_not(None) & (new[name].is_(None) | better)
        changed[name] = case((kept, old[name]), else_=new[name])
    keys = [column.name for column in table.primary_key]
    return statement.on_conflict_do_update(index_elements=keys, set_=changed)
