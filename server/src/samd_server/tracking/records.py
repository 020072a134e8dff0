"""The numbers in a record: what a curve can be drawn of. No text leaves this way, no device's own words."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from samd_data.reading import FIELDS

MOST_METRICS: Final = 16
"""Of one device in one round; a device that sends more has gone mad."""
_KEY: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")


class Point(NamedTuple):
    """Numbers by name, at one round. `device` is None for those of the whole run."""

    device: str | None
    round: int
    values: dict[str, float]


def points(record: Mapping[str, Any]) -> Iterator[Point]:
    """What a record says in numbers: first the run's own, then each device's."""
    number = record.get("round", 0)
    event = str(record.get("event", ""))
    own = numbers({key: value for key, value in record.items() if key not in ("round", "event")})
    for key in ("metrics",):
        if isinstance(record.get(key), Mapping):
            own |= {
                f"{part}_{name}": value
                for part, found in record[key].items()
                if isinstance(found, Mapping)
                for name, value in numbers(found).items()
            }
    if isinstance(record.get("dropped"), Mapping):
        own["dropped"] = float(len(record["dropped"]))
    if own:
        yield Point(None, number, {f"{event}/{key}": value for key, value in own.items()})
    for device, said in record.get("by_device", {}).items():
        if found := numbers(said):
            yield Point(device, number, {f"{event}/{key}": value for key, value in found.items()})


def numbers(said: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers among some values; yes and no as 1 and 0."""
    return {
        key: float(value)
        for key, value in said.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def metrics_of(said: Mapping[str, float]) -> dict[str, float]:
    """What a device says of its training, as far as it can be kept: a few finite numbers with plain names,
    none of which is a vital sign's."""
    sound = {key: value for key, value in numbers(said).items() if _KEY.fullmatch(key) and key not in FIELDS}
    return dict(list(sound.items())[:MOST_METRICS])
