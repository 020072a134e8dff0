"""Bytes as a row of choices, and readings drawn out of them.

A mutator that changes a byte changes one choice. When the bytes are used up every choice is the first one, so
that shorter input means a simpler case.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final, TypeVar

from samd_data.plausibility import RANGES
from samd_data.reading import CONSCIOUSNESS, FIELDS, VITALS

T = TypeVar("T")

ODD_TEXTS: Final = (
    "", " ", "NA", "nan", "null", "None", "inf", "-inf", "0", "-0", "00097", "+97", "97.", ".97",
    "0.97", "97,0", "1e2", "9.7e1", "1E400", "-1e-400", "0x61", "1_0", "９７", "٩٧", "97%", "97 %",
    "120/80", "98.6", "38.04999999", "95.5", "91.49999", "8.5", "35.05", "true", "yes", "no", "1", "2",
    "A", "a", "V", "Alert", "97\u00a0", "\u200b97", "97\x1b[31m", "97\x00", "97\r", "\ud7ff", "9" * 400,
    "1" + "0" * 5000, "--97", "9 7", "97;80", "97\t80", "\ufeff97",
)  # fmt: skip
"""Texts where a number should stand: what people, spreadsheets and monitors write."""

ODD_JSON: Final = (
    "null", "true", "false", "0", "-0", "-0.0", "97", "97.0", "9.7e1", "0.97", "1e400", "-1e400",
    "1e-400", "98.6", '"97"', '"98 %"', '""', '"A"', '"a"', '"yes"', '"120/80"', "[]", "[97]", "{}",
    '{"value": 97}', "300.00001", "14.999999999999999", "95.5", "35.05", "9" * 400, "1" + "0" * 5000,
    "-" + "9" * 30, '"\\u0000"', '"\\ud800"', '"\\u001b[31m"', '"\\n"', "1.7976931348623157e308",
    "9007199254740993", "NaN", "Infinity", "[" * 3000 + "]" * 3000,
)  # fmt: skip
"""JSON values where another one should stand; the last few are no JSON."""


class Choices:
    """Draws from bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def below(self, count: int) -> int:
        """A whole number from 0 to ``count`` - 1."""
        size = max(1, ((count - 1).bit_length() + 7) // 8)
        piece = self._data[self._at : self._at + size]
        self._at += size
        return int.from_bytes(piece, "big") % count

    def between(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return low + self.below(high - low + 1)

    def flag(self) -> bool:
        return self.below(2) == 1

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def rest(self, most: int) -> bytes:
        """Up to ``most`` of the bytes that are left, as they are."""
        piece = self._data[self._at : self._at + most]
        self._at += most
        return piece

    def text(self, most: int) -> str:
        """Any text: one of the odd ones, or what is left."""
        if self.flag():
            return self.pick(ODD_TEXTS)
        return self.rest(self.below(most + 1)).decode("utf-8", "replace")

    def json(self) -> str:
        """A JSON value as text, mostly; sometimes it is none."""
        if self.flag():
            return self.pick(ODD_JSON)
        return json.dumps(self.rest(self.below(20)).decode("utf-8", "replace"))


def number(choices: Choices, field: str) -> str:
    """A plausible value of a vital sign as plain decimal text, with up to three places."""
    places = choices.below(4)
    limits = RANGES[field]
    low, high = int(limits.low * 10**places), int(limits.high * 10**places)
    return str(Decimal(choices.between(low, high)).scaleb(-places))


def signs(choices: Choices) -> dict[str, str | bool]:
    """Some fields of a reading: numbers as text, oxygen as bool, consciousness as its letter."""
    drawn: dict[str, str | bool] = {}
    for field in FIELDS:
        if not choices.flag():
            continue
        if field in VITALS:
            drawn[field] = number(choices, field)
        elif field == "supplemental_oxygen":
            drawn[field] = choices.flag()
        else:
            drawn[field] = choices.pick(CONSCIOUSNESS)
    systolic, diastolic = drawn.get("systolic_bp"), drawn.get("diastolic_bp")
    if systolic is not None and diastolic is not None and Decimal(diastolic) >= Decimal(systolic):
        del drawn["diastolic_bp"]
    return drawn


def moment(choices: Choices) -> datetime:
    """A time with a zone, to the second or to the microsecond."""
    zone = timezone(timedelta(minutes=choices.between(-14 * 4, 14 * 4) * 15)) if choices.flag() else UTC
    begin = datetime(1990, 1, 1, tzinfo=zone)
    micros = choices.below(1_000_000) if choices.flag() else 0
    return begin + timedelta(seconds=choices.below(200 * 365 * 86_400), microseconds=micros)


def value(text: str | bool) -> Any:
    """What ``signs`` drew, as a reading holds it."""
    return text if isinstance(text, bool) or text in CONSCIOUSNESS else float(text)
