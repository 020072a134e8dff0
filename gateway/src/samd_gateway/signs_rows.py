"""Signs of life into the table `devices`, where no later one stands there already: another gateway on the
same database may have heard the device since. And until when this gateway listened, which tells the next
start what was silence and what was its own absence.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, select

from samd_gateway import schema
from samd_gateway.roster import LIVE
from samd_gateway.schema import Database
from samd_gateway.upserts import insert, upsert

LISTENED = "listened_until"


def write_signs(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of the roster; of each only what any message may change."""
    if not rows:
        return
    table = schema.devices
    statement = insert(connection, table)
    new, old = statement.excluded, table.c
    statement = statement.on_conflict_do_update(
        index_elements=["name"],
        set_={name: new[name] for name in LIVE},
        where=func.coalesce(old.last_heard, 0.0) <= func.coalesce(new.last_heard, 0.0),
    )
    connection.execute(statement, list(rows))


def write_listened(connection: Connection, now: float) -> None:
    """Say that a gateway has listened until now."""
    upsert(connection, schema.meta, [{"key": LISTENED, "value": json.dumps(now)}])


def listened_until(database: Database) -> float:
    """Until when a gateway listened on this database; 0 for never."""
    with database.read() as connection:
        value = connection.scalar(select(schema.meta.c.value).where(schema.meta.c.key == LISTENED))
        heard = connection.scalar(select(func.max(schema.devices.c.last_heard)))
    return max(0.0 if value is None else float(json.loads(value)), heard or 0.0)
