"""What the device says of itself: state, configuration, heartbeat; and the configuration that it is told."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Literal

import msgspec

from samd_edge import certificate, heartbeat
from samd_edge.config import Settings
from samd_edge.device_db import DeviceDb
from samd_edge.link import Link
from samd_edge.outbox import Outbox
from samd_edge.update.running import running_version
from samd_protocol import envelope, topics
from samd_protocol.envelope import Sealer
from samd_protocol.errors import MessageError
from samd_protocol.messages import Config, Message, State


class Inside(msgspec.Struct, frozen=True, kw_only=True):
    """How the presence asks the agent what it has to say."""

    model_version: Callable[[], int | None]
    reading_age_s: Callable[[], float | None]
    consent: Callable[[], bool | None]
    counts: Callable[[], tuple[int, int]]
    """Disagreements of rule and model, and values rejected, in this admission since the agent's start."""


log = logging.getLogger(__name__)


class Presence:
    """Publishes state, configuration and heartbeat over one link. Used within the loop."""

    def __init__(
        self,
        settings: Settings,
        db: DeviceDb,
        outbox: Outbox,
        sealer: Sealer,
        *,
        link: Callable[[], Link],
        inside: Inside,
    ) -> None:
        self._settings = settings
        self._db = db
        self._outbox = outbox
        self._sealer = sealer
        self._link = link
        self._inside = inside
        self._began = time.monotonic()
        self._boot_id = str(uuid.uuid4())
        self._version = running_version()
        self._updating = False
        stored = db.get("config")
        self.config = Config(version=0) if stored is None else msgspec.convert(stored, Config)

    def shares_signs(self) -> bool:
        """Whether assessments carry vital signs: as the ward configured, else as the agent was started."""
        return self._settings.share_signs if self.config.share_signs is None else self.config.share_signs

    def heartbeat_s(self) -> float:
        """Seconds between heartbeats."""
        return self._settings.heartbeat_s if self.config.heartbeat_s is None else self.config.heartbeat_s

    def _certificate_expires_at(self) -> datetime | None:
        """Read at each heartbeat: a certificate is renewed under a running client."""
        path = self._settings.broker.cert_file
        return None if path is None else certificate.expires_at(path)

    def publish(
        self,
        kind: topics.DeviceUp,
        message: Message,
        *,
        qos: int = 1,
        retain: bool = False,
        expiry_s: int | None = None,
    ) -> None:
        """Publish past the outbox; without a connection the message is gone."""
        payload = envelope.encode(self._sealer.seal(message))
        topic = topics.up(self._sealer.device, kind)
        self._link().publish(topic, payload, qos=qos, retain=retain, expiry_s=expiry_s)

    def state(self, status: Literal["online", "updating", "offline"], connection: int) -> bytes:
        """A state as it stands in a birth, a last will, or a farewell."""
        return envelope.encode(
            self._sealer.seal(
                State(
                    status=status,
                    boot_id=self._boot_id,
                    connection=connection,
                    client_version=self._version,
                    model_version=self._inside.model_version(),
                )
            )
        )

    def tell_state(self) -> None:
        """Publish the state, retained; without a connection the next birth will."""
        link = self._link()
        topic = topics.up(self._sealer.device, "state")
        status: Literal["online", "updating"] = "updating" if self._updating else "online"
        link.publish(topic, self.state(status, link.connection), qos=1, retain=True)

    def set_updating(self, on: bool) -> None:
        """Say that another release is about to take over; or that it is not."""
        self._updating = on
        self.tell_state()

    def farewell(self) -> bytes:
        """The last state of this process: who ends for an update is soon back."""
        return self.state("updating" if self._updating else "offline", self._link().connection)

    def tell_config(self) -> None:
        """Publish the configuration in use, retained."""
        reported = Config(
            version=self.config.version,
            heartbeat_s=self.heartbeat_s(),
            share_signs=self.shares_signs(),
            consent_to_training=self._inside.consent(),
        )
        self.publish("config", reported, retain=True)

    def take_config(self, payload: bytes) -> Config | None:
        """A message from `dn/config`: the new configuration, or None when it is not newer than that in use.

        The broker keeps the last one and repeats it: an old one must never be applied to a later patient.
        Raises MessageError.
        """
        desired = envelope.decode(payload).data
        if not isinstance(desired, Config):
            raise MessageError("malformed", "no configuration")
        if desired.heartbeat_s is not None and not 0.1 <= desired.heartbeat_s <= 86_400:
            raise MessageError("malformed", "a heartbeat of less than 0.1 s or more than a day")
        if desired.version <= self.config.version:
            return None
        self.config = desired
        self._db.set(config=msgspec.to_builtins(desired))
        log.info("configuration %d applied", desired.version)
        return desired

    async def beat_forever(self) -> None:
        """A heartbeat now, and one after each interval."""
        while True:
            self.beat()
            await asyncio.sleep(self.heartbeat_s())

    def beat(self) -> None:
        """One heartbeat, if there is a connection: QoS 0, never queued."""
        if not self._link().up:
            return
        interval = self.heartbeat_s()
        disagreements, rejected = self._inside.counts()
        message = heartbeat.collect(
            self._settings.folder,
            interval_s=interval,
            uptime_s=time.monotonic() - self._began,
            outbox_depth=self._outbox.depth,
            dead_letters=self._outbox.dead_letters,
            reading_age_s=self._inside.reading_age_s(),
            model_version=self._inside.model_version(),
            disagreements=disagreements,
            rejected=rejected,
            certificate_expires_at=self._certificate_expires_at(),
        )
        self.publish("heartbeat", message, qos=0, expiry_s=max(1, round(2 * interval)))
