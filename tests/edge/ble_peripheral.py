"""Emulated Bluetooth LE sensors: bumble GATT servers, each on a controller of its own, on one link."""

from collections.abc import Mapping, Sequence
from typing import Any

from bumble import gatt
from bumble.controller import Controller
from bumble.core import UUID, AdvertisingData
from bumble.device import Device
from bumble.hci import Address
from bumble.host import Host
from bumble.link import LocalLink
from bumble.transport.common import AsyncPipeSink

NOTIFY = gatt.Characteristic.Properties.NOTIFY
INDICATE = gatt.Characteristic.Properties.INDICATE
_READ = gatt.Characteristic.Properties.READ

MEASURES = {0x180D: {0x2A37: NOTIFY}, 0x1822: {0x2A5F: NOTIFY, 0x2A5E: INDICATE}}
MEASURES |= {0x1809: {0x2A1C: INDICATE, 0x2A1E: NOTIFY}, 0x1810: {0x2A35: INDICATE, 0x2A36: NOTIFY}}
"""By service, what it sends, and how."""


async def radio(link: LocalLink, address: str, name: str) -> Device:
    """A Bluetooth controller with its host, switched on."""
    controller = Controller(name, link=link)
    device = Device(name=name, address=Address(address), host=Host(controller, AsyncPipeSink(controller)))
    await device.power_on()
    return device


_NOBODY = gatt.Characteristic.Permissions(0)


def _only_paired() -> gatt.Descriptor:
    """A subscription that needs an encrypted connection."""
    rights = gatt.Characteristic.Permissions
    return gatt.Descriptor(
        gatt.GATT_CLIENT_CHARACTERISTIC_CONFIGURATION_DESCRIPTOR,
        rights.READABLE | rights.WRITEABLE | rights.WRITE_REQUIRES_ENCRYPTION,
        b"\0\0",
    )


class Peripheral:
    """A sensor with some of the four services.

    ``readable``: characteristics to read, by service. ``advertised``: it says what it is. ``paired``: it
    sends nothing to whom it is not paired with.
    """

    def __init__(self, device: Device, characteristics: Mapping[int, Any]) -> None:
        self.device = device
        self._characteristics = characteristics
        self.address = str(device.random_address.to_string(False))

    @classmethod
    async def start(
        cls,
        link: LocalLink,
        address: str,
        services: Sequence[int],
        *,
        readable: Mapping[int, Mapping[int, Any]] | None = None,
        advertised: bool = True,
        paired: bool = False,
    ) -> "Peripheral":
        device = await radio(link, address, f"sensor {address[-2:]}")
        characteristics: dict[int, Any] = {}
        readable = readable or {}
        for service in dict.fromkeys((*services, *readable)):
            held = [
                gatt.Characteristic(
                    UUID.from_16_bits(number), how, _NOBODY, b"", [_only_paired()] if paired else []
                )
                for number, how in (MEASURES[service] if service in services else {}).items()
            ]
            held += [
                gatt.Characteristic(UUID.from_16_bits(number), _READ, gatt.Characteristic.READABLE, value)
                for number, value in readable.get(service, {}).items()
            ]
            device.add_service(gatt.Service(UUID.from_16_bits(service), held))
            characteristics |= {int.from_bytes(bytes(one.uuid)[:2], "little"): one for one in held}
        listed = b"".join(UUID.from_16_bits(service).to_bytes() for service in services)
        kind = AdvertisingData.COMPLETE_LIST_OF_16_BIT_SERVICE_CLASS_UUIDS
        device.advertising_data = bytes(AdvertisingData([(kind, listed)] if advertised else []))
        self = cls(device, characteristics)
        await self.advertise()
        return self

    async def advertise(self) -> None:
        await self.device.start_advertising(
            auto_restart=False, advertising_interval_min=20, advertising_interval_max=20
        )

    @property
    def connected(self) -> bool:
        return bool(self.device.connections)

    def heard(self, number: int) -> bool:
        """Whether somebody has subscribed to a characteristic."""
        handle = self._characteristics[number].handle
        cccds = self.device.gatt_server.subscribers.values()
        return any(any(cccd.get(handle, b"\0\0")) for cccd in cccds)

    async def send(self, number: int, data: bytes) -> None:
        """Notify, or indicate and wait for the confirmation."""
        characteristic = self._characteristics[number]
        if characteristic.properties & NOTIFY:
            await self.device.notify_subscribers(characteristic, data)
        else:
            await self.device.indicate_subscribers(characteristic, data)

    async def drop(self) -> None:
        """Out of range: the connections end, and nothing is advertised."""
        for connection in list(self.device.connections.values()):
            await connection.disconnect()
