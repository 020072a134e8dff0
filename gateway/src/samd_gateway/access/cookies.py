"""The cookies: their names and flags. With TLS they carry the prefix that binds them to this very host."""

from starlette.responses import Response
from starlette.types import Scope

from samd_gateway.access.desk import KNOWN_FOR_S

LOGIN_FORM_S = 3600


def secure(scope: Scope) -> bool:
    return scope["scheme"] in ("https", "wss")


def named(scope: Scope, name: str) -> str:
    """Browsers take a `__Host-` cookie only with Secure, for the whole host and from that host itself."""
    return f"__Host-samd_{name}" if secure(scope) else f"samd_{name}"


def session_cookie(scope: Scope) -> str:
    return named(scope, "session")


def put(response: Response, scope: Scope, name: str, value: str, *, max_age: int | None = None) -> None:
    """Never readable by scripts. Without `max_age` it ends with the browser."""
    response.set_cookie(
        named(scope, name),
        value,
        max_age=max_age,
        path="/",
        secure=secure(scope),
        httponly=True,
        samesite="lax",
    )


def put_session(response: Response, scope: Scope, cookie: str, known: str) -> None:
    put(response, scope, "session", cookie)
    put(response, scope, "known", known, max_age=int(KNOWN_FOR_S))


def drop(response: Response, scope: Scope, *names: str) -> None:
    for name in names:
        response.delete_cookie(
            named(scope, name), path="/", secure=secure(scope), httponly=True, samesite="lax"
        )
