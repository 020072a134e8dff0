"""Who comes by single sign-on becomes a user here, with the role that the provider says, each time anew."""

import hashlib
import re

from sqlalchemy import Connection

from samd_gateway.access import audit, users
from samd_gateway.access.actor import STRANGER, SYSTEM
from samd_gateway.access.oidc import Identity
from samd_gateway.errors import SignInError

_OTHER = re.compile(r"[^a-z0-9._@-]+")


def arrive(connection: Connection, identity: Identity, *, now: float) -> str | None:
    """The name of their user, made or brought up to date; None for who has no role here (any more), or is
    disabled: then their sessions end too. Raises ConflictError where the last admin would lose the role."""
    subject = _subject(identity)
    user = users.by_subject(connection, subject)
    if identity.role is None or (user is not None and user.disabled_at is not None):
        whom = user.name if user else "unknown"
        if user is not None:
            users.end_sessions(connection, user.name)
        audit.record(
            connection, STRANGER, "session.refuse", f"user/{whom}", now=now, after={"by": "single sign-on"}
        )
        return None
    if user is None:
        name = free_name(connection, identity.name, subject)
        return users.add(
            connection,
            SYSTEM,
            name,
            identity.role,
            password_hash=None,
            display=_line(identity.display),
            subject=subject,
            now=now,
        ).name
    if user.role != identity.role:
        users.change(connection, SYSTEM, user.name, role=identity.role, now=now)
    return user.name


def free_name(connection: Connection, wanted: str, subject: str) -> str:
    """A name like the wanted one that is nobody's: who has the same name at the provider as somebody here is
    somebody else until an admin says otherwise."""
    plain = _OTHER.sub("-", wanted.strip().lower()).strip("._@-")[:50] or "user"
    mark = hashlib.sha256(subject.encode()).hexdigest()[:8]
    for name in (plain, f"{plain}-{mark}"):
        if name not in users.RESERVED and not users.exists(connection, name):
            return name
    raise SignInError("no name is left for this account; an admin has to look at the users")


def _subject(identity: Identity) -> str:
    if len(identity.subject) <= 255:
        return identity.subject
    return "sha256:" + hashlib.sha256(identity.subject.encode()).hexdigest()


def _line(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())[:120]
