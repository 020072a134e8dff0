"""The gateway's one connection to the broker.

Callbacks of paho only enqueue. The client id is stable and the session outlives the connection, so that the
broker keeps what arrives while the gateway is away.

Gateways that share a database share the devices' messages too (`$share`), each of which goes to one of them.
What is retained does not come that way: the leader subscribes to it plainly besides. The server's messages go
to all, so that each sees them in their order; the database takes each once.
"""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import paho.mqtt.client as mqtt
from msgspec import structs

from samd_gateway.backlog import Received
from samd_gateway.embedded_broker import is_embedded
from samd_gateway.errors import UnavailableError, UsageError
from samd_gateway.intake import SERVER_KINDS, device_filters
from samd_gateway.states import Deaf
from samd_gateway.twin import Twin
from samd_protocol import broker as brokers
from samd_protocol import envelope, topics
from samd_protocol.messages import GatewayState, Message

log = logging.getLogger(__name__)

MAX_PACKET_BYTES = 1_048_576 + 4096
"""Larger messages stay with the broker, which passes over them; what is smaller and still too long is dropped
here, counted and told."""


SENT_WITHIN_S = 2.0
"""How long a broker may take to say that it has a message, where that is waited for."""
RETAINED = (topics.every_up("state"), topics.every_up("config"))


