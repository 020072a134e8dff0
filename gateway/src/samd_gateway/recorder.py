"""Writes a batch of accepted items into the database, within the caller's transaction.

Idempotent: an item that is already there changes nothing. What is newest is decided here: `up/state` by boot
and connection (see `states.supersedes`), every other kind by (boot, seq) of its sender.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, select, tuple_

from samd_gateway import runs_table, schema
from samd_gateway.intake import SERVER_KINDS, Item
from samd_gateway.states import Contact, Order, Policy, heard, supersedes
from samd_protocol import messages as wire

LATEST = ("heartbeat", "assessment", "alert", "training", "config", "server.state", "run.status")


def upsert(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, or replace those with the same primary key. All rows have the same columns."""
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as pg_insert

        statement: Any = pg_insert(table)
    else:
        from sqlalchemy.dialects.sqlite import insert as sqlite_insert

        statement = sqlite_insert(table)
    keys = [column.name for column in table.primary_key]
    changed = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed), list(rows))


def contact_of(row: Mapping[str, Any]) -> Contact:
    """The part of a device's row that its state is derived from."""
    return Contact(**{name: row[name] for name in Contact.__struct_fields__})


def fresh(connection: Connection, items: Iterable[Item]) -> list[Item]:
    """The items that are not in the database, each once; heartbeats always, as they are not kept."""
    unique: dict[tuple[str, str], Item] = {}
    for item in items:
        unique.setdefault((item.sender, item.envelope.id), item)
    keep = schema.messages
    ids = [key[1] for key, item in unique.items() if item.kind != "heartbeat"]
    rows = connection.execute(select(keep.c.device, keep.c.id).where(keep.c.id.in_(ids))) if ids else ()
    known = {(row[0], row[1]) for row in rows}
    return [item for key, item in unique.items() if key not in known]


def record(connection: Connection, items: Sequence[Item], policy: Policy) -> list[Item]:
    """Write a batch; returns the items that were new, in their order."""
    new = fresh(connection, items)
    if not new:
        return []
    kept = [
        {
            "device": item.sender,
            "id": item.envelope.id,
            "kind": item.kind,
            "boot": item.envelope.boot,
            "seq": item.envelope.seq,
            "received_at": item.received_at,
            "sent_at": item.envelope.sent_at.timestamp(),
            "body": item.body,
        }
        for item in new
        if item.kind != "heartbeat"
    ]
    if kept:
        connection.execute(schema.messages.insert(), kept)
    _devices(connection, new, policy)
    _latest(connection, new)
    for item in new:
        if isinstance(item.envelope.data, wire.Result):
            _result(connection, item, item.envelope.data)
        elif isinstance(item.envelope.data, wire.RunStatus):
            runs_table.follow(connection, item.envelope.data, item.received_at)
        elif isinstance(item.envelope.data, wire.ModelAnswer):
            _model_answer(connection, item, item.envelope.data)
    return new


_EMPTY: dict[str, Any] = {column.name: None for column in schema.devices.columns}


def _devices(connection: Connection, items: Sequence[Item], policy: Policy) -> None:
    names = {item.sender for item in items if item.kind not in SERVER_KINDS.values()}
    if not names:
        return
    table = schema.devices
    found = connection.execute(select(table).where(table.c.name.in_(names))).mappings()
    rows: dict[str, dict[str, Any]] = {row["name"]: dict(row) for row in found}
    for item in items:
        if item.sender not in names:
            continue
        row = rows.setdefault(item.sender, _EMPTY | {"name": item.sender})
        data = item.envelope.data
        offline = isinstance(data, wire.State) and data.status == "offline"
        if isinstance(data, wire.State):
            _state(connection, row, item, data)
        elif row["reported"] == "offline" and not item.retained and (row["boot"] or 0) <= item.envelope.boot:
            _risen(row, item)
        # Retained messages were sent at an unknown time, and a will is sent by the broker: no sign of life.
        if not item.retained and not offline:
            contact = heard(contact_of(row), item.received_at, policy)
            row.update({name: getattr(contact, name) for name in Contact.__struct_fields__})
            row["first_heard"] = row["first_heard"] or item.received_at
        if isinstance(data, wire.Heartbeat):
            row["interval_s"] = data.interval_s
            if data.model_version is not None:
                row["model_version"] = data.model_version
    upsert(connection, table, list(rows.values()))


