"""The parts of alerting that work by themselves, put together: the clock, the worker, the channels."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from samd_gateway.alerts.answers import AlertRow
from samd_gateway.alerts.broker_channel import BrokerSender
from samd_gateway.alerts.channel_store import ChannelDesk
from samd_gateway.alerts.clock import Clock
from samd_gateway.alerts.delivery import Sender
from samd_gateway.alerts.email import EmailSender
from samd_gateway.alerts.notifier import Notifier
from samd_gateway.alerts.silence import Watch
from samd_gateway.alerts.webhook import WebhookSender
from samd_gateway.intake import Item
from samd_gateway.link import Link
from samd_gateway.roster import Known
from samd_gateway.schema import Database
from samd_protocol.envelope import Sealer


class Alerting:
    """Started and stopped once. `folder` is the gateway's own, `name` its name on the wire."""

    def __init__(
        self,
        database: Database,
        link: Link,
        sealer: Sealer,
        *,
        folder: Path,
        name: str,
        devices: Callable[[], Mapping[str, Known]],
        leading: Callable[[], bool],
        changed: Callable[[Sequence[AlertRow]], None],
        tend: Callable[[], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        """`devices` gives what the roster knows; `changed` is told of each row after its commit; `tend` does
        what else falls due in the ward."""
        self._changed = changed
        self._watch = Watch(devices)
        senders: dict[str, Sender] = {
            "webhook": WebhookSender(folder, now=now),
            "email": EmailSender(folder, now=now),
            "mqtt": BrokerSender(link, sealer, name),
        }
        self._notifier = Notifier(database, senders, leading=leading, now=now)
        self.channels = ChannelDesk(database, self._notifier, folder, now=now)
        self._clock = Clock(database, self._watch, leading=leading, changed=self.changed, tend=tend, now=now)

    def start(self) -> None:
        self._clock.start()
        self._notifier.start()

    def stop(self) -> None:
        self._clock.stop()
        self._notifier.stop()

    def committed(self, items: Sequence[Item]) -> None:
        """Messages that are on record now."""
        self._watch.committed(items)
        if any(item.kind == "alert" for item in items):
            self._notifier.poke()

    def changed(self, rows: Sequence[AlertRow]) -> None:
        """Alerts that have changed: tell those who listen, and send what is to be sent."""
        self._notifier.poke()
        self._changed(rows)
