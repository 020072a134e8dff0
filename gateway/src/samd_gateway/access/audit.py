"""The audit: who changed what, when, from what to what. Written in the transaction of the change itself, so
that there is no change without its entry and no entry without its change.
"""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, or_, select

from samd_gateway import schema
from samd_gateway.access.actor import Actor

Picture = Mapping[str, Any] | None


def record(
    connection: Connection,
    actor: Actor,
    action: str,
    target: str,
    *,
    now: float,
    before: Picture = None,
    after: Picture = None,
) -> None:
    """Add an entry. `action` is `noun.verb` (`alert.acknowledge`), `target` what it was done to
    (`device/bed-01`); `before` and `after` hold what changed, never a secret."""
    connection.execute(
        schema.audit.insert().values(
            at=now,
            actor=actor.name,
            role="none" if actor.permissions == frozenset() else actor.role,
            via=actor.via,
            action=action,
            target=target[:160],
            before=None if before is None else json.dumps(before, default=str),
            after=None if after is None else json.dumps(after, default=str),
        )
    )


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What `record` wrote."""

    id: int
    at: float
    actor: str
    role: str
    via: str
    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries. `action` and `target` are meant with all that is below them: `alert` is
    `alert.acknowledge` too, `device/bed-01` that device alone. `before` is the key of the last page's end."""

    actor: str | None = None
    action: str | None = None
    target: str | None = None
    since: float | None = None
    until: float | None = None
    before: int | None = None


def page(connection: Connection, asked: Asked, limit: int) -> tuple[list[Entry], int | None]:
    """The newest entries first, and the key of the next page, None on the last one."""
    table = schema.audit
    chosen = select(table)
    if asked.actor is not None:
        chosen = chosen.where(table.c.actor == asked.actor)
    if asked.action is not None:
        chosen = chosen.where(
            or_(
                table.c.action == asked.action, table.c.action.startswith(f"{asked.action}.", autoescape=True)
            )
        )
    if asked.target is not None:
        chosen = chosen.where(
            or_(
                table.c.target == asked.target, table.c.target.startswith(f"{asked.target}/", autoescape=True)
            )
        )
    if asked.since is not None:
        chosen = chosen.where(table.c.at >= asked.since)
    if asked.until is not None:
        chosen = chosen.where(table.c.at < asked.until)
    if asked.before is not None:
        chosen = chosen.where(table.c.id < asked.before)
    rows = connection.execute(chosen.order_by(table.c.id.desc()).limit(limit + 1)).all()
    entries = [
        Entry(
            id=row.id,
            at=row.at,
            actor=row.actor,
            role=row.role,
            via=row.via,
            action=row.action,
            target=row.target,
            before=_picture(row.before),
            after=_picture(row.after),
        )
        for row in rows[:limit]
    ]
    return entries, entries[-1].id if len(rows) > limit else None


def _picture(text: str | None) -> dict[str, Any] | None:
    found = None if text is None else json.loads(text)
    return found if isinstance(found, dict) or found is None else {"value": found}
