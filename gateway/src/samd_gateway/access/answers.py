"""The shapes of what the API says of users, sessions, tokens and the audit."""

from datetime import UTC, datetime
from typing import Any

from pydantic import ConfigDict, Field

from samd_gateway.access.actor import Permission, Role, Via
from samd_gateway.access.audit import Entry
from samd_gateway.access.tokens import Token
from samd_gateway.access.users import User
from samd_gateway.answers import Answer


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def maybe_at(seconds: float | None) -> datetime | None:
    return None if seconds is None else at(seconds)


class MeOut(Answer):
    """Who asks, and what they may do."""

    name: str = Field(description="`local` while no user is set up")
    role: Role
    via: Via
    permissions: list[Permission]
    users_set_up: bool
    display: str
    locale: str | None
    theme: str | None
    csrf: str | None = Field(
        description="What the header X-CSRF-Token must be in every request that changes something and comes "
        "with a cookie; null for who comes with a token"
    )
    expires_at: datetime | None = Field(description="When the session ends if nothing is done in it")


class UserOut(Answer):
    """One user."""

    name: str
    display: str
    role: Role
    has_password: bool
    single_sign_on: bool
    created_at: datetime
    password_changed_at: datetime | None
    disabled_at: datetime | None


class UsersOut(Answer):
    users: list[UserOut]


class RolesOut(Answer):
    roles: dict[Role, list[Permission]]


class TokenOut(Answer):
    """One token, by the id that is its second part; the token itself is shown once, when it is made."""

    id: str
    name: str
    user: str
    scopes: list[Permission]
    created_at: datetime
    expires_at: datetime | None
    last_used: datetime | None = Field(description="To the minute")
    revoked_at: datetime | None


class TokensOut(Answer):
    tokens: list[TokenOut]


class NewTokenOut(Answer):
    token: str = Field(description="Shown this once")
    listed: TokenOut


class SessionOut(Answer):
    """One session that is valid now; its id is no secret and opens nothing."""

    id: str
    user: str
    current: bool
    created_at: datetime
    last_seen: datetime
    expires_at: datetime


class SessionsOut(Answer):
    sessions: list[SessionOut]


class SessionLimitsBody(Answer):
    """How long a session lasts. A page that is merely open does nothing: a screen on a wall needs more."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"idle_s": 28_800.0}]})

    idle_s: float = Field(8 * 3600.0, ge=300, le=90 * 86_400, description="Since its user last did something")
    absolute_s: float = Field(24 * 3600.0, ge=300, le=90 * 86_400, description="Since the signing in")


class EndedOut(Answer):
    ended: int


class EntryOut(Answer):
    """One change: who, what, when, from what to what."""

    id: int
    at: datetime
    actor: str
    role: str
    via: str
    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class AuditOut(Answer):
    entries: list[EntryOut]
    next: int | None = Field(description="`before` of the next page; null on the last one")


def user_out(user: User) -> UserOut:
    return UserOut(
        name=user.name,
        display=user.display,
        role=user.role,
        has_password=user.has_password,
        single_sign_on=user.single_sign_on,
        created_at=at(user.created_at),
        password_changed_at=maybe_at(user.password_changed_at),
        disabled_at=maybe_at(user.disabled_at),
    )


def token_out(token: Token) -> TokenOut:
    return TokenOut(
        id=token.id,
        name=token.name,
        user=token.user,
        scopes=list(token.scopes),
        created_at=at(token.created_at),
        expires_at=maybe_at(token.expires_at),
        last_used=maybe_at(token.last_used),
        revoked_at=maybe_at(token.revoked_at),
    )


def entry_out(entry: Entry) -> EntryOut:
    return EntryOut(
        id=entry.id,
        at=at(entry.at),
        actor=entry.actor,
        role=entry.role,
        via=entry.via,
        action=entry.action,
        target=entry.target,
        before=entry.before,
        after=entry.after,
    )
