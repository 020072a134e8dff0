"""Bulk actions that were done, with what each device answered."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, desc, select

from samd_gateway import schema
from samd_gateway.errors import NotFoundError
from samd_gateway.fleet.answers import JobDeviceOut, JobOut
from samd_gateway.queries import at, rows


def jobs(connection: Connection, now: float, limit: int = 20) -> list[JobOut]:
    """The latest first, with their counts and without their devices."""
    table = schema.jobs
    latest = rows(connection, select(table).order_by(desc(table.c.created_at)).limit(limit))
    found = [job(connection, row["id"], now) for row in latest]
    return [each.model_copy(update={"devices": []}) for each in found]


def job(connection: Connection, name: str, now: float) -> JobOut:
    """One, with every device. Raises NotFoundError."""
    table, parts, commands = schema.jobs, schema.job_devices, schema.commands
    row = next(iter(rows(connection, select(table).where(table.c.id == name))), None)
    if row is None:
        raise NotFoundError(f"no bulk action {name[:16]!r} here; GET /api/fleet/jobs lists them")
    query = (
        select(
            parts.c.device,
            parts.c.command,
            parts.c.version,
            commands.c.status,
            commands.c.reason,
            commands.c.expires_at,
        )
        .join(commands, commands.c.id == parts.c.command, isouter=True)
        .where(parts.c.job == name)
        .order_by(parts.c.device)
    )
    body = json.loads(row["body"])
    reported = _configurations(connection) if body["type"] == "config" else {}
    devices = [_device(each, body["type"], reported, now) for each in rows(connection, query)]
    return JobOut(
        id=row["id"],
        action=row["action"],
        actor=row["actor"],
        created_at=at(row["created_at"]),
        counts=dict(Counter(each.status for each in devices)),
        devices=devices,
    )


def _device(row: Mapping[str, Any], kind: str, reported: Mapping[str, int], now: float) -> JobDeviceOut:
    status, reason = row["status"], row["reason"]
    device = row["device"]
    if kind == "tag":
        status = "done"
    elif kind == "config":
        # a configuration has no answer but the one that the device reports
        status = "done" if reported.get(device, -1) >= row["version"] else "waiting"
    elif status is None:
        status = "expired" if row["expires_at"] is not None and now > row["expires_at"] else "waiting"
        reason = "no answer came in time" if status == "expired" else None
    return JobDeviceOut(device=device, command=row["command"], status=status, reason=reason)


def _configurations(connection: Connection) -> dict[str, int]:
    table = schema.latest
    query = select(table.c.device, table.c.body).where(table.c.kind == "config")
    return {device: json.loads(body)["version"] for device, body in connection.execute(query)}
