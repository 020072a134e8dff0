"""What a Bluetooth LE sensor measured, from the bytes of its characteristics: pure functions.

Sources: the Bluetooth SIG's GATT Specification Supplement and the specifications of the services: Heart Rate
(HRS 1.0), Pulse Oximeter (PLXS 1.0.1), Health Thermometer (HTS 1.0), Blood Pressure (BLS 1.1.1).

Bytes after those that are known are passed over, as the profiles ask: a later version may add fields. Too few
bytes are a torn message and give nothing. Where the sensor itself says that it did not measure, or that its
measurement is not to be trusted, the value is left out as ``no_signal``. Two things count as measured: low
perfusion (finger oximeters report it with sound values, and it is the severely ill who have it), and an
irregular pulse. Intermediate temperatures (0x2A1E) and cuff pressures (0x2A36) are not read at all: they are
on their way to a value, and a thermometer that is still warming up shows hypothermia.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from samd_data.plausibility import Rejection, clean
from samd_edge.sources.codes import UnitError, in_unit
from samd_edge.sources.ieee11073 import NoNumber, float32, sfloat

HEART_RATE: Final = 0x2A37
PLX_SPOT_CHECK: Final = 0x2A5E
PLX_CONTINUOUS: Final = 0x2A5F
TEMPERATURE: Final = 0x2A1C
TEMPERATURE_TYPE: Final = 0x2A1D
BLOOD_PRESSURE: Final = 0x2A35
DATE_TIME: Final = 0x2A08
CURRENT_TIME: Final = 0x2A2B

UNKNOWN_USER: Final = 0xFF

_PLACE_IT: Final = "place the sensor again"
_MEASURE: Final = "measure again"

# PLXS 1.0.1, table 3.4. Left out here: 5 measurement ongoing, 7 validated, 8 fully qualified, 9 from storage.
_PLX_MEASUREMENT: Final = {
    6: "an early estimate",
    10: "a demonstration",
    11: "a test",
    12: "under calibration",
    13: "not available",
    14: "questionable",
    15: "invalid",
}
_FROM_STORAGE: Final = 1 << 9

# PLXS 1.0.1, table 3.5. Left out here: 5 low perfusion.
_PLX_SENSOR: Final = {
    0: "the display has not been updated for a while",
    1: "the equipment malfunctions",
    2: "signal processing is irregular",
    3: "the signal is inadequate",
    4: "the signal is poor",
    6: "the signal is erratic",
    7: "the signal does not pulsate",
    8: "the pulse is questionable",
    9: "the signal is still being analysed",
    10: "something interferes with the sensor",
    11: "the sensor is not on the patient",
    12: "the sensor is unknown",
    13: "the sensor is displaced",
    14: "the sensor malfunctions",
    15: "the sensor is disconnected",
}

# HTS 1.0 and the supplement, 3.216: where the temperature was taken.
_BODY_SITES: Final = {
    1: "armpit",
    2: "body",
    3: "ear",
    5: "gastro-intestinal tract",
    6: "mouth",
    7: "rectum",
    9: "tympanum",
}
_SKIN_SITES: Final = {4: "finger", 8: "toe"}

# BLS 1.1.1, 3.1.1.6. Left out here: 2 irregular pulse.
_CUFF: Final = {
    0: "the body moved",
    1: "the cuff was too loose",
    5: "the cuff was not in the right position",
}
_PULSE_RANGE: Final = {1: "above", 2: "below", 3: "outside"}


@dataclass(frozen=True, slots=True)
class Measurement:
    """One message of a sensor: plausible values in our units, and what of it cannot be used.

    ``stamped``: it carries a time; ``taken_at`` is that time as the sensor's clock showed it, naive, and None
    if it is no date. ``clock_set`` False: the sensor itself says that its clock was never set. ``stored``:
    it says that the measurement comes from its memory. ``user``: of the sensor's own users, if it tells them.
    ``torn``: the message is too short, and nothing is known of it.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    rejections: tuple[Rejection, ...] = ()
    stamped: bool = False
    taken_at: datetime | None = None
    clock_set: bool = True
    stored: bool = False
    user: int | None = None
    torn: bool = False


