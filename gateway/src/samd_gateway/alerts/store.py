"""Rows of the table `alerts` and their history: read, written, told of, within the caller's transaction."""

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, text

from samd_gateway import schema
from samd_gateway.alerts import outbox
from samd_gateway.alerts.answers import AlertChange, AlertKind, AlertRow, AlertState
from samd_gateway.queries import at, moment, rows

TABLE = schema.alerts
PASSED_ON = ("raised", "escalated", "step", "resumed", "acknowledged", "paused", "cleared")
"""The changes that a channel may be told of."""


def id_of(device: str, kind: AlertKind, source_id: str) -> str:
    """The key of an alert, the same whoever writes it first. A device's own id counts by its name."""
    digest = hashlib.blake2b(f"{kind}\0{device}\0{source_id}".encode(), digest_size=10)
    return digest.hexdigest()


def lock(connection: Connection, devices: list[str]) -> None:
    """Hold others off these devices' alerts until the transaction ends. SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        for device in sorted(devices):  # in one order, or two writers would wait for each other
            connection.execute(
                text("SELECT pg_advisory_xact_lock(hashtext(:key))"), {"key": f"alerts/{device}"}
            )


def lock_rows(connection: Connection, alerts: list[str]) -> None:
    """The same by the alerts' ids."""
    query = select(TABLE.c.device).where(TABLE.c.id.in_(alerts)).distinct()
    lock(connection, list(connection.scalars(query)))


def find(connection: Connection, alert: str) -> dict[str, Any] | None:
    """One row, if it is there."""
    return next(iter(rows(connection, select(TABLE).where(TABLE.c.id == alert))), None)


def open_of(connection: Connection, device: str, kind: AlertKind) -> dict[str, Any] | None:
    """The open alert of a kind on a device; there is one at most."""
    query = select(TABLE).where(TABLE.c.device == device, TABLE.c.kind == kind, TABLE.c.state == "active")
    return next(iter(rows(connection, query)), None)


def add(
    connection: Connection,
    *,
    device: str,
    kind: AlertKind,
    source_id: str,
    values: Mapping[str, Any],
    actor: str,
    change: str,
    event: str,
    now: float,
) -> dict[str, Any]:
    """Insert a row with its first entry in the history; whoever is to be told of it will be."""
    row = {column.name: None for column in TABLE.columns} | {
        "id": id_of(device, kind, source_id),
        "device": device,
        "kind": kind,
        "source_id": source_id,
        "step": 0,
        "boot": -1,
        "seq": -1,
        **values,
    }
    connection.execute(TABLE.insert().values(row))
    detail = {"severity": row["severity"], "state": row["state"]}
    _told(connection, row, actor=actor, change=change, event=event, now=now, detail=detail)
    return row


def change(
    connection: Connection,
    row: Mapping[str, Any],
    values: Mapping[str, Any],
    *,
    actor: str,
    change: str,
    event: str,
    now: float,
    detail: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write new values over a row, its history beside them; whoever is to be told of it will be."""
    connection.execute(TABLE.update().where(TABLE.c.id == row["id"]).values(**values))
    new = {**row, **values}
    said = {"severity": new["severity"], "step": new["step"], **(detail or {})}
    _told(connection, new, actor=actor, change=change, event=event, now=now, detail=said)
    return new


def _told(
    connection: Connection,
    row: Mapping[str, Any],
    *,
    actor: str,
    change: str,
    event: str,
    now: float,
    detail: Mapping[str, Any],
) -> None:
    connection.execute(
        schema.alert_changes.insert().values(
            alert=row["id"], at=now, actor=actor, change=change, detail=json.dumps(detail)
        )
    )
    if change in PASSED_ON:
        outbox.enqueue(connection, row, change=change, event=event, now=now)


# what is read


def answer(row: Mapping[str, Any]) -> AlertRow:
    """A row as the API shows it."""
    return AlertRow(
        id=row["id"],
        device=row["device"],
        kind=row["kind"],
        source_id=row["source_id"],
        state=row["state"],
        severity=row["severity"],
        peak=row["peak"],
        possible=row["possible"],
        news2_low=row["news2_low"],
        news2_high=row["news2_high"],
        reason=row["reason"],
        observed_at=moment(row["observed_at"]),
        raised_at=at(row["raised_at"]),
        changed_at=at(row["changed_at"]),
        cleared_at=moment(row["cleared_at"]),
        acknowledged=row["acknowledged_at"] is not None,
        acknowledged_at=moment(row["acknowledged_at"]),
        acknowledged_by=row["acknowledged_by"],
        note=row["note"],
        paused=row["paused_until"] is not None,
        paused_until=moment(row["paused_until"]),
        paused_by=row["paused_by"],
        pause_reason=row["pause_reason"],
        step=row["step"],
        step_at=moment(row["step_at"]),
        waiting_since=moment(row["waiting_since"]),
    )


def page(
    connection: Connection,
    *,
    state: AlertState | None = "active",
    acknowledged: bool | None = None,
    device: str | None = None,
    kind: AlertKind | None = None,
    limit: int = 100,
    before: str | None = None,
) -> list[AlertRow]:
    """The alerts that match. The active ones the worst first, others the latest first; `before` is the id of
    the last one that was seen (an id that is gone gives nothing)."""
    query = select(TABLE)
    if state is not None:
        query = query.where(TABLE.c.state == state)
    if acknowledged is not None:
        known = TABLE.c.acknowledged_at.is_not(None)
        query = query.where(known if acknowledged else ~known)
    if device is not None:
        query = query.where(TABLE.c.device == device)
    if kind is not None:
        query = query.where(TABLE.c.kind == kind)
    keys = [TABLE.c.raised_at, TABLE.c.id]
    if state == "active":
        keys.insert(0, TABLE.c.severity)
    if before is not None:
        last = find(connection, before)
        if last is None:
            return []
        query = query.where(_below(keys, [last[key.name] for key in keys]))
    found = rows(connection, query.order_by(*(key.desc() for key in keys)).limit(limit))
    return [answer(row) for row in found]


def _below(keys: list[Any], values: list[Any]) -> ColumnElement[bool]:
    """Rows that come after the one with these values, all keys descending."""
    cases = []
    for place, key in enumerate(keys):
        same = [keys[before] == values[before] for before in range(place)]
        cases.append(and_(*same, key < values[place]))
    return or_(*cases)


def changed_since(connection: Connection, devices: Collection[str], since: float) -> list[AlertRow]:
    """The alerts of these devices that have changed since a time, in the order of their changes."""
    query = select(TABLE).where(TABLE.c.device.in_(devices), TABLE.c.changed_at >= since)
    return [answer(row) for row in rows(connection, query.order_by(TABLE.c.changed_at, TABLE.c.id))]


def counts(connection: Connection) -> tuple[int, int]:
    """How many alerts are active, and how many of those nobody has acknowledged."""
    query = select(func.count(), func.count(TABLE.c.acknowledged_at)).where(TABLE.c.state == "active")
    active, acknowledged = connection.execute(query).one()
    return int(active), int(active - acknowledged)


def history(connection: Connection, alert: str) -> list[AlertChange]:
    """All that became of an alert, the oldest first."""
    table = schema.alert_changes
    query = select(table).where(table.c.alert == alert).order_by(table.c.id).limit(1000)
    return [
        AlertChange(
            at=at(row["at"]), actor=row["actor"], change=row["change"], detail=json.loads(row["detail"])
        )
        for row in rows(connection, query)
    ]
