"""Health, metrics and the stream of events."""

import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from sse_starlette import EventSourceResponse, ServerSentEvent

from samd_gateway.access.actor import Actor
from samd_gateway.access.http import needs
from samd_gateway.answers import HealthOut
from samd_gateway.events import Subscriber
from samd_gateway.gateway import Gateway
from samd_gateway.problems import documented

Reader = Annotated[Actor, Depends(needs("read"))]
SEND_TIMEOUT_S = 10.0
"""A reader that takes nothing for so long is cut off."""


def router(gateway: Gateway) -> APIRouter:
    """/healthz, /metrics and /api/events."""
    api = APIRouter(tags=["system"])

    @api.get("/healthz", responses={503: {"model": HealthOut, "description": "A part does not work"}})
    def healthz(request: Request, response: Response) -> HealthOut:
        """200 if the broker, the database and the ingest work, else 503 with what is wrong; who is not
        signed in is told which part, and no more."""
        health = gateway.health()
        stranger = request.state.actor is None
        if stranger:
            health = {part: "ok" if state == "ok" else "failing" for part, state in health.items()}
        well = all(state == "ok" for state in health.values())
        response.status_code = 200 if well else 503
        return HealthOut(
            status="ok" if well else "unhealthy",
            queue=None if stranger else gateway.ingest.depth,
            version=None if stranger else gateway.settings.version,
            **health,
        )

    @api.get("/metrics", response_class=Response, responses=documented(401, 403, 503))
    def metrics(_actor: Reader) -> Response:
        """Prometheus text format."""
        gateway.metrics.queue_depth.set(gateway.ingest.depth)
        return Response(gateway.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def stream(subscriber: Subscriber) -> AsyncIterator[ServerSentEvent]:
        try:
            # told at once, so that a reader knows from when on nothing is missed
            yield ServerSentEvent(data="{}", event="hello")
            while (event := await subscriber.get()) is not None:
                yield ServerSentEvent(data=json.dumps(event.data), event=event.name)
        finally:
            gateway.events.unsubscribe(subscriber)

    @api.get(
        "/api/events",
        response_class=EventSourceResponse,
        responses=documented(401, 403, 503)
        | {
            200: {
                "description": "Server-sent events: hello, device, assessment, alert, run, training; "
                "the data of each is JSON as in the answers of the API",
                "content": {"text/event-stream": {}},
            }
        },
    )
    async def events(_actor: Reader) -> EventSourceResponse:
        """What happens, as it happens. A reader that is too slow is cut off and connects again."""
        return EventSourceResponse(stream(gateway.events.subscribe()), ping=15, send_timeout=SEND_TIMEOUT_S)

    return api
