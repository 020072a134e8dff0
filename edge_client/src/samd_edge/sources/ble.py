"""``ble:`` and ``ble:ADDRESS``: Bluetooth LE heart rate sensors, oximeters, thermometers and cuffs.

    ble:?zone=Europe/Berlin                     the first sensor of each kind that is in range
    ble:C0:26:DA:01:02:03?zone=local            this one
    ble:?addresses=C0:26:DA:01:02:03,F1:...     these, and no others

On a ward name the addresses: ``ble:`` alone takes what is in range, which may be the neighbour's. It keeps to
the first sensor of each kind, and says when there is another.

``zone`` is that of the sensors' clocks; without it a measurement that carries a time is refused unless the
sensor lets its clock be read (see ``ble_dating``). ``user`` is the patient's number on a cuff that knows
several users; without it the first user is taken for the patient, and another one is refused.

A sensor that has to be paired is paired once with the means of the system: ``bluetoothctl pair ADDRESS``.
"""

import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from samd_data.plausibility import Rejection
from samd_data.reading import Reading
from samd_edge.clock import AHEAD, WallClock
from samd_edge.sources import SourceError, SourceURL
from samd_edge.sources import ble_decoders as decoders
from samd_edge.sources.ble_dating import Undatable, taken_at
from samd_edge.sources.ble_decoders import Measurement
from samd_edge.sources.ble_events import CONTINUOUS, Event, Lost, Notified, PassedOver
from samd_edge.sources.ble_pace import Pace
from samd_edge.sources.ble_radio import Radio
from samd_edge.sources.inbox import Inbox, Overrun
from samd_edge.sources.local_time import LocalZone, zone_named
from samd_edge.sources.surroundings import Surroundings

if TYPE_CHECKING:
    from bleak import BleakClient, BleakScanner

WAITING: Final = 1000
"""Messages that may wait to be taken: ten minutes of two sensors that send each second."""

_ADDRESS: Final = re.compile(
    r"[0-9A-F]{2}(:[0-9A-F]{2}){5}|[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}", re.IGNORECASE
)
"""Six bytes; a UUID on systems that hide them."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a source of this kind can be told."""

    addresses: str | list[str] = ""
    zone: str | None = None
    user: int | None = None


