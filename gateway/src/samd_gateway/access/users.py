"""Users: added, changed, disabled; each change with its audit entry, in the caller's transaction."""

import re
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, func, or_, select

from samd_gateway import schema
from samd_gateway.access import audit
from samd_gateway.access.actor import PERMISSIONS, Actor, Role
from samd_gateway.errors import ConflictError, NotFoundError, UsageError

NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
NAME_LENGTH = 64
RESERVED = ("local", "system", "unknown")
"""Names that mean something else in the audit."""
table = schema.users


class User(msgspec.Struct, frozen=True, kw_only=True):
    """One user as they are shown; never the hash of the password."""

    name: str
    display: str
    role: Role
    has_password: bool
    single_sign_on: bool
    created_at: float
    password_changed_at: float | None
    disabled_at: float | None
    locale: str | None
    theme: str | None


def valid_name(name: str) -> str:
    """The name in lower case. Raises UsageError."""
    lower = name.strip().lower()
    if not NAME.fullmatch(lower):
        raise UsageError(
            f"user name {name[:64]!r}: take up to 64 letters a-z, digits and . _ @ -, a letter or digit first"
        )
    if lower in RESERVED:
        raise UsageError(f"user name {lower!r} has a meaning in the audit; take another")
    return lower


def any_at_all(connection: Connection) -> bool:
    return connection.scalar(select(table.c.name).limit(1)) is not None


def exists(connection: Connection, name: str) -> bool:
    return connection.scalar(select(table.c.name).where(table.c.name == name)) is not None


def every(connection: Connection) -> list[User]:
    return [_user(row) for row in connection.execute(select(table).order_by(table.c.name))]


def one(connection: Connection, name: str) -> User:
    """Raises NotFoundError."""
    return _user(_row(connection, name))


def kept_hash(connection: Connection, name: str) -> str | None:
    """The hash of an enabled user's password."""
    return connection.scalar(
        select(table.c.password_hash).where(table.c.name == name, table.c.disabled_at.is_(None))
    )


def add(
    connection: Connection,
    actor: Actor,
    name: str,
    role: Role,
    *,
    password_hash: str | None,
    display: str = "",
    subject: str | None = None,
    now: float,
) -> User:
    """Raises ConflictError for a name that is taken, UsageError for one that is none, and for a first user
    who could not add the second."""
    name = valid_name(name)
    if role not in PERMISSIONS:
        raise UsageError(f"role {role!r}: write one of {', '.join(PERMISSIONS)}")
    if not any_at_all(connection) and (role != "admin" or password_hash is None):
        raise UsageError(
            "the first user must be an admin with a password: from then on nobody does anything "
            "without signing in; samd-gateway users add NAME --role admin"
        )
    if connection.scalar(select(table.c.name).where(table.c.name == name)) is not None:
        raise ConflictError(f"there is a user {name!r} already; change them, or take another name")
    connection.execute(
        table.insert().values(
            name=name,
            display=display[:120],
            role=role,
            password_hash=password_hash,
            subject=subject,
            created_at=now,
            password_changed_at=now if password_hash else None,
        )
    )
    user = one(connection, name)
    audit.record(connection, actor, "user.add", f"user/{name}", now=now, after=_picture(user))
    return user


def change(
    connection: Connection,
    actor: Actor,
    name: str,
    *,
    now: float,
    role: Role | None = None,
    display: str | None = None,
    disabled: bool | None = None,
    locale: str | None = None,
    theme: str | None = None,
) -> User:
    """What is None stays. Raises NotFoundError, and ConflictError where no admin would be left."""
    before = one(connection, name)
    values: dict[str, Any] = {
        key: value
        for key, value in (("display", display), ("locale", locale), ("theme", theme), ("role", role))
        if value is not None
    }
    if disabled is not None and disabled != (before.disabled_at is not None):
        values["disabled_at"] = now if disabled else None
    if role is not None and role not in PERMISSIONS:
        raise UsageError(f"role {role!r}: write one of {', '.join(PERMISSIONS)}")
    falls = before.role == "admin" and (role not in (None, "admin") or disabled)
    if falls and not _admins_beside(connection, name):
        raise ConflictError(f"{name} is the last admin; make another user an admin first")
    if values:
        connection.execute(table.update().where(table.c.name == name).values(**values))
    after = one(connection, name)
    if _picture(before) != _picture(after):
        audit.record(
            connection,
            actor,
            "user.change",
            f"user/{name}",
            now=now,
            before=_picture(before),
            after=_picture(after),
        )
    if after.disabled_at is not None:
        end_sessions(connection, name)
    return after


def set_password(connection: Connection, actor: Actor, name: str, password_hash: str, *, now: float) -> None:
    """Also ends the user's sessions: whoever knew the old password is out. Raises NotFoundError."""
    one(connection, name)
    connection.execute(
        table.update()
        .where(table.c.name == name)
        .values(password_hash=password_hash, password_changed_at=now)
    )
    end_sessions(connection, name)
    audit.record(connection, actor, "user.password", f"user/{name}", now=now)


def rehash(connection: Connection, name: str, before: str, password_hash: str) -> None:
    """The same password at another cost; only if it was not changed meanwhile."""
    connection.execute(
        table.update()
        .where(table.c.name == name, table.c.password_hash == before)
        .values(password_hash=password_hash)
    )


def end_sessions(connection: Connection, name: str) -> int:
    """How many ended."""
    ended = connection.execute(schema.sessions.delete().where(schema.sessions.c.user == name))
    return int(ended.rowcount)


def by_subject(connection: Connection, subject: str) -> User | None:
    row = connection.execute(select(table).where(table.c.subject == subject)).one_or_none()
    return None if row is None else _user(row)


def _admins_beside(connection: Connection, name: str) -> int:
    """Other admins who can sign in."""
    found = connection.scalar(
        select(func.count())
        .select_from(table)
        .where(
            table.c.role == "admin",
            table.c.name != name,
            table.c.disabled_at.is_(None),
            or_(table.c.password_hash.is_not(None), table.c.subject.is_not(None)),
        )
    )
    return int(found or 0)


def _row(connection: Connection, name: str) -> Row[Any]:
    row = connection.execute(select(table).where(table.c.name == name)).one_or_none()
    if row is None:
        raise NotFoundError(f"no user {name[:64]!r} here; GET /api/users lists them")
    return row


def _user(row: Row[Any]) -> User:
    return User(
        name=row.name,
        display=row.display,
        role=row.role,
        has_password=row.password_hash is not None,
        single_sign_on=row.subject is not None,
        created_at=row.created_at,
        password_changed_at=row.password_changed_at,
        disabled_at=row.disabled_at,
        locale=row.locale,
        theme=row.theme,
    )


def _picture(user: User) -> dict[str, Any]:
    return {
        "display": user.display,
        "role": user.role,
        "disabled": user.disabled_at is not None,
        "locale": user.locale,
        "theme": user.theme,
    }
