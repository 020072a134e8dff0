"""API tokens: shown once, kept as hashes, each for one user and a part of what that user may."""

import hmac
import json
import re
import secrets
from collections.abc import Collection
from typing import Any, get_args

import msgspec
from sqlalchemy import Connection, Row, select

from samd_gateway import schema
from samd_gateway.access import audit
from samd_gateway.access.actor import PERMISSIONS, Actor, Permission
from samd_gateway.access.keys import digest, new_key
from samd_gateway.errors import ForbiddenError, NotFoundError, UsageError

_SHAPE = re.compile(r"samd_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
USED_EVERY_S = 60.0
"""`last_used` is written so often at most."""

table = schema.tokens


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token as it is listed: never the token itself."""

    id: str
    name: str
    user: str
    scopes: tuple[Permission, ...]
    created_at: float
    expires_at: float | None
    last_used: float | None
    revoked_at: float | None


def add(
    connection: Connection,
    actor: Actor,
    user: str,
    name: str,
    scopes: Collection[Permission],
    *,
    expires_at: float | None,
    now: float,
) -> tuple[Token, str]:
    """(the token as listed, the token as it is used, which is never seen again).

    Raises UsageError for scopes that are none or that the user's role does not hold, and ForbiddenError for
    an actor who would give away more than they hold themselves.
    """
    wanted = tuple(sorted(set(scopes)))
    unknown = [scope for scope in wanted if scope not in get_args(Permission)]
    if unknown or not wanted:
        raise UsageError(
            f"scopes {', '.join(unknown) or '(none)'}: take of {', '.join(get_args(Permission))}"
        )
    row = connection.execute(select(schema.users).where(schema.users.c.name == user)).one_or_none()
    if row is None or row.disabled_at is not None:
        raise NotFoundError(f"no user {user[:64]!r} here who is not disabled; GET /api/users lists them")
    beyond = [scope for scope in wanted if scope not in PERMISSIONS[row.role]]
    if beyond:
        raise UsageError(f"{user} ({row.role}) has no permission {', '.join(beyond)}; leave out those scopes")
    if not all(actor.may(scope) for scope in wanted):
        raise ForbiddenError(f"{actor.name} cannot give a token more than they may do themselves")
    if not 1 <= len(name) <= 120 or not name.isprintable():
        raise UsageError("a token's name says what it is for: 1 to 120 printable characters")
    if expires_at is not None and expires_at <= now:
        raise UsageError("the token would have expired already; let it end later")
    id_ = secrets.token_hex(6)
    token = f"samd_{id_}_{new_key()}"
    connection.execute(
        table.insert().values(
            id=id_,
            name=name,
            user=user,
            hash=digest(token),
            scopes=json.dumps(wanted),
            created_at=now,
            expires_at=expires_at,
        )
    )
    listed = one(connection, id_)
    audit.record(connection, actor, "token.add", f"token/{id_}", now=now, after=_picture(listed))
    return listed, token


def find(connection: Connection, token: str, *, now: float) -> tuple[Token, Actor] | None:
    """None for one that is unknown, expired or revoked, or whose user is disabled."""
    shape = _SHAPE.fullmatch(token)
    if shape is None:
        return None
    users = schema.users
    row = connection.execute(
        select(table, users.c.role)
        .join(users, users.c.name == table.c.user)
        .where(table.c.id == shape[1], table.c.revoked_at.is_(None), users.c.disabled_at.is_(None))
    ).one_or_none()
    if row is None or not hmac.compare_digest(row.hash, digest(token)):
        return None
    if row.expires_at is not None and row.expires_at <= now:
        return None
    listed = _token(row)
    return listed, Actor(name=row.user, role=row.role, via="api", permissions=frozenset(listed.scopes))


def used(connection: Connection, id_: str, *, now: float) -> None:
    connection.execute(table.update().where(table.c.id == id_).values(last_used=now))


def revoke(connection: Connection, actor: Actor, id_: str, *, now: float) -> Token:
    """Raises NotFoundError. A token that is revoked already stays as it is."""
    before = one(connection, id_)
    if before.revoked_at is None:
        connection.execute(table.update().where(table.c.id == id_).values(revoked_at=now))
        audit.record(connection, actor, "token.revoke", f"token/{id_}", now=now, before=_picture(before))
    return one(connection, id_)


def one(connection: Connection, id_: str) -> Token:
    """Raises NotFoundError."""
    row = connection.execute(select(table).where(table.c.id == id_)).one_or_none()
    if row is None:
        raise NotFoundError(f"no token {id_[:16]!r} here; GET /api/tokens lists them")
    return _token(row)


def of(connection: Connection, user: str | None) -> list[Token]:
    """The tokens of one user, or of all, the newest first."""
    chosen = select(table).order_by(table.c.created_at.desc(), table.c.id).limit(1000)
    if user is not None:
        chosen = chosen.where(table.c.user == user)
    return [_token(row) for row in connection.execute(chosen)]


def _token(row: Row[Any]) -> Token:
    return Token(
        id=row.id,
        name=row.name,
        user=row.user,
        scopes=tuple(json.loads(row.scopes)),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used=row.last_used,
        revoked_at=row.revoked_at,
    )


def _picture(token: Token) -> dict[str, Any]:
    return {
        "name": token.name,
        "user": token.user,
        "scopes": list(token.scopes),
        "expires_at": token.expires_at,
    }
