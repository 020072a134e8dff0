"""The numbers of IEEE 11073-20601, medfloat16 and medfloat32 in Bluetooth: decimal mantissa and exponent.

A few bit patterns are no numbers but say why there is none; they come back as ``NoNumber``.
"""

from enum import Enum
from typing import Final


class NoNumber(Enum):
    """Why a sensor sent no number; the value is what is said of it."""

    NAN = "not a number"
    NRES = "not at this resolution"
    ABOVE = "above what it can tell"
    BELOW = "below what it can tell"
    RESERVED = "a reserved value"


_SFLOAT: Final = {
    0x07FE: NoNumber.ABOVE,
    0x07FF: NoNumber.NAN,
    0x0800: NoNumber.NRES,
    0x0801: NoNumber.RESERVED,
    0x0802: NoNumber.BELOW,
}
_FLOAT: Final = {
    0x007FFFFE: NoNumber.ABOVE,
    0x007FFFFF: NoNumber.NAN,
    0x00800000: NoNumber.NRES,
    0x00800001: NoNumber.RESERVED,
    0x00800002: NoNumber.BELOW,
}


def sfloat(data: bytes) -> float | NoNumber:
    """SFLOAT, 16 bits: exponent of 4, mantissa of 12, both signed. ``data``: 2 bytes, the lowest first."""
    return _number(data, 2, 4, _SFLOAT)


def float32(data: bytes) -> float | NoNumber:
    """FLOAT, 32 bits: exponent of 8, mantissa of 24, both signed. ``data``: 4 bytes, the lowest first."""
    return _number(data, 4, 8, _FLOAT)


def _number(data: bytes, size: int, exponent_bits: int, special: dict[int, NoNumber]) -> float | NoNumber:
    if len(data) != size:
        raise ValueError(f"{len(data)} bytes given; this number has {size}")
    raw = int.from_bytes(data, "little")
    if raw in special:
        return special[raw]
    mantissa_bits = 8 * size - exponent_bits
    mantissa = _signed(raw & ((1 << mantissa_bits) - 1), mantissa_bits)
    exponent = _signed(raw >> mantissa_bits, exponent_bits)
    # A division of whole numbers is exact to the last bit: 364 / 10 is 36.4, and 364 * 0.1 is not.
    return float(mantissa * 10**exponent) if exponent >= 0 else mantissa / 10**-exponent


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value
