"""The newest message of each kind from each sender: which it is, and how it is written."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select, tuple_

from samd_gateway import schema
from samd_gateway.intake import Item
from samd_gateway.upserts import insert, upsert
from samd_protocol import messages as wire

BY_ORDER = ("assessment", "alert", "training", "config")
"""Kinds of which the newest is that of the greatest (boot, seq); so it is of heartbeats, which are written
later."""
OF_SERVER = ("server.state", "run.status")


def newest_of(
    items: Sequence[Item], orders: Mapping[tuple[str, str], tuple[int, int]], births: Mapping[str, int]
) -> list[Item]:
    """The items that become the newest of their sender and kind. `births`: devices that were set up anew, by
    the place of their birth among the items: what stands before it is of their former life."""
    found: dict[tuple[str, str], Item] = {}
    for index, item in enumerate(items):
        if item.kind not in BY_ORDER or index < births.get(item.sender, 0):
            continue
        key = (item.sender, item.kind)
        best = found.get(key)
        order = orders.get(key) if best is None else (best.envelope.boot, best.envelope.seq)
        if order is None or (item.envelope.boot, item.envelope.seq) > order:
            found[key] = item
    return list(found.values())


def write_latest(connection: Connection, items: list[Item]) -> None:
    """The newest of each sender and kind into `latest`, where nothing later stands there already."""
    if not items:
        return
    table = schema.latest
    statement = insert(connection, table)
    new, old = statement.excluded, table.c
    later = (new.boot > old.boot) | ((new.boot == old.boot) & (new.seq > old.seq))
    statement = statement.on_conflict_do_update(
        index_elements=["device", "kind"],
        set_={name: new[name] for name in ("boot", "seq", "received_at", "sent_at", "synced", "body")},
        where=later,
    )
    connection.execute(statement, [latest_row(item) for item in items])


def latest_row(item: Item) -> dict[str, Any]:
    return {
        "device": item.sender,
        "kind": item.kind,
        "boot": item.envelope.boot,
        "seq": item.envelope.seq,
        "received_at": item.received_at,
        "sent_at": item.envelope.sent_at.timestamp(),
        "synced": item.envelope.clock == "synced",
        "body": item.body,
    }


def write_server(connection: Connection, items: Sequence[Item]) -> None:
    """The server's newest words, whose order is not that of its counters alone."""
    said = [item for item in items if item.kind in OF_SERVER]
    if not said:
        return
    table = schema.latest
    query = select(table.c.device, table.c.kind, table.c.boot, table.c.seq)
    wanted = {(item.sender, item.kind) for item in said}
    found = connection.execute(query.where(tuple_(table.c.device, table.c.kind).in_(wanted)))
    order: dict[tuple[str, str], tuple[int, int]] = {(row[0], row[1]): (row[2], row[3]) for row in found}
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for item in said:
        key, position = (item.sender, item.kind), (item.envelope.boot, item.envelope.seq)
        if _supersedes(item, position, order.get(key)):
            order[key] = position
            rows[key] = latest_row(item)
    upsert(connection, table, list(rows.values()))


def _supersedes(item: Item, position: tuple[int, int], old: tuple[int, int] | None) -> bool:
    if old is None or item.kind == "run.status":
        return True  # one sender, one topic: the broker keeps its order
    # The server's will is written at connect, so within a boot the order of arrival counts; a birth always
    # counts (the server may have been set up anew), a will of an earlier boot never.
    online = isinstance(item.envelope.data, wire.ServerState) and item.envelope.data.status == "online"
    return online or position[0] >= old[0]
