"""Commands to many devices at once: on record in one transaction, then on the wire.

On record first, because an answer can only be matched to a command that is there.
"""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Connection

from samd_gateway import schema
from samd_gateway.errors import UnavailableError
from samd_gateway.link import Link, await_sent
from samd_gateway.schema import Database
from samd_protocol import topics
from samd_protocol.envelope import Envelope, Sealer
from samd_protocol.messages import Command, CommandBody

AlsoWrite = Callable[[Connection, Mapping[str, str]], None]


class Dispatch:
    """Sends commands. What belongs to them is written with them: all of it or nothing."""

    def __init__(
        self, database: Database, link: Link, sealer: Sealer, *, now: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._link = link
        self._sealer = sealer
        self._now = now

    def send(
        self,
        bodies: Mapping[str, CommandBody],
        ttl_s: float,
        *,
        also: AlsoWrite | None = None,
        sent_within_s: float | None = None,
    ) -> dict[str, str]:
        """Send each device its command; returns device to command id. `also` writes beside them.

        Raises UnavailableError without broker; then nothing is on record. With `sent_within_s` it also waits
        for the broker's word that it has them, and raises UnavailableError without it."""
        if not self._link.connected:
            raise UnavailableError(
                f"the broker cannot be reached ({self._link.problem}); start it, or wait until it is back"
            )
        now = self._now()
        expires = datetime.fromtimestamp(now + ttl_s, UTC)
        sealed = {
            device: self._sealer.seal(Command(expires_at=expires, body=body), expires_at=expires)
            for device, body in bodies.items()
        }
        ids = {device: envelope.id for device, envelope in sealed.items()}
        with self._database.write() as connection:
            if sealed:
                connection.execute(
                    schema.commands.insert(),
                    [
                        command_row(device, envelope, bodies[device], now, expires.timestamp())
                        for device, envelope in sealed.items()
                    ],
                )
            if also is not None:
                also(connection, ids)
        sent = [
            self._link.publish(topics.down(device, "command"), envelope)
            for device, envelope in sealed.items()
        ]
        if sent_within_s is not None:
            await_sent(sent, sent_within_s)
        return ids


def command_row(
    device: str, envelope: Envelope, body: CommandBody, now: float, expires_at: float
) -> dict[str, Any]:
    """A row of the table `commands`."""
    return {
        "id": envelope.id,
        "device": device,
        "type": str(body.__struct_config__.tag),
        "body": msgspec.json.encode(body).decode(),
        "issued_at": now,
        "expires_at": expires_at,
    }