class Link:
    """Receives into `offer`, publishes envelopes, acknowledges what is committed."""

    def __init__(
        self,
        broker: brokers.Broker,
        name: str,
        client_id: str,
        sealer: envelope.Sealer,
        *,
        version: str,
        offer: Callable[[Received], None],
        changed: Callable[[bool], None] = lambda connected: None,
        listened_until: float = 0.0,
        share: str | None = None,
        sessions: Iterator[int] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`share` names the group that the messages of devices are divided among; `sessions` gives each
        connection a number that no other one of this process has; `listened_until` is when a gateway last
        listened for these devices, of which this one may be the next life."""
        self._broker = broker
        self._topic = topics.gateway_state(name)
        self._sealer = sealer
        self._version = version
        self._offer = offer
        self._changed = changed
        self._now = now
        self._lock = threading.Lock()
        self._share = share
        self._sessions = sessions if sessions is not None else itertools.count(1)
        self._session = 0
        self._acknowledging = False
        self._leading = False
        self._essential: int | None = None
        self._twin = Twin(name, self._topic, now=now)
        self.refused: str | None = None
        """Why this broker can never do what was asked for."""
        self._leaving = False
        self._subscribed = threading.Event()
        self.down_since: float | None = now()
        """When the connection was lost (or the program began); None while connected."""
        self.deaf = Deaf(since=listened_until, reason="this gateway was not connected")
        """The latest time in which nothing could be heard."""
        self.problem: str | None = f"not yet connected to {broker.url}"
        self._client = brokers.make_client(broker, client_id, manual_ack=True)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        self._client.will_set(self._topic, self._state("offline"), qos=1, retain=True)

    @property
    def connected(self) -> bool:
        return self.down_since is None

    @property
    def twin(self) -> str | None:
        """What tells that another gateway of this name is at the broker; None while nothing does."""
        return self._twin.problem

    @property
    def taken_over(self) -> int:
        """How often another connection has taken this one's place at the broker."""
        return self._twin.taken_over

    def start(self) -> None:
        """Begin to connect, in the background, until it succeeds."""
        brokers.connect(self._client, self._broker, maximum_packet_bytes=MAX_PACKET_BYTES)
        self._client.loop_start()

    def wait_subscribed(self, timeout_s: float) -> bool:
        """Whether the subscriptions are in place, waiting at most so long.

        Raises UsageError for a broker that can never do what was asked for."""
        there = self._subscribed.wait(timeout_s)
        if self.refused is not None:
            raise UsageError(self.refused)
        return there

    def lead(self, *, leading: bool) -> None:
        """Whether this gateway hears what is retained, for all that share."""
        with self._lock:
            if self._share is None or leading == self._leading:
                return
            self._leading = leading
            there = self._acknowledging
        if there and leading:
            self._client.subscribe([(topic, 1) for topic in RETAINED])
        elif there:
            self._client.unsubscribe(list(RETAINED))

    def stop(self) -> None:
        """Say goodbye and disconnect; the session stays at the broker."""
        self._leaving = True
        if self.connected:
            self._client.publish(self._topic, self._state("offline"), qos=1, retain=True).wait_for_publish(
                1.0
            )
        self._client.disconnect()
        self._client.loop_stop()

    def publish(
        self, topic: str, message: envelope.Envelope, *, retain: bool = False
    ) -> mqtt.MQTTMessageInfo:
        """Send at QoS 1; what is returned tells when the broker has it.

        Raises UnavailableError while there is no connection: what a person asks for is refused at once, not
        sent at some later time."""
        if not self.connected:
            raise UnavailableError(
                f"the broker cannot be reached ({self.problem}); start it, or wait until it is back"
            )
        info = self._client.publish(topic, envelope.encode(message), qos=1, retain=retain)
        if info.rc != mqtt.MQTT_ERR_SUCCESS:
            raise UnavailableError("the broker was lost at this moment; try again")
        return info

    def send(self, topic: str, payload: bytes, *, retain: bool = False) -> mqtt.MQTTMessageInfo:
        """Send what is no message of ours, such as what another program is told. As `publish`."""
        if not self.connected:
            raise UnavailableError(f"the broker cannot be reached ({self.problem})")
        return self._client.publish(topic, payload, qos=1, retain=retain)

    def acknowledge(self, batch: Sequence[Received]) -> None:
        """Tell the broker that these are safe; those of a former connection it will send again."""
        with self._lock:
            for received in batch:
                if self._acknowledging and received.qos > 0 and received.session == self._session:
                    self._client.ack(received.mid, received.qos)

    def filters(self) -> list[tuple[str, int]]:
        """What it subscribes to, whether it leads or not."""
        group = "" if self._share is None else f"$share/{self._share}/"
        from_devices = [
            (f"{group}{topic}", 0 if topic.endswith("/heartbeat") else 1) for topic in device_filters()
        ]
        return [*from_devices, *((topic, 1) for topic in SERVER_KINDS)]

    def _state(self, status: Any) -> bytes:
        message: Message = GatewayState(status=status, version=self._version)
        sealed = self._sealer.seal(message)
        self._twin.said(sealed.id)
        return envelope.encode(sealed)

    def _on_connect(self, client: mqtt.Client, _data: Any, _flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self.problem = f"{self._broker.url} refuses this gateway ({reason})"
            log.error("%s", self.problem)
            return
        if self._share is not None and is_embedded(properties):
            self.refused = self.problem = (
                "--share: the embedded broker has no shared subscriptions (they stop it); use Mosquitto, or "
                "leave --share out"
            )
            log.error("%s", self.problem)
            self._leaving = True
            client.disconnect()
            self._subscribed.set()  # nobody need wait for them any longer
            return
        with self._lock:
            self._session = next(self._sessions)
            self._acknowledging = True
            leading = self._leading
        _, self._essential = client.subscribe(self.filters())
        if leading:
            client.subscribe([(topic, 1) for topic in RETAINED])
        client.subscribe([(self._topic, 0)])  # acknowledged never, and so in no other order than the rest
        client.publish(self._topic, self._state("online"), qos=1, retain=True)
        self.down_since = None
        self.problem = f"connected to {self._broker.url}, and not yet subscribed"
        log.info("connected to the broker")

    def _on_disconnect(
        self, _client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any
    ) -> None:
        self._twin.lost(reason)
        # No acknowledgement from now on: numbers of the old connection mean other messages on the next one.
        with self._lock:
            self._acknowledging = False
        if self.down_since is None and not self._leaving:
            self.down_since = self._now()
            self.problem = f"{self._broker.url} was lost ({reason})"
            log.warning("the broker was lost; connecting again")
        if self.deaf.until is not None:
            self.deaf = Deaf(since=self._now())
        self._subscribed.clear()
        if not self._leaving:
            self._changed(False)

    def _on_connect_fail(self, _client: mqtt.Client, _data: Any) -> None:
        self.problem = f"nothing answers at {self._broker.url}"

    def _on_subscribe(
        self, _client: mqtt.Client, _data: Any, mid: int, reasons: Any, _properties: Any
    ) -> None:
        refused = [str(reason) for reason in reasons if reason.is_failure]
        if refused:
            self.problem = f"the broker refuses a subscription ({refused[0]}); check its access list"
            log.error("%s", self.problem)
            return
        if mid != self._essential:
            return
        self.problem = None
        if self.deaf.until is None:
            self.deaf = structs.replace(self.deaf, until=self._now())
        self._subscribed.set()
        self._changed(True)

    def _on_publish(self, client: mqtt.Client, _data: Any, _mid: int, _reason: Any, _properties: Any) -> None:
        brokers.acknowledge_at_once(client)  # a device's answer would wait behind it

    def _on_message(self, client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        brokers.acknowledge_at_once(client)
        try:
            topic = message.topic
        except UnicodeDecodeError:  # no broker should pass it; it is dropped as an unknown topic
            topic = ""
        if topic == self._topic:
            if self._twin.heard(bytes(message.payload), retained=message.retain):
                client.publish(self._topic, self._state("online"), qos=1, retain=True)
            return
        self._offer(
            Received(
                topic=topic,
                # what is too long is refused by its length: no need to keep the whole of it
                payload=bytes(message.payload[: envelope.MAX_BYTES + 1]),
                qos=message.qos,
                retained=bool(message.retain),
                mid=message.mid,
                session=self._session,
                received_at=self._now(),
            )
        )


def await_sent(sent: Sequence[mqtt.MQTTMessageInfo], within_s: float) -> None:
    """Wait until the broker has these messages. Raises UnavailableError when it has not said so in time."""
    deadline = time.monotonic() + within_s
    for each in sent:
        try:
            each.wait_for_publish(max(deadline - time.monotonic(), 0.0))
            there = each.is_published()
        except (ValueError, RuntimeError):
            there = False
        if not there:
            raise UnavailableError("the broker has not confirmed in time; try again")
