"""Devices in Home Assistant, by its MQTT discovery: how each one does as a machine, and nothing of a patient.

Off unless asked for. A retained message tells Home Assistant once what a device is and where its state comes;
the state itself is never retained and expires there, so that what is old is shown as unavailable, and not as
the present. https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload
"""

import json
import logging
import re
import threading
import time
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from samd_gateway import schema
from samd_gateway.errors import UnavailableError
from samd_gateway.roster import Known, Roster
from samd_gateway.schema import Database

log = logging.getLogger(__name__)

PREFIX = "homeassistant"
LOOK_S = 2.0
EVERY_S = 60.0
EXPIRES_S = 150
"""Two states may be lost before Home Assistant calls a device unavailable."""
AT_ONCE = 500
STATES = ("online", "stale", "offline", "unknown")


class Beat(msgspec.Struct, frozen=True):
    """What is passed on of a heartbeat."""

    temperature_c: float | None = None
    disk_free_mb: float | None = None
    outbox_depth: int | None = None


class Send(Protocol):
    """What `Link.send` is."""

    def __call__(self, topic: str, payload: bytes, *, retain: bool = False) -> Any: ...


def object_id(device: str) -> str:
    """The device's name with the letters that Home Assistant allows; two names never give the same."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", device)
    return f"samd_{plain}" if plain == device else f"samd_{plain}_{zlib.crc32(device.encode()):08x}"


def config_topic(device: str) -> str:
    return f"{PREFIX}/device/{object_id(device)}/config"


def state_topic(device: str) -> str:
    return f"{PREFIX}/samd/{object_id(device)}/state"


def config(device: str, client_version: str | None, version: str) -> dict[str, Any]:
    """What a device is, for Home Assistant. `version` is the gateway's."""
    base = object_id(device)

    def component(key: str, name: str, platform: str = "sensor", **more: Any) -> dict[str, Any]:
        return {
            "platform": platform,
            "unique_id": f"{base}_{key}",
            "name": name,
            "state_topic": state_topic(device),
            "value_template": f"{{{{ value_json.{key} }}}}",
            "expire_after": EXPIRES_S,
            "entity_category": "diagnostic",
        } | more

    measured = {"state_class": "measurement"}
    components = {
        "state": component("state", "State", device_class="enum", options=list(STATES)),
        "last_heartbeat": component("last_heartbeat", "Last heartbeat", device_class="timestamp"),
        "temperature": component(
            "temperature_c",
            "Processor temperature",
            device_class="temperature",
            unit_of_measurement="°C",
            **measured,
        ),
        "disk_free": component(
            "disk_free_mb", "Free disk", device_class="data_size", unit_of_measurement="MB", **measured
        ),
        "outbox": component("outbox_depth", "Messages waiting", **measured),
        "model": component("model_version", "Model version"),
        "certificate": component("certificate_expires_at", "Certificate ends", device_class="timestamp"),
        "limited": component(
            "limited",
            "Limited or not believed",
            "binary_sensor",
            device_class="problem",
            payload_on="ON",
            payload_off="OFF",
        ),
    }
    about = {"identifiers": [base], "name": device, "manufacturer": "samd", "model": "bedside device"}
    if client_version is not None:
        about["sw_version"] = client_version
    return {
        "device": about,
        "origin": {"name": "samd-gateway", "sw_version": version},
        "components": components,
    }


def state(known: Known, beat: Beat | None) -> dict[str, Any]:
    """How a device does. `None`, which Home Assistant shows as unknown, for what is not known; and for what a
    heartbeat told, unless the device is online: it may be otherwise by now."""
    now = beat if beat is not None and known.state.state == "online" else Beat()
    return {
        "state": known.state.state,
        "last_heartbeat": _time(known.heartbeat_at),
        "temperature_c": now.temperature_c,
        "disk_free_mb": now.disk_free_mb,
        "outbox_depth": now.outbox_depth,
        "model_version": known.model_version,
        "certificate_expires_at": _time(known.certificate_expires_at),
        "limited": "OFF" if known.flagged is None else "ON",
    }


def _time(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


class HomeAssistant:
    """The thread that tells Home Assistant, on the gateway that leads."""

    def __init__(
        self,
        database: Database,
        roster: Roster,
        send: Send,
        *,
        version: str,
        leading: Callable[[], bool],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._roster = roster
        self._send = send
        self._version = version
        self._leading = leading
        self._now = now
        self._configured: dict[str, str | None] = {}
        self._sent: dict[str, tuple[float, tuple[Any, ...]]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="home-assistant", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(5.0)

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            if not self._leading():
                self._configured.clear()  # who leads again cannot know what was said meanwhile
                self._sent.clear()
                continue
            try:
                self.look()
            except (UnavailableError, SQLAlchemyError):
                continue  # /healthz says so

    def look(self) -> None:
        """Tell what is new or due, at most so much at once. Raises UnavailableError, SQLAlchemyError."""
        now = self._now()
        due = [
            known
            for known in self._roster.some().values()
            if known.name not in self._sent
            or self._sent[known.name][1] != _changing(known)
            or not 0.0 <= now - self._sent[known.name][0] < EVERY_S
        ][:AT_ONCE]
        beats = self._beats([known.name for known in due])
        for known in due:
            if self._configured.get(known.name, "") != known.client_version:
                told = config(known.name, known.client_version, self._version)
                self._send(config_topic(known.name), json.dumps(told).encode(), retain=True)
                self._configured[known.name] = known.client_version
            told = state(known, beats.get(known.name))
            self._send(state_topic(known.name), json.dumps(told).encode())
            self._sent[known.name] = (now, _changing(known))

    def _beats(self, names: list[str]) -> dict[str, Beat]:
        table = schema.latest
        query = select(table.c.device, table.c.body).where(
            table.c.kind == "heartbeat", table.c.device.in_(names)
        )
        decoder = msgspec.json.Decoder(Beat)
        with self._database.read() as connection:
            return {name: decoder.decode(body) for name, body in connection.execute(query).tuples()}


def _changing(known: Known) -> tuple[Any, ...]:
    """What is told at once when it changes."""
    return known.state.state, known.model_version, known.flagged, known.client_version
