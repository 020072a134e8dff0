"""A gateway's database and clock without its connections: messages go in as they are parsed, time is set."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from samd_gateway import bedside, schema
from samd_gateway.access.actor import Actor
from samd_gateway.alerts.answers import AlertRow
from samd_gateway.alerts.desk import AlertDesk
from samd_gateway.intake import Item, parse
from samd_gateway.queries import rows
from samd_gateway.schema import open_database
from samd_protocol import envelope, topics
from samd_protocol.messages import Alert, Message

NURSE = Actor(name="kim", role="nurse", via="api")
ADMIN = Actor(name="lee", role="admin", via="api")
BEGIN = 1_800_000_000.0


class Bench:
    """Real tables, real functions; `now` is what the clock says."""

    def __init__(self, folder: Path) -> None:
        self.database = open_database(None, folder)
        self.now = BEGIN
        self.told: list[AlertRow] = []
        self.desk = AlertDesk(self.database, changed=self.told.extend, now=lambda: self.now)
        self.sealers: dict[tuple[str, int], envelope.Sealer] = {}

    def item(self, device: str, message: Message, *, boot: int = 1) -> Item:
        """A message as a gateway takes it in; each of a device has the next number."""
        sealer = self.sealers.setdefault((device, boot), envelope.Sealer(device, boot))
        sealed = envelope.encode(sealer.seal(message))
        topic = topics.up(device, type(message).__name__.lower())  # type: ignore[arg-type]
        return parse(topic, sealed, self.now)

    def alert(self, device: str, state: str, severity: int, *, alert_id: str = "a1", boot: int = 1) -> Item:
        """A device's alert message, not yet taken in."""
        message = Alert(
            alert_id=alert_id,
            state=state,  # type: ignore[arg-type]
            severity=severity,  # type: ignore[arg-type]
            observed_at=datetime.fromtimestamp(self.now, UTC),
            news2_low=severity * 3,
            news2_high=severity * 3 + 5,
            possible=3,
        )
        return self.item(device, message, boot=boot)

    def take_in(self, *items: Item, births: dict[str, int] | None = None) -> None:
        with self.database.write() as connection:
            bedside.record(connection, items, births or {})

    def say(self, device: str, state: str, severity: int, **more: Any) -> None:
        """A device's alert message, taken in now."""
        self.take_in(self.alert(device, state, severity, **more))

    def alerts(self, **query: Any) -> list[AlertRow]:
        with self.database.read() as connection:
            return self.desk.page(connection, **{"state": None, **query})

    def one(self, **query: Any) -> AlertRow:
        (found,) = self.alerts(**query)
        return found

    def changes(self, alert: str) -> list[tuple[str, str]]:
        """(actor, change) of an alert's history."""
        table = schema.alert_changes
        with self.database.read() as connection:
            query = select(table).where(table.c.alert == alert).order_by(table.c.id)
            return [(row["actor"], row["change"]) for row in rows(connection, query)]

    def audited(self) -> list[tuple[str, str, str]]:
        table = schema.audit
        with self.database.read() as connection:
            found = rows(connection, select(table).order_by(table.c.id))
        return [(row["actor"], row["action"], row["target"]) for row in found]

    def outbox(self) -> list[tuple[str, str, str]]:
        """(event without what follows `@` or `.`, channel, state)."""
        table = schema.notifications
        with self.database.read() as connection:
            found: Sequence[dict[str, Any]] = rows(connection, select(table).order_by(table.c.id))
        return [(row["event"].split("@")[0].split(".")[0], row["channel"], row["state"]) for row in found]
