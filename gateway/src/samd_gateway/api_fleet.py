"""Devices, commands and the server over HTTP."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool

from samd_gateway import queries
from samd_gateway.access.actor import Actor
from samd_gateway.access.http import needs
from samd_gateway.answers import CommandOut, DeviceOut, DevicesOut, ResultsOut, ServerOut
from samd_gateway.errors import NotFoundError, UsageError
from samd_gateway.gateway import Gateway
from samd_gateway.problems import documented
from samd_protocol.messages import (
    CommandBody,
    ObservationAdd,
    PatientAdmit,
    PatientDischarge,
    TrainingStart,
)


class CommandRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command and how many seconds it may wait for the device."""

    body: CommandBody
    ttl_s: float = 60.0


EXAMPLE = {"body": {"type": "report"}, "ttl_s": 60.0}


def command_schema() -> tuple[dict[str, Any], dict[str, Any]]:
    """The JSON schema of `CommandRequest`, and the components that it refers to."""
    (schema,), components = msgspec.json.schema_components(
        [CommandRequest], ref_template="#/components/schemas/{name}"
    )
    return schema, components


def parse_command(raw: bytes) -> CommandRequest:
    """Raises UsageError for what is not a command, or one that is not sent like this."""
    try:
        request = msgspec.json.decode(raw, type=CommandRequest)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UsageError(f"no command: {error}; see CommandRequest in /openapi.json") from error
    if not 1.0 <= request.ttl_s <= 86_400.0:
        raise UsageError("ttl_s must lie between 1 and 86400 seconds")
    if isinstance(request.body, PatientAdmit | PatientDischarge | ObservationAdd):
        raise UsageError("what is done at the bedside carries a name; send it by POST /api/ward/DEVICE/…")
    if isinstance(request.body, TrainingStart):
        raise UsageError("training.start belongs to a run; start one by POST /api/runs")
    return request


def router(gateway: Gateway) -> APIRouter:
    """The routes below /api/devices, and /api/server."""
    api = APIRouter(prefix="/api")

    def one(name: str) -> DeviceOut:
        with gateway.database.read() as connection:
            found = queries.devices(
                connection,
                gateway.roster.some([name]),
                gateway.now(),
                gateway.settings.policy,
                deaf=gateway.link.deaf,
            )
        if not found:
            raise NotFoundError(f"no device {name[:64]!r} is known here; GET /api/devices lists them")
        return found[0]

    @api.get("/devices", tags=["devices"])
    def devices() -> DevicesOut:
        """Every device that was ever heard of, sorted by name."""
        with gateway.database.read() as connection:
            return DevicesOut(
                devices=queries.devices(
                    connection,
                    gateway.roster.some(),
                    gateway.now(),
                    gateway.settings.policy,
                    deaf=gateway.link.deaf,
                )
            )

    @api.get("/devices/{name}", tags=["devices"], responses=documented(404))
    def device(name: str) -> DeviceOut:
        """One device."""
        return one(name)

    schema, _ = command_schema()
    body = {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": EXAMPLE}},
        }
    }

    @api.post(
        "/devices/{name}/commands",
        tags=["devices"],
        status_code=202,
        responses=documented(401, 403, 404, 422, 503),
        openapi_extra=body,
    )
    async def command(
        name: str, request: Request, actor: Annotated[Actor, Depends(needs("fleet"))]
    ) -> CommandOut:
        """Send a command. Whether the device accepts it appears in its results."""
        parsed = parse_command(await request.body())

        def send() -> CommandOut:
            one(name)
            command_id = gateway.runs.command(name, parsed.body, parsed.ttl_s, actor)
            with gateway.database.read() as connection:
                sent = queries.results(connection, name, command=command_id)[0]
            return CommandOut(id=command_id, device=name, type=sent.type, expires_at=sent.expires_at)

        return await run_in_threadpool(send)

    @api.get("/devices/{name}/results", tags=["devices"], responses=documented(404))
    def results(name: str, command: str | None = None, limit: int = Query(100, ge=1, le=1000)) -> ResultsOut:
        """The commands that were sent to a device, the latest first, with their answers."""
        one(name)
        with gateway.database.read() as connection:
            return ResultsOut(results=queries.results(connection, name, command=command, limit=limit))

    @api.get("/server", tags=["runs"])
    def server() -> ServerOut:
        """The Flower server, as it last said."""
        with gateway.database.read() as connection:
            return queries.server(connection)

    return api
