"""From a request to its actor. The gate puts it into the request's state; a route names what it needs."""

from collections.abc import Callable

from starlette.requests import HTTPConnection

from samd_gateway.access.actor import Actor, Permission
from samd_gateway.access.sessions import Session
from samd_gateway.errors import SignInError


def actor_of(request: HTTPConnection) -> Actor:
    """Who asks, as the gate found out. Raises SignInError for nobody, and where no gate was passed."""
    found: Actor | None = getattr(request.state, "actor", None)
    if found is None:
        raise SignInError("sign in at /login, or send a token: Authorization: Bearer TOKEN")
    return found


def session_of(request: HTTPConnection) -> Session | None:
    """The session of a request that came with a cookie; its `csrf` belongs into the header X-CSRF-Token."""
    found: Session | None = getattr(request.state, "session", None)
    return found


def needs(permission: Permission) -> Callable[[HTTPConnection], Actor]:
    """A dependency of a route: `actor: Annotated[Actor, Depends(needs("ward"))]`. Raises ForbiddenError."""

    def check(request: HTTPConnection) -> Actor:
        actor = actor_of(request)
        actor.need(permission)
        return actor

    return check


def someone(request: HTTPConnection) -> Actor:
    """A dependency of a route that is for everyone who is known. Raises SignInError."""
    return actor_of(request)
