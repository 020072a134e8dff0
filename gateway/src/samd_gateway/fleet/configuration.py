"""What devices are to be configured as: kept, versioned, and published retained, so that a device that is
away finds it when it is back.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from samd_gateway import schema
from samd_gateway.errors import UnavailableError, UsageError
from samd_gateway.fleet.actions import Configure
from samd_gateway.link import Link
from samd_gateway.schema import Database
from samd_gateway.upserts import upsert
from samd_protocol import topics
from samd_protocol.envelope import Sealer
from samd_protocol.messages import Config


class Configurator:
    """Changes desired configurations."""

    def __init__(self, database: Database, link: Link, sealer: Sealer) -> None:
        self._database = database
        self._link = link
        self._sealer = sealer

    def configure(
        self,
        change: Configure,
        devices: Sequence[str],
        *,
        also: Callable[[Connection, Mapping[str, int]], None],
    ) -> None:
        """Change what is desired of devices; `also` writes beside it, given the new versions.

        Raises UsageError for a change of nothing, UnavailableError without broker."""
        fields = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not None}
        if not fields:
            raise UsageError(
                "config: nothing is to be changed; give heartbeat_s, share_signs or consent_to_training"
            )
        if not self._link.connected:
            raise UnavailableError(
                f"the broker cannot be reached ({self._link.problem}); start it, or wait until it is back"
            )
        with self._database.write() as connection:
            configs = {name: _next(connection, name, fields) for name in devices}
            upsert(
                connection,
                schema.desired,
                [
                    {"device": name, "version": config.version, "body": msgspec.json.encode(config).decode()}
                    for name, config in configs.items()
                ],
            )
            also(connection, {name: config.version for name, config in configs.items()})
        for name, config in configs.items():
            self._link.publish(topics.down(name, "config"), self._sealer.seal(config), retain=True)


def _next(connection: Connection, device: str, fields: Mapping[str, Any]) -> Config:
    """What was desired, or else what the device reports, with the change, under the next version."""
    wanted, latest = schema.desired, schema.latest
    body = connection.scalar(select(wanted.c.body).where(wanted.c.device == device))
    said = connection.scalar(
        select(latest.c.body).where(latest.c.device == device, latest.c.kind == "config")
    )
    desired = {} if body is None else json.loads(body)
    reported = {} if said is None else json.loads(said)
    version = max(desired.get("version", 0), reported.get("version", 0)) + 1
    base: dict[str, Any] = {
        name: (desired or reported).get(name)
        for name in ("heartbeat_s", "share_signs", "consent_to_training")
    }
    return msgspec.convert(base | dict(fields) | {"version": version}, Config)