def decode(characteristic: int, data: bytes, *, site: int | None = None) -> Measurement:
    """The measurement in a notification or indication. Never raises, whatever the bytes.

    ``characteristic``: one of ``DECODERS``. ``site``: what 0x2A1D says of a thermometer whose messages do not
    name the site themselves.
    """
    try:
        if characteristic == TEMPERATURE:
            return _temperature(_Bytes(data), site)
        return DECODERS[characteristic](_Bytes(data))
    except _TooShortError:
        reason = f"{len(data)} bytes are too few for what the message says it holds"
        return Measurement(rejections=(Rejection("", 0, "", "", reason, _MEASURE),), torn=True)


def clock_reading(data: bytes) -> datetime | None:
    """What a sensor's clock shows, by 0x2A2B or 0x2A08, which begin alike; None if it shows no time."""
    try:
        return _Bytes(data).date_time()
    except _TooShortError:
        return None


class _TooShortError(Exception):
    """The message ends before what it announces."""


class _Bytes:
    """Reads from the front."""

    def __init__(self, data: bytes) -> None:
        self._data = bytes(data)
        self._at = 0

    def take(self, count: int) -> bytes:
        self._at += count
        if self._at > len(self._data):
            raise _TooShortError
        return self._data[self._at - count : self._at]

    def uint(self, count: int = 1) -> int:
        return int.from_bytes(self.take(count), "little")

    def sfloat(self) -> float | NoNumber:
        return sfloat(self.take(2))

    def date_time(self) -> datetime | None:
        """Seven bytes. A 0 as year, month or day is "not known", and then it is no date."""
        year, month, day, hour, minute, second = self.uint(2), *self.take(5)
        try:
            return datetime(year, month, day, hour, minute, second)  # noqa: DTZ001  (the clock has no zone)
        except ValueError:
            return None


class _Values:
    """Collects what was measured and what was not, and cleans it."""

    def __init__(self) -> None:
        self._found: dict[str, object] = {}
        self._refused: list[Rejection] = []

    def measured(self, name: str, value: float | NoNumber, unit: str) -> None:
        if isinstance(value, NoNumber):
            self.no_signal((name,), f"the sensor sent no value ({value.value})", _MEASURE)
            return
        try:
            self._found[name] = in_unit(name, value, unit)
        except UnitError as error:
            self._refused.append(Rejection("", 0, name, f"{value:g}", error.reason, error.remedy))

    def no_signal(self, names: tuple[str, ...], reason: str, remedy: str) -> None:
        for name in names:
            self._found.pop(name, None)
            self._refused.append(Rejection("", 0, name, "", reason, remedy, "no_signal"))

    def done(self, **more: Any) -> Measurement:
        accepted, rejections = clean(self._found)
        return Measurement(accepted, (*self._refused, *rejections), **more)


def _heart_rate(data: _Bytes) -> Measurement:
    """0x2A37, HRS 3.1: flags, the rate in 8 or 16 bits; energy and RR intervals follow and are not used."""
    flags = data.uint()
    values = _Values()
    values.measured("heart_rate", data.uint(2 if flags & 0x01 else 1), "/min")
    contact_supported, contact = flags & 0x04, flags & 0x02
    if contact_supported and not contact:
        values.no_signal(("heart_rate",), "the sensor has no contact with the skin", _PLACE_IT)
    return values.done()


def _plx_continuous(data: _Bytes) -> Measurement:
    """0x2A5F, PLXS 3.2: flags, SpO2 and pulse rate (normal), then fast and slow ones, status, amplitude."""
    flags = data.uint()
    spo2, pulse = data.sfloat(), data.sfloat()
    data.take(4 * bool(flags & 0x01) + 4 * bool(flags & 0x02))
    status = data.uint(2) if flags & 0x04 else 0
    sensor = data.uint(3) if flags & 0x08 else 0
    return _plx(spo2, pulse, status, sensor).done(stored=bool(status & _FROM_STORAGE))


