"""``mqtt:TOPIC``: a monitor that publishes JSON, on the broker of this device or on another.

    [[source]]
    url = "mqtt:monitors/bed-01/vitals"       # wildcards: see below
    broker = { url = "mqtts://monitors.ward", username = "bed-01", password_file = "/etc/samd/monitors" }
    [source.fields]                           # see json_mapping; without it: JSON lines as samd_data.table
    observed_at = "ts"
    heart_rate = "vitals.hr"

``?broker=mqtt://HOST:PORT`` names another broker in the URL; secrets stand in files, named in the table.

Time. A message needs a time of its own: ``observed_at``. A monitor that sends none can be taken with
``time = "arrival"``. Then nothing that waited anywhere may pass for fresh: no session is kept at the broker,
messages come at QoS 0, and retained ones are refused. With a time of its own a message may wait: QoS 1, a
session that outlives a lost connection by a day, acknowledged once the reading is committed, and a retained
message is as old as it says.

Patients. A topic with wildcards may carry several patients: it needs ``patient`` in ``[source.fields]``, or
``one_patient = true``, by which whoever writes the configuration vouches for all topics below.

A flood pushes out the oldest messages that were not taken yet, counted as a rejection, because the newest
signs matter most and because a callback that waited would stop the connection's own keep-alive. At QoS 1 it
does not come to that: the broker sends at most 100 messages ahead of their acknowledgement.
"""

import asyncio
import io
from collections import deque
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any, Final

import msgspec

from samd_data.json_keys import repeated_key
from samd_data.plausibility import Rejection, printable, shown
from samd_data.reading import FIELDS, Reading
from samd_data.table import read_rows
from samd_edge.clock import WallClock
from samd_edge.sources import SourceError, SourceURL
from samd_edge.sources.inbox import Inbox, Overrun
from samd_edge.sources.json_fields import patient_of, read_json
from samd_edge.sources.json_mapping import JsonMapping, mapping_of
from samd_edge.sources.mqtt_link import Arrived, MonitorLink, Receipt
from samd_edge.sources.mqtt_settings import (
    Settings,
    broker_of,
    check_patient,
    check_time,
    check_topic,
    client_id,
)
from samd_edge.sources.surroundings import Surroundings
from samd_protocol.broker import Broker
from samd_protocol.errors import BrokerError

LONGEST_BYTES: Final = 65_536
"""A reading takes about 300 bytes. What is longer is no reading, and is not kept."""

WAITING: Final = 1000
WAITING_BYTES: Final = 4 * 1024 * 1024
"""What may wait to be taken: a burst of a quarter of an hour from a monitor that sends each second."""

_TOLD_KEYS: Final = 100  # unknown keys that are told; a monitor goes on for months
_WATCH_S: Final = 30.0


