"""From a request to its actor. A middleware puts it into the request's state; a route names what it needs."""

from collections.abc import Callable

from starlette.requests import HTTPConnection

from samd_gateway.access.actor import LOCAL, Actor, Permission


def actor_of(request: HTTPConnection) -> Actor:
    """Who asks, as the middleware found out."""
    found: Actor = getattr(request.state, "actor", LOCAL)
    return found


def needs(permission: Permission) -> Callable[[HTTPConnection], Actor]:
    """A dependency of a route: `actor: Annotated[Actor, Depends(needs("ward"))]`. Raises ForbiddenError."""

    def check(request: HTTPConnection) -> Actor:
        actor = actor_of(request)
        actor.need(permission)
        return actor

    return check