def _risen(row: dict[str, Any], item: Item) -> None:
    """A heartbeat of a later message than the goodbye on record: the birth between them has not arrived yet.

    Heartbeats alone do this (nothing else is sent only while alive: an outbox may hold the rest), and only
    those of a later boot: within one boot, a will says nothing of what was sent before it.
    """
    if item.kind == "heartbeat" and item.envelope.boot > (row["boot"] or 0):
        row["reported"] = None
        row["reported_at"] = None


def _state(connection: Connection, row: dict[str, Any], item: Item, state: wire.State) -> None:
    boots = schema.boots
    key = {"device": item.sender, "boot_id": state.boot_id}
    known = connection.execute(select(boots.c.first_seen).filter_by(**key)).first() is not None
    old = None
    if row["boot"] is not None:
        old = Order(
            boot=row["boot"],
            connection=row["connection"],
            seq=row["seq"],
            boot_id=row["boot_id"],
            offline=row["reported"] == "offline",
        )
    new = Order(
        boot=item.envelope.boot,
        connection=state.connection,
        seq=item.envelope.seq,
        boot_id=state.boot_id,
        offline=state.status == "offline",
    )
    if not known:
        connection.execute(boots.insert().values(first_seen=item.received_at, **key))
    if not supersedes(new, old, known_boot=known):
        return
    if old is not None and new.boot_id != old.boot_id and new.boot <= old.boot:
        # set up anew, counting from one: what the device sends now must not lose against its former life
        table = schema.latest
        connection.execute(table.update().where(table.c.device == item.sender).values(boot=-1, seq=-1))
    if row["reported"] == "offline":
        row["online_since"] = None
    row.update(
        reported=state.status,
        reported_at=item.received_at,
        boot=new.boot,
        connection=new.connection,
        seq=new.seq,
        boot_id=new.boot_id,
        client_version=state.client_version.replace("\0", "")[:80],
        model_version=state.model_version if state.model_version is not None else row["model_version"],
    )


def _latest(connection: Connection, items: Sequence[Item]) -> None:
    table = schema.latest
    wanted = {(item.sender, item.kind) for item in items if item.kind in LATEST}
    if not wanted:
        return
    query = select(table.c.device, table.c.kind, table.c.boot, table.c.seq)
    found = connection.execute(query.where(tuple_(table.c.device, table.c.kind).in_(wanted)))
    order: dict[tuple[str, str], tuple[int, int]] = {(row[0], row[1]): (row[2], row[3]) for row in found}
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for item in items:
        key = (item.sender, item.kind)
        if key not in wanted:
            continue
        position = (item.envelope.boot, item.envelope.seq)
        if not _newer(item, position, order.get(key)):
            continue
        order[key] = position
        rows[key] = {
            "device": item.sender,
            "kind": item.kind,
            "boot": item.envelope.boot,
            "seq": item.envelope.seq,
            "received_at": item.received_at,
            "sent_at": item.envelope.sent_at.timestamp(),
            "synced": item.envelope.clock == "synced",
            "body": item.body,
        }
    upsert(connection, table, list(rows.values()))


def _newer(item: Item, position: tuple[int, int], old: tuple[int, int] | None) -> bool:
    if old is None:
        return True
    if item.kind == "server.state":
        # Its will is written at connect, so within a boot the order of arrival counts; a birth always counts
        # (the server may have been set up anew), a will of an earlier boot never.
        online = isinstance(item.envelope.data, wire.ServerState) and item.envelope.data.status == "online"
        return online or position[0] >= old[0]
    if item.kind == "run.status":
        return True  # one sender, one topic: the broker keeps its order
    return position > old


def _result(connection: Connection, item: Item, result: wire.Result) -> None:
    """The answer to a command, if that command was sent to this device; a final answer is never undone."""
    table = schema.commands
    this = (table.c.id == result.command) & (table.c.device == item.sender)
    if result.status == "accepted":
        this &= table.c.status.is_(None)
    connection.execute(
        table.update()
        .where(this)
        .values(
            status=result.status,
            reason=result.reason,
            detail=msgspec.json.encode(result.detail).decode(),
            answered_at=item.received_at,
        )
    )


def _model_answer(connection: Connection, item: Item, answer: wire.ModelAnswer) -> None:
    """What the server made of an order about a model; the first answer counts."""
    table = schema.releases
    connection.execute(
        table.update()
        .where(table.c.order == answer.order, table.c.status.is_(None))
        .values(status=answer.status, reason=answer.reason, answered_at=item.received_at)
    )
