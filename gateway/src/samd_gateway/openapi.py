"""The API's own document: FastAPI's, with the bodies that msgspec reads and the answers of every route."""

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI

from samd_gateway.problems import MEDIA_TYPE, documented

Described = Callable[[], tuple[dict[str, Any], dict[str, Any]]]

ANYWHERE = (401, 403, 422, 503)
"""What every route may answer: nobody is signed in; may not; a parameter out of bounds; no database."""


def install(app: FastAPI, bodies: Sequence[Described]) -> None:
    """Have `app.openapi` tell of `bodies` (each a schema with its components) and of the common answers."""
    generate = app.openapi
    common = {str(status): answer for status, answer in documented(*ANYWHERE).items()}
    for answer in common.values():
        answer.pop("model")

    def openapi() -> dict[str, Any]:
        document = generate()
        for described in bodies:
            _, components = described()
            document["components"]["schemas"].update(components)
        for methods in document["paths"].values():
            for operation in methods.values():
                for status, answer in common.items():
                    given = operation["responses"].get(status, {}).get("content", {})
                    # the 422 that FastAPI documents by itself is of another shape, and never sent
                    if not given or (status == "422" and MEDIA_TYPE not in given):
                        operation["responses"][status] = answer
        for name in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(name, None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
