"""The audit over HTTP: who changed what."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from samd_gateway.access import audit
from samd_gateway.access.actor import Actor
from samd_gateway.access.answers import AuditOut, entry_out
from samd_gateway.access.http import needs
from samd_gateway.gateway import Gateway
from samd_gateway.moments import Moment
from samd_gateway.problems import documented

Text = Annotated[str | None, Query(min_length=1, max_length=160, pattern=r"^[^\x00]*$")]


def router(gateway: Gateway) -> APIRouter:
    """GET /api/audit."""
    api = APIRouter(prefix="/api/audit", tags=["audit"])

    @api.get("", responses=documented(401, 403, 422, 503))
    def entries(
        *,
        _actor: Annotated[Actor, Depends(needs("audit"))],
        actor: Annotated[Text, Query(description="By this user alone", examples=["n.kim"])] = None,
        action: Annotated[
            Text, Query(description="`alert.acknowledge`, or `alert` for all of alerts", examples=["alert"])
        ] = None,
        target: Annotated[
            Text, Query(description="`device/bed-01`, or `device` for all devices", examples=["device"])
        ] = None,
        since: Moment | None = None,
        until: Moment | None = None,
        before: Annotated[int | None, Query(ge=1, le=2**62, description="`next` of the page before")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> AuditOut:
        """Every change with who, what, when, from what to what, and every login; the newest first."""
        asked = audit.Asked(
            actor=actor,
            action=action,
            target=target,
            since=None if since is None else since.timestamp(),
            until=None if until is None else until.timestamp(),
            before=before,
        )
        with gateway.database.read() as connection:
            found, next_ = audit.page(connection, asked, limit)
        return AuditOut(entries=[entry_out(entry) for entry in found], next=next_)

    return api
