"""Sessions: who is signed in by a cookie. The table holds the hash of the cookie, never the cookie."""

from typing import Annotated

import msgspec
from sqlalchemy import Connection, select

from samd_gateway import schema
from samd_gateway.access.actor import Actor
from samd_gateway.access.keys import digest, new_key

SEEN_EVERY_S = 60.0
"""`last_seen` is written so often at most."""
MAX_A_USER = 50
"""The oldest ends when one more begins."""

Limit = Annotated[float, msgspec.Meta(ge=300, le=90 * 86_400)]
"""With less nobody stays signed in for long enough to set it right again."""

table = schema.sessions


class SessionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Setting `sessions`. Idle counts from the last thing that the user did; a page that is merely open does
    nothing, so that a screen on a wall needs a longer limit."""

    idle_s: Limit = 8 * 3600.0
    absolute_s: Limit = 24 * 3600.0


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A session that is valid now."""

    hash: str
    actor: Actor
    csrf: str
    created_at: float
    last_seen: float
    expires_at: float


def begin(connection: Connection, user: str, limits: SessionLimits, *, now: float) -> tuple[str, str]:
    """(cookie, hash) of a new session; also forgets those that have expired."""
    connection.execute(table.delete().where(table.c.expires_at < now))
    cookie = new_key()
    kept = digest(cookie)
    older = connection.scalars(
        select(table.c.hash)
        .where(table.c.user == user)
        .order_by(table.c.last_seen.desc())
        .offset(MAX_A_USER - 1)
        .limit(1000)
    ).all()
    if older:
        connection.execute(table.delete().where(table.c.hash.in_(older)))
    connection.execute(
        table.insert().values(
            hash=kept,
            user=user,
            csrf=new_key(),
            created_at=now,
            last_seen=now,
            expires_at=now + limits.absolute_s,
        )
    )
    return cookie, kept


def find(connection: Connection, hash_: str, limits: SessionLimits, *, now: float) -> Session | None:
    """None for one that is unknown, has expired, was idle too long, or whose user is disabled."""
    users = schema.users
    row = connection.execute(
        select(table, users.c.role)
        .join(users, users.c.name == table.c.user)
        .where(
            table.c.hash == hash_,
            table.c.expires_at > now,
            table.c.last_seen > now - limits.idle_s,
            users.c.disabled_at.is_(None),
        )
    ).one_or_none()
    if row is None:
        return None
    return Session(
        hash=row.hash,
        actor=Actor(name=row.user, role=row.role, via="page"),
        csrf=row.csrf,
        created_at=row.created_at,
        last_seen=row.last_seen,
        expires_at=min(row.expires_at, row.last_seen + limits.idle_s),
    )


def seen(connection: Connection, hash_: str, *, now: float) -> None:
    connection.execute(table.update().where(table.c.hash == hash_).values(last_seen=now))


def end(connection: Connection, hash_: str) -> None:
    connection.execute(table.delete().where(table.c.hash == hash_))


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A session as it is listed, by the first 16 digits of its hash."""

    hash: str
    user: str
    created_at: float
    last_seen: float
    expires_at: float


def of(connection: Connection, user: str | None, limits: SessionLimits, *, now: float) -> list[Listed]:
    """The sessions of one user or of all, the latest seen first."""
    chosen = select(table).where(table.c.expires_at > now, table.c.last_seen > now - limits.idle_s)
    if user is not None:
        chosen = chosen.where(table.c.user == user)
    return [
        Listed(
            hash=row.hash,
            user=row.user,
            created_at=row.created_at,
            last_seen=row.last_seen,
            expires_at=min(row.expires_at, row.last_seen + limits.idle_s),
        )
        for row in connection.execute(chosen.order_by(table.c.last_seen.desc()).limit(1000))
    ]
