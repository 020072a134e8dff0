"""Runs in the database: created with the lease, followed by the server's status, closed with the lease.

Every function works within the caller's transaction.
"""

import json
from typing import Any

import msgspec
from sqlalchemy import Connection, select
from sqlalchemy.exc import IntegrityError

from samd_gateway import schema
from samd_gateway.errors import ConflictError
from samd_protocol.messages import RunSpec, RunStatus

LEASE = "run"
TERMINAL = ("done", "failed", "stopped")


def create(
    connection: Connection,
    run: str,
    spec: RunSpec,
    *,
    commands: dict[str, str],
    start_version: int,
    graph_sha256: str,
    now: float,
) -> None:
    """A new run in admission, with the devices that are asked (`commands`: device to command id).

    Raises ConflictError, with the id of the run now going on, while another holds the lease.
    """
    holder = connection.scalar(select(schema.lease.c.run).where(schema.lease.c.name == LEASE))
    if holder is None:
        try:
            with connection.begin_nested():
                connection.execute(schema.lease.insert().values(name=LEASE, run=run, taken_at=now))
        except IntegrityError:
            # somebody was faster at this very moment, and may even have ended since
            holder = (
                connection.scalar(select(schema.lease.c.run).where(schema.lease.c.name == LEASE)) or "another"
            )
    if holder is not None:
        raise ConflictError(
            f"run {holder} is going on, and there is one at a time; wait for it, or stop it", run=holder
        )
    connection.execute(
        schema.runs.insert().values(
            id=run,
            state="admitting",
            spec=msgspec.json.encode(spec).decode(),
            graph_sha256=graph_sha256,
            start_version=start_version,
            created_at=now,
            updated_at=now,
            released=False,
        )
    )
    connection.execute(
        schema.participants.insert(),
        [
            {"run": run, "device": device, "command": command, "admitted": False, "told": False}
            for device, command in commands.items()
        ],
    )


def current(connection: Connection) -> str | None:
    """The run that holds the lease."""
    return connection.scalar(select(schema.lease.c.run).where(schema.lease.c.name == LEASE))


def row(connection: Connection, run: str) -> dict[str, Any] | None:
    """A run's row, or None."""
    found = connection.execute(select(schema.runs).where(schema.runs.c.id == run)).mappings().first()
    return None if found is None else dict(found)


def change(connection: Connection, run: str, now: float, **values: Any) -> None:
    """Set columns of a run."""
    table = schema.runs
    connection.execute(table.update().where(table.c.id == run).values(updated_at=now, **values))


def answers(connection: Connection, run: str) -> list[dict[str, Any]]:
    """Each asked device with its answer: device, command, admitted, status, reason, times."""
    asked, commands = schema.participants, schema.commands
    query = (
        select(
            asked.c.device,
            asked.c.command,
            asked.c.admitted,
            commands.c.status,
            commands.c.reason,
            commands.c.answered_at,
            commands.c.issued_at,
        )
        .join(commands, commands.c.id == asked.c.command, isouter=True)
        .where(asked.c.run == run)
        .order_by(asked.c.device)
    )
    return [dict(found) for found in connection.execute(query).mappings()]


def admit(connection: Connection, run: str, devices: list[str]) -> None:
    """Note which devices take part."""
    table = schema.participants
    connection.execute(
        table.update().where(table.c.run == run, table.c.device.in_(devices)).values(admitted=True)
    )


def finish(connection: Connection, run: str, state: str, now: float, **values: Any) -> None:
    """Close a run and give its lease back."""
    change(connection, run, now, state=state, finished_at=now, **values)
    connection.execute(schema.lease.delete().where(schema.lease.c.run == run))


def follow(connection: Connection, status: RunStatus, now: float) -> None:
    """Take over what the server says of a run of ours; a run that has ended stays as it ended."""
    known = row(connection, status.run)
    if known is None or known["state"] in TERMINAL:
        return
    body = msgspec.json.encode(status).decode()
    values: dict[str, Any] = {"status": body}
    if status.model_version is not None:
        values["model_version"] = status.model_version
    if status.released:
        values["released"] = True
    if status.phase in TERMINAL:
        finish(connection, status.run, status.phase, now, reason=status.reason, **values)
    else:
        change(connection, status.run, now, state=status.phase, **values)
    if status.round >= 1 and status.phase == "training":
        _round(connection, status, now)


def _round(connection: Connection, status: RunStatus, now: float) -> None:
    """One row a round; what a later status of the same round leaves out stays."""
    table = schema.rounds
    this = (table.c.run == status.run) & (table.c.round == status.round)
    old = connection.scalar(select(table.c.body).where(this))
    merged: dict[str, Any] = (
        json.loads(old) if old else {"metrics": {}, "round_seconds": None, "overhead_seconds": None}
    )
    merged["replies"] = status.replies
    merged["awaited"] = status.awaited
    merged["dropped"] = status.dropped
    merged["metrics"] |= status.metrics
    for name in ("round_seconds", "overhead_seconds"):
        if getattr(status, name) is not None:
            merged[name] = getattr(status, name)
    if old:
        connection.execute(table.update().where(this).values(updated_at=now, body=json.dumps(merged)))
    else:
        connection.execute(
            table.insert().values(
                run=status.run, round=status.round, started_at=now, updated_at=now, body=json.dumps(merged)
            )
        )


def untold(connection: Connection) -> list[tuple[str, str]]:
    """(run, device) of those that accepted and do not know yet that their part has ended: the run is over,
    or it began without them because they answered late."""
    asked, commands, table = schema.participants, schema.commands, schema.runs
    over = table.c.state.in_(TERMINAL)
    left_out = ~asked.c.admitted & (table.c.state != "admitting")
    query = (
        select(asked.c.run, asked.c.device)
        .join(table, table.c.id == asked.c.run)
        .join(commands, commands.c.id == asked.c.command)
        .where(~asked.c.told, commands.c.status.in_(("accepted", "done")), over | left_out)
        .order_by(asked.c.run, asked.c.device)
    )
    return [(found[0], found[1]) for found in connection.execute(query)]


def tell(connection: Connection, run: str, device: str) -> None:
    """Note that a device was told."""
    table = schema.participants
    connection.execute(table.update().where(table.c.run == run, table.c.device == device).values(told=True))
