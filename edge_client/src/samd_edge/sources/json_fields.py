"""A reading from somebody else's JSON, by the mapping of the configuration (see ``json_mapping``).

Nothing is guessed: a text is no number, a time without a zone is no time, a value of unknown age is stale.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple

from samd_data.carry import AHEAD_SECONDS
from samd_data.plausibility import Rejection, clean, shown
from samd_data.reading import VITALS, Reading
from samd_edge.sources.codes import UnitError, consciousness_of, in_unit, oxygen_of
from samd_edge.sources.json_mapping import FieldPlace, JsonMapping, TimePlace, at
from samd_edge.sources.local_time import LocalZone

_EPOCH_FROM: Final = datetime(2000, 1, 1, tzinfo=UTC)
_EPOCH_TO: Final = datetime(2200, 1, 1, tzinfo=UTC)
_LARGEST: Final = 10**18
"""No vital sign and no record number is larger; Python's own numbers have no end, and floats have."""
_LONGEST_AGE_S: Final = 10**9
_PER_SECOND: Final = {"s": 1, "ms": 1000}


class _Bad(NamedTuple):
    """Why something in a message cannot be used, and what to do about it."""

    value: object
    reason: str
    remedy: str
    kind: Literal["implausible", "no_signal"] = "implausible"

    def told(self, file: str, row: int, column: str) -> Rejection:
        return Rejection(file, row, column, _text(self.value), self.reason, self.remedy, self.kind)


def patient_of(content: object, mapping: JsonMapping) -> str | None:
    """The identifier of the patient whom a message names; None if it names nobody."""
    found = None if mapping.patient is None else at(content, mapping.patient)
    if isinstance(found, int) and not isinstance(found, bool) and abs(found) <= _LARGEST:
        found = str(found)
    return found.strip() or None if isinstance(found, str) else None


def read_json(
    content: object, mapping: JsonMapping, *, file: str, row: int, arrived: datetime | None = None
) -> Iterator[Reading | Rejection]:
    """What cannot be used, then the reading, if anything is in it.

    ``content``: what a JSON decoder made of the message. ``arrived``: the time to take where the mapping
    knows none; one of the two must be there.
    """
    observed_at = arrived
    if mapping.observed_at is not None:
        told = _moment(content, mapping.observed_at)
        if isinstance(told, _Bad):
            yield told.told(file, row, "observed_at")
            return
        observed_at = told
    if observed_at is None:
        raise ValueError("neither does the mapping know a time nor was one given")
    found: dict[str, object] = {}
    ages: dict[str, float] = {}
    refused = False
    for field in mapping.fields:
        value = _value(content, field)
        age: float | _Bad = 0.0 if value is None else _age(content, field, observed_at)
        bad = value if isinstance(value, _Bad) else age if isinstance(age, _Bad) else None
        if bad is not None:
            refused = True
            yield bad.told(file, row, field.name)
        elif value is not None and not isinstance(age, _Bad):
            found[field.name] = value
            ages[field.name] = age
    accepted, rejections = clean(found, file=file, row=row)
    yield from rejections
    if accepted:
        kept = {name: age for name, age in ages.items() if age and name in accepted}
        yield Reading(observed_at=observed_at, ages=kept, **accepted)
    elif not refused and not rejections:
        yield Rejection(
            file,
            row,
            "",
            "",
            "nothing that is mapped stands in the message",
            "check the paths in [source.fields] against a message, or subscribe to a narrower topic",
        )


def _moment(content: object, time: TimePlace) -> datetime | _Bad:
    told = at(content, time.keys)
    if told is None:
        return _Bad(None, "there is no time of observation", "check the path of the time in [source.fields]")
    if time.format == "iso8601":
        return _iso8601(told, time.zone)
    if isinstance(told, bool) or not isinstance(told, (int, float)):
        return _Bad(told, f"{shown(told)} is no number of {time.format}", "publish the time as a number")
    other = "ms" if time.format == "s" else "s"
    try:
        moment = datetime.fromtimestamp(told / _PER_SECOND[time.format], UTC)
    except (OverflowError, OSError, ValueError):
        moment = _EPOCH_TO
    if not _EPOCH_FROM <= moment < _EPOCH_TO:
        reason = f"{shown(told)} {time.format} since 1970 is no time of this century"
        return _Bad(told, reason, f'if it is in {other}, write format = "{other}"')
    return moment