def _plx_spot_check(data: _Bytes) -> Measurement:
    """0x2A5E, PLXS 3.1: flags, SpO2 and pulse rate, then time, status, amplitude."""
    flags = data.uint()
    spo2, pulse = data.sfloat(), data.sfloat()
    stamped = bool(flags & 0x01)
    taken_at = data.date_time() if stamped else None
    status = data.uint(2) if flags & 0x02 else 0
    sensor = data.uint(3) if flags & 0x04 else 0
    return _plx(spo2, pulse, status, sensor).done(
        stamped=stamped,
        taken_at=taken_at,
        clock_set=not flags & 0x10,
        stored=bool(status & _FROM_STORAGE),
    )


def _plx(spo2: float | NoNumber, pulse: float | NoNumber, status: int, sensor: int) -> _Values:
    values = _Values()
    doubts = [f"the measurement is {text}" for bit, text in _PLX_MEASUREMENT.items() if status >> bit & 1]
    doubts += [text for bit, text in _PLX_SENSOR.items() if sensor >> bit & 1]
    if doubts:
        values.no_signal(("spo2", "heart_rate"), f"the oximeter says: {', '.join(doubts)}", _PLACE_IT)
    else:
        values.measured("spo2", spo2, "%")
        values.measured("heart_rate", pulse, "/min")
    return values


def _temperature(data: _Bytes, site: int | None) -> Measurement:
    """0x2A1C, HTS 3.1: flags, the temperature in °C or °F, then time and site."""
    flags = data.uint()
    value = float32(data.take(4))
    stamped = bool(flags & 0x02)
    taken_at = data.date_time() if stamped else None
    if flags & 0x04:
        site = data.uint()
    values = _Values()
    if site is None or site in _BODY_SITES:
        values.measured("temperature", value, "[degF]" if flags & 0x01 else "Cel")
    else:
        where = _SKIN_SITES.get(site, f"a place that is not known here ({site})")
        reason = f"the thermometer measured at: {where}, which is no body temperature"
        values.no_signal(("temperature",), reason, "measure in the ear, the mouth or the armpit")
    return values.done(stamped=stamped, taken_at=taken_at)


def _blood_pressure(data: _Bytes) -> Measurement:
    """0x2A35, BLS 3.1: flags, systolic, diastolic and mean pressure, then time, pulse rate, user, status."""
    flags = data.uint()
    unit: Literal["kPa", "mm[Hg]"] = "kPa" if flags & 0x01 else "mm[Hg]"
    systolic, diastolic, _mean = data.sfloat(), data.sfloat(), data.sfloat()
    stamped = bool(flags & 0x02)
    taken_at = data.date_time() if stamped else None
    pulse = data.sfloat() if flags & 0x04 else None
    user = data.uint() if flags & 0x08 else None
    status = data.uint(2) if flags & 0x10 else 0
    values = _Values()
    doubts = [text for bit, text in _CUFF.items() if status >> bit & 1]
    if doubts:
        names = ("systolic_bp", "diastolic_bp", *(() if pulse is None else ("heart_rate",)))
        values.no_signal(names, f"the cuff says: {', '.join(doubts)}", _MEASURE)
    else:
        values.measured("systolic_bp", systolic, unit)
        values.measured("diastolic_bp", diastolic, unit)
        beyond = _PULSE_RANGE.get(status >> 3 & 0b11)
        if pulse is not None and beyond is not None:
            reason = f"the cuff says: the pulse rate is {beyond} what it can measure"
            values.no_signal(("heart_rate",), reason, "count the pulse")
        elif pulse is not None:
            values.measured("heart_rate", pulse, "/min")
    return values.done(stamped=stamped, taken_at=taken_at, user=user)


DECODERS: Final[Mapping[int, Callable[[_Bytes], Measurement]]] = {
    HEART_RATE: _heart_rate,
    PLX_SPOT_CHECK: _plx_spot_check,
    PLX_CONTINUOUS: _plx_continuous,
    TEMPERATURE: lambda data: _temperature(data, None),
    BLOOD_PRESSURE: _blood_pressure,
}
"""By characteristic. What is in it is subscribed to, and nothing else."""
