"""Who is told of a change of an alert: one row for each channel, written in the transaction of the change.

The unique constraint over alert, event and channel makes that each state is told once to each channel; the
body is built here and delivered as it stands, however often an attempt has to be repeated.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, select

from samd_gateway import schema
from samd_gateway.alerts.channel import Channel, channels

AFTERWARDS = ("acknowledged", "paused", "cleared")
"""Changes that are told only to those who were told of the alert itself."""


def key_of(alert: str, event: str, channel: str) -> str:
    """What a receiver knows a repeated delivery by: the same for every attempt."""
    digest = hashlib.blake2b(f"{alert}\0{event}\0{channel}".encode(), digest_size=16)
    return f"msg_{digest.hexdigest()}"


def enqueue(connection: Connection, row: Mapping[str, Any], *, change: str, event: str, now: float) -> int:
    """Write what is to be told; returns to how many channels. `event` names the state that is told."""
    wanted = [channel for channel in channels(connection, enabled=True) if _wants(channel, row, change)]
    if wanted and change in AFTERWARDS:
        table = schema.notifications
        query = select(table.c.channel).where(table.c.alert == row["id"]).distinct()
        told = set(connection.scalars(query))
        wanted = [channel for channel in wanted if channel.name in told]
    if not wanted:
        return 0
    event = event if len(event) <= 40 else hashlib.blake2b(event.encode(), digest_size=16).hexdigest()
    entries = [
        {
            "alert": row["id"],
            "event": event,
            "channel": channel.name,
            "state": "pending",
            "body": json.dumps(_body(connection, row, change, channel, now)),
            "attempts": 0,
            "created_at": now,
            "next_at": now,
        }
        for channel in wanted
    ]
    connection.execute(_insert(connection).on_conflict_do_nothing(), entries)
    return len(entries)


def _insert(connection: Connection) -> Any:
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as pg_insert

        return pg_insert(schema.notifications)
    from sqlalchemy.dialects.sqlite import insert as sqlite_insert

    return sqlite_insert(schema.notifications)


def _wants(channel: Channel, row: Mapping[str, Any], change: str) -> bool:
    severity = row["peak"] if change in AFTERWARDS else row["severity"]
    return (
        change in channel.config.events and channel.min_severity <= severity and channel.step <= row["step"]
    )


def _body(
    connection: Connection, row: Mapping[str, Any], change: str, channel: Channel, now: float
) -> dict[str, Any]:
    """Device, class and state; the score and the pseudonym only where the channel has opted in."""
    data: dict[str, Any] = {
        "alert": row["id"],
        "device": row["device"],
        "kind": row["kind"],
        "state": row["state"],
        "severity": row["severity"],
        "step": row["step"],
        "acknowledged": row["acknowledged_at"] is not None,
        "raised_at": _iso(row["raised_at"]),
    }
    if channel.config.details:
        data |= {name: row[name] for name in ("news2_low", "news2_high", "possible", "reason")}
        table = schema.admissions
        patient = connection.execute(
            select(table.c.id, table.c.bed, table.c.ward).where(
                table.c.device == row["device"], table.c.state == "active"
            )
        ).first()
        data |= {"pseudonym": None, "bed": "", "ward": ""}
        if patient is not None:
            data |= {"pseudonym": patient[0], "bed": patient[1], "ward": patient[2]}
    return {"type": f"alert.{change}", "timestamp": _iso(now), "data": data}


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
