"""Users, roles, tokens and sessions over HTTP, and oneself."""

from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from samd_gateway import settings
from samd_gateway.access import sessions, tokens, users
from samd_gateway.access.actor import PERMISSIONS, Actor, Permission, Role
from samd_gateway.access.answers import (
    EndedOut,
    MeOut,
    NewTokenOut,
    RolesOut,
    SessionLimitsBody,
    SessionOut,
    SessionsOut,
    TokenOut,
    TokensOut,
    UserOut,
    UsersOut,
    at,
    token_out,
    user_out,
)
from samd_gateway.access.http import needs, session_of, someone
from samd_gateway.errors import ConflictError, ForbiddenError, NotFoundError
from samd_gateway.gateway import Gateway
from samd_gateway.problems import documented

Someone = Annotated[Actor, Depends(someone)]
Manager = Annotated[Actor, Depends(needs("users"))]
NAME = "^[A-Za-z0-9][A-Za-z0-9._@-]*$"
Name = Annotated[str, Path(min_length=1, max_length=64, pattern=NAME, examples=["n.kim"])]
Line = Annotated[str, Field(max_length=120, pattern="^[^\\x00-\\x1f\\x7f]*$")]
"""One line of text for people."""
Password = Annotated[str, Field(min_length=1, max_length=256, description="At least 12 characters")]
DAY_S = 86_400.0


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewUser(_Request):
    """A user to be added. Without a password they come by single sign-on, or by tokens alone."""

    name: str = Field(min_length=1, max_length=64, pattern=NAME, examples=["n.kim"])
    role: Role = Field(examples=["nurse"])
    display: Line = Field("", examples=["N. Kim"])
    password: Password | None = Field(None, examples=["some words in a row"])


class UserChange(_Request):
    """What is left out stays."""

    role: Role | None = Field(None, examples=["operator"])
    display: Line | None = Field(None, examples=["N. Kim"])
    disabled: StrictBool | None = Field(None, examples=[True], description="Ends sessions and tokens at once")


class NewPassword(_Request):
    password: Password = Field(examples=["some other words in a row"])


class OwnPassword(_Request):
    current: Annotated[str, Field(min_length=1, max_length=256)] = Field(examples=["some words in a row"])
    password: Password = Field(examples=["some other words in a row"])


class OwnChange(_Request):
    """What is left out stays."""

    display: Line | None = Field(None, examples=["N. Kim"])
    locale: Literal["en", "ko"] | None = Field(None, examples=["ko"])
    theme: Literal["light", "dark", "auto"] | None = Field(None, examples=["dark"])


class NewToken(_Request):
    """A token to be made. Its scopes are permissions, and a part of what its user may."""

    name: Line = Field(min_length=1, description="What it is for", examples=["dashboard"])
    scopes: list[Permission] = Field(min_length=1, max_length=8, examples=[["read"]])
    user: str | None = Field(None, min_length=1, max_length=64, pattern=NAME, description="Default: oneself")
    expires_in_days: float | None = Field(90.0, gt=0, le=3660, description="null: it does not expire")


