"""What a batch of messages does to alerts and admissions, in the transaction that records the messages."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from samd_gateway.alerts import recorder, store
from samd_gateway.intake import Item
from samd_gateway.ward import admissions
from samd_protocol.messages import Alert, Result


def record(connection: Connection, items: Sequence[Item], births: Mapping[str, int]) -> None:
    """Follow new items in their order. `births`: devices that were set up anew, by the place of the birth."""
    anew = {place: device for device, place in births.items()}
    alarming = {item.sender for item in items if item.kind == "alert"}
    if alarming or anew:
        store.lock(connection, sorted(alarming | set(births)))
    elif not any(item.kind == "result" for item in items):
        return
    for place, item in enumerate(items):
        if place in anew:
            recorder.set_up_anew(connection, anew[place])
            admissions.set_up_anew(connection, anew[place])
        data = item.envelope.data
        if isinstance(data, Alert):
            recorder.record(connection, item, data)
        elif isinstance(data, Result):
            order = (item.envelope.boot, item.envelope.seq)
            admissions.answered(connection, item.sender, data, place=order, at=item.received_at)
