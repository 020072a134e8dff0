"""bleak's two backends over bumble's central: our source talks to bleak, bleak to an emulated radio.

bleak on Linux needs BlueZ, and BlueZ a kernel with Bluetooth, which a test machine seldom has. bleak takes
other backends by its public argument ``backend``; this one hands on to a bumble ``Device``, whose controller
is linked with those of emulated sensors. For tests only.
"""

import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from bleak import BleakClient, BleakScanner
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.client import BaseBleakClient
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData, BaseBleakScanner
from bleak.backends.service import BleakGATTService, BleakGATTServiceCollection
from bleak.exc import BleakError, BleakGATTProtocolError
from bumble import att, core, gatt
from bumble.device import Connection, Device, Peer


class BumbleScanner(BaseBleakScanner):
    def __init__(self, detected: Any, service_uuids: Any, _mode: str, *, central: Device, **_: Any) -> None:
        super().__init__(detected, service_uuids)
        self._central = central

    async def start(self) -> None:
        self._central.on(Device.EVENT_ADVERTISEMENT, self._heard)
        await self._central.start_scanning(active=True)

    async def stop(self) -> None:
        self._central.remove_listener(Device.EVENT_ADVERTISEMENT, self._heard)
        await self._central.stop_scanning()

    def _heard(self, advertisement: Any) -> None:
        listed = advertisement.data.get(core.AdvertisingData.COMPLETE_LIST_OF_16_BIT_SERVICE_CLASS_UUIDS)
        uuids = [_full(uuid) for uuid in listed or ()]
        if not advertisement.is_connectable or not self.is_allowed_uuid(uuids):
            return
        name = advertisement.data.get(core.AdvertisingData.COMPLETE_LOCAL_NAME)
        data = AdvertisementData(name, {}, {}, uuids, None, advertisement.rssi, ())
        address = _text(advertisement.address)
        device = self.create_or_update_device(address, address, name, advertisement.address, data)
        self.call_detection_callbacks(device, data)


class BumbleClient(BaseBleakClient):
    def __init__(self, device: BLEDevice | str, *, central: Device, **settings: Any) -> None:
        super().__init__(device, **{key: settings[key] for key in ("disconnected_callback", "timeout")})
        assert isinstance(device, BLEDevice)
        self._central = central
        self._peer_address = device.details
        self._connection: Connection | None = None

    @property
    def mtu_size(self) -> int:
        return 23 if self._connection is None else self._connection.att_mtu

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    async def connect(self, pair: bool, **_: Any) -> None:
        try:
            connection = await self._central.connect(self._peer_address, timeout=self._timeout)
        except core.BaseBumbleError as error:
            raise BleakError(str(error)) from error
        self._connection = connection
        connection.on(Connection.EVENT_DISCONNECTION, self._disconnected)
        peer = Peer(connection)
        await peer.discover_all()
        self.services = BleakGATTServiceCollection()
        for found in peer.services:
            service = BleakGATTService(found, found.handle, _full(found.uuid))
            self.services.add_service(service)
            for characteristic in found.characteristics:
                self.services.add_characteristic(
                    BleakGATTCharacteristic(
                        characteristic,
                        characteristic.handle,
                        _full(characteristic.uuid),
                        [_PROPERTIES[bit] for bit in _PROPERTIES if characteristic.properties & bit],
                        lambda: 20,
                        service,
                    )
                )

    def _disconnected(self, _reason: int) -> None:
        self._connection, self.services = None, None
        if self._disconnected_callback is not None:
            self._disconnected_callback()

    async def disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.remove_listener(Connection.EVENT_DISCONNECTION, self._disconnected)
            await connection.disconnect()

    async def pair(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError

    async def unpair(self) -> None:
        raise NotImplementedError

    async def read_gatt_char(self, characteristic: BleakGATTCharacteristic, **_: Any) -> bytearray:
        return bytearray(await _att(characteristic.obj.read_value()))

    async def read_gatt_descriptor(self, descriptor: Any, **_: Any) -> bytearray:
        return bytearray(await _att(descriptor.obj.read_value()))

    async def write_gatt_char(self, characteristic: Any, data: Any, response: bool) -> None:
        await _att(characteristic.obj.write_value(bytes(data), with_response=response))

    async def write_gatt_descriptor(self, descriptor: Any, data: Any) -> None:
        await _att(descriptor.obj.write_value(bytes(data), with_response=True))

    async def start_notify(
        self, characteristic: BleakGATTCharacteristic, callback: Callable[[bytearray], None], **_: Any
    ) -> None:
        await _att(characteristic.obj.subscribe(lambda value: callback(bytearray(value))))

    async def stop_notify(self, characteristic: BleakGATTCharacteristic) -> None:
        await _att(characteristic.obj.unsubscribe())


_PROPERTIES: dict[Any, Any] = {
    gatt.Characteristic.Properties.READ: "read",
    gatt.Characteristic.Properties.NOTIFY: "notify",
    gatt.Characteristic.Properties.INDICATE: "indicate",
}


def scanner_over(central: Device) -> Callable[..., BleakScanner]:
    return partial(BleakScanner, backend=BumbleScanner, central=central)


def client_over(central: Device) -> Callable[..., BleakClient]:
    return partial(BleakClient, backend=BumbleClient, central=central)


async def _att(call: Any) -> Any:
    try:
        return await call
    except att.ATT_Error as error:
        raise BleakGATTProtocolError(error.error_code) from error
    except core.BaseBumbleError as error:
        raise BleakError(str(error)) from error


def _full(found: core.UUID) -> str:
    """A UUID as bleak writes it: that of 128 bits that one of 16 stands for."""
    return str(uuid.UUID(bytes=found.to_bytes(force_128=True)[::-1]))


def _text(address: Any) -> str:
    return str(address.to_string(False))
