"""Bluetooth LE: each characteristic decoded a second time, straight off its specification, and compared."""

import struct
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from samd_data.plausibility import check
from samd_data.reading import Reading
from samd_edge.sources import ble_dating, ble_decoders
from samd_edge.sources.ble_decoders import Measurement
from samd_edge.sources.local_time import LocalZone
from samd_scripts.fuzzing.choices import Choices, number
from samd_scripts.fuzzing.oracle import insist, judge, told
from samd_scripts.fuzzing.target import Target
from samd_scripts.fuzzing.units import MMHG_PER_KPA, NEAR

HEART_RATE: Final = 0x2A37
SPOT_CHECK: Final = 0x2A5E
CONTINUOUS: Final = 0x2A5F
TEMPERATURE: Final = 0x2A1C
PRESSURE: Final = 0x2A35
_ALL: Final = (HEART_RATE, SPOT_CHECK, CONTINUOUS, TEMPERATURE, PRESSURE)

_ARRIVED: Final = datetime(2026, 3, 1, 8, tzinfo=UTC)
_SPECIAL: Final = {2: range(0x07FE, 0x0803), 4: range(0x007FFFFE, 0x00800003)}
_BODY: Final = (1, 2, 3, 5, 6, 7, 9)  # armpit, body, ear, gut, mouth, rectum, eardrum
_BAD_MEASUREMENT: Final = (6, 10, 11, 12, 13, 14, 15)
_BAD_SENSOR: Final = (0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
_BAD_CUFF: Final = (0, 1, 5)


class Torn(Exception):  # noqa: N818  (an outcome)
    """The bytes end before what the flags announce."""


class Said(NamedTuple):
    """What a message says: a value of each sign in its unit, None where there is no sound one."""

    values: dict[str, float | None]
    stamp: bytes | None
    clock_set: bool
    stored: bool


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, count: int) -> bytes:
        if len(self.data) < count:
            raise Torn
        piece, self.data = self.data[:count], self.data[count:]
        return piece

    def whole(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def medfloat(self, count: int) -> Decimal | None:
        """SFLOAT of 2 bytes, FLOAT of 4; None for what is no number."""
        raw = self.whole(count)
        if raw in _SPECIAL[count]:
            return None
        bits = 12 if count == 2 else 24
        mantissa, exponent = raw % (1 << bits), raw >> bits
        mantissa -= (mantissa >> (bits - 1)) << bits
        exponent -= (exponent >> (3 if count == 2 else 7)) << (4 if count == 2 else 8)
        return Decimal(mantissa).scaleb(exponent)


def said(characteristic: int, data: bytes, site: int | None) -> Said:
    """Decode by the tables of the specifications. Raises Torn."""
    cursor = _Cursor(data)
    flags = cursor.whole(1)
    values: dict[str, Decimal | None] = {}
    stamp, clock_set, stored = None, True, False
    match characteristic:
        case 0x2A37:
            rate = Decimal(cursor.whole(2 if flags & 1 else 1))
            values["heart_rate"] = None if flags & 4 and not flags & 2 else rate
        case 0x2A5E | 0x2A5F:
            values = {"spo2": cursor.medfloat(2), "heart_rate": cursor.medfloat(2)}
            if characteristic == CONTINUOUS:
                cursor.take(4 * (flags & 1) + 2 * (flags & 2))
                with_measurement, with_sensor = flags & 4, flags & 8
            else:
                stamp = cursor.take(7) if flags & 1 else None
                with_measurement, with_sensor = flags & 2, flags & 4
                clock_set = not flags & 16
            measurement = cursor.whole(2) if with_measurement else 0
            sensor = cursor.whole(3) if with_sensor else 0
            stored = bool(measurement & 1 << 9)
            if _any(measurement, _BAD_MEASUREMENT) or _any(sensor, _BAD_SENSOR):
                values = dict.fromkeys(values)
        case 0x2A1C:
            value = cursor.medfloat(4)
            stamp = cursor.take(7) if flags & 2 else None
            place = cursor.whole(1) if flags & 4 else site
            if value is not None and flags & 1:
                value = (value - 32) * 5 / 9
            values["temperature"] = value if place is None or place in _BODY else None
        case 0x2A35:
            factor = MMHG_PER_KPA if flags & 1 else Decimal(1)
            systolic, diastolic, _ = (cursor.medfloat(2) for _ in range(3))
            stamp = cursor.take(7) if flags & 2 else None
            pulse = cursor.medfloat(2) if flags & 4 else None
            cursor.take(1 if flags & 8 else 0)
            status = cursor.whole(2) if flags & 16 else 0
            values["systolic_bp"] = None if systolic is None else systolic * factor
            values["diastolic_bp"] = None if diastolic is None else diastolic * factor
            if flags & 4:
                values["heart_rate"] = None if status >> 3 & 3 else pulse
            if _any(status, _BAD_CUFF):
                values = dict.fromkeys(values)
    floats = {field: None if value is None else float(value) for field, value in values.items()}
    return Said(floats, stamp, clock_set, stored)


def _any(status: int, bits: Iterable[int]) -> bool:
    return any(status >> bit & 1 for bit in bits)


def check_ble(data: bytes) -> None:
    """Which characteristic, which site, and any bytes: what is taken is what the specification says."""
    choices = Choices(data)
    characteristic, site = choices.pick(_ALL), choices.pick((None, *range(16)))
    _compare(characteristic, choices.rest(len(data)), site, choices)


def check_ble_written(data: bytes) -> None:
    """A message that is written, one byte changed, put in or cut off."""
    choices = Choices(data)
    characteristic = choices.pick(_ALL)
    message = bytearray(_message(characteristic, choices))
    match choices.below(4):
        case 1:
            message[choices.below(len(message))] ^= choices.between(1, 255)
        case 2:
            del message[choices.below(len(message)) :]
        case 3:
            at = choices.below(len(message) + 1)
            message[at:at] = choices.rest(choices.between(1, 4))
    _compare(characteristic, bytes(message), choices.pick((None, None, 2, 4, 9)), choices)


def _compare(characteristic: int, message: bytes, site: int | None, choices: Choices) -> None:
    found = ble_decoders.decode(characteristic, message, site=site)
    for rejection in found.rejections:
        told(rejection)
    judge(Reading(observed_at=_ARRIVED, **found.fields))
    try:
        wanted = said(characteristic, message, site)
    except Torn:
        insist(found.torn and not found.fields, "values of a message that is torn", found)
        return
    insist(not found.torn, "a whole message that counts as torn", found)
    refused = {rejection.column for rejection in found.rejections}
    for field, value in wanted.values.items():
        given = found.fields.get(field)
        if given is None:
            insist(field in refused, f"{field} is gone", wanted)
            sound = value is not None and check(field, round(value, 6)) is None
            insist(not sound or _pair(wanted.values, field), f"a sound {field} is refused", wanted, found)
        else:
            insist(value is not None and abs(given - value) <= NEAR, f"another {field}", given, wanted)
    insist(found.fields.keys() <= wanted.values.keys(), "a sign out of nowhere", found)
    insist(found.stamped == (wanted.stamp is not None), "a time stamp that is passed over", found)
    insist(found.stored == wanted.stored, "a stored measurement passes for a new one", found)
    _dated(found, wanted, choices)


def _pair(values: dict[str, float | None], field: str) -> bool:
    """Whether a pressure goes because the other of its pair is not above or below it."""
    systolic, diastolic = values.get("systolic_bp"), values.get("diastolic_bp")
    if field not in ("systolic_bp", "diastolic_bp") or systolic is None or diastolic is None:
        return False
    return round(diastolic, 6) >= round(systolic, 6)


def _dated(found: Measurement, wanted: Said, choices: Choices) -> None:
    """Nothing passes for fresher than it is: a stamp counts by a clock that is known, or not at all."""
    ahead = choices.pick((None, timedelta(0), timedelta(hours=-1), timedelta(days=9000)))
    zone = LocalZone(UTC) if choices.flag() else None
    at = ble_dating.taken_at(found, _ARRIVED, ahead=ahead, zone=zone)
    if wanted.stamp is None:
        insist((at == _ARRIVED) == (not wanted.stored), "a stored measurement without a time is dated", at)
        return
    if isinstance(at, ble_dating.Undatable):
        insist(at.reason and at.remedy, "no reason", at)
        return
    insist(wanted.clock_set and (ahead is not None or zone is not None), "a time of an unknown clock", at)
    year, month, day, hour, minute, second = struct.unpack("<H5B", wanted.stamp)
    moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    if ahead is not None:
        moment -= ahead
    insist(at == min(moment, _ARRIVED), "another time", at, moment)
    insist(moment <= _ARRIVED + timedelta(minutes=1), "a time in the future is taken", moment)


# --- written by us --------------------------------------------------------------------------------------


def _message(characteristic: int, choices: Choices) -> bytes:
    flags = choices.below(32)
    parts = list(_parts(characteristic, flags, choices))
    return bytes([flags]) + b"".join(parts) + choices.pick((b"", b"\x00\x01"))


def _parts(characteristic: int, flags: int, choices: Choices) -> Iterator[bytes]:
    match characteristic:
        case 0x2A37:
            rate = choices.between(15, 255)
            yield struct.pack("<H", rate) if flags & 1 else bytes([rate])
        case 0x2A5E | 0x2A5F:
            yield _sfloat(number(choices, "spo2")) + _sfloat(number(choices, "heart_rate"))
            if characteristic == CONTINUOUS:
                yield bytes(4 * (flags & 1) + 2 * (flags & 2))
            else:
                yield _stamp(choices) if flags & 1 else b""
            status, sensor = (4, 8) if characteristic == CONTINUOUS else (2, 4)
            yield _status(choices, 2) if flags & status else b""
            yield _status(choices, 3) if flags & sensor else b""
        case 0x2A1C:
            celsius = Decimal(number(choices, "temperature"))
            value = celsius * 9 / 5 + 32 if flags & 1 else celsius
            yield struct.pack("<i", int(value * 100) & 0xFFFFFF)[:3] + b"\xfe"
            yield _stamp(choices) if flags & 2 else b""
            yield bytes([choices.pick((1, 2, 3, 4, 6, 8, 9, 77))]) if flags & 4 else b""
        case _:
            factor = 1 / MMHG_PER_KPA if flags & 1 else Decimal(1)
            for field in ("systolic_bp", "diastolic_bp", "diastolic_bp"):
                yield _sfloat(str(round(Decimal(number(choices, field)) * factor, 1)))
            yield _stamp(choices) if flags & 2 else b""
            yield _sfloat(number(choices, "heart_rate")) if flags & 4 else b""
            yield b"\x01" if flags & 8 else b""
            yield _status(choices, 2) if flags & 16 else b""


def _sfloat(text: str) -> bytes:
    """To as many places as fit into 12 bits; now and then what is no number."""
    value, exponent = Decimal(text), -2
    while abs(value.scaleb(-exponent)) >= 2047:
        exponent += 1
    mantissa = int(value.scaleb(-exponent))
    return struct.pack("<H", (exponent & 0xF) << 12 | mantissa & 0xFFF)


def _stamp(choices: Choices) -> bytes:
    """A time as a sensor's clock shows it, of these days; now and then one that is no date."""
    at = _ARRIVED + timedelta(seconds=choices.between(-200_000, 200_000))
    year, month, day = at.year, at.month, at.day
    if choices.below(4) == 3:
        year, month, day = (
            choices.pick((0, 1582, 9999, 65535, 2026)),
            choices.pick((0, 13, 2)),
            choices.pick((0, 31)),
        )
    return struct.pack("<H5B", year, month, day, at.hour, at.minute, choices.pick((at.second, 60)))


def _status(choices: Choices, count: int) -> bytes:
    return choices.pick((bytes(count), (1 << choices.below(8 * count)).to_bytes(count, "little")))


def _seeds() -> Iterable[bytes]:
    for number_, characteristic in enumerate(_ALL):
        for data in (b"", b"\x55" * 40, b"\xa5\x01\xff" * 12):
            yield bytes([number_, 0]) + _message(characteristic, Choices(data))


TARGETS: Final = (
    Target(
        name="ble",
        about="a characteristic of a Bluetooth sensor: any bytes",
        check=check_ble,
        seeds=_seeds,
        words=(
            b"\xff\x07",
            b"\x00\x08",
            b"\xfe\x07",
            b"\xff\xff\x7f\x00",
            b"\x00\x00\x80\x00",
            b"\xea\x07\x03\x01",
        ),
        max_bytes=64,
    ),
    Target(
        name="ble-written",
        about="a characteristic of a Bluetooth sensor, one byte changed",
        check=check_ble_written,
        choices=True,
        max_bytes=200,
    ),
)
