"""NEWS2 once more, typed off the printed chart: what the product's own score is held against.

Made another way on purpose. The columns of the chart stand here as people read them, values are rounded in
decimals, and a missing input is every value that it could be: the range is what all of them together reach.
"""

from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Final, NamedTuple

from samd_data.reading import Reading

Column = tuple[int, str | None, str | None]  # points, from, up to

CHART: Final[dict[str, tuple[Column, ...]]] = {
    "respiratory_rate": ((3, None, "8"), (1, "9", "11"), (0, "12", "20"), (2, "21", "24"), (3, "25", None)),
    "spo2": ((3, None, "91"), (2, "92", "93"), (1, "94", "95"), (0, "96", None)),
    "systolic_bp": (
        (3, None, "90"),
        (2, "91", "100"),
        (1, "101", "110"),
        (0, "111", "219"),
        (3, "220", None),
    ),
    "heart_rate": (
        (3, None, "40"),
        (1, "41", "50"),
        (0, "51", "90"),
        (1, "91", "110"),
        (2, "111", "130"),
        (3, "131", None),
    ),
    "temperature": (
        (3, None, "35.0"),
        (1, "35.1", "36.0"),
        (0, "36.1", "38.0"),
        (1, "38.1", "39.0"),
        (2, "39.1", None),
    ),
}
SCALE_2: Final[dict[bool, tuple[Column, ...]]] = {
    False: ((3, None, "83"), (2, "84", "85"), (1, "86", "87"), (0, "88", "92"), (0, "93", None)),
    True: (
        (3, None, "83"),
        (2, "84", "85"),
        (1, "86", "87"),
        (0, "88", "92"),
        (1, "93", "94"),
        (2, "95", "96"),
        (3, "97", None),
    ),
}
"""SpO2 by prescription: on air, on oxygen."""

_HAIR: Final = (Decimal("0.000099999"), Decimal("0.000100001"))
"""A value a ten-thousandth of the chart's step below a half counts as the half (float noise, as of a
conversion out of °F); where exactly that edge lies is the business of no one."""

_BANDS: Final = ("low", "low-medium", "medium", "high")


class Expected(NamedTuple):
    """What a score must say; ``points`` are those of the inputs for which they are certain."""

    total: int | None
    low: int
    high: int
    band: str
    band_high: str
    missing: frozenset[str]
    points: dict[str, int]


def expected(reading: Reading, scale: int) -> list[Expected]:
    """The score of a reading: one, or two where a value lies on the edge that ``_HAIR`` draws."""
    found = [_expected(reading, scale, hair) for hair in _HAIR]
    return found[:1] if found[0] == found[1] else found


def _expected(reading: Reading, scale: int, hair: Decimal) -> Expected:
    options: list[tuple[int, ...]] = []
    points: dict[str, int] = {}
    missing: list[str] = []

    def note(name: str, given: object, possible: set[int]) -> None:
        if given is None:
            missing.append(name)
        elif len(possible) == 1:
            points[name] = min(possible)

    for name in ("heart_rate", "respiratory_rate", "systolic_bp", "temperature"):
        given = getattr(reading, name)
        possible = _points(CHART[name], name, given, hair)
        options.append(tuple(sorted(possible)))
        note(name, given, possible)
    awake = reading.consciousness
    possible = {0, 3} if awake is None else {0 if awake == "A" else 3}
    options.append(tuple(sorted(possible)))
    note("consciousness", awake, possible)
    oxygen = reading.supplemental_oxygen
    either = (False, True) if oxygen is None else (oxygen,)
    note("supplemental_oxygen", oxygen, {2 if on else 0 for on in either})
    pairs: set[tuple[int, int]] = set()  # points of SpO2 and of oxygen, which belong together on scale 2
    for on in either:
        columns = CHART["spo2"] if scale == 1 else SCALE_2[on]
        pairs |= {(spo2, 2 if on else 0) for spo2 in _points(columns, "spo2", reading.spo2, hair)}
    note("spo2", reading.spo2, {spo2 for spo2, _ in pairs})
    reached = _reached(tuple(options), frozenset(pairs))
    low, high = min(total for total, _ in reached), max(total for total, _ in reached)
    bands = [_BANDS.index(_band(total, three)) for total, three in reached]
    return Expected(
        total=None if missing else low,
        low=low,
        high=high,
        band=_BANDS[min(bands)],
        band_high=_BANDS[max(bands)],
        missing=frozenset(missing),
        points=points,
    )


def _points(columns: tuple[Column, ...], name: str, value: float | None, hair: Decimal) -> set[int]:
    """The points of a value; of a missing one, all that there are."""
    if value is None:
        return {points for points, _, _ in columns}
    step = Decimal("0.1") if name == "temperature" else Decimal(1)
    printed = (Decimal(repr(value)) + step * hair).quantize(step, rounding=ROUND_HALF_UP)
    (points,) = [
        points
        for points, low, high in columns
        if (low is None or Decimal(low) <= printed) and (high is None or printed <= Decimal(high))
    ]
    return {points}


@lru_cache(maxsize=4096)
def _reached(
    options: tuple[tuple[int, ...], ...], pairs: frozenset[tuple[int, int]]
) -> set[tuple[int, bool]]:
    """Every total that can be reached, with whether a single input scores 3 in it."""
    reached = {(spo2 + oxygen, spo2 == 3) for spo2, oxygen in pairs}
    for found in options:
        reached = {(total + points, three or points == 3) for total, three in reached for points in found}
    return reached


def _band(total: int, three: bool) -> str:
    if total >= 7:
        return "high"
    if total >= 5:
        return "medium"
    return "low-medium" if three else "low"
