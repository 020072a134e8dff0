"""What waits at the broker for a gateway that is gone: its heir fetches it.

A broker divides shared messages among sessions, and a session outlives its gateway: what was meant for one
that was killed or switched off would wait until it is back. So the leader connects in its place, under its
client id, takes what is there, and ends the session. When the gateway comes back meanwhile the broker gives
it its place again, and what is not acknowledged is sent to it anew.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from sqlalchemy.exc import SQLAlchemyError

from samd_gateway.backlog import Received
from samd_gateway.cluster import Member, members
from samd_gateway.schema import Database
from samd_protocol import broker as brokers
from samd_protocol import envelope

log = logging.getLogger(__name__)

LOOK_S = 1.0
QUIET_S = 2.0
"""Nothing has come and nothing is unwritten for so long: the session is empty."""
PATIENCE_S = 10.0
FORGET_S = 86_400.0
"""Sessions end by themselves a day after their gateway."""


class Heir:
    """One connection in the place of a gateway that is gone."""

    def __init__(
        self,
        broker: brokers.Broker,
        client_id: str,
        filters: Sequence[str],
        *,
        offer: Callable[[Received], None],
        session: int,
        maximum_packet_bytes: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._broker = broker
        self._filters = list(filters)
        self._offer = offer
        self._session = session
        self._maximum = maximum_packet_bytes
        self._now = now
        self._lock = threading.Lock()
        self._open = 0
        self._last = time.monotonic()
        self._connected = False
        self.inherited = 0
        self.ended = False
        self.reached = False
        """The broker has answered, whatever it said."""
        self._client = brokers.make_client(broker, client_id, manual_ack=True)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message

    def start(self) -> None:
        brokers.connect(self._client, self._broker, maximum_packet_bytes=self._maximum)
        self._client.loop_start()

    def acknowledge(self, batch: Sequence[Received]) -> None:
        """Tell the broker that these are safe, where they came on this connection."""
        with self._lock:
            for received in batch:
                if received.session == self._session and received.qos > 0:
                    self._open -= 1
                    self._last = time.monotonic()
                    if self._connected:
                        self._client.ack(received.mid, received.qos)

    @property
    def idle(self) -> bool:
        """Whether nothing is left to fetch, or nothing has come of the attempt."""
        with self._lock:
            still = time.monotonic() - self._last
            return (self._connected and self._open <= 0 and still > QUIET_S) or still > PATIENCE_S

    def stop(self, *, emptied: bool) -> None:
        """Leave; with `emptied` the session ends, else it stays as it is."""
        properties = None
        if emptied:
            properties = Properties(PacketTypes.DISCONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = 0
        self.ended = True
        self._client.disconnect(
            reasoncode=ReasonCode(PacketTypes.DISCONNECT, "Normal disconnection"), properties=properties
        )
        self._client.loop_stop()

    def _on_connect(self, client: mqtt.Client, _data: Any, flags: Any, reason: Any, _more: Any) -> None:
        self.reached = True
        if reason.is_failure or not flags.session_present:
            self.ended = True  # refused, or nothing is left
            client.disconnect()
            return
        with self._lock:
            self._connected = True
            self._last = time.monotonic()
        # no more for this session, but what it has
        client.unsubscribe(self._filters)

    def _on_disconnect(self, client: mqtt.Client, *_: Any) -> None:
        with self._lock:
            self._connected = False
        if not self.ended:
            self.ended = True  # the gateway is back in its place, or the broker is gone
            client.disconnect()

    def _on_message(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        with self._lock:
            self._last = time.monotonic()
            self._open += message.qos > 0
            self.inherited += 1
        self._offer(
            Received(
                topic=message.topic,
                payload=bytes(message.payload[: envelope.MAX_BYTES + 1]),
                qos=message.qos,
                retained=bool(message.retain),
                mid=message.mid,
                session=self._session,
                received_at=self._now(),
            )
        )


class Heirs:
    """The thread that looks for gateways that are gone, on the one that leads."""

    def __init__(
        self,
        database: Database,
        make: Callable[[str, int], Heir],
        *,
        name: str,
        sessions: Iterator[int],
        leading: Callable[[], bool],
        taken_over: Callable[[], int],
        now: Callable[[], float] = time.time,
    ) -> None:
        """`make` gives the heir of a gateway (by name) with that session's number; `taken_over` counts how
        often this gateway itself lost its place at the broker."""
        self._database = database
        self._make = make
        self._name = name
        self._sessions = sessions
        self._leading = leading
        self._taken_over = taken_over
        self._now = now
        self._done: set[tuple[str, str, float]] = set()
        self._heir: Heir | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heirs", daemon=True)
        self.given_up = False
        """The broker does not let this gateway stand in for another."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(15.0)

    def acknowledge(self, batch: Sequence[Received]) -> None:
        heir = self._heir
        if heir is not None:
            heir.acknowledge(batch)

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            if not self._leading() or self.given_up:
                continue
            try:
                with self._database.read() as connection:
                    gone = [each for each in members(connection, self._now()) if self._is_gone(each)]
            except SQLAlchemyError:
                continue
            for each in gone:
                self._inherit(each)

    def _is_gone(self, member: Member) -> bool:
        key = (member.name, member.instance, member.seen_at)
        recently = abs(self._now() - member.seen_at) < FORGET_S
        return member.name != self._name and not member.live and recently and key not in self._done

    def _inherit(self, member: Member) -> None:
        before = self._taken_over()
        heir = self._heir = self._make(member.name, next(self._sessions))
        heir.start()
        while not self._stopping.wait(0.1) and self._leading() and not heir.ended and not heir.idle:
            if self._taken_over() != before:
                break
        heir.stop(emptied=heir.reached and heir.idle and not heir.ended and self._leading())
        self._heir = None
        if self._taken_over() != before:
            self.given_up = True
            log.warning(
                "the broker gives each certificate one client id, so that this gateway cannot stand in for "
                "%s; what waits there for it comes when it is started again",
                member.name,
            )
            return
        if heir.reached:
            self._done.add((member.name, member.instance, member.seen_at))
        if heir.inherited:
            log.info("%d messages that waited for %s are taken over", heir.inherited, member.name)
