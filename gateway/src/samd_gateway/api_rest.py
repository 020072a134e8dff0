"""What no route of the API serves: 405 where others serve the path by another method, else 404.

It stands behind all routes and before the pages, which would else answer in their place, with a page.
"""

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route, compile_path

PATHS = ("/api/{rest:path}", "/healthz", "/metrics", "/openapi.json")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")


def install(app: FastAPI) -> None:
    """Add it, once every route of the API is there."""

    async def nothing(request: Request) -> Response:
        raise HTTPException(405 if allowed(app, request.url.path) else 404)

    for path in PATHS:
        app.router.routes.append(Route(path, nothing, methods=METHODS, include_in_schema=False))


def allowed(app: FastAPI, path: str) -> list[str]:
    """The methods that the API serves at a path, by its own document; sorted."""
    found: set[str] = set()
    for template, operations in app.openapi()["paths"].items():
        pattern, _, _ = compile_path(template)
        if pattern.match(path):
            found |= {method.upper() for method in operations}
    return sorted(found)
