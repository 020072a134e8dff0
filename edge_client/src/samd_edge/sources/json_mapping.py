"""Where the fields of a reading stand in somebody else's JSON, as the configuration says it.

    [source.fields]
    observed_at = "ts"                                        # ISO 8601 with a zone
    observed_at = { path = "ts", format = "ms" }              # or seconds "s", milliseconds "ms" since 1970
    observed_at = { path = "ts", zone = "Europe/Berlin" }     # ISO 8601 that has no zone
    patient = "patient.id"
    heart_rate = "vitals.hr"
    spo2 = { path = "signals[2].value", no_signal = [-1, "---"] }
    temperature = { path = "temp.value", unit = "[degF]", time = "temp.ts" }
    systolic_bp = { path = ["nibp", "sys.value"], unit_path = "nibp.unit", age = "nibp.age_s" }
    consciousness = { path = "avpu", values = { Alert = "A", Voice = "V", Pain = "P", None = "U" } }
    supplemental_oxygen = { path = "o2.device", values = { "room air" = false, mask = true } }
    supplemental_oxygen = { path = "o2.flow", unit = "L/min" }          # a flow above 0 is supplemental

A path is keys with dots between, and the number of an element in brackets; as a list, each key may hold dots.
Nothing in it is evaluated. ``unit`` is UCUM, ``unit_path`` is where the message names it; without either the
value is in the unit of the field. ``no_signal`` lists what the monitor writes while it measures nothing.
``time`` (written like ``observed_at``) or ``age`` (in seconds) say when the value was measured, if not then.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec

from samd_data.plausibility import clean, remedy
from samd_data.reading import FIELDS, VITALS
from samd_edge.sources.local_time import LocalZone, zone_named

Path = str | list[str | int]
Keys = tuple[str | int, ...]

_STEP: Final = re.compile(r"([^.\[\]]+)((?:\[\d{1,4}\])*)")
_PATH_REMEDY: Final = 'write keys with dots between, as in "vitals.hr" or "signals[2].value"'


class When(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where ``observed_at`` stands, and how it is written. ``zone``: of ISO 8601 times that name none."""

    path: Path
    format: Literal["iso8601", "s", "ms"] = "iso8601"
    zone: str | None = None


class Where(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where one field stands, and how it is written there."""

    path: Path
    unit: str | None = None
    unit_path: Path | None = None
    values: dict[str, bool | str] = {}
    no_signal: list[bool | int | float | str] = []
    age: Path | None = None
    time: Path | None = None


class TimePlace(NamedTuple):
    keys: Keys
    format: str
    zone: LocalZone | None


class FieldPlace(NamedTuple):
    name: str
    keys: Keys
    where: Where
    unit_keys: Keys | None
    age_keys: Keys | None
    time: TimePlace | None


class JsonMapping(NamedTuple):
    """A mapping that was checked: ``mapping_of`` makes it."""

    fields: tuple[FieldPlace, ...]
    observed_at: TimePlace | None
    patient: Keys | None


def mapping_of(table: Mapping[str, Any]) -> JsonMapping:
    """What ``[source.fields]`` says. Raises ValueError for what cannot work; the text names the place."""
    for name in table:
        if name not in (*FIELDS, "observed_at", "patient"):
            known = ", ".join((*FIELDS, "observed_at", "patient"))
            raise ValueError(f"fields.{name}: no such field; there are {known}")
    when: TimePlace | None = None
    patient: Keys | None = None
    if "observed_at" in table:
        when = _time_of(_converted(table["observed_at"], When, "observed_at"), "observed_at")
    if "patient" in table:
        patient = _keys(_converted(table["patient"], Path, "patient"), "patient")
    fields = tuple(
        _field_of(name, _converted(table[name], Where, name), when) for name in FIELDS if name in table
    )
    if not fields:
        raise ValueError(f"fields: names no vital sign; name at least one of {', '.join(FIELDS)}")
    return JsonMapping(fields, when, patient)


def at(content: object, keys: Keys) -> object:
    """What stands there; None where nothing does."""
    for key in keys:
        if isinstance(content, dict):
            content = content.get(str(key))
        elif isinstance(content, list):
            index = key if isinstance(key, int) else int(key) if key.isascii() and key.isdecimal() else -1
            content = content[index] if 0 <= index < len(content) else None
        else:
            return None
    return content


def _converted(value: object, kind: Any, name: str) -> Any:
    if kind is not Path and isinstance(value, (str, list)):
        value = {"path": value}
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"fields.{name}: {error}") from error


def _keys(path: Path, name: str) -> Keys:
    if isinstance(path, list):
        keys: list[str | int] = list(path)
    else:
        keys = []
        for step in path.split("."):
            match = _STEP.fullmatch(step)
            if match is None:
                raise ValueError(f"fields.{name}: {path!r} is no path; {_PATH_REMEDY}")
            keys.append(match[1])
            keys += [int(number) for number in re.findall(r"\d+", match[2])]
    if not keys or any(isinstance(key, int) and key < 0 for key in keys):
        raise ValueError(f"fields.{name}: {path!r} is no path; {_PATH_REMEDY}")
    return tuple(keys)


def _time_of(when: When, name: str) -> TimePlace:
    zone = None
    if when.zone is not None:
        if when.format != "iso8601":
            raise ValueError(f"fields.{name}: seconds since 1970 have no zone; leave zone out")
        zone = zone_named(when.zone)
    return TimePlace(_keys(when.path, name), when.format, zone)


def _field_of(name: str, where: Where, when: TimePlace | None) -> FieldPlace:
    has_unit = where.unit is not None or where.unit_path is not None
    if has_unit and (name == "consciousness" or where.values):
        raise ValueError(f"fields.{name}: these values have no unit; leave unit and unit_path out")
    if where.unit is not None and where.unit_path is not None:
        raise ValueError(f"fields.{name}: give unit or unit_path, not both")
    if where.age is not None and where.time is not None:
        raise ValueError(f"fields.{name}: give age or time, not both")
    if name in VITALS and where.values:
        raise ValueError(f"fields.{name}: is a number and has no values; see no_signal")
    for text, meaning in where.values.items():
        accepted, _ = clean({name: meaning})
        if not accepted:
            raise ValueError(f"fields.{name}: values.{text} is {meaning!r}; {remedy(name)}")
    time = None
    if where.time is not None:
        if when is None:
            raise ValueError(f"fields.{name}: time needs observed_at, which says how times are written")
        time = TimePlace(_keys(where.time, name), when.format, when.zone)
    return FieldPlace(
        name,
        _keys(where.path, name),
        where,
        None if where.unit_path is None else _keys(where.unit_path, name),
        None if where.age is None else _keys(where.age, name),
        time,
    )
