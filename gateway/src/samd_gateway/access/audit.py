"""The audit: who changed what, when, from what to what. Written in the transaction of the change itself, so
that there is no change without its entry and no entry without its change.
"""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from samd_gateway import schema
from samd_gateway.access.actor import Actor

Picture = Mapping[str, Any] | None


def record(
    connection: Connection,
    actor: Actor,
    action: str,
    target: str,
    *,
    now: float,
    before: Picture = None,
    after: Picture = None,
) -> None:
    """Add an entry. `action` is `noun.verb` (`alert.acknowledge`), `target` what it was done to
    (`device/bed-01`); `before` and `after` hold what changed, never a secret."""
    connection.execute(
        schema.audit.insert().values(
            at=now,
            actor=actor.name,
            role=actor.role,
            via=actor.via,
            action=action,
            target=target[:160],
            before=None if before is None else json.dumps(before, default=str),
            after=None if after is None else json.dumps(after, default=str),
        )
    )
