"""Readings as a table: CSV with a header line, or one JSON object a line.

Columns have the names of the fields: ``observed_at`` and any of ``heart_rate``, ``respiratory_rate``,
``spo2``, ``systolic_bp``, ``diastolic_bp``, ``temperature`` (°C), ``supplemental_oxygen``,
``consciousness``. CSV may add ``FIELD_age``, JSON an object ``ages``: seconds since the value was measured.

``observed_at`` is ISO 8601 with a time zone. A time without one rejects its row: guessing the zone could
make a value hours fresher than it is. An empty cell (or NA, NaN, null) is missing. Oxygen is true, false,
yes, no, 1 or 0 in CSV, true or false in JSON.

A bad value is left out and told as a ``Rejection``; the rest of its row passes. A row that cannot be trusted
as a whole (no time, broken quotes, too few or too many cells: the line may be torn; a JSON key twice) is
rejected whole.
"""

import csv
import os
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, TextIO

import msgspec

from samd_data.errors import DataError
from samd_data.json_keys import repeated_key
from samd_data.plausibility import LONGEST_AGE_S, Rejection, check_time, clean, shown
from samd_data.reading import FIELDS, VITALS, Reading

Format = Literal["csv", "jsonl"]

_AGE_COLUMNS: Final = tuple(f"{field}_age" for field in FIELDS)
_TOLD_KEYS: Final = 100  # unknown keys that are told; a stream may go on for months
_LONGEST_NAME: Final = 40  # characters of an unknown column that are told
_LONGEST_LINE: Final = 65_536  # characters; a reading takes about 300
_MISSING: Final = frozenset({"", "na", "n/a", "nan", "null", "none"})
_FLAGS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_TIME_REMEDY: Final = "give ISO 8601 with a time zone, such as 2026-01-31T08:00:00Z"
_NAMES: Final = ", ".join(FIELDS)
_RENAME: Final = f"remove it, or rename it to one of {_NAMES}"
_KEEP_COMMA: Final = "leave the cell of a missing value empty and keep its comma"
_SECONDS: Final = "give the age in seconds, 0 or more, or leave it out"
_HEADER_REMEDY: Final = "start it with a header line: observed_at,heart_rate,respiratory_rate,spo2,..."


def read_rows(stream: TextIO, name: str, *, format: Format | None = None) -> Iterator[Reading | Rejection]:  # noqa: A002 (the word of the command line)
    """Read ``stream`` line by line and yield each reading, preceded by the rejections of its row.

    ``name`` stands in the messages and, when ``format`` is None, tells the format by its ending (.csv,
    .jsonl, .ndjson); else the first line tells. No line is waited for before the one at hand has been
    yielded, so a live stream works. Readings come in the order of the file.

    Raises ``DataError`` for an empty stream, a CSV header without ``observed_at`` or without any field, or
    with a column twice.
    """
    lines = _lines(stream, name)
    first = next(lines, None)
    if first is None:
        raise DataError(f"{name}: the file is empty; {_HEADER_REMEDY}")
    if format is None:
        format = _format_of(name, first[1])  # noqa: A001
    if format == "csv":
        yield from _read_csv(first, lines, name)
    elif format == "jsonl":
        yield from _read_jsonl(first, lines, name)
    else:
        raise ValueError(f"format is {format!r}; it is 'csv', 'jsonl' or None")


