"""Readings as a table in CSV (`samd_data.table`)."""

import csv
import io
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from samd_data.errors import DataError
from samd_data.plausibility import Rejection
from samd_data.reading import CONSCIOUSNESS, FIELDS, VITALS, Reading
from samd_data.table import Format, read_rows
from samd_scripts.fuzzing.choices import ODD_TEXTS, Choices, moment, number, signs
from samd_scripts.fuzzing.oracle import attempt, insist, sort
from samd_scripts.fuzzing.target import Target

_MISSING: Final = ("", "na", "n/a", "nan", "null", "none")
_YES: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_PLAIN: Final = re.compile(r"[-+.0-9eE]+")

_ABSENT: Final = object()  # no such key in the row


def read(data: bytes, format: Format) -> tuple[list[Reading], list[Rejection]] | None:  # noqa: A002
    """As a source reads a pipe: UTF-8, any kind of line end."""
    stream = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline=None)
    name = f"in.{format}"
    return attempt(lambda: sort(read_rows(stream, name, format=format), f"{name}:"), DataError, places=[name])


def check_csv(data: bytes) -> None:
    """Any bytes: each value and each time that is taken is the text of a cell."""
    found = read(data, "csv")
    if found is None:
        return
    cells = set(_cells(data.decode("utf-8")))
    times = {time for cell in cells if (time := time_of(cell)) is not None}
    numbers = {number for cell in cells if (number := _number(cell)) is not None}
    for reading in found[0]:
        insist(reading.observed_at in times, "a time out of nowhere", reading)
        for field in VITALS:
            given = getattr(reading, field)
            insist(given is None or given in numbers, f"a {field} out of nowhere", reading)
        insist(all(age in numbers for age in reading.ages.values()), "an age out of nowhere", reading)
        letter = reading.consciousness
        insist(
            letter is None or letter in cells or letter.lower() in cells, "a letter out of nowhere", reading
        )


def _cells(text: str) -> Iterable[str]:
    for line in re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff")):
        if len(line) <= 70_000:
            try:
                row = next(csv.reader([line]), [])
            except csv.Error:
                continue
            yield from (cell.strip() for cell in row)


def _number(text: str) -> float | None:
    """What a person would take the text for: digits, one point, an exponent."""
    try:
        return float(text) if _PLAIN.fullmatch(text) else None
    except ValueError:
        return None