class BleSource:
    """The readings of sensors; live. ``scanner`` and ``client`` are bleak's classes, or made alike."""

    def __init__(
        self,
        name: str,
        addresses: frozenset[str],
        around: Surroundings,
        *,
        scanner: "Callable[..., BleakScanner]",
        client: "Callable[..., BleakClient]",
        zone: LocalZone | None = None,
        user: int | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.clock = WallClock(around.wall)
        self._name = name
        self._addresses = addresses
        self._around = around
        self._scanner = scanner
        self._client = client
        self._zone = zone
        self._user = user
        self._pace = pace or Pace()
        self._count = 0
        self._giving: dict[tuple[str, int], set[str]] = {}
        self._inbox: Inbox[Event] | None = None
        self._radio: Radio | None = None

    def history(self) -> Iterator[Reading]:
        return iter(())

    async def __aiter__(self) -> AsyncIterator[Reading | Rejection]:
        if self._inbox is not None:
            raise RuntimeError("a source is iterated over once")
        inbox = self._inbox = Inbox[Event](limit=WAITING, limit_bytes=WAITING, size=lambda _event: 1)
        radio = self._radio = Radio(
            self._addresses,
            scanner=self._scanner,
            client=self._client,
            tell=inbox.put,
            wall=self._around.wall,
            pace=self._pace,
        )
        radio.start(ended=inbox.close)
        while (got := await inbox.get()) is not None:
            self._count += 1
            for item in self._items(got):
                yield item
        if radio.failure is not None:
            raise radio.failure

    async def aclose(self) -> None:
        if self._inbox is not None:
            self._inbox.close()
        if self._radio is not None:
            await self._radio.close()

    # -- one message ---------------------------------------------------------------------------------------

    def _items(self, event: Event | Overrun) -> Iterator[Reading | Rejection]:
        if isinstance(event, Notified):
            yield from self._measured(event)
        elif isinstance(event, Lost):
            yield from self._lost(event)
        elif isinstance(event, PassedOver):
            yield self._refused(
                f"there is a second {event.kind}, {event.address}, which is not read",
                f"say which is this patient's: ble:{event.taken} or ble:{event.address}",
            )
        else:
            yield self._refused(
                f"{event.messages} messages came faster than they could be taken; the oldest were dropped",
                "name the addresses of the sensors that are needed",
            )

    def _measured(self, event: Notified) -> Iterator[Reading | Rejection]:
        measurement = decoders.decode(event.characteristic, event.data, site=event.site)
        refusal = self._refusal(event, measurement)
        if refusal is not None:
            yield refusal
            return
        moment = taken_at(measurement, event.at, ahead=event.ahead, zone=self._zone)
        if isinstance(moment, Undatable):
            yield self._refused(*moment)
            return
        if event.characteristic in CONTINUOUS:
            self._giving[event.address, event.characteristic] = set(measurement.fields)
        old = event.at - moment > AHEAD
        for rejection in measurement.rejections:
            if rejection.kind == "no_signal" and self._given_by_another(event.address, rejection.column):
                continue
            # That an old measurement failed says nothing of the sign now.
            column = "" if old else rejection.column
            yield msgspec.structs.replace(rejection, file=self._name, row=self._count, column=column)
        if measurement.fields:
            yield Reading(observed_at=moment, **measurement.fields)

    def _lost(self, event: Lost) -> Iterator[Rejection]:
        columns: dict[str, None] = {}
        for characteristic in event.characteristics:
            self._giving.pop((event.address, characteristic), None)
            columns.update(dict.fromkeys(_COLUMNS[characteristic]))
        for column in columns:
            if not self._given_by_another(event.address, column):
                reason = f"the connection to the sensor {event.address} was lost"
                yield self._refused(reason, "bring it nearer, or check its battery", column, "no_signal")

    def _given_by_another(self, address: str, column: str) -> bool:
        """Whether another sensor measures this sign now: a finger that left the oximeter, while the strap is
        still on the chest, is no loss of the heart rate."""
        return any(column in given for (other, _), given in self._giving.items() if other != address)

    def _refusal(self, event: Notified, measurement: Measurement) -> Rejection | None:
        """Why nothing of a measurement is taken: it is of another person, or of nobody knows whom."""
        identifier, more = None, ""
        if event.characteristic == decoders.BLOOD_PRESSURE and not measurement.torn:
            user, wanted = measurement.user, self._user
            if wanted is not None and user != wanted:
                who = "somebody whom it does not name" if user is None else f"its user {user}"
                return self._refused(f"the cuff measured {who}", f"choose the user {wanted} on the cuff")
            if wanted is None and user is not None:
                if user == decoders.UNKNOWN_USER:
                    return self._refused(
                        "the cuff does not know which of its users it measured",
                        "choose the user on the cuff, or add user=255 if nobody else uses it",
                    )
                identifier = f"{event.address} user {user}"
                more = ", or name the patient's number on the cuff: user=N"
        refusal = self._around.patient.refusal(identifier)
        if refusal is None:
            return None
        reason, _, remedy = refusal.partition("; ")
        return self._refused(reason, remedy + more)

    def _refused(
        self,
        reason: str,
        remedy: str,
        column: str = "",
        kind: Literal["implausible", "no_signal"] = "implausible",
    ) -> Rejection:
        return Rejection(self._name, self._count, column, "", reason, remedy, kind)


_COLUMNS: Final = {
    decoders.HEART_RATE: ("heart_rate",),
    decoders.PLX_CONTINUOUS: ("spo2", "heart_rate"),
}
"""What is missing when a sensor that sends all the time is gone."""


def open_source(url: SourceURL, around: Surroundings) -> BleSource:
    """Check the settings; the radio is used once the source is read. Raises SourceError, ImportError."""
    from bleak import BleakClient, BleakScanner

    settings = url.settings(Settings)
    given = settings.addresses.split(",") if isinstance(settings.addresses, str) else settings.addresses
    addresses = [part for address in (url.path, *given) if (part := address.strip())]
    for address in addresses:
        if not _ADDRESS.fullmatch(address):
            raise SourceError(
                f"source {url.text!r}: {address!r} is no address of a sensor; write it as in "
                "ble:C0:26:DA:01:02:03, or ble: for what is in range (bluetoothctl scan le lists it)"
            )
    if settings.user is not None and not 0 <= settings.user <= decoders.UNKNOWN_USER:
        raise SourceError(f"source {url.text!r}: user={settings.user}: it is 0 to 255, as on the cuff")
    try:
        zone = None if settings.zone is None else zone_named(settings.zone)
    except ValueError as error:
        raise SourceError(f"source {url.text!r}: {error}") from error
    return BleSource(
        url.text,
        frozenset(addresses),
        around,
        scanner=BleakScanner,
        client=BleakClient,
        zone=zone,
        user=settings.user,
    )
