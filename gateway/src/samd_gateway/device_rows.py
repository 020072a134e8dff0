"""Rows of the table `devices` that a batch changes at once: births and wills, and devices that are new here.

What any other message tells of its device is taken into the roster (`signs`) and written a little later.
Which state is the newest is decided here, by boot and connection (see `states.supersedes`), from the row as
it stands in the database: another gateway may have written it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

from samd_gateway import schema
from samd_gateway.intake import SERVER_KINDS, Item
from samd_gateway.roster import LIVE, Known, Roster
from samd_gateway.signs import lag_s
from samd_gateway.states import Contact, Order, Policy, heard, supersedes
from samd_gateway.upserts import upsert
from samd_protocol import messages as wire

OF_SERVER = frozenset(SERVER_KINDS.values())


def contact_of(row: Mapping[str, Any]) -> Contact:
    """The part of a device's row that its state is derived from."""
    return Contact(**{name: row[name] for name in Contact.__struct_fields__})


def to_write_now(items: Sequence[Item], roster: Roster) -> set[str]:
    """The devices of a batch whose rows cannot wait."""
    names: set[str] = set()
    for item in items:
        if item.kind in OF_SERVER or item.sender in names:
            continue
        known = roster.get(item.sender)
        if known is None or item.kind == "state" or _risen(item, known.reported, known.boot):
            names.add(item.sender)
    return names


def _risen(item: Item, reported: str | None, boot: int | None) -> bool:
    """Whether this heartbeat is of a later life than the goodbye on record: the birth between them has not
    arrived yet. Heartbeats alone show it (an outbox may hold the rest), and only those of a later boot:
    within one boot, a will says nothing of what was sent before it."""
    return (
        reported == "offline"
        and item.kind == "heartbeat"
        and not item.retained
        and item.envelope.boot > (boot or 0)
    )


def write(
    connection: Connection, items: Sequence[Item], names: set[str], roster: Roster, policy: Policy
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Write the rows of these devices; the rows, and which devices were set up anew by which of the items."""
    if not names:
        return [], {}
    table = schema.devices
    found = connection.execute(select(table).where(table.c.name.in_(names))).mappings()
    rows: dict[str, dict[str, Any]] = {row["name"]: dict(row) for row in found}
    births: dict[str, int] = {}
    for name in names:
        row = rows.setdefault(name, dict.fromkeys(table.columns.keys()) | {"name": name})
        _with_what_is_known(row, roster.get(name))
    for index, item in enumerate(items):
        if item.sender not in names or item.kind in OF_SERVER:
            continue
        row, data = rows[item.sender], item.envelope.data
        if isinstance(data, wire.State):
            if _state(connection, row, item, data):
                births[item.sender] = index
        elif _risen(item, row["reported"], row["boot"]):
            row["reported"] = row["reported_at"] = None
        # Retained messages were sent at an unknown time, and a will is sent by the broker: no sign of life.
        if not item.retained and not (isinstance(data, wire.State) and data.status == "offline"):
            known = roster.get(item.sender)
            at = item.received_at - (0.0 if known is None else lag_s(known, item))
            contact = heard(contact_of(row), at, policy)
            row.update({name: getattr(contact, name) for name in Contact.__struct_fields__})
            row["first_heard"] = row["first_heard"] or item.received_at
    upsert(connection, table, list(rows.values()))
    return list(rows.values()), births


def _with_what_is_known(row: dict[str, Any], known: Known | None) -> None:
    """Signs of life that are not written yet."""
    if known is not None and (known.last_heard or 0.0) > (row["last_heard"] or 0.0):
        row.update({name: getattr(known, name) for name in LIVE})


def _state(connection: Connection, row: dict[str, Any], item: Item, state: wire.State) -> bool:
    """Take a birth, a will or a change into the row; whether the device was set up anew."""
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
        return False
    anew = old is not None and new.boot_id != old.boot_id and new.boot <= old.boot
    if anew:
        # counting from one: what the device sends now must not lose against its former life
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
        client_version=state.client_version[:80],
        model_version=state.model_version if state.model_version is not None else row["model_version"],
    )
    return anew
