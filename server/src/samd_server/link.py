"""The server's connection to the broker. Callbacks only hand over; an order is on disk before its PUBACK."""

import logging
import math
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import paho.mqtt.client as mqtt

from samd_protocol import envelope, tasks, topics
from samd_protocol.broker import Broker, acknowledge_at_once, connect, make_client
from samd_protocol.envelope import Sealer
from samd_protocol.errors import MessageError
from samd_protocol.messages import (
    Message,
    ModelAnswer,
    ModelOrder,
    ModelRelease,
    RunOrder,
    RunStatus,
    ServerState,
    State,
)

log = logging.getLogger(__name__)


class Link:
    """Publishes tasks, statuses and releases; receives orders, updates and the devices' states.

    What is retained is published again after every connect, since a broker may have lost it.
    """

    def __init__(
        self,
        broker: Broker,
        sealer: Sealer,
        *,
        on_order: Callable[[RunOrder], None],
        on_model: Callable[[ModelOrder], str | None] = lambda order: "this server takes no orders on models",
        on_update: Callable[[tasks.Update], None],
        on_state: Callable[[str, State], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Callbacks run in paho's thread; `on_order` returns once the order is kept, `on_model`
        once it is done, or with the reason why not. Raises BrokerError."""
        self._broker = broker
        self._sealer = sealer
        self._on_order = on_order
        self._on_model = on_model
        self._on_update = on_update
        self._on_state = on_state
        self._now = now
        self._retained: dict[str, Message] = {}
        self._lock = threading.Lock()
        self._warned: set[str] = set()
        self._states: dict[str, tuple[int, int]] = {}
        self.dropped: dict[str, int] = {}
        self.connected = threading.Event()
        self._client = make_client(broker, "samd-server", manual_ack=True, max_inflight=1000)
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected
        self._client.on_message = self._received
        # Else the next task would wait behind the acknowledgement of this one.
        self._client.on_publish = lambda client, *_: acknowledge_at_once(client)

    def start(self, offline: ServerState) -> None:
        """Connect in the background; `offline` is the last will."""
        self._client.will_set(topics.SERVER_STATE, self._sealed(offline), qos=1, retain=True)
        connect(self._client, self._broker)
        self._client.loop_start()

    def stop(self, offline: ServerState) -> None:
        """Say goodbye and disconnect; waits until the broker has it, two seconds at most."""
        if self._client.is_connected():
            info = self._client.publish(topics.SERVER_STATE, self._sealed(offline), qos=1, retain=True)
            if info.rc == mqtt.MQTT_ERR_SUCCESS:
                info.wait_for_publish(2.0)
        self._client.disconnect()
        self._client.loop_stop()

    def send_task(self, device: str, task: tasks.Task) -> None:
        """Send a task; the broker forgets it at its deadline. Raises MessageError for one that is too big."""
        expires = mqtt.Properties(mqtt.PacketTypes.PUBLISH)  # type: ignore[attr-defined,no-untyped-call]
        expires.MessageExpiryInterval = math.ceil(task.deadline_s)
        self._client.publish(topics.down(device, "task"), tasks.encode(task), qos=1, properties=expires)

    def publish_state(self, state: ServerState) -> None:
        self._retain(topics.SERVER_STATE, state)

    def publish_run(self, status: RunStatus) -> None:
        self._retain(topics.SERVER_RUN, status)

    def publish_release(self, release: ModelRelease) -> None:
        self._retain(topics.model(release.task), release)

    def _retain(self, topic: str, message: Message) -> None:
        # Under the lock, as in `_connected`: an older message must never be the last one on its topic.
        with self._lock:
            self._retained[topic] = message
            if self._client.is_connected():
                self._client.publish(topic, self._sealed(message), qos=1, retain=True)

    def _sealed(self, message: Message) -> bytes:
        return envelope.encode(self._sealer.seal(message))

    # -- paho's thread --------------------------------------------------------

    def _connected(
        self, client: mqtt.Client, _data: object, _flags: object, code: object, _p: object
    ) -> None:
        if getattr(code, "is_failure", False):
            log.warning("the broker refuses the connection: %s", code)
            return
        client.subscribe(
            [
                (topics.SERVER_ORDER, 1),
                (topics.SERVER_MODEL_ORDER, 1),
                (topics.every_up("update"), 1),
                (topics.every_up("state"), 1),
            ]
        )
        with self._lock:
            for topic, message in self._retained.items():
                client.publish(topic, self._sealed(message), qos=1, retain=True)
        self.connected.set()
        log.info("connected to %s", self._broker.url)

    def _disconnected(
        self, _client: mqtt.Client, _data: object, _flags: object, code: object, _p: object
    ) -> None:
        self.connected.clear()
        if getattr(code, "is_failure", True):
            log.warning("connection to %s lost: %s", self._broker.url, code)

    def _received(self, client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        try:
            self._dispatch(message.topic, bytes(message.payload))
        except MessageError as error:
            self._drop(message.topic, error)
        except Exception:
            # paho would end its thread, and with it the server's hearing, for one message.
            self.dropped["defect"] = self.dropped.get("defect", 0) + 1
            log.exception("a message on %s could not be handled", message.topic)
        # Also after a refusal: a message that cannot be read now can never be read.
        client.ack(message.mid, message.qos)

    def _dispatch(self, topic: str, payload: bytes) -> None:
        if topic in (topics.SERVER_ORDER, topics.SERVER_MODEL_ORDER):
            sealed = envelope.decode(payload)
            wanted = RunOrder if topic == topics.SERVER_ORDER else ModelOrder
            if not isinstance(sealed.data, wanted):
                raise MessageError("malformed", f"a {sealed.type} where orders come")
            if sealed.expires_at is not None and sealed.expires_at < self._now():
                raise MessageError(
                    "expired",
                    f"an order that was valid until {sealed.expires_at:%Y-%m-%d %H:%M:%S} UTC; "
                    "if it is new, the clock of this machine or of the gateway is wrong",
                )
            if isinstance(sealed.data, RunOrder):
                self._on_order(sealed.data)
            elif isinstance(sealed.data, ModelOrder):
                self._answer(sealed.id, self._on_model(sealed.data))
            return
        device, kind = topics.parse_up(topic)
        if kind == "update":
            update = tasks.decode_update(payload)
            if update.device != device:
                raise MessageError("forged", f"an update of {update.device!r} on the topic of {device!r}")
            self._on_update(update)
        elif kind == "state":
            sealed = envelope.decode(payload, sender=device)
            if not isinstance(sealed.data, State):
                raise MessageError("malformed", f"a {sealed.type} where states come")
            order = (sealed.boot, sealed.data.connection)
            # A will is written at connect: one that arrives after a later birth is old news.
            if order >= self._states.get(device, (0, 0)):
                self._states[device] = order
                self._on_state(device, sealed.data)

    def _answer(self, order: str, problem: str | None) -> None:
        answer = ModelAnswer(
            order=order, status="done" if problem is None else "rejected", reason=problem or ""
        )
        self._client.publish(topics.SERVER_MODEL_ANSWER, self._sealed(answer), qos=1)

    def _drop(self, topic: str, error: MessageError) -> None:
        self.dropped[error.reason] = self.dropped.get(error.reason, 0) + 1
        if topic not in self._warned:
            self._warned.add(topic)
            log.warning("dropped a message on %s (%s): %s", topic, error.reason, error)