def write_csv(path: Path, readings: Iterable[Reading]) -> None:
    """Write ``readings`` as CSV that ``read_rows`` gives back unchanged. Replaces ``path`` in one step.

    Age columns are written only when a reading has ages. Raises ``OSError`` as any write does.
    """
    rows = list(readings)
    aged = [field for field in FIELDS if any(field in reading.ages for reading in rows)]
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["observed_at", *FIELDS, *(f"{field}_age" for field in aged)])
            for reading in rows:
                cells = [_cell(getattr(reading, field)) for field in FIELDS]
                ages = [_cell(reading.ages.get(field)) for field in aged]
                writer.writerow([reading.observed_at.isoformat().replace("+00:00", "Z"), *cells, *ages])
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _cell(value: float | bool | str | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    return str(int(value)) if value == int(value) else repr(float(value))


Line = tuple[int, str]


def _lines(stream: TextIO, name: str) -> Iterator[Line]:
    """Each line that is not blank, with its number; a line that is too long is cut to one too long."""
    number = 0
    try:
        while text := stream.readline(_LONGEST_LINE + 1):
            number += 1
            rest = text
            while len(rest) > _LONGEST_LINE and not rest.endswith("\n"):
                rest = stream.readline(_LONGEST_LINE + 1)
            if number == 1:
                text = text.removeprefix("\ufeff")
            if text.strip():
                yield number, text.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}:{number + 1}: the file is not UTF-8 text; save it as UTF-8") from error


def _format_of(name: str, first_line: str) -> Format:
    ending = name.lower().rpartition(".")[2]
    if ending == "csv":
        return "csv"
    if ending in ("jsonl", "ndjson"):
        return "jsonl"
    return "jsonl" if first_line.lstrip().startswith("{") else "csv"


# --- CSV ---------------------------------------------------------------------------------------------------


def _read_csv(first: Line, lines: Iterator[Line], name: str) -> Iterator[Reading | Rejection]:
    header_row, header_text = first
    header = _split(header_text)
    if header is None:
        raise DataError(f"{name}:{header_row}: the header line has broken quotes; {_HEADER_REMEDY}")
    header = [column.strip() for column in header]
    _check_header(header, header_text, f"{name}:{header_row}")
    for column in header:
        if column not in ("observed_at", *FIELDS, *_AGE_COLUMNS):
            reason = f"{shown(column)} is no column that is known here, and is not read"
            yield Rejection(name, header_row, column[:_LONGEST_NAME], "", reason, _RENAME)

    for row, text in lines:
        cells = _split(text)
        if cells is None:
            yield _whole(name, row, text, "the quotes of the line are broken", "close each quote on its line")
        elif len(cells) != len(header):
            reason = f"the line has {len(cells)} cells and the header {len(header)}"
            yield _whole(name, row, text, reason, _KEEP_COMMA)
        else:
            yield from _read_row(dict(zip(header, (cell.strip() for cell in cells), strict=True)), name, row)


def _split(text: str) -> list[str] | None:
    if len(text) > _LONGEST_LINE:
        return None
    try:
        return next(csv.reader([text], strict=True))
    except csv.Error:
        return None


def _check_header(header: list[str], text: str, place: str) -> None:
    if "observed_at" not in header:
        if len(header) == 1 and (";" in text or "\t" in text):
            raise DataError(f"{place}: the columns are not separated by commas; save it as CSV with commas")
        raise DataError(f"{place}: there is no column observed_at; {_HEADER_REMEDY}")
    for column in header:
        if header.count(column) > 1:
            raise DataError(f"{place}: the column {shown(column)} stands there twice; remove one")
    if not any(column in FIELDS for column in header):
        raise DataError(f"{place}: there is no column of a vital sign; name at least one of {_NAMES}")


def _read_row(cells: dict[str, str], name: str, row: int) -> Iterator[Reading | Rejection]:
    observed_at = _time(cells["observed_at"])
    if isinstance(observed_at, str):
        yield Rejection(name, row, "observed_at", shown(cells["observed_at"]), observed_at, _TIME_REMEDY)
        return
    fields = {field: _value(field, cells[field]) for field in FIELDS if field in cells}
    ages: dict[str, object] = {}
    for field in FIELDS:
        age = cells.get(f"{field}_age", "")
        if age.lower() not in _MISSING:
            ages[field] = float(age) if _NUMBER.fullmatch(age) else age
    yield from _reading(observed_at, fields, ages, name, row)


