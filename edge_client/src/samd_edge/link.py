"""The device's one connection to the broker: paho, MQTT 5, its last will, and what comes in.

Each connection is a client of its own: its last will carries the connection's number, and nothing of an older
connection's queue can be sent again behind the outbox's back. paho's callbacks only enqueue: events go to the
agent's loop, acknowledgements to the outbox. Without a broker the link goes on trying, at most 8 s apart, and
everybody else goes on working.
"""

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from samd_protocol import topics
from samd_protocol.broker import Broker, acknowledge_at_once, connect, make_client

log = logging.getLogger(__name__)

RETRY_S: Final = (1, 8)
"""First and longest pause between attempts."""

SHORT_LIVED_S: Final = 5.0
"""A connection that ends sooner is followed by a pause: two agents of one name would throw each other out."""


class Connected(NamedTuple):
    """The broker accepted connection number `connection` of this boot."""

    connection: int


class Disconnected(NamedTuple):
    """The connection is gone; the next is on its way."""

    reason: str


class Received(NamedTuple):
    """One message; its topic is one of those subscribed."""

    topic: str
    payload: bytes


Event = Connected | Disconnected | Received


class Link:
    """Connects, and connects again. Create and start it within the loop; `publish` may be called anywhere.

    `will(connection)` gives the payload of the last will; `on_event` runs in the loop; `on_ack(connection,
    packet, refusal)` runs in paho's thread, under its lock, and must only enqueue.
    """

    def __init__(
        self,
        broker: Broker,
        device: str,
        *,
        will: Callable[[int], bytes],
        on_event: Callable[[Event], None],
        on_ack: Callable[[int, int, str | None], None],
    ) -> None:
        self._broker = broker
        self._device = device
        self._will = will
        self._on_event = on_event
        self._on_ack = on_ack
        self._loop = asyncio.get_running_loop()
        self._client: mqtt.Client | None = None
        self._lock = threading.Lock()
        self._up = False
        self._since = 0.0
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        self._told: str | None = None
        self.connection = 0

    @property
    def up(self) -> bool:
        """Whether a connection stands, as far as is known."""
        return self._up

    def told(self) -> str:
        """How the connection fares, in words."""
        if self._up:
            return f"connected to {self._broker.url}"
        return self._told or f"connecting to {self._broker.url}"

    def start(self) -> None:
        """Begin to connect. Raises BrokerError for settings that cannot work."""
        self._open()

    async def close(self, farewell: bytes | None = None, *, patience_s: float = 2.0) -> None:
        """Publish a last state, say goodbye to the broker (which then drops the will), and end."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        client = self._client
        if client is None:
            return
        if self._up and farewell is not None:
            info = client.publish(topics.up(self._device, "state"), farewell, qos=1, retain=True)
            with contextlib.suppress(RuntimeError, ValueError):
                await asyncio.to_thread(info.wait_for_publish, patience_s)
        client.disconnect()
        await _stopped(client)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        expiry_s: int | None = None,
    ) -> int | None:
        """Hand a message to the connection; its packet id, or None while there is none.

        Raises ValueError for a message that no connection would take.
        """
        with self._lock:
            client = self._client
            if client is None or not self._up:
                return None
            properties = None
            if expiry_s is not None:
                properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
                properties.MessageExpiryInterval = expiry_s
            info = client.publish(topic, payload, qos=qos, retain=retain, properties=properties)
            return info.mid if info.rc == mqtt.MQTT_ERR_SUCCESS else None

    # -- one connection ------------------------------------------------------------------------------------

    def _open(self) -> None:
        self.connection += 1
        number = self.connection
        accepted = threading.Event()
        client = make_client(self._broker, f"samd-edge-{self._device}")
        client.reconnect_delay_set(*RETRY_S)
        client.will_set(topics.up(self._device, "state"), self._will(number), qos=1, retain=True)

        def on_connect(_c: Any, _u: Any, _flags: Any, reason: Any, _p: Any) -> None:
            if reason.is_failure:
                self._tell(f"the broker refuses this device: {reason}; check its credentials")
            else:
                accepted.set()
                self._enqueue(self._connected, number)

        def on_connect_fail(_c: Any, _u: Any) -> None:
            self._tell(f"no broker at {self._broker.url}; going on without, messages wait in the outbox")

        def on_disconnect(c: mqtt.Client, _u: Any, _flags: Any, reason: Any, _p: Any) -> None:
            if accepted.is_set():
                c.disconnect()  # so that paho does not connect again with this connection's will
                self._enqueue(self._disconnected, number, str(reason))

        def on_message(_c: Any, _u: Any, message: mqtt.MQTTMessage) -> None:
            self._enqueue(self._on_event, Received(message.topic, bytes(message.payload)))

        def on_publish(c: mqtt.Client, _u: Any, packet: int, reason: Any, _p: Any) -> None:
            acknowledge_at_once(c)
            self._on_ack(number, packet, str(reason) if reason.is_failure else None)

        client.on_connect = on_connect
        client.on_connect_fail = on_connect_fail
        client.on_disconnect = on_disconnect
        client.on_message = on_message
        client.on_publish = on_publish
        connect(client, self._broker)
        with self._lock:
            self._client = client
        client.loop_start()

    def _connected(self, number: int) -> None:
        client = self._client
        if client is None or number != self.connection or self._closed:
            return
        self._up = True
        self._since = time.monotonic()
        self._told = None
        log.info("connected to %s", self._broker.url)
        own = [topics.down(self._device, kind) for kind in ("command", "config", "task")]
        wanted = (*own, *topics.EVERY_MODEL, topics.EVERY_GATEWAY)
        client.subscribe([(topic, SubscribeOptions(qos=1)) for topic in wanted])
        self._on_event(Connected(number))

    def _disconnected(self, number: int, reason: str) -> None:
        if number != self.connection or self._closed:
            return
        with self._lock:
            self._up = False
            old, self._client = self._client, None
        lived = time.monotonic() - self._since
        hint = "; is another agent running under this name?" if lived < SHORT_LIVED_S else ""
        log.warning("the connection to the broker ended (%s); connecting again%s", reason, hint)
        self._on_event(Disconnected(reason))
        pause = random.uniform(1.0, 3.0) if time.monotonic() - self._since < SHORT_LIVED_S else 0.05  # noqa: S311
        self._task = asyncio.create_task(self._again(old, pause), name="link-again")

    async def _again(self, old: mqtt.Client | None, pause: float) -> None:
        if old is not None:
            await _stopped(old)
        await asyncio.sleep(pause)
        self._open()

    def _enqueue(self, call: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is there to be told
            self._loop.call_soon_threadsafe(call, *arguments)

    def _tell(self, text: str) -> None:
        """Log once per reason: an outage of a night is one line."""
        if text != self._told:
            self._told = text
            log.warning("%s", text)


async def _stopped(client: mqtt.Client, patience_s: float = 2.0) -> None:
    """Let paho's thread end. It is a daemon: one that hangs in a name look-up is left behind."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.to_thread(client.loop_stop), patience_s)
