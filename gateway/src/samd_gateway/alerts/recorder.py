"""From a device's alert message to its row, in the transaction of the message itself."""

from typing import Any

from sqlalchemy import Connection

from samd_gateway import schema
from samd_gateway.alerts import store
from samd_gateway.alerts.follow import cleared, follow, opened
from samd_gateway.intake import Item
from samd_protocol.messages import Alert

DEVICE = "device"
"""Who did it, in the history, where it was the device itself."""


def set_up_anew(connection: Connection, device: str) -> None:
    """A device counts from one again: what it says now must not lose against its former life."""
    table = schema.alerts
    this = (table.c.device == device) & (table.c.kind == "severity")
    connection.execute(table.update().where(this).values(boot=-1, seq=-1))


def record(connection: Connection, item: Item, message: Alert) -> None:
    """Follow one message. Its device's alerts are locked (`store.lock`)."""
    boot, seq, at = item.envelope.boot, item.envelope.seq, item.received_at
    row = store.find(connection, store.id_of(item.sender, "severity", message.alert_id))
    step = (
        opened(message, boot=boot, seq=seq, at=at)
        if row is None
        else follow(row, message, boot=boot, seq=seq, at=at)
    )
    values: dict[str, Any] = step.values
    change: str = step.change
    if values.get("state") == "active":
        other = store.open_of(connection, item.sender, "severity")
        if other is not None and (boot, seq) > (other["boot"], other["seq"]):
            # the end of the other was never heard; a device has one alert at a time
            store.change(
                connection,
                other,
                cleared(at) | {"reason": "its device has raised a newer one"},
                actor=DEVICE,
                change="cleared",
                event=f"superseded.{boot}.{seq}",
                now=at,
            )
        elif other is not None:
            values |= cleared(at) | {"reason": "its device had raised a newer one before this came"}
            change = "late"
    event = f"{change}.{boot}.{seq}"
    if row is None:
        store.add(
            connection,
            device=item.sender,
            kind="severity",
            source_id=message.alert_id,
            values=values,
            actor=DEVICE,
            change=change,
            event=event,
            now=at,
        )
        return
    detail = {"said": message.state} if change == "late" else None
    store.change(connection, row, values, actor=DEVICE, change=change, event=event, now=at, detail=detail)
