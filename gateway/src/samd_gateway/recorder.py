"""Writes a batch of accepted items into the database, within the caller's transaction.

Idempotent: an item that is already there changes nothing. What can wait a second is not written here: signs
of life go to the roster (`signs`), heartbeats to their spans (`health_buckets`), both once the batch is
committed.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, select
from sqlalchemy.exc import IntegrityError

from samd_gateway import bedside, device_rows, latest_rows, runs_table, schema, signs
from samd_gateway.health_buckets import Beats
from samd_gateway.intake import Item
from samd_gateway.roster import Roster
from samd_gateway.states import Policy
from samd_protocol import messages as wire


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch was found to be. `new`: the items that were not there, in their order; `newest`: those
    that are the newest of their sender and kind now; `rows` of devices as they were written; `births`:
    devices that were set up anew, by the place of the birth among the new."""

    new: list[Item]
    newest: list[Item] = []
    rows: list[dict[str, Any]] = []
    births: dict[str, int] = {}


def record(connection: Connection, items: Sequence[Item], policy: Policy, roster: Roster) -> Recorded:
    """Write a batch."""
    new = _messages(connection, _once(items))
    if not new:
        return Recorded(new=[])
    with roster.held:
        names = device_rows.to_write_now(new, roster)
        orders = {
            (item.sender, item.kind): order
            for item in new
            if (known := roster.get(item.sender)) is not None
            and (order := known.orders.get(item.kind)) is not None
        }
    rows, births = device_rows.write(connection, new, names, roster, policy)
    for name in births:
        orders = {key: order for key, order in orders.items() if key[0] != name}
    newest = latest_rows.newest_of(new, orders, births)
    latest_rows.write_latest(connection, newest)
    latest_rows.write_server(connection, new)
    for item in new:
        if isinstance(item.envelope.data, wire.Result):
            _result(connection, item, item.envelope.data)
        elif isinstance(item.envelope.data, wire.RunStatus):
            runs_table.follow(connection, item.envelope.data, item.received_at)
        elif isinstance(item.envelope.data, wire.ModelAnswer):
            _model_answer(connection, item, item.envelope.data)
    bedside.record(connection, new, births)
    return Recorded(new=new, newest=newest, rows=rows, births=births)


def take_in(recorded: Recorded, roster: Roster, beats: Beats) -> None:
    """What was committed, into memory."""
    with roster.held:
        for row in recorded.rows:
            roster.put(row)
        for name in recorded.births:
            known = roster.get(name)
            if known is not None:
                known.orders.clear()
            beats.forget(name)
        for index, item in enumerate(recorded.new):
            known = roster.get(item.sender)
            if known is None or index < recorded.births.get(item.sender, 0):
                continue
            if item.kind == "heartbeat":
                beats.add(item)
            if item.kind != "state":
                signs.take(roster, known, item)
            if item.kind in latest_rows.BY_ORDER and signs.newest(known, item):
                known.orders[item.kind] = (item.envelope.boot, item.envelope.seq)


def _once(items: Iterable[Item]) -> list[Item]:
    """The items, each once."""
    unique: dict[tuple[str, str], Item] = {}
    for item in items:
        unique.setdefault((item.sender, item.envelope.id), item)
    return list(unique.values())


def _messages(connection: Connection, items: list[Item]) -> list[Item]:
    """Insert what is not there yet; the new items. Heartbeats always are, as they are not kept.

    Nearly every batch is new as a whole, so that is tried first, and looked up only if it is not."""
    kept = [item for item in items if item.kind != "heartbeat"]
    if not kept:
        return items
    rows = [_row(item) for item in kept]
    try:
        with connection.begin_nested():
            connection.execute(schema.messages.insert(), rows)
    except IntegrityError:
        table = schema.messages
        ids = [item.envelope.id for item in kept]
        found = connection.execute(select(table.c.device, table.c.id).where(table.c.id.in_(ids)))
        known = {(row[0], row[1]) for row in found}
        rows = [row for row in rows if (row["device"], row["id"]) not in known]
        if rows:
            connection.execute(schema.messages.insert(), rows)
        return [
            item for item in items if item.kind == "heartbeat" or (item.sender, item.envelope.id) not in known
        ]
    return items


def _row(item: Item) -> dict[str, Any]:
    return {
        "device": item.sender,
        "id": item.envelope.id,
        "kind": item.kind,
        "boot": item.envelope.boot,
        "seq": item.envelope.seq,
        "received_at": item.received_at,
        "sent_at": item.envelope.sent_at.timestamp(),
        "body": item.body,
    }


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
