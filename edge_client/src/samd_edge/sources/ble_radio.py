"""The radio: scans for sensors, connects to them, hears their notifications, and finds them again.

A scan lasts some seconds or until a wanted sensor shows up, then the radio rests: a sensor's battery pays for
answering. It connects to one sensor at a time and not while it scans, since adapters do badly at both. How
scanning and connecting are done is a matter of bleak, whose two classes come in as arguments.

Pairing is left to the operating system: ``bluetoothctl pair ADDRESS``, once.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from samd_edge.sources import ble_decoders as decoders
from samd_edge.sources.ble_events import (
    CONTINUOUS,
    SERVICES,
    Event,
    Lost,
    Notified,
    PassedOver,
    number,
    uuid_of,
)
from samd_edge.sources.ble_pace import Pace
from samd_edge.sources.ble_problems import explain, text_of

if TYPE_CHECKING:
    from bleak import BleakClient, BleakScanner
    from bleak.backends.characteristic import BleakGATTCharacteristic
    from bleak.backends.device import BLEDevice
    from bleak.backends.scanner import AdvertisementData

log = logging.getLogger(__name__)

_READ: Final = {
    decoders.TEMPERATURE_TYPE: "where it measures",
    decoders.CURRENT_TIME: "its time",
    decoders.DATE_TIME: "its time",
}

LONGEST_BYTES: Final = 512  # of a characteristic, by the Bluetooth Core Specification


@dataclass(slots=True)
class _Sensor:
    """What is known of one address."""

    client: "BleakClient | None" = None
    heard: set[int] = field(default_factory=set)
    failures: int = 0
    not_before: float = 0.0
    told: str | None = None
    ahead: timedelta | None = None
    site: int | None = None


class Radio:
    """Runs from ``start`` to ``close``. ``tell`` is called in the loop, for each event, and must not wait.

    ``addresses``: of the sensors to read; empty: the first sensor of each service that is in range.
    """

    def __init__(
        self,
        addresses: Collection[str],
        *,
        scanner: "Callable[..., BleakScanner]",
        client: "Callable[..., BleakClient]",
        tell: Callable[[Event], None],
        wall: Callable[[], datetime],
        pace: Pace,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._named = frozenset(address.upper() for address in addresses)
        self._scanner = scanner
        self._client = client
        self._tell = tell
        self._wall = wall
        self._pace = pace
        self._sleep = sleep
        self._sensors: dict[str, _Sensor] = {}
        self._owner: dict[int, str] = {}
        self._passed_over: set[tuple[str, int]] = set()
        self._told: str | None = None
        self._gone = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def start(self, ended: Callable[[], None]) -> None:
        """Begin; ``ended`` is called when it is over."""
        self._task = asyncio.create_task(self._run(), name="bluetooth")
        self._task.add_done_callback(lambda _task: ended())

    @property
    def failure(self) -> BaseException | None:
        """What it ended with, if it failed."""
        task = self._task
        return None if task is None or not task.done() or task.cancelled() else task.exception()

    async def close(self) -> None:
        """Disconnect from all sensors, and end."""
        self._closing = True
        # The stack below may lose a cancellation, so it is repeated; and it may hang for good.
        for _ in range(20):
            if self._task is None or self._task.done():
                return
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=0.5)

    async def _run(self) -> None:
        """Find, connect, hear; for ever."""
        try:
            while not self._closing:
                found = await self._scan()
                for device, services in found or ():
                    if self._wanted(device.address, services):  # another of its kind may have come before it
                        await self._connect(device)
                if found is None:
                    await self._sleep(self._pace.unusable_s)
                elif self._complete():
                    self._gone.clear()  # nothing was awaited since: no loss can come between
                    await self._gone.wait()
                else:
                    await self._sleep(self._pace.rest_s)
        finally:
            await self._leave()

    # -- scanning ------------------------------------------------------------------------------------------

    async def _scan(self) -> "list[tuple[BLEDevice, set[int]]] | None":
        """Sensors that can be connected to now; None when the adapter cannot be used, which is told once."""
        found: dict[str, tuple[BLEDevice, set[int]]] = {}
        seen = asyncio.Event()

        def detected(device: "BLEDevice", advertisement: "AdvertisementData") -> None:
            services = {number(uuid) for uuid in advertisement.service_uuids} & SERVICES.keys()
            if self._wanted(device.address, services):
                found[device.address.upper()] = (device, services)
                seen.set()

        # A sensor that is named need not say what it is: paired ones often do not.
        uuids = None if self._named else [uuid_of(service) for service in SERVICES]
        try:
            scanner = self._scanner(detection_callback=detected, service_uuids=uuids)
            async with asyncio.timeout(self._pace.connect_s):
                await scanner.start()
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pace.scan_s):
                        await seen.wait()
            finally:
                async with asyncio.timeout(self._pace.connect_s):
                    await scanner.stop()
        except Exception as error:  # noqa: BLE001  (whatever the stack below throws, the agent goes on)
            problem = explain(error)
            if problem != self._told:
                self._told = problem
                log.warning("%s; trying again every %g s", problem, self._pace.unusable_s)
            return None
        if self._told is not None:
            self._told = None
            log.info("Bluetooth can be used again")
        return list(found.values())

    def _wanted(self, address: str, services: Collection[int]) -> bool:
        address = address.upper()
        sensor = self._sensors.get(address)
        if sensor is not None and (sensor.client is not None or time.monotonic() < sensor.not_before):
            return False
        if self._named:
            return address in self._named
        free = [service for service in services if self._owner.get(service, address) == address]
        for service in services:
            if service not in free and not free and (address, service) not in self._passed_over:
                self._passed_over.add((address, service))
                self._tell(PassedOver(address, SERVICES[service], self._owner[service]))
        return bool(free)

    def _complete(self) -> bool:
        """Whether nobody is missing: each sensor that was named, or one of each kind, is connected."""
        if not self._named and len(self._owner) < len(SERVICES):
            return False
        connected = {address for address, sensor in self._sensors.items() if sensor.client is not None}
        return connected >= (self._named or set(self._owner.values()))

    # -- one sensor ----------------------------------------------------------------------------------------

    async def _connect(self, device: "BLEDevice") -> None:
        address = device.address.upper()
        sensor = self._sensors.setdefault(address, _Sensor())
        client = self._client(
            device,
            disconnected_callback=lambda gone: self._lost(address, sensor, gone),
            timeout=self._pace.connect_s,
        )
        sensor.client = client
        try:
            async with asyncio.timeout(self._pace.connect_s):
                await client.connect()
                kinds = await self._subscribe(client, address, sensor)
        except Exception as error:  # noqa: BLE001  (as above)
            sensor.client = None
            sensor.failures += 1
            pause = self._pace.retry_s * 2 ** min(sensor.failures - 1, 10)
            sensor.not_before = time.monotonic() + min(pause, self._pace.retry_longest_s)
            if sensor.told != (told := text_of(error)):
                sensor.told = told
                log.warning(
                    "%s cannot be read (%s); trying again. If it has to be paired: bluetoothctl pair %s",
                    *(address, told, address),
                )
            await self._disconnect(client)
        else:
            sensor.failures = 0
            sensor.told = None
            log.info("connected to %s: %s", address, ", ".join(kinds))

    async def _subscribe(self, client: "BleakClient", address: str, sensor: _Sensor) -> list[str]:
        """Hear every measurement that is known here; what kinds of sensor it is. Raises if it is none."""
        wanted: list[tuple[int, BleakGATTCharacteristic]] = []
        kinds: set[int] = set()
        sensor.ahead, sensor.site = None, None
        for service in client.services:
            kind = number(service.uuid)
            if kind in SERVICES and (self._named or self._owner.get(kind, address) == address):
                for characteristic in service.characteristics:
                    if number(characteristic.uuid) in decoders.DECODERS:
                        wanted.append((number(characteristic.uuid), characteristic))
                        kinds.add(kind)
            for characteristic in service.characteristics:
                await self._read(client, characteristic, sensor)
        if not wanted:
            raise ValueError("it offers no measurement that is known here")
        for code, characteristic in wanted:
            await client.start_notify(characteristic, partial(self._notified, address, sensor, code))
        for kind in kinds:
            self._owner.setdefault(kind, address)
        return [SERVICES[kind] for kind in sorted(kinds)]

    async def _read(
        self, client: "BleakClient", characteristic: "BleakGATTCharacteristic", sensor: _Sensor
    ) -> None:
        """The sensor's clock, and the site of a thermometer. One that will not tell has none."""
        code = number(characteristic.uuid)
        if code not in _READ or "read" not in characteristic.properties:
            return
        try:
            async with asyncio.timeout(self._pace.read_s):
                data = bytes(await client.read_gatt_char(characteristic))
        except Exception as error:  # noqa: BLE001  (as above)
            log.info("%s does not tell %s (%s)", client.address, _READ[code], text_of(error))
            return
        if code == decoders.TEMPERATURE_TYPE:
            sensor.site = data[0] if data else None
        elif (shown := decoders.clock_reading(data)) is not None:
            sensor.ahead = shown.replace(tzinfo=UTC) - self._wall()

    def _notified(
        self, address: str, sensor: _Sensor, code: int, _from: "BleakGATTCharacteristic", data: bytearray
    ) -> None:
        sensor.heard.add(code)
        self._tell(
            Notified(address, code, bytes(data[:LONGEST_BYTES]), self._wall(), sensor.ahead, sensor.site)
        )

    def _lost(self, address: str, sensor: _Sensor, client: "BleakClient") -> None:
        if sensor.client is not client:
            return
        sensor.client = None
        self._gone.set()
        heard = tuple(sorted(sensor.heard & CONTINUOUS))
        sensor.heard.clear()
        if heard:
            self._tell(Lost(address, heard))
        else:
            log.info("%s has disconnected", address)

    async def _disconnect(self, client: "BleakClient") -> None:
        with contextlib.suppress(Exception):  # it may never have been connected
            async with asyncio.timeout(self._pace.read_s):
                await client.disconnect()

    async def _leave(self) -> None:
        clients = [sensor.client for sensor in self._sensors.values() if sensor.client is not None]
        for sensor in self._sensors.values():
            sensor.client = None
        await asyncio.gather(*(self._disconnect(client) for client in clients))
