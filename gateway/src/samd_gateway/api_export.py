"""Exports over HTTP: streamed, so that a year of a ward is as light as an hour of a bed."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse

from samd_gateway import export
from samd_gateway.access import audit
from samd_gateway.access.actor import Actor
from samd_gateway.access.http import needs
from samd_gateway.gateway import Gateway
from samd_gateway.moments import Moment
from samd_gateway.problems import documented

Chosen = Annotated[
    Literal["csv", "json", "fhir"],
    Query(alias="format", description="CSV, JSON lines, or FHIR R4 Observations as JSON lines"),
]
Since = Annotated[
    Moment | None,
    Query(description="Received from then on", examples=["2026-01-01T00:00:00Z"]),
]
Until = Annotated[
    Moment | None,
    Query(description="Received until then; default: now", examples=["2026-02-01T00:00:00Z"]),
]
Device = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=80,
        pattern=r"^[^\x00]*$",
        description="Of this device alone",
        examples=["bed-01"],
    ),
]
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The records, a line each",
        "content": {
            media.split(";")[0]: {"schema": {"type": "string"}, "example": example}
            for media, example in (
                (export.MEDIA_TYPES["csv"], "device,state\r\nbed-01,online\r\n"),
                (export.MEDIA_TYPES["json"], '{"device": "bed-01", "state": "online"}\n'),
                (export.MEDIA_TYPES["fhir"], '{"resourceType": "Observation"}\n'),
            )
        },
    }
}
WHICH = Literal["assessments", "hours", "alerts", "devices", "health"]


def _seconds(at: datetime | None) -> float | None:
    """A time without a zone is one in UTC, as everywhere in this API."""
    if at is None:
        return None
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()


def router(gateway: Gateway) -> APIRouter:
    """GET /api/export/{kind}."""
    api = APIRouter(prefix="/api/export", tags=["export"])
    responses = {**STREAMED, **documented(401, 403, 422, 503)}

    def answer(asked: export.Asked, actor: Actor) -> StreamingResponse:
        export.check(asked)
        now = gateway.now()
        with gateway.database.write() as connection:
            picture = {
                "format": asked.format,
                "since": asked.since,
                "until": asked.until,
                "device": asked.device,
            }
            audit.record(connection, actor, "data.export", f"export/{asked.kind}", now=now, after=picture)
        lines = export.lines(gateway.database, asked, now, gateway.states())
        first = list(_one(lines))  # before the answer begins: a database that fails is then a 503
        name = f"samd-{asked.kind}-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}"
        ending = "csv" if asked.format == "csv" else "ndjson"
        return StreamingResponse(
            chain(first, lines),
            media_type=export.MEDIA_TYPES[asked.format],
            headers={
                "content-disposition": f'attachment; filename="{name}.{ending}"',
                "x-content-type-options": "nosniff",
                "cache-control": "no-store",
            },
        )

    @api.get("/audit", responses=responses, response_class=StreamingResponse)
    def audit_(
        *,
        actor: Annotated[Actor, Depends(needs("audit"))],
        format_: Annotated[Literal["csv", "json"], Query(alias="format")] = "csv",
        since: Since = None,
        until: Until = None,
    ) -> StreamingResponse:
        """The audit, oldest first."""
        return answer(
            export.Asked(kind="audit", format=format_, since=_seconds(since), until=_seconds(until)), actor
        )

    @api.get("/{kind}", responses=responses, response_class=StreamingResponse)
    def records(
        *,
        actor: Annotated[Actor, Depends(needs("read"))],
        kind: WHICH,
        format_: Chosen = "csv",
        since: Since = None,
        until: Until = None,
        device: Device = None,
    ) -> StreamingResponse:
        """Assessments, their hours, alerts, health or the devices as they are now; who exports is audited."""
        return answer(
            export.Asked(
                kind=kind,
                format=format_,
                since=_seconds(since),
                until=_seconds(until),
                device=device,
            ),
            actor,
        )

    return api


def _one(lines: Iterator[bytes]) -> Iterator[bytes]:
    for line in lines:
        yield line
        return
