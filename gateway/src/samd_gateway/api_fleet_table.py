"""The fleet's table over HTTP: pages, tags, saved views, actions on many devices."""

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from samd_gateway.access.actor import Actor
from samd_gateway.access.http import needs
from samd_gateway.errors import UsageError
from samd_gateway.fleet import jobs
from samd_gateway.fleet.actions import Action, Retag
from samd_gateway.fleet.answers import (
    FleetPage,
    JobOut,
    JobsOut,
    PlanOut,
    TaggedOut,
    TagsOut,
    ViewOut,
    ViewsOut,
)
from samd_gateway.fleet.query import FleetQuery, SortKey, Trouble, parse
from samd_gateway.fleet.service import AT_MOST_DEVICES, Fleet
from samd_gateway.gateway import Gateway
from samd_gateway.problems import documented

Reader = Annotated[Actor, Depends(needs("read"))]
Operator = Annotated[Actor, Depends(needs("fleet"))]
Text = Annotated[str, Field(min_length=1, max_length=100)]


class BulkRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An action, and the devices that it is for: named, or all that match a filter."""

    action: Action
    devices: list[str] | None = None
    query: FleetQuery | None = None
    ttl_s: float = 300.0


class TagRequest(BaseModel):
    """Tags that come to the devices, and tags that go."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"devices": ["bed-01"], "add": ["ward-3"]}]}
    )

    devices: list[Text] = Field(min_length=1, max_length=AT_MOST_DEVICES)
    add: list[Text] = Field([], max_length=50)
    remove: list[Text] = Field([], max_length=50)


class ViewRequest(BaseModel):
    """A filter to be kept under a name."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"name": "silent", "query": {"states": ["stale", "offline"]}}]},
    )

    name: str = Field(min_length=1, max_length=120)
    query: dict[str, Any] = Field(description="As the parameters of GET /api/fleet")
    shared: StrictBool = Field(False, description="For everybody; needs the permission 'fleet'")


EXAMPLE = {"action": {"type": "model.activate", "version": 3}, "devices": ["bed-01", "bed-02"]}


def bulk_schema() -> tuple[dict[str, Any], dict[str, Any]]:
    """The JSON schema of `BulkRequest`, and the components that it refers to."""
    (schema,), components = msgspec.json.schema_components(
        [BulkRequest], ref_template="#/components/schemas/{name}"
    )
    return schema, components


def parse_bulk(raw: bytes, fleet: Fleet) -> tuple[Action, list[str], float]:
    """The action, its devices and how long a command waits. Raises UsageError."""
    try:
        request = msgspec.json.decode(raw, type=BulkRequest)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UsageError(f"no bulk action: {error}; see BulkRequest in /openapi.json") from error
    if not 1.0 <= request.ttl_s <= 86_400.0:
        raise UsageError("ttl_s must lie between 1 and 86400 seconds")
    if (request.devices is None) == (request.query is None):
        raise UsageError("give either devices or a query that finds them")
    if request.query is not None:
        devices = fleet.matching(request.query)
        if not devices:
            raise UsageError("no device matches the query")
        return request.action, devices, request.ttl_s
    return request.action, request.devices or [], request.ttl_s


def router(gateway: Gateway) -> APIRouter:
    """The routes below /api/fleet."""
    api = APIRouter(prefix="/api/fleet", tags=["fleet"])
    fleet = gateway.fleet
    schema, _ = bulk_schema()
    body = {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": EXAMPLE}},
        }
    }

    @api.get("", responses=documented(422))
    def page(
        _actor: Reader,
        *,
        state: Annotated[list[Literal["online", "stale", "offline", "unknown"]], Query(max_length=4)] = [],  # noqa: B006
        text: Annotated[str, Query(max_length=100, description="Looked for in name, bed and tags")] = "",
        tag: Annotated[list[Text], Query(max_length=100)] = [],  # noqa: B006
        client_version: Annotated[list[Text], Query(max_length=100)] = [],  # noqa: B006
        model_version: Annotated[list[int], Query(max_length=100)] = [],  # noqa: B006
        trouble: Annotated[list[Trouble], Query(max_length=3)] = [],  # noqa: B006
        sort: SortKey = "name",
        descending: bool = False,
        after: Annotated[str | None, Query(max_length=400, description="`next` of the page before")] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
    ) -> FleetPage:
        """A page of the fleet: devices that match every filter, in the order asked for."""
        return fleet.page(
            parse(
                states=state,
                text=text,
                tags=tag,
                client_versions=client_version,
                model_versions=model_version,
                trouble=trouble,
                sort=sort,
                descending=descending,
                after=after,
                limit=limit,
            )
        )

    @api.get("/tags")
    def tags(_actor: Reader) -> TagsOut:
        """Every tag, with the number of its devices."""
        return TagsOut(tags=fleet.tags())

    @api.post("/tags", responses=documented(403, 404, 422))
    def retag(request: TagRequest, actor: Operator) -> TaggedOut:
        """Add and remove tags of devices."""
        try:
            action = msgspec.convert({"type": "tag", "add": request.add, "remove": request.remove}, Retag)
        except msgspec.ValidationError as error:
            raise UsageError(f"tags: {error}") from error
        return TaggedOut(changed=fleet.retag(actor, request.devices, action))

    @api.get("/views")
    def views(actor: Reader) -> ViewsOut:
        """The saved filters: one's own and the shared ones."""
        return ViewsOut(views=fleet.views(actor))

    @api.post("/views", status_code=201, responses=documented(403, 422))
    def save(request: ViewRequest, actor: Reader) -> ViewOut:
        """Keep a filter; one's own of that name is replaced."""
        return fleet.save_view(actor, request.name, parse(**request.query), shared=request.shared)

    @api.delete("/views/{view}", status_code=204, responses=documented(403, 404))
    def forget(view: str, actor: Reader) -> None:
        """Forget a filter of one's own."""
        fleet.delete_view(actor, view)

    @api.post("/plan", responses=documented(403, 404, 422), openapi_extra=body)
    async def plan(request: Request, _actor: Operator) -> PlanOut:
        """What a bulk action would do to each device. Nothing is done."""
        raw = await request.body()

        def look() -> PlanOut:
            action, devices, _ = parse_bulk(raw, fleet)
            return fleet.plan(action, devices)

        return await run_in_threadpool(look)

    @api.post("/jobs", status_code=202, responses=documented(403, 404, 422, 503), openapi_extra=body)
    async def execute(request: Request, actor: Operator) -> JobOut:
        """Do it; each device's result comes into the job."""
        raw = await request.body()

        def act() -> JobOut:
            action, devices, ttl_s = parse_bulk(raw, fleet)
            name = fleet.execute(actor, action, devices, ttl_s)
            with gateway.database.read() as connection:
                return jobs.job(connection, name, gateway.now())

        return await run_in_threadpool(act)

    @api.get("/jobs")
    def latest(_actor: Reader, limit: Annotated[int, Query(ge=1, le=100)] = 20) -> JobsOut:
        """The latest bulk actions, without their devices."""
        with gateway.database.read() as connection:
            return JobsOut(jobs=jobs.jobs(connection, gateway.now(), limit))

    @api.get("/jobs/{job}", responses=documented(404))
    def job(job: str, _actor: Reader) -> JobOut:
        """One bulk action with the result of each device."""
        with gateway.database.read() as connection:
            return jobs.job(connection, job, gateway.now())

    return api
