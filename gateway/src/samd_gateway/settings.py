"""Settings that people change while the gateway runs: one typed struct a key, each change audited."""

from typing import TypeVar

import msgspec
from sqlalchemy import Connection, select

from samd_gateway import schema
from samd_gateway.access import audit
from samd_gateway.access.actor import Actor
from samd_gateway.errors import UsageError

T = TypeVar("T", bound=msgspec.Struct)


def get(connection: Connection, key: str, default: T) -> T:
    """What is set, or the default; its type is the default's. Fields that are not on record keep theirs."""
    table = schema.settings
    value = connection.scalar(select(table.c.value).where(table.c.key == key))
    if value is None:
        return default
    return msgspec.convert(
        msgspec.to_builtins(default) | msgspec.json.decode(value, type=dict), type=type(default)
    )


def put(connection: Connection, key: str, value: T, default: T, *, actor: Actor, now: float) -> None:
    """Set, and audit what it was and what it is. `value` is checked once more by its own type."""
    try:
        msgspec.convert(msgspec.to_builtins(value), type=type(value))
    except msgspec.ValidationError as error:
        raise UsageError(f"setting {key}: {error}") from error
    before = msgspec.to_builtins(get(connection, key, default))
    table = schema.settings
    connection.execute(table.delete().where(table.c.key == key))
    connection.execute(
        table.insert().values(
            key=key, value=msgspec.json.encode(value).decode(), updated_at=now, updated_by=actor.name
        )
    )
    audit.record(
        connection,
        actor,
        "settings.change",
        f"settings/{key}",
        now=now,
        before=before,
        after=msgspec.to_builtins(value),
    )
