"""Model files over HTTP: put by the server, fetched by devices, also in parts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from samd_gateway.access import audit
from samd_gateway.access.actor import Actor
from samd_gateway.access.http import actor_of, needs
from samd_gateway.answers import ModelOut, ModelsOut, ReleaseOut, ReleasesOut, VersionsOut
from samd_gateway.gateway import Gateway
from samd_gateway.problems import documented, problem
from samd_gateway.ranges import matches, parse_range
from samd_protocol.bundle import MAX_BYTES, Bundle

MEDIA_TYPE = "application/zip"
CHUNK = 256 * 1024
Key = Annotated[
    str | None, Query(max_length=64, description="Opens this one file to who is not signed in; see `url`")
]


class ReleaseRequest(BaseModel):
    """Which version of which task's model is to be the released one."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"task": "severity", "version": 3}]}
    )

    task: str = Field("severity", min_length=1, max_length=64)
    version: int = Field(ge=0, le=2**31)


def _chunks(path: Path, start: int, end: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        left = end - start
        while left > 0 and (chunk := file.read(min(CHUNK, left))):
            left -= len(chunk)
            yield chunk


def _out(entry: dict[str, object], manifest: dict[str, object], base: str, key: str) -> ModelOut:
    names = ("name", "version", "parent", "task", "trained", "classes", "features", "metrics", "provenance")
    return ModelOut(
        **{name: manifest[name] for name in names},  # type: ignore[arg-type]
        sha256=str(entry["sha256"]),
        graph_sha256=str(entry["graph_sha256"]),
        size=int(str(entry["size"])),
        # devices have no account: the key lets whoever knows this address fetch this file, and nothing else
        url=f"{base}api/models/{entry['sha256']}.samd?key={key}",
    )


def router(gateway: Gateway) -> APIRouter:
    """The routes below /api/models."""
    api = APIRouter(prefix="/api/models", tags=["models"])

    def out(entry: dict[str, Any], request: Request) -> ModelOut:
        key = gateway.access.signer.model_key(str(entry["sha256"]))
        return _out(entry, entry["manifest"], str(request.base_url), key)

    @api.get("", responses=documented(401, 403, 503))
    def models(request: Request, _actor: Annotated[Actor, Depends(needs("read"))]) -> ModelsOut:
        """The models that are here, the highest version first."""
        return ModelsOut(models=[out(entry, request) for entry in gateway.models.entries()])

    @api.get("/versions")
    def versions(_actor: Annotated[Actor, Depends(needs("read"))]) -> VersionsOut:
        """Every version of every task: lineage, metrics, what became of it, how many devices run it."""
        return VersionsOut(versions=gateway.models_control.versions())

    @api.get("/releases")
    def releases(
        _actor: Annotated[Actor, Depends(needs("read"))], limit: Annotated[int, Query(ge=1, le=200)] = 50
    ) -> ReleasesOut:
        """What was asked of the server, the latest first, with its answers."""
        return ReleasesOut(releases=gateway.models_control.orders(limit))

    @api.post("/releases", status_code=202, responses=documented(403, 404, 409, 422, 503))
    def release(request: ReleaseRequest, actor: Annotated[Actor, Depends(needs("models"))]) -> ReleaseOut:
        """Ask the server to make a version the released one, a newer or an older."""
        number = gateway.models_control.order(actor, request.task, request.version)
        return next(each for each in gateway.models_control.orders() if each.id == number)

    @api.put(
        "/{sha256}.samd",
        status_code=201,
        responses=documented(401, 403, 413, 422, 503),
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
            }
        },
    )
    async def put(
        sha256: str,
        request: Request,
        response: Response,
        actor: Annotated[Actor, Depends(needs("models"))],
    ) -> ModelOut:
        """Store a bundle under its SHA-256, after every hash in it was checked. 200 if it is here already."""
        too_large = problem(413, f"a bundle has at most {MAX_BYTES} bytes")
        announced = request.headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > MAX_BYTES:
            return too_large  # type: ignore[return-value]  # a problem document instead
        received = bytearray()
        async for chunk in request.stream():
            received += chunk
            if len(received) > MAX_BYTES:
                return too_large  # type: ignore[return-value]  # a problem document instead
        verified, new = await run_in_threadpool(store, actor, sha256, bytes(received))
        response.status_code = 201 if new else 200
        entry = next(entry for entry in gateway.models.entries() if entry["sha256"] == verified.sha256)
        return out(entry, request)

    def store(actor: Actor, sha256: str, data: bytes) -> tuple[Bundle, bool]:
        verified, new = gateway.models.add(sha256, data)
        if new:
            manifest = verified.manifest
            with gateway.database.write() as connection:
                audit.record(
                    connection,
                    actor,
                    "model.upload",
                    f"model/{sha256}",
                    now=gateway.now(),
                    after={"task": manifest.task, "version": manifest.version, "size": verified.size},
                )
        return verified, new

    async def fetch(sha256: str, request: Request, key: str | None) -> Response:
        if not gateway.access.signer.opens_model(sha256, key):
            actor_of(request).need("read")
        path = gateway.models.path(sha256)
        size = path.stat().st_size
        etag = f'"{sha256}"'
        # the name is the content's hash: what was fetched once never changes
        headers = {
            "etag": etag,
            "accept-ranges": "bytes",
            "cache-control": "private, max-age=31536000, immutable",
            "content-disposition": f'attachment; filename="{sha256}.samd"',
        }
        if matches(request.headers.get("if-none-match", ""), etag):
            return Response(status_code=304, headers=headers)
        start, end, status = 0, size, 200
        wanted = request.headers.get("range")
        if wanted is not None and request.headers.get("if-range", etag) == etag:
            try:
                part = parse_range(wanted, size)
            except ValueError:
                refused = problem(416, f"the file has {size} bytes")
                refused.headers["content-range"] = f"bytes */{size}"
                return refused
            if part is not None:
                (start, end), status = part, 206
                headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
        headers["content-length"] = str(end - start)
        if request.method == "HEAD":
            return Response(status_code=status, headers=headers, media_type=MEDIA_TYPE)
        return StreamingResponse(
            _chunks(path, start, end), status_code=status, headers=headers, media_type=MEDIA_TYPE
        )

    described = documented(401, 403, 404, 416, 422, 503) | {
        200: {"description": "The bundle", "content": {MEDIA_TYPE: {}}},
        206: {"description": "The part that was asked for", "content": {MEDIA_TYPE: {}}},
        304: {"description": "The bundle that you have is the one"},
    }

    @api.get("/{sha256}.samd", responses=described, response_class=Response)
    async def get(sha256: str, request: Request, key: Key = None) -> Response:
        """A bundle, whole or in part (`Range`, `If-Range`); its ETag is its SHA-256."""
        return await fetch(sha256, request, key)

    @api.head("/{sha256}.samd", responses=described, response_class=Response)
    async def head(sha256: str, request: Request, key: Key = None) -> Response:
        """Size and ETag of a bundle."""
        return await fetch(sha256, request, key)

    return api