class MqttSource:
    """The readings of one subscription; live."""

    def __init__(
        self,
        url: SourceURL,
        broker: Broker,
        settings: Settings,
        mapping: JsonMapping | None,
        around: Surroundings,
    ) -> None:
        self.clock = WallClock(around.wall)
        self._url = url
        self._mapping = mapping
        self._arrival = settings.time == "arrival"
        self._around = around
        self._count = 0
        self._told_keys: set[str] = set()
        self._inbox: Inbox[Arrived] | None = None
        self._pushed_out: deque[Receipt] = deque()
        self._link = MonitorLink(
            broker,
            client_id(url, around.device),
            url.path,
            durable=not self._arrival and around.device is not None,
            qos=0 if self._arrival else 1,
            longest_bytes=LONGEST_BYTES,
            wall=around.wall,
            on_message=self._arrived,
        )

    def history(self) -> Iterator[Reading]:
        return iter(())

    async def __aiter__(self) -> AsyncIterator[Reading | Rejection]:
        if self._inbox is not None:
            raise RuntimeError("a source is iterated over once")
        self._inbox = Inbox(
            limit=WAITING,
            limit_bytes=WAITING_BYTES,
            size=lambda message: len(message.payload),
            pushed_out=self._note_pushed_out,
        )
        self._link.start()
        while True:
            try:
                async with asyncio.timeout(_WATCH_S):
                    got = await self._inbox.get()
            except TimeoutError:
                self._link.watch()
                continue
            if got is None:
                return
            if isinstance(got, Overrun):
                yield self._refused(
                    f"{got.messages} messages came faster than they could be taken; the oldest were dropped",
                    "have the monitor publish less often, or subscribe to a narrower topic",
                )
                while self._pushed_out:
                    self._link.acknowledge(self._pushed_out.popleft())
                continue
            self._count += 1
            for item in self._items(got):
                yield item
            if got.receipt is not None:
                self._link.acknowledge(got.receipt)

    async def aclose(self) -> None:
        if self._inbox is not None:
            self._inbox.close()
        await self._link.close()

    def _arrived(self, message: Arrived) -> None:
        """In paho's thread."""
        if self._inbox is not None:
            self._inbox.put(message)

    def _note_pushed_out(self, message: Arrived) -> None:
        """In paho's thread. Some brokers want acknowledgements in order: it follows in its turn."""
        if message.receipt is not None:
            self._pushed_out.append(message.receipt)

    # -- one message ---------------------------------------------------------------------------------------

    def _items(self, message: Arrived) -> list[Reading | Rejection]:
        """What one message gives: at most one reading, and what could not be used of it."""
        content = _decoded(message)
        if isinstance(content, str):
            return [self._refused(content, 'publish one JSON object, as in {"observed_at": ..., ...}')]
        timeless = self._arrival and not (self._mapping is None and "observed_at" in content)
        if timeless and message.retained:
            return [
                self._refused(
                    "a retained message without a time of its own may be of any age",
                    "publish it without the retain flag, or with its time",
                )
            ]
        items = list(self._read(content, message.at if timeless else None))
        if any(isinstance(item, Reading) or item.column in FIELDS for item in items):
            refusal = self._refusal(content)
            if refusal is not None:
                return [refusal]
        return items

    def _read(self, content: dict[str, Any], arrived: datetime | None) -> Iterator[Reading | Rejection]:
        if self._mapping is not None:
            yield from read_json(
                content, self._mapping, file=self._url.text, row=self._count, arrived=arrived
            )
            return
        if arrived is not None:
            content = {**content, "observed_at": arrived.isoformat()}
        text = msgspec.json.encode(content).decode()
        silent = True
        for item in read_rows(io.StringIO(text), self._url.text, format="jsonl"):
            if isinstance(item, Reading):
                if item.present():
                    yield item
                elif silent:
                    yield self._refused(
                        "no vital sign stands in the message",
                        "publish our own names, say where they stand in [source.fields], or narrow the topic",
                    )
            elif self._is_news(item, content):
                silent = False
                yield msgspec.structs.replace(item, row=self._count)

    def _is_news(self, rejection: Rejection, content: dict[str, Any]) -> bool:
        """A key that is not read stands in each message of a monitor: it is told once."""
        key = rejection.column
        if key not in content or key in (*FIELDS, "observed_at", "ages"):
            return True
        if key in self._told_keys or len(self._told_keys) >= _TOLD_KEYS:
            return False
        self._told_keys.add(key)
        return True

    def _refusal(self, content: dict[str, Any]) -> Rejection | None:
        """Why nothing of this message is taken: it is of another patient, or of nobody knows whom."""
        identifier = None
        if self._mapping is not None and self._mapping.patient is not None:
            identifier = patient_of(content, self._mapping)
            if identifier is None:
                return self._refused(
                    "the message does not name its patient", "check the path of patient in [source.fields]"
                )
        refusal = self._around.patient.refusal(identifier)
        if refusal is None:
            return None
        reason, _, remedy = refusal.partition("; ")
        return self._refused(reason, remedy)

    def _refused(self, reason: str, remedy: str) -> Rejection:
        return Rejection(self._url.text, self._count, "", "", reason, remedy)


def open_source(url: SourceURL, around: Surroundings) -> MqttSource:
    """Check the settings; the connection is made once the source is read. Raises SourceError."""
    settings = url.settings(Settings)
    check_topic(url)
    try:
        mapping = mapping_of(settings.fields) if settings.fields else None
        broker = broker_of(url, settings, around)
        check_time(url, settings, mapping)
        check_patient(url, settings, mapping)
        return MqttSource(url, broker, settings, mapping, around)
    except (BrokerError, ValueError) as error:
        raise SourceError(printable(f"source {url.text!r}: {error}")) from error


def _decoded(message: Arrived) -> dict[str, Any] | str:
    """The JSON object of a message, or why there is none."""
    if message.length > LONGEST_BYTES:
        return f"the message has {message.length} bytes; a reading has at most {LONGEST_BYTES}"
    try:
        content: object = msgspec.json.decode(message.payload)
        twice = repeated_key(message.payload)
    except UnicodeDecodeError:
        return "the message is not UTF-8"
    except (msgspec.MsgspecError, ValueError):
        return "the message is no JSON"
    except RecursionError:
        return "the message is nested too deeply"
    if twice is not None:
        return f"the key {shown(twice)} stands twice, and which value is meant cannot be told"
    return content if isinstance(content, dict) else "the message is no JSON object"