def _iso8601(told: object, zone: LocalZone | None) -> datetime | _Bad:
    remedy_ = "publish ISO 8601 with a time zone, such as 2026-01-31T08:00:00Z"
    if not isinstance(told, str):
        return _Bad(told, f"{shown(told)} is no time in ISO 8601", f'{remedy_}, or set format = "s" or "ms"')
    try:
        moment = datetime.fromisoformat(told.strip())
        if len(told.strip()) <= len("2026-01-31"):
            return _Bad(told, f"{shown(told)} is a date without a time of day", remedy_)
        if moment.utcoffset() is not None:
            return moment.astimezone(UTC)
        if zone is not None:
            return zone.in_utc(moment)
    except (ValueError, OverflowError):
        return _Bad(told, f"{shown(told)} is no time in ISO 8601", remedy_)
    return _Bad(
        told, f"{shown(told)} has no time zone", f'{remedy_}, or say the zone: zone = "Europe/Berlin"'
    )


def _value(content: object, field: FieldPlace) -> object:
    """The value in the unit of the field; None if missing; else why it cannot be used."""
    where = field.where
    value = at(content, field.keys)
    if value is None:
        return None
    if any(_same(value, written) for written in where.no_signal):
        reason = f"{shown(value)} stands for: nothing was measured"
        return _Bad(value, reason, "check the sensor on the patient", "no_signal")
    if where.values:
        text = value if isinstance(value, str) else _text(value)
        if text not in where.values:
            known = ", ".join(sorted(where.values))
            return _Bad(value, f"{shown(value)} is none of {known}", f"add it to values of {field.name}")
        return where.values[text]
    if field.name == "consciousness":
        return consciousness_of(value) or value if isinstance(value, str) else value
    unit = where.unit
    if field.name not in VITALS and unit is None and field.unit_keys is None:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _Bad(value, f"{shown(value)} is not a number", "publish a number, and its unit apart")
    if field.unit_keys is not None:
        named = at(content, field.unit_keys)
        if not isinstance(named, str):
            return _Bad(named, "the message does not name its unit", "check unit_path, or write the unit")
        unit = named
    if unit is None or abs(value) > _LARGEST:
        return value
    try:
        measured = in_unit(field.name, value, unit)
        return measured if field.name in VITALS else oxygen_of(measured)
    except UnitError as error:
        return _Bad(value, error.reason, error.remedy)


def _age(content: object, field: FieldPlace, observed_at: datetime) -> float | _Bad:
    """How many seconds before ``observed_at`` the value was measured. Of unknown age it might be stale."""
    if field.time is not None:
        measured_at = _moment(content, field.time)
        if isinstance(measured_at, _Bad):
            return measured_at._replace(reason=f"{measured_at.reason}, so the value may be stale")
        age = (observed_at - measured_at) / timedelta(seconds=1)
        if age < -AHEAD_SECONDS:
            return _Bad(None, "was measured after the message says it was sent", "check both times")
        return max(age, 0.0)
    if field.age_keys is None:
        return 0.0
    told = at(content, field.age_keys)
    if isinstance(told, bool) or not isinstance(told, (int, float)) or not 0 <= told <= _LONGEST_AGE_S:
        reason = (
            f"the age {_text(told) or 'is missing, it'} is no number of seconds, so the value may be stale"
        )
        return _Bad(told, reason, "publish the age in seconds, 0 or more")
    return float(told)


def _same(value: object, written: bool | float | str) -> bool:
    """Equal, and of one kind: true is not 1."""
    return isinstance(value, bool) == isinstance(written, bool) and value == written


def _text(value: object) -> str:
    return "" if value is None else shown(value) if not isinstance(value, bool) else str(value).lower()