def time_of(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
        return None if time.utcoffset() is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


# --- written by us, one part changed ------------------------------------------------------------------------


def check_csv_written(data: bytes) -> None:
    """Rows that are written comes back exactly; a changed cell is rejected, or taken as it stands there."""
    choices = Choices(data)
    drawn = [signs(choices) for _ in range(choices.between(1, 3))]
    aged = [field for field in FIELDS if choices.below(8) == 7]
    columns = ["observed_at", *FIELDS, *(f"{field}_age" for field in aged)]
    for _ in range(choices.below(4)):
        columns.append(columns.pop(choices.below(len(columns))))
    rows: list[dict[str, str]] = []
    for fields in drawn:
        row = dict.fromkeys(columns, "") | {name: _spelt(choices, item) for name, item in fields.items()}
        row["observed_at"] = moment(choices).isoformat()
        row |= {f"{field}_age": str(choices.below(100_000)) for field in aged if choices.flag()}
        rows.append(row)
    changed = choices.below(len(rows))
    column = choices.pick(columns)
    if choices.below(4):
        rows[changed][column] = _odd_cell(choices, column)
    text = io.StringIO()
    writer = csv.writer(text, quoting=choices.pick((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)))
    writer.writerow(columns)
    writer.writerows([row[name] for name in columns] for row in rows)
    found = read(text.getvalue().encode("utf-8", "replace"), "csv")
    insist(found is not None, "a table that is refused as a whole", text.getvalue())
    assert found is not None
    wanted = [{name: _meant(name, cell) for name, cell in row.items()} for row in rows]
    _compare(wanted, changed, column, found)


def _spelt(choices: Choices, item: str | bool) -> str:
    if isinstance(item, bool):
        text = choices.pick(("true", "yes", "1", "TRUE") if item else ("false", "no", "0", "No"))
    elif item in CONSCIOUSNESS:
        text = choices.pick((item, item.lower()))
    else:
        text = item
    return f" {text} " if choices.below(8) == 7 else text


def _odd_cell(choices: Choices, column: str) -> str:
    """Another cell, on one line: a second line would be a row of its own."""
    if column in VITALS and choices.flag():
        return number(choices, choices.pick(VITALS))
    if column == "observed_at" and choices.flag():
        return moment(choices).isoformat()[: -choices.below(9) or None]
    return " ".join(choices.text(12).splitlines())


def _meant(column: str, cell: str) -> Any:
    """What a cell says, read in another way than the product's; ``ValueError`` itself: nothing."""
    text = cell.strip()
    if text.lower() in _MISSING:
        return _ABSENT
    if column == "observed_at":
        return time_of(text) or ValueError
    if column == "supplemental_oxygen":
        return _YES.get(text.lower(), ValueError)
    if column == "consciousness":
        return text.upper() if text.upper() in CONSCIOUSNESS else ValueError
    said = _number(text)
    return ValueError if said is None else said


def _compare(
    wanted: list[dict[str, Any]],
    changed: int,
    column: str,
    found: tuple[list[Reading], list[Rejection]],
) -> None:
    """Every row is what was meant, but for the one that was changed, which may have been rejected.

    ``wanted``: per row what each column says, ``ValueError`` where it says nothing that could be taken.
    """
    readings, rejections = found
    row = changed + (len(wanted) and 1)
    if len(readings) == len(wanted) - 1:  # the changed row is left out as a whole
        insist(rejections, "a row is gone without a word", wanted[changed])
        insist(
            column == "observed_at" or not isinstance(wanted[changed][column], float),
            "a row is gone for a number",
            wanted[changed],
            rejections,
        )
        wanted = wanted[:changed] + wanted[changed + 1 :]
        insist(len(readings) == len(wanted), "rows are gone", row)
        changed = -1
    insist(len(readings) == len(wanted), "another number of rows", len(readings), len(wanted), rejections)
    for index, (reading, meant) in enumerate(zip(readings, wanted, strict=True)):
        insist(reading.observed_at == meant["observed_at"], "another time", reading, meant)
        for field in FIELDS:
            _compare_field(
                reading, field, meant, column if index == changed else "", {r.column for r in rejections}
            )


def _compare_field(
    reading: Reading, field: str, meant: dict[str, Any], column: str, rejected: set[str]
) -> None:
    given, said = getattr(reading, field), meant.get(field, _ABSENT)
    age = meant.get(f"{field}_age", _ABSENT)
    touched = {column, f"{column}".removesuffix("_age")}
    if column in ("systolic_bp", "diastolic_bp"):  # one of the two is wrong: both go
        touched |= {"systolic_bp", "diastolic_bp"}
    if given is None:
        missing = said is _ABSENT
        insist(missing or (field in touched and field in rejected), f"{field} is gone", reading, meant)
        return
    insist(given == said, f"another {field}", reading, meant)
    insist(reading.ages.get(field, _ABSENT) == age, f"another age of {field}", reading, meant)


# --- seeds -----------------------------------------------------------------------------------------------


def _csv_seeds() -> Iterable[bytes]:
    head = "observed_at,heart_rate,respiratory_rate,spo2,systolic_bp,diastolic_bp,temperature,"
    head += "supplemental_oxygen,consciousness"
    yield f"{head}\n2026-01-31T08:00:00Z,88,18,96,124,78,37.2,no,A\n".encode()
    yield f"{head},spo2_age\r\n2026-01-31T08:00:00+01:00,,,91.5,,,,1,v,600\r\n,,,,,,,,,\r\n".encode()
    for text in ODD_TEXTS:
        yield f'observed_at,spo2\n2026-01-31T08:00:00Z,"{text[:200]}"\n'.encode("utf-8", "replace")


WORDS: Final = (
    "observed_at",
    *FIELDS,
    "_age",
    "ages",
    "2026-01-31T08:00:00Z",
    "+01:00",
    "true",
    "yes",
    "null",
)

TARGETS: Final = (
    Target(
        name="csv",
        about="a table of readings: any bytes",
        check=check_csv,
        seeds=_csv_seeds,
        words=(*WORDS, ",", "\n", '"', "98.6"),
    ),
    Target(
        name="csv-written",
        about="a table that is written, one cell changed",
        check=check_csv_written,
        choices=True,
    ),
)