def _value(field: str, cell: str) -> object:
    """The cell as the type of its field if it can be read so; else as it stands, for ``clean`` to reject."""
    if cell.lower() in _MISSING:
        return None
    if field in VITALS:
        return float(cell) if _NUMBER.fullmatch(cell) else cell
    if field == "supplemental_oxygen":
        return _FLAGS.get(cell.lower(), cell)
    return cell.upper() if len(cell) == 1 else cell


# --- JSON lines --------------------------------------------------------------------------------------------


def _read_jsonl(first: Line, lines: Iterator[Line], name: str) -> Iterator[Reading | Rejection]:
    told: set[str] = set()
    line: Line | None = first
    while line is not None:
        row, text = line
        try:
            content: Any = msgspec.json.decode(text) if len(text) <= _LONGEST_LINE else None
            twice = _twice(text, content) if isinstance(content, dict) else None
        except (msgspec.DecodeError, ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            yield _whole(name, row, text, "the line is no JSON object", 'write {"observed_at": ...} a line')
        elif twice is not None:
            reason = f"the key {shown(twice)} stands twice, and which value is meant cannot be told"
            yield _whole(name, row, text, reason, "write each key once")
        else:
            for key in sorted(content.keys() - {"observed_at", "ages", *FIELDS} - told)[
                : _TOLD_KEYS - len(told)
            ]:
                told.add(key)
                reason = f"{shown(key)} is no field that is known here, and is not read"
                yield Rejection(name, row, key[:_LONGEST_NAME], "", reason, _RENAME)
            yield from _read_object(content, name, row)
        line = next(lines, None)


def _twice(text: str, content: dict[str, Any]) -> str | None:
    """A key that an object of the line holds twice, or None; the usual line is looked at only once."""
    if "\\" not in text and all(text.count(f'"{key}"') == 1 for key in content):
        return None
    return repeated_key(text)


def _read_object(content: dict[str, Any], name: str, row: int) -> Iterator[Reading | Rejection]:
    time = content.get("observed_at")
    observed_at = _time(time) if isinstance(time, str) else "there is no time of observation"
    if isinstance(observed_at, str):
        value = "" if time is None else shown(time)
        yield Rejection(name, row, "observed_at", value, observed_at, _TIME_REMEDY)
        return
    ages = content.get("ages") or {}
    if not isinstance(ages, dict):
        reason = f"{shown(ages)} is no object of seconds by field, so nothing in the row has a known age"
        yield Rejection(name, row, "ages", shown(ages), reason, 'give {"temperature": 600} or leave it out')
        return
    fields = {field: content[field] for field in FIELDS if field in content}
    yield from _reading(observed_at, fields, ages, name, row)


# --- both --------------------------------------------------------------------------------------------------


def _reading(
    observed_at: datetime, fields: dict[str, object], ages: dict[str, object], name: str, row: int
) -> Iterator[Reading | Rejection]:
    accepted, rejections = clean(fields, file=name, row=row)
    yield from rejections
    kept: dict[str, float] = {}
    for field, age in ages.items():
        if field not in accepted:
            continue
        if isinstance(age, (int, float)) and not isinstance(age, bool) and 0 <= age <= LONGEST_AGE_S:
            kept[field] = float(age)
            continue
        del accepted[field]  # of unknown age it might be stale
        reason = f"the age {shown(age)} is no number of seconds, so the value may be stale"
        yield Rejection(name, row, field, shown(age), reason, _SECONDS)
    yield Reading(observed_at=observed_at, ages=kept, **accepted)


def _time(text: str) -> datetime | str:
    """The time in UTC, or the reason why there is none."""
    if text.strip().lower() in _MISSING:
        return "there is no time of observation"
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        return f"{shown(text)} is no time"
    if time.utcoffset() is None:
        return f"{shown(text)} has no time zone"
    try:
        time = time.astimezone(UTC)
    except OverflowError:
        return f"{shown(text)} is outside the calendar"
    return check_time(time) or time


def _whole(name: str, row: int, text: str, reason: str, remedy: str) -> Rejection:
    return Rejection(name, row, "", shown(text), reason, f"{remedy}; the whole line was left out")
