"""Readings as JSON lines (`samd_data.table`)."""

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from samd_data.reading import FIELDS, VITALS, Reading
from samd_scripts.fuzzing.choices import Choices, moment, number, signs, value
from samd_scripts.fuzzing.oracle import insist, numbers_in, parsed, same
from samd_scripts.fuzzing.tables import WORDS, read, time_of
from samd_scripts.fuzzing.target import Target


def check_jsonl(data: bytes) -> None:
    """Any bytes: each value that is taken is a number of its own in some line."""
    found = read(data, "jsonl")
    if found is None or not found[0]:
        return
    objects: list[Any] = []
    for line in re.split(r"\r\n|\r|\n", data.decode("utf-8").removeprefix("\ufeff")):
        try:
            objects.append(parsed(line))
        except ValueError:
            continue
    numbers = set(numbers_in(objects))
    times = {time_of(item["observed_at"].strip()) for item in objects if _has_time(item)}
    for reading in found[0]:
        insist(reading.observed_at in times, "a time out of nowhere", reading)
        taken = [getattr(reading, field) for field in VITALS] + list(reading.ages.values())
        insist(all(item is None or item in numbers for item in taken), "a number out of nowhere", reading)


def _has_time(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("observed_at"), str)


def check_jsonl_written(data: bytes) -> None:
    """Objects that are written come back exactly; a changed value is rejected, or taken as it stands."""
    choices = Choices(data)
    lines: list[dict[str, str]] = []  # JSON text by key
    for _ in range(choices.between(1, 3)):
        fields = signs(choices)
        line = {name: json.dumps(value(item)) for name, item in fields.items()}
        line["observed_at"] = json.dumps(moment(choices).isoformat())
        ages = {field: choices.below(100_000) for field in fields if choices.below(4) == 3}
        line["ages"] = json.dumps(ages)
        lines.append(line)
    changed = choices.below(len(lines))
    key = choices.pick(("observed_at", "ages", *FIELDS))
    if choices.below(4):
        lines[changed][key] = _odd_value(choices, key)
    twice = choices.pick(list(lines[changed])) if choices.below(8) == 7 else ""
    written = "\n".join(
        _object(line, twice, choices) if number == changed else _object(line)
        for number, line in enumerate(lines)
    )
    found = read(written.encode("utf-8", "replace"), "jsonl")
    insist(found is not None, "lines that are refused as a whole", written)
    assert found is not None
    readings, rejections = found
    meant: list[Any] = []
    for line in lines:
        try:
            meant.append({name: parsed(text) for name, text in line.items()})
        except ValueError:
            meant.append(None)  # no JSON: the line cannot be taken
    if twice:
        insist(len(readings) == len(lines) - 1, "one of two values was taken", written, readings)
    if len(readings) == len(lines) - 1:
        insist(rejections, "a line is gone without a word", lines[changed])
        hurt = meant.pop(changed)
        insist(
            twice or hurt is None or key in ("observed_at", "ages") or _deep(hurt[key]),
            "a line is gone",
            hurt,
            rejections,
        )
        changed = -1
    insist(len(readings) == len(meant) and None not in meant, "another number of lines", meant, readings)
    for index, (reading, said) in enumerate(zip(readings, meant, strict=True)):
        _compare_object(reading, said, key if index == changed else "", {r.column for r in rejections})


def _object(line: dict[str, str], twice: str = "", choices: Choices | None = None) -> str:
    """One line; the key ``twice`` a second time, with another value or the same."""
    pairs = list(line.items())
    if twice and choices is not None:
        pairs.insert(choices.below(len(pairs) + 1), (twice, choices.pick((line[twice], "97"))))
    return "{" + ", ".join(f'"{name}": {text}' for name, text in pairs) + "}"


def _deep(tree: Any) -> bool:
    """Whether another parser may give up, on depth or on a number of hundreds of digits."""
    text = repr(tree)
    return len(text) > 300 or text in ("nan", "inf", "-inf") or "\\ud" in text


def _odd_value(choices: Choices, key: str) -> str:
    if key == "ages" and choices.flag():
        return "{" + f'"{choices.pick(FIELDS)}": {choices.json()}' + "}"
    if key in VITALS and choices.flag():
        return number(choices, choices.pick(VITALS))
    return choices.json()


def _compare_object(reading: Reading, said: dict[str, Any], key: str, rejected: set[str]) -> None:
    same(reading.observed_at.isoformat(), said["observed_at"], "observed_at")
    ages = said.get("ages") or {}
    touched = {key} | ({"systolic_bp", "diastolic_bp"} if key in ("systolic_bp", "diastolic_bp") else set())
    for field in FIELDS:
        given, written = getattr(reading, field), said.get(field)
        if given is None:
            loose = field in touched or (key == "ages" and field in ages)
            insist(written is None or (loose and field in rejected), f"{field} is gone", reading, said)
            continue
        same(given, written, field)
        same(reading.ages.get(field), ages.get(field), f"the age of {field}")


def _jsonl_seeds() -> Iterable[bytes]:
    now = datetime(2026, 1, 31, 8, tzinfo=UTC)
    whole = Reading(
        observed_at=now,
        heart_rate=88,
        respiratory_rate=18,
        spo2=96,
        systolic_bp=124,
        diastolic_bp=78,
        temperature=37.2,
        supplemental_oxygen=False,
        consciousness="A",
        ages={"temperature": 600.0},
    )
    yield msgspec.json.encode(whole) + b"\n"
    yield b'{"observed_at": "2026-01-31T08:00:00Z", "spo2": 120, "pulse": 80, "ages": null}\r\n\n{"spo2": 97'
    yield b'{"observed_at": "9999-12-31T23:59:59-01:00", "spo2": 97, "ages": {"spo2": 1e300}}\n'
    yield b'{"observed_at": "0001-01-01T00:00:00Z", "spo2": 97, "ages": {"spo2": 60}}\n'


TARGETS: Final = (
    Target(
        name="jsonl",
        about="JSON lines of readings: any bytes",
        check=check_jsonl,
        seeds=_jsonl_seeds,
        words=(*WORDS, '": ', '{"', "}\n", "[", "1e400"),
    ),
    Target(
        name="jsonl-written",
        about="JSON lines that are written, one value changed",
        check=check_jsonl_written,
        choices=True,
    ),
)
