"""Channels over HTTP: who is told of alerts, and what is on its way to them."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from samd_gateway.access.actor import Actor
from samd_gateway.access.http import needs
from samd_gateway.alerts.answers import ChannelOut, ChannelsOut, NotificationsOut, TestedOut
from samd_gateway.gateway import Gateway
from samd_gateway.problems import documented

Setter = Annotated[Actor, Depends(needs("settings"))]
Name = Annotated[str, Path(min_length=1, max_length=64, examples=["ward-desk"])]


class ChannelRequest(BaseModel):
    """A channel. The secret of a webhook, the password of a mail server and the certificate of an authority
    of one's own are files in the gateway's folder `secrets`, named here; the secret of a webhook is drawn
    where the file is not there yet."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "kind": "webhook",
                    "config": {"url": "https://alarms.hospital.example/samd", "secret": "alarms"},
                    "min_severity": 2,
                },
                {
                    "kind": "email",
                    "config": {
                        "host": "mail.hospital.example",
                        "sender": "samd@hospital.example",
                        "to": ["ward-3@hospital.example"],
                    },
                    "step": 1,
                },
                {"kind": "mqtt", "config": {}},
            ]
        },
    )

    kind: Literal["webhook", "email", "mqtt"]
    config: dict[str, Any] = Field(
        description="webhook: url, secret, ca, timeout_s, details, events. email: host, port, security, "
        "username, password, ca, sender, to, timeout_s, details, events. mqtt: timeout_s, events. `details` "
        "adds the score, the pseudonym and the place; `events` are of raised, escalated, step, resumed, "
        "acknowledged, paused, cleared"
    )
    enabled: StrictBool = True
    min_severity: int = Field(0, ge=0, le=3, description="Told of alerts of this severity or more")
    step: int = Field(0, ge=0, le=8, description="Of the ladder, from which on it is told")


def router(gateway: Gateway) -> APIRouter:
    """The routes below /api/channels, and /api/notifications."""
    api = APIRouter(prefix="/api", tags=["channels"])
    desk = gateway.alerting.channels

    @api.get("/channels")
    def channels(_actor: Setter) -> ChannelsOut:
        """Every channel, with what waits for it and whether it fails."""
        return ChannelsOut(channels=desk.all())

    @api.get("/channels/{name}", responses=documented(404))
    def channel(_actor: Setter, name: Name) -> ChannelOut:
        """One channel."""
        return desk.get(name)

    @api.put("/channels/{name}", responses=documented(409, 422))
    def put(
        actor: Setter,
        name: Name,
        request: ChannelRequest,
        *,
        new: Annotated[bool, Query(description="It must not be there yet")] = False,
    ) -> ChannelOut:
        """Set a channel up, or change it."""
        return desk.put(
            actor,
            name,
            kind=request.kind,
            config=request.config,
            enabled=request.enabled,
            min_severity=request.min_severity,
            step=request.step,
            new=new,
        )

    @api.delete("/channels/{name}", status_code=204, responses=documented(404))
    def remove(actor: Setter, name: Name) -> Response:
        """Remove a channel; what still waits for it is given up."""
        desk.remove(actor, name)
        return Response(status_code=204)

    @api.post("/channels/{name}/test", responses=documented(404, 503))
    def test(actor: Setter, name: Name) -> TestedOut:
        """Send a notice that says that it is a test; 503 with the reason when it cannot be delivered."""
        return TestedOut(channel=name, delivered=True, remark=desk.test(actor, name))

    @api.get("/notifications", responses=documented(422))
    def notifications(
        _actor: Setter,
        *,
        state: Literal["pending", "delivered", "given-up"] | None = None,
        channel: Annotated[str | None, Query(max_length=64)] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> NotificationsOut:
        """What is told to whom, the latest first."""
        return NotificationsOut(notifications=desk.notifications(state=state, channel=channel, limit=limit))

    return api
