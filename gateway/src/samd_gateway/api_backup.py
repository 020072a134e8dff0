"""Backup and restore of a running gateway over HTTP."""

import os
import shutil
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from samd_gateway import backup, restore
from samd_gateway.access import audit
from samd_gateway.access.actor import Actor
from samd_gateway.access.http import needs
from samd_gateway.answers import Answer
from samd_gateway.archive import Manifest
from samd_gateway.errors import ConflictError, UsageError
from samd_gateway.gateway import Gateway
from samd_gateway.problems import documented

MEDIA_TYPE = "application/gzip"
SPARE_BYTES = 64 << 20
"""What an upload leaves free: messages still arrive meanwhile."""
BINARY = {"content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}


class RestoreOut(Answer):
    """The backup was checked; the gateway starts anew with what it holds."""

    created_at: datetime
    version: str
    revision: str
    files: int
    size_bytes: int


def router(gateway: Gateway) -> APIRouter:
    """POST /api/backup and /api/restore. One at a time: each takes as much room as the database."""
    api = APIRouter(prefix="/api", tags=["database"])
    busy = threading.Lock()
    folder = gateway.settings.data

    def begin() -> None:
        if not busy.acquire(blocking=False):
            raise ConflictError("a backup or a restore is going on; try again once it is done")

    @api.post(
        "/backup",
        response_class=FileResponse,
        responses={200: {"description": "The archive", **BINARY}, **documented(401, 403, 409, 422, 503)},
    )
    def back_up(actor: Annotated[Actor, Depends(needs("settings"))]) -> FileResponse:
        """Database, models and settings as of this moment, in one archive; for an admin alone."""
        actor.need("users")  # it holds what all of them sign in by
        begin()
        try:
            now = gateway.now()
            with gateway.database.write() as connection:
                audit.record(connection, actor, "database.backup", "database", now=now)
            made = Path(tempfile.mkdtemp(prefix=backup.STAGING, dir=folder))
            try:
                backup.write(
                    gateway.database,
                    folder,
                    made / "archive",
                    gateway=gateway.settings.name,
                    version=gateway.settings.version,
                    now=now,
                )
            except BaseException:
                shutil.rmtree(made, ignore_errors=True)
                raise
        finally:
            busy.release()
        return FileResponse(
            made / "archive",
            media_type=MEDIA_TYPE,
            filename=f"samd-gateway-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}.tar.gz",
            headers={"cache-control": "no-store"},
            background=BackgroundTask(shutil.rmtree, made, ignore_errors=True),
        )

    def stage(actor: Actor, path: Path) -> Manifest:
        settings = gateway.settings
        if settings.database_url is not None:
            restore.check_alone(gateway.database.engine, settings.name)
        manifest = restore.stage(path, folder, settings.database_url)
        # on record in what is kept of the state that ends here
        with gateway.database.write() as connection:
            after = {"created_at": manifest.created_at, "version": manifest.version}
            audit.record(connection, actor, "database.restore", "database", now=gateway.now(), after=after)
        return manifest

    @api.post(
        "/restore",
        status_code=202,
        responses=documented(401, 403, 409, 422, 503),
        openapi_extra={"requestBody": {"required": True, **BINARY}},
    )
    async def put_back(request: Request, actor: Annotated[Actor, Depends(needs("settings"))]) -> RestoreOut:
        """Check a backup, then start anew with it; what was here before is kept beside it. For an admin."""
        actor.need("users")  # whoever puts users back may be any of them
        restart = gateway.restart
        if restart is None:
            raise UsageError("this gateway cannot start itself anew; stop it, then restore with --data")
        begin()
        path = folder / f".upload-{os.getpid()}"
        try:
            await _receive(request, path)
            manifest = await run_in_threadpool(stage, actor, path)
        finally:
            path.unlink(missing_ok=True)
            busy.release()
        restart()
        return RestoreOut(
            created_at=manifest.created_at,
            version=manifest.version,
            revision=manifest.revision,
            files=len(manifest.files),
            size_bytes=manifest.size,
        )

    return api


async def _receive(request: Request, path: Path) -> None:
    """The body into a file, as far as there is room for it."""
    room = shutil.disk_usage(path.parent).free - SPARE_BYTES
    received = 0
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        async for chunk in request.stream():
            received += len(chunk)
            if received > room:
                raise UsageError(
                    f"the archive does not fit here ({room} bytes are free); make room, try again"
                )
            file.write(chunk)
