"""Errors as RFC 9457 problem documents: `application/problem+json` with type, title, status and detail."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from samd_gateway.access.throttle import ThrottledError
from samd_gateway.answers import Problem
from samd_gateway.api_rest import allowed
from samd_gateway.errors import (
    ConflictError,
    ForbiddenError,
    NotFoundError,
    SignInError,
    UnavailableError,
    UsageError,
)
from samd_protocol.errors import BundleError, MessageError

MEDIA_TYPE = "application/problem+json"


def problem(status: int, detail: str, **extra: Any) -> JSONResponse:
    """A problem document. `extra` are members beside the standard ones."""
    title = HTTPStatus(status).phrase
    return JSONResponse(
        {"type": "about:blank", "title": title, "status": status, "detail": detail, **extra},
        status_code=status,
        media_type=MEDIA_TYPE,
    )


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route for OpenAPI."""
    return {
        status: {
            "model": Problem,
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def install(app: FastAPI) -> None:
    """Turn every error of the app into a problem document."""

    @app.exception_handler(ConflictError)
    async def _conflict(_request: Request, error: ConflictError) -> JSONResponse:
        return problem(409, str(error), **error.extra)

    @app.exception_handler(ThrottledError)
    async def _throttled(_request: Request, error: ThrottledError) -> JSONResponse:
        response = problem(429, str(error))
        response.headers["retry-after"] = str(error.wait_s)
        return response

    @app.exception_handler(SignInError)
    async def _sign_in(_request: Request, error: SignInError) -> JSONResponse:
        response = problem(401, str(error))
        response.headers["www-authenticate"] = "Bearer"
        return response

    @app.exception_handler(ForbiddenError)
    async def _forbidden(_request: Request, error: ForbiddenError) -> JSONResponse:
        return problem(403, str(error))

    @app.exception_handler(NotFoundError)
    async def _not_found(_request: Request, error: NotFoundError) -> JSONResponse:
        return problem(404, str(error))

    @app.exception_handler(UnavailableError)
    async def _unavailable(_request: Request, error: UnavailableError) -> JSONResponse:
        return problem(503, str(error))

    @app.exception_handler(SQLAlchemyError)
    async def _database(_request: Request, error: SQLAlchemyError) -> JSONResponse:
        return problem(503, f"the database cannot be used now ({type(error).__name__}); see /healthz")

    @app.exception_handler(UsageError)
    @app.exception_handler(BundleError)
    @app.exception_handler(MessageError)
    async def _bad(_request: Request, error: Exception) -> JSONResponse:
        return problem(422, str(error))

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        # where and what, never the value: it may be a vital sign
        errors = [
            {"where": ".".join(str(part) for part in each["loc"]), "what": each["msg"]}
            for each in error.errors()
        ]
        first = errors[0] if errors else {"where": "request", "what": "invalid"}
        return problem(422, f"{first['where']}: {first['what']}", errors=errors)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        detail = str(error.detail)
        if error.status_code == 404 and detail == "Not Found":
            detail = f"nothing is served at {request.url.path}; /openapi.json lists what is"
        response = problem(error.status_code, detail)
        response.headers.update(error.headers or {})
        if error.status_code == 405:
            # Starlette names the methods of the first route that has this path, and others have it too
            response.headers["allow"] = ", ".join(allowed(app, request.url.path))
        return response

    @app.exception_handler(Exception)
    async def _unexpected(_request: Request, _error: Exception) -> JSONResponse:
        return problem(500, "an error of this program; its log says more")
