"""The gateways that share the database, over HTTP."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field

from samd_gateway.access.actor import Actor
from samd_gateway.access.http import needs
from samd_gateway.answers import Answer
from samd_gateway.cluster import members
from samd_gateway.gateway import Gateway
from samd_gateway.problems import documented
from samd_gateway.queries import at

Reader = Annotated[Actor, Depends(needs("read"))]


class GatewayOut(Answer):
    """A gateway on the database."""

    name: str
    version: str
    address: str | None = Field(description="Where it serves")
    live: bool = Field(description="Whether it gave a sign of life within the last seconds")
    leading: bool = Field(description="Whether it does what one alone may do: runs, schedules, notifications")
    this: bool = Field(description="Whether it is the one that answers")
    started_at: datetime
    seen_at: datetime


class GatewaysOut(Answer):
    gateways: list[GatewayOut]


def router(gateway: Gateway) -> APIRouter:
    """/api/gateways."""
    api = APIRouter(prefix="/api/gateways", tags=["system"])

    @api.get("", responses=documented(401, 403, 503))
    def gateways(_actor: Reader) -> GatewaysOut:
        """Every gateway that was ever on this database, by name, and which of them leads."""
        with gateway.database.read() as connection:
            found = members(connection, gateway.now())
        return GatewaysOut(
            gateways=[
                GatewayOut(
                    name=each.name,
                    version=each.version,
                    address=each.address,
                    live=each.live,
                    leading=each.leading,
                    this=each.instance == gateway.cluster.instance,
                    started_at=at(each.started_at),
                    seen_at=at(each.seen_at),
                )
                for each in found
            ]
        )

    return api
