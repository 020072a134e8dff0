"""A monitor that publishes JSON over MQTT: with a field mapping, and as JSON lines."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from samd_data.plausibility import Rejection, clean
from samd_data.reading import FIELDS, VITALS, Reading
from samd_edge.sources import parse
from samd_edge.sources.mqtt import MqttSource, open_source
from samd_edge.sources.mqtt_link import Arrived
from samd_edge.sources.surroundings import PatientGuard, Surroundings
from samd_protocol.broker import Broker
from samd_scripts.fuzzing.choices import Choices, moment, signs
from samd_scripts.fuzzing.json_parts import changed
from samd_scripts.fuzzing.oracle import insist, parsed, same, sort
from samd_scripts.fuzzing.target import Target
from samd_scripts.fuzzing.units import in_some_unit, means

PATIENT: Final = "7"
_NAME: Final = "mqtt:monitors/bed-01"
_AVPU: Final = {"Alert": "A", "Confused": "C", "Voice": "V", "Pain": "P", "None": "U"}
_OXYGEN: Final = {"room air": False, "mask": True}
MAPPING: Final[dict[str, Any]] = {
    "observed_at": "ts",
    "patient": "patient.id",
    "heart_rate": {"path": "vitals.hr", "unit_path": "vitals.hr_unit"},
    "respiratory_rate": {"path": "vitals.rr", "age": "vitals.rr_age"},
    "spo2": {"path": "signals[1].value", "no_signal": [-1, "---"]},
    "temperature": {"path": "temp.value", "unit_path": "temp.unit", "time": "temp.ts"},
    "systolic_bp": {"path": "nibp.sys", "unit_path": "nibp.unit"},
    "diastolic_bp": {"path": "nibp.dia", "unit_path": "nibp.unit"},
    "consciousness": {"path": "avpu", "values": _AVPU},
    "supplemental_oxygen": {"path": ["o2", "device.name"], "values": _OXYGEN},
}
_PLACES: Final[dict[str, tuple[str | int, ...]]] = {
    "heart_rate": ("vitals", "hr"),
    "respiratory_rate": ("vitals", "rr"),
    "spo2": ("signals", 1, "value"),
    "temperature": ("temp", "value"),
    "systolic_bp": ("nibp", "sys"),
    "diastolic_bp": ("nibp", "dia"),
    "consciousness": ("avpu",),
    "supplemental_oxygen": ("o2", "device.name"),
}
_UNITS: Final[dict[str, tuple[str, ...]]] = {
    "heart_rate": ("vitals", "hr_unit"),
    "temperature": ("temp", "unit"),
    "systolic_bp": ("nibp", "unit"),
    "diastolic_bp": ("nibp", "unit"),
}
_OWN: Final = {"respiratory_rate": "/min", "spo2": "%"}
_NOW: Final = datetime(2026, 3, 1, 8, tzinfo=UTC)


def _source(table: dict[str, Any]) -> tuple[MqttSource, PatientGuard]:
    """A source that never connects, of a device whose patient is number 7."""
    guard = PatientGuard()
    guard.admit(key="fuzz")
    guard.refusal(PATIENT)
    around = Surroundings(wall=lambda: _NOW, broker=Broker(), patient=guard)
    return open_source(parse(_NAME, table), around), guard


def items(table: dict[str, Any], payload: bytes) -> tuple[list[Reading], list[Rejection]]:
    source, _ = _source(table)
    arrived = Arrived(payload, len(payload), retained=False, at=_NOW, receipt=None)
    readings, rejections = sort(source._items(arrived), f"{_NAME}")
    insist(len(readings) <= 1, "more than one reading in a message", readings)
    insist(readings or rejections, "a message that nothing is said of", payload)
    return readings, rejections


def check_mapped(payload: bytes) -> None:
    """Any bytes, with a mapping: each value is the one that stands at its place, in the unit named there."""
    readings, rejections = items({"fields": MAPPING}, payload)
    try:
        tree = parsed(payload, unique=True)
    except ValueError:
        insist(not readings, "a reading out of no JSON, or one of two values", readings)
        return
    _compare(tree, readings, rejections)


def check_mapped_written(data: bytes) -> None:
    """A message that is written, one part changed: rejected there, or taken as it stands."""
    choices = Choices(data)
    tree = _tree(choices)
    if choices.below(4):
        check_mapped(changed(choices, tree).encode("utf-8", "replace"))
        return
    payload = json.dumps(tree).encode()
    check_mapped(payload)
    readings, _ = items({"fields": MAPPING}, payload)
    for field in ("respiratory_rate", "spo2", "consciousness", "supplemental_oxygen"):
        if _at(tree, _PLACES[field]) is not None:  # what is converted may end up just beyond its range
            insist(readings and getattr(readings[0], field) is not None, f"{field} is gone", tree)


def _tree(choices: Choices) -> Any:
    time = moment(choices)
    fields = signs(choices)
    tree: Any = {"ts": time.isoformat(), "patient": {"id": PATIENT}, "vitals": {}, "signals": [{}, {}]}
    pressure = choices.pick(("mm[Hg]", "kPa"))
    for field in fields:
        if field == "consciousness":
            tree["avpu"] = choices.pick(list(_AVPU))
        elif field == "supplemental_oxygen":
            tree["o2"] = {"device.name": choices.pick(list(_OXYGEN))}
        else:
            text, unit = in_some_unit(choices, field)
            if field in ("systolic_bp", "diastolic_bp"):
                text, unit = str(fields[field]), "mm[Hg]"
                if pressure == "kPa":
                    text, unit = f"{Decimal(text) / Decimal('7.5'):.3f}", "kPa"
            group, last = _PLACES[field][0], _PLACES[field][-1]
            part: Any = tree["signals"][1] if field == "spo2" else tree.setdefault(group, {})
            part[last] = float(text) if field not in _OWN else float(str(fields[field]))
            if field in _UNITS:
                part[_UNITS[field][-1]] = unit
    if "rr" in tree["vitals"]:
        tree["vitals"]["rr_age"] = choices.below(100_000)
    if "temp" in tree:
        tree["temp"]["ts"] = (time - timedelta(seconds=choices.below(100_000))).isoformat()
    return tree


def _compare(tree: Any, readings: list[Reading], rejections: list[Rejection]) -> None:
    """What was taken is what stands there; what stands there and was not taken has been told."""
    told = {rejection.column for rejection in rejections}
    for reading in readings:
        same(reading.observed_at.isoformat(), _at(tree, ("ts",)), "ts")
        insist(str(_at(tree, ("patient", "id"))).strip() == PATIENT, "of another patient", tree)
    for field, place in _PLACES.items():
        written = _at(tree, place)
        given = getattr(readings[0], field) if readings else None
        if given is None:
            insist(written is None or field in told or "" in told or not readings, f"{field} is gone", tree)
            continue
        if field in VITALS:
            unit = _OWN.get(field) or _at(tree, _UNITS[field])
            insist(unit is not None, f"{field} without its unit", tree)
            means(field, given, written, unit)
        else:
            known: dict[str, Any] = _AVPU if field == "consciousness" else _OXYGEN
            insist(known.get(written) == given, f"another {field}", written, given)
    if readings:
        _ages(tree, readings[0])


def _ages(tree: Any, reading: Reading) -> None:
    """How old a value is stands beside it; one of unknown age is not taken."""
    insist(reading.ages.keys() <= {"respiratory_rate", "temperature"}, "an age out of nowhere", reading)
    if reading.respiratory_rate is not None:
        same(reading.ages.get("respiratory_rate", 0.0), _at(tree, ("vitals", "rr_age")), "rr_age")
    if reading.temperature is not None:
        measured = datetime.fromisoformat(str(_at(tree, ("temp", "ts"))).strip())
        age = max(0.0, (reading.observed_at - measured).total_seconds())
        insist(abs(age - reading.ages.get("temperature", 0.0)) < 1e-5, "another age of temperature", tree)


def _at(tree: Any, place: tuple[str | int, ...]) -> Any:
    """What stands at a place, None where nothing does."""
    for key in place:
        if isinstance(tree, dict) and isinstance(key, str):
            tree = tree.get(key)
        elif isinstance(tree, list) and isinstance(key, int):
            tree = tree[key] if key < len(tree) else None
        else:
            return None
    return tree


def check_unmapped(payload: bytes) -> None:
    """Any bytes, without a mapping: as a JSON line."""
    readings, _ = items({}, payload)
    for reading in readings:
        tree = parsed(payload, unique=True)
        same(reading.observed_at.isoformat(), tree["observed_at"].strip(), "observed_at")
        for field in FIELDS:
            if getattr(reading, field) is not None:
                same(getattr(reading, field), tree[field], field)
        insist(clean({field: tree.get(field) for field in reading.present()}), "not plausible", reading)


def _mapped_seeds() -> Iterable[bytes]:
    for data in (b"", b"\x55" * 60, b"\xa5\x01\xff" * 20):
        yield json.dumps(_tree(Choices(data))).encode()
    full = _tree(Choices(b"\x01" * 80))
    full["signals"][1]["value"] = -1
    yield json.dumps(full).encode()
    yield json.dumps(full).replace('"vitals": {', '"vitals": {"hr": 60, "hr": 61,').encode()


def _unmapped_seeds() -> Iterable[bytes]:
    yield b'{"observed_at": "2026-03-01T08:00:00Z", "heart_rate": 88, "spo2": 96, "consciousness": "A"}'
    yield b'{"observed_at": "2026-03-01T08:00:00Z", "spo2": 96, "spo2": 80, "pulse": 7, "ages": {"spo2": 60}}'


TARGETS: Final = (
    Target(
        name="mqtt-json",
        about="a monitor's JSON with a field mapping: any bytes",
        check=check_mapped,
        seeds=_mapped_seeds,
        words=(
            "ts",
            "vitals",
            "hr",
            "rr_age",
            "signals",
            "nibp",
            "[degF]",
            "kPa",
            "avpu",
            "o2",
            "null",
            '":',
        ),
    ),
    Target(
        name="mqtt-json-written",
        about="a monitor's JSON with a field mapping, one part changed",
        check=check_mapped_written,
        choices=True,
    ),
    Target(
        name="mqtt-lines",
        about="a monitor's JSON without a mapping: any bytes",
        check=check_unmapped,
        seeds=_unmapped_seeds,
        words=("observed_at", *FIELDS, "ages", "null", '":'),
    ),
)
