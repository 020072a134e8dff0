"""A struct of settings as the fields of a dialog, and back: numbers, switches, lists of numbers, or none."""

from typing import TypeVar

import msgspec

from samd_gateway.errors import UsageError
from samd_gateway.pages.form import Field, Values
from samd_gateway.pages.texts import Texts

S = TypeVar("S", bound=msgspec.Struct)


def fields(value: msgspec.Struct, t: Texts) -> tuple[Field, ...]:
    """A field for each setting; an empty one is none (for ever, or no step)."""
    found = []
    for name, now in msgspec.structs.asdict(value).items():
        key = f"settings.fields.{name}"
        label, help_ = t(f"{key}.name"), t(f"{key}.help") if t.has(f"{key}.help") else ""
        if isinstance(now, bool):
            found.append(Field(name=name, label=label, help=help_, kind="checkbox", value=now))
        else:
            found.append(Field(name=name, label=label, help=help_, value=written(now), longest=120))
    return tuple(found)


def read(values: Values, value: S, t: Texts) -> S:
    """The struct that was sent. Raises UsageError with the name of the setting that cannot be."""
    said: dict[str, object] = {}
    for name, now in msgspec.structs.asdict(value).items():
        given = values[name]
        if isinstance(now, bool):
            said[name] = given
            continue
        label = t(f"settings.fields.{name}.name")
        if isinstance(now, tuple):
            said[name] = [_number(each, label, t) for each in given.replace(",", " ").split()]
        else:
            said[name] = _number(given, label, t) if given else None
    try:
        return msgspec.convert(said, type(value))
    except msgspec.ValidationError as error:
        raise UsageError(str(error)) from error


def written(value: object) -> str:
    """A setting as it is typed."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ", ".join(written(each) for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(text: str, label: str, t: Texts) -> float | int:
    try:
        number = float(text)
    except ValueError as error:
        raise UsageError(f"{label}: {t('runs.no_number')}") from error
    return int(number) if number.is_integer() else number
