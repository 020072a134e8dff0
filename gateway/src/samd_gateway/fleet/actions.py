"""What can be done to many devices at once, and what speaks against it on one of them. Pure."""

from typing import Annotated, Literal

import msgspec

from samd_gateway.states import DeviceState
from samd_protocol.messages import CommandBody, ModelActivate, ModelRollback, Report

Tag = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f,]+\Z")]
"""Any text on one line without a comma, which separates tags on the command line."""


class Configure(msgspec.Struct, frozen=True, kw_only=True, tag="config", forbid_unknown_fields=True):
    """Change the configuration; what is null stays as it is."""

    heartbeat_s: Annotated[float, msgspec.Meta(ge=1.0, le=600.0)] | None = None
    share_signs: bool | None = None
    consent_to_training: bool | None = None


class Retag(msgspec.Struct, frozen=True, kw_only=True, tag="tag", forbid_unknown_fields=True):
    """Add and remove tags."""

    add: Annotated[list[Tag], msgspec.Meta(max_length=50)] = msgspec.field(default_factory=list)
    remove: Annotated[list[Tag], msgspec.Meta(max_length=50)] = msgspec.field(default_factory=list)


Action = Report | ModelActivate | ModelRollback | Configure | Retag


def name_of(action: Action) -> str:
    """The action's name on the wire and in the audit."""
    return str(action.__struct_config__.tag)


def command_of(action: Action) -> CommandBody | None:
    """The command that an action sends; None for one that sends none."""
    return None if isinstance(action, Configure | Retag) else action


def problem(action: Action, state: DeviceState) -> str | None:
    """Why the action may not reach a device now; None where nothing speaks against it.

    Tags are the gateway's own, and a configuration waits at the broker: both reach every device."""
    if isinstance(action, Configure | Retag):
        return None
    said: dict[Literal["online", "stale", "offline", "unknown"], str | None] = {
        "online": None,
        "stale": f"it is stale ({state.reason}); the command reaches it only if it is back in time",
        "offline": f"it is offline ({state.reason}); the command reaches it only if it is back in time",
        "unknown": f"its state is unknown ({state.reason})",
    }
    return said[state.state]