def router(gateway: Gateway) -> APIRouter:
    """The routes below /api/me, /api/users, /api/roles, /api/tokens and /api/sessions."""
    api = APIRouter(prefix="/api", tags=["access"])
    access = gateway.access

    def own(actor: Actor) -> users.User | None:
        with gateway.database.read() as connection:
            return users.one(connection, actor.name) if users.exists(connection, actor.name) else None

    def me_out(request: Request, actor: Actor) -> MeOut:
        session, user = session_of(request), own(actor)
        return MeOut(
            name=actor.name,
            role=actor.role,
            via=actor.via,
            permissions=[each for each in sorted(PERMISSIONS[actor.role]) if actor.may(each)],
            users_set_up=not access.open_to_all,
            display=user.display if user else "",
            locale=user.locale if user else None,
            theme=user.theme if user else None,
            csrf=session.csrf if session else None,
            expires_at=at(session.expires_at) if session else None,
        )

    @api.get("/me", responses=documented(401, 421, 503))
    def me(request: Request, actor: Someone) -> MeOut:
        """Who asks, what they may do, and the token that a page sends with each change."""
        return me_out(request, actor)

    @api.patch("/me", responses=documented(401, 403, 404, 409, 422, 503))
    def change_me(request: Request, wanted: OwnChange, actor: Someone) -> MeOut:
        """Change one's own name as shown, language and theme."""
        _by_page(request, actor)
        with access.changing() as connection:
            users.change(connection, actor, actor.name, now=gateway.now(), **wanted.model_dump())
        return me_out(request, actor)

    @api.post("/me/password", status_code=204, responses=documented(401, 403, 404, 409, 422, 429, 503))
    def change_own_password(request: Request, wanted: OwnPassword, actor: Someone) -> None:
        """Change one's own password. Ends all of one's sessions, this one too: sign in anew."""
        _by_page(request, actor)
        address = request.client.host if request.client else ""
        access.change_password(actor, wanted.current, wanted.password, address=address)

    @api.get("/roles", responses=documented(401, 403, 503))
    def roles(_actor: Annotated[Actor, Depends(needs("read"))]) -> RolesOut:
        """What each role may do."""
        return RolesOut(roles={role: sorted(held) for role, held in PERMISSIONS.items()})

    # users

    @api.get("/users", responses=documented(401, 403, 503))
    def list_users(_actor: Manager) -> UsersOut:
        """All users, by name."""
        with gateway.database.read() as connection:
            return UsersOut(users=[user_out(user) for user in users.every(connection)])

    @api.post("/users", status_code=201, responses=documented(401, 403, 409, 422, 503))
    def add_user(wanted: NewUser, actor: Manager) -> UserOut:
        """Add a user. The first has to be an admin with a password, and closes the gateway to all others."""
        kept = access.hash_new(wanted.password, wanted.name) if wanted.password is not None else None
        with access.changing() as connection:
            user = users.add(
                connection,
                actor,
                wanted.name,
                wanted.role,
                password_hash=kept,
                display=wanted.display,
                now=gateway.now(),
            )
        return user_out(user)

    @api.get("/users/{name}", responses=documented(401, 403, 404, 422, 503))
    def one_user(name: Name, _actor: Manager) -> UserOut:
        """One user."""
        with gateway.database.read() as connection:
            return user_out(users.one(connection, name))

    @api.patch("/users/{name}", responses=documented(401, 403, 404, 409, 422, 503))
    def change_user(name: Name, wanted: UserChange, actor: Manager) -> UserOut:
        """Change role or name as shown, disable or enable. 409 where no admin would be left."""
        with access.changing() as connection:
            return user_out(users.change(connection, actor, name, now=gateway.now(), **wanted.model_dump()))

    @api.put("/users/{name}/password", status_code=204, responses=documented(401, 403, 404, 422, 503))
    def set_password(name: Name, wanted: NewPassword, actor: Manager) -> None:
        """Give a user another password, and end their sessions."""
        kept = access.hash_new(wanted.password, name)
        with access.changing() as connection:
            users.set_password(connection, actor, name, kept, now=gateway.now())

    @api.delete("/users/{name}/sessions", responses=documented(401, 403, 404, 422, 503))
    def end_sessions(name: Name, actor: Manager) -> EndedOut:
        """Sign a user out everywhere."""
        return EndedOut(ended=access.end_sessions(actor, name))

    @api.delete("/users/{name}/failures", status_code=204, responses=documented(401, 403, 404, 422, 503))
    def forget_failures(name: Name, actor: Manager) -> None:
        """Let a user try to sign in at once, who has to wait after failed attempts."""
        access.unlock(actor, name)

    # tokens

    @api.get("/tokens", responses=documented(401, 403, 422, 503))
    def list_tokens(
        actor: Someone,
        user: Annotated[
            str | None, Query(min_length=1, max_length=64, pattern=NAME, description="Default: all")
        ] = None,
    ) -> TokensOut:
        """One's own tokens; with the permission `users` those of all."""
        with gateway.database.read() as connection:
            whose = user if actor.may("users") else actor.name
            return TokensOut(tokens=[token_out(each) for each in tokens.of(connection, whose)])

    @api.post("/tokens", status_code=201, responses=documented(401, 403, 404, 422, 503))
    def add_token(request: Request, wanted: NewToken, actor: Someone) -> NewTokenOut:
        """Make a token; it stands in this answer alone. Who is signed in makes their own, and whoever has the
        permission `users` anybody's; never with more than they may do themselves."""
        user = wanted.user or actor.name
        if user != actor.name or session_of(request) is None:
            actor.need("users")
        now = gateway.now()
        ends = None if wanted.expires_in_days is None else now + wanted.expires_in_days * DAY_S
        with gateway.database.write() as connection:
            listed, token = tokens.add(
                connection, actor, user, wanted.name, wanted.scopes, expires_at=ends, now=now
            )
        return NewTokenOut(token=token, listed=token_out(listed))

    @api.delete("/tokens/{token}", responses=documented(401, 403, 404, 422, 503))
    def revoke_token(
        token: Annotated[str, Path(min_length=1, max_length=16, examples=["0123456789ab"])], actor: Someone
    ) -> TokenOut:
        """Revoke a token by its id: one's own, or with the permission `users` anybody's."""
        with access.changing() as connection:
            found = tokens.one(connection, token)
            if found.user != actor.name and not actor.may("users"):
                raise NotFoundError(f"no token {token[:16]!r} of yours; GET /api/tokens lists them")
            return token_out(tokens.revoke(connection, actor, token, now=gateway.now()))

    # sessions

    @api.get("/sessions", responses=documented(401, 403, 503))
    def list_sessions(request: Request, actor: Someone) -> SessionsOut:
        """One's own sessions; with the permission `users` those of all."""
        current = session_of(request)
        with gateway.database.read() as connection:
            found = sessions.of(
                connection,
                None if actor.may("users") else actor.name,
                access.limits(connection),
                now=gateway.now(),
            )
        return SessionsOut(
            sessions=[
                SessionOut(
                    id=each.hash[:16],
                    user=each.user,
                    current=current is not None and each.hash == current.hash,
                    created_at=at(each.created_at),
                    last_seen=at(each.last_seen),
                    expires_at=at(each.expires_at),
                )
                for each in found
            ]
        )

    @api.delete("/sessions/{session}", responses=documented(401, 403, 404, 422, 503))
    def end_session(
        session: Annotated[str, Path(pattern="^[0-9a-f]{16}$", examples=["0123456789abcdef"])],
        actor: Someone,
    ) -> EndedOut:
        """End one of one's own sessions, or with the permission `users` anybody's."""
        return EndedOut(ended=access.end_session(actor, session))

    @api.get("/settings/sessions", responses=documented(401, 403, 503))
    def session_limits(_actor: Annotated[Actor, Depends(needs("read"))]) -> SessionLimitsBody:
        """How long sessions last."""
        with gateway.database.read() as connection:
            return SessionLimitsBody(**msgspec.structs.asdict(access.limits(connection)))

    @api.put("/settings/sessions", responses=documented(401, 403, 422, 503))
    def set_session_limits(
        wanted: SessionLimitsBody, actor: Annotated[Actor, Depends(needs("settings"))]
    ) -> SessionLimitsBody:
        """Set how long sessions last. One that has begun keeps its end, and becomes idle by the new limit."""
        limits = sessions.SessionLimits(**wanted.model_dump())
        with access.changing() as connection:
            settings.put(
                connection, "sessions", limits, sessions.SessionLimits(), actor=actor, now=gateway.now()
            )
        return wanted

    return api


def _by_page(request: Request, actor: Actor) -> None:
    """What concerns oneself is done signed in: a token that was stolen must not outlive its being revoked."""
    if session_of(request) is None:
        if actor.name == "local":
            raise ConflictError(
                "no user is set up here, so there is nobody to change; POST /api/users adds the first"
            )
        raise ForbiddenError("this is done by who is signed in, not by a token; sign in at /login")
