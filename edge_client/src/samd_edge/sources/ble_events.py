"""What the radio tells of sensors, and the numbers that Bluetooth gives to services and characteristics."""

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from samd_edge.sources import ble_decoders as decoders

SERVICES: Final = {
    0x180D: "heart rate sensor",
    0x1822: "pulse oximeter",
    0x1809: "thermometer",
    0x1810: "blood pressure monitor",
}
"""The services that are known here, and what is said of a sensor that has one."""

CONTINUOUS: Final = frozenset({decoders.HEART_RATE, decoders.PLX_CONTINUOUS})
"""What is sent all the time. The other sensors measure once, send, and go: that is no loss."""


class Notified(NamedTuple):
    """A sensor sent a measurement. ``ahead``: of its clock, before UTC; ``site``: of a thermometer."""

    address: str
    characteristic: int
    data: bytes
    at: datetime
    ahead: timedelta | None
    site: int | None


class Lost(NamedTuple):
    """The connection to a sensor that had sent measurements is gone."""

    address: str
    characteristics: tuple[int, ...]


class PassedOver(NamedTuple):
    """A sensor is in range that is not read, because another one of its kind is."""

    address: str
    kind: str
    taken: str


Event = Notified | Lost | PassedOver


_BASE: Final = "-0000-1000-8000-00805f9b34fb"
"""What all UUIDs of the Bluetooth SIG end with."""


def uuid_of(number: int) -> str:
    return f"{number:08x}{_BASE}"


def number(uuid: str) -> int:
    """The number of a UUID of the Bluetooth SIG; -1 of any other."""
    uuid = uuid.lower()
    return int(uuid[:8], 16) if uuid.endswith(_BASE) and len(uuid) == 36 else -1
