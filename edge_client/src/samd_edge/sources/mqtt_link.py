"""The connection of a ``mqtt:`` source: paho, MQTT 5, one subscription, acknowledged by hand.

paho's callbacks run in its thread and under its lock: they only hand over.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.subscribeoptions import SubscribeOptions

from samd_protocol.broker import Broker, connect, make_client

log = logging.getLogger(__name__)

RETRY_S: Final = (1, 8)
"""First and longest pause between attempts."""

RECEIVE_MAXIMUM: Final = 100
"""Messages that the broker may send ahead of our acknowledgements."""

LARGEST_PACKET_BYTES: Final = 8 * 1024 * 1024
"""paho holds a whole packet in memory, and MQTT allows 256 MB: what is larger stays with the broker."""


class Receipt(NamedTuple):
    """What to acknowledge, and on which connection: on the next one the number means another message."""

    connection: int
    packet: int
    qos: int


class Arrived(NamedTuple):
    """One message. ``payload`` is empty when it was longer than wanted; ``length`` is its true length."""

    payload: bytes
    length: int
    retained: bool
    at: datetime
    receipt: Receipt | None


class MonitorLink:
    """Connects, and connects again, for ever.

    ``durable``: at QoS 1, with a session that the broker keeps for a day under ``client_id``. Otherwise
    ``qos``, and what is sent while there is no connection is not sent at all. Raises BrokerError for settings
    that cannot work.
    """

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        topic: str,
        *,
        durable: bool,
        qos: int,
        longest_bytes: int,
        wall: Callable[[], datetime],
        on_message: Callable[[Arrived], None],
    ) -> None:
        self._broker = broker
        self._topic = topic
        self._durable = durable
        self._qos = qos
        self._longest_bytes = longest_bytes
        self._wall = wall
        self._hand_over = on_message
        self._lock = threading.Lock()
        self._connection = 0
        self._up = False
        self._told: str | None = None
        client = make_client(broker, client_id, manual_ack=True)
        client.reconnect_delay_set(*RETRY_S)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        self._client = client

    def start(self) -> None:
        connect(
            self._client,
            self._broker,
            clean_start=not self._durable,
            session_s=86_400 if self._durable else 0,
            receive_maximum=RECEIVE_MAXIMUM,
            maximum_packet_bytes=LARGEST_PACKET_BYTES,
        )
        self._client.loop_start()

    def watch(self) -> None:
        """Start paho's thread again should it have died; else nothing happens."""
        self._client.loop_start()

    def acknowledge(self, receipt: Receipt) -> None:
        """Tell the broker that this message is safe. That of a former connection it sends again."""
        with self._lock:
            if self._up and receipt.connection == self._connection:
                self._client.ack(receipt.packet, receipt.qos)

    async def close(self, patience_s: float = 2.0) -> None:
        """Say goodbye and let paho's thread end; one that hangs in a name look-up is left behind."""
        self._client.disconnect()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(self._client.loop_stop), patience_s)

    # -- in paho's thread ----------------------------------------------------------------------------------

    def _on_connect(
        self, client: mqtt.Client, _user: Any, _flags: Any, reason: Any, _properties: Any
    ) -> None:
        if reason.is_failure:
            self._tell(f"{self._broker.url} refuses this device: {reason}; check its credentials")
            return
        with self._lock:
            self._connection += 1
            self._up = True
        client.subscribe(self._topic, options=SubscribeOptions(qos=self._qos))

    def _on_subscribe(
        self, _client: mqtt.Client, _user: Any, _mid: int, reasons: Any, _properties: Any
    ) -> None:
        refused = [reason for reason in reasons if reason.is_failure]
        if refused:
            self._tell(
                f"{self._broker.url} refuses the topic {self._topic!r}: {refused[0]}; check its access list"
            )
            return
        self._told = None
        log.info("reading %r from %s", self._topic, self._broker.url)

    def _on_connect_fail(self, _client: mqtt.Client, _user: Any) -> None:
        self._tell(f"no broker at {self._broker.url}; trying again until there is one")

    def _on_disconnect(
        self, _client: mqtt.Client, _user: Any, _flags: Any, reason: Any, _properties: Any
    ) -> None:
        with self._lock:
            was_up, self._up = self._up, False
        if was_up and reason.is_failure:
            self._tell(f"the connection to {self._broker.url} ended ({reason}); connecting again")

    def _on_message(self, _client: mqtt.Client, _user: Any, message: mqtt.MQTTMessage) -> None:
        length = len(message.payload)
        receipt = Receipt(self._connection, message.mid, message.qos) if message.qos else None
        payload = bytes(message.payload) if length <= self._longest_bytes else b""
        self._hand_over(Arrived(payload, length, bool(message.retain), self._wall(), receipt))

    def _tell(self, text: str) -> None:
        """Once per reason: an outage of a night is one line."""
        if text != self._told:
            self._told = text
            log.warning("%s", text)
