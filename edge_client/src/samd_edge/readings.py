"""The readings in an admission's file: inserted, selected, struck through. Functions over an open connection.

Nothing is ever removed by a correction. A reading that is struck whole, a field that is struck, and a field
that was flagged as an artefact stay in the file; who reads the readings for judging or training gets them
without.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from samd_data.reading import FIELDS, Reading, without
from samd_edge.artefacts import Flag
from samd_edge.database import micros

_decoder = msgspec.json.Decoder(Reading)
_encoder = msgspec.json.Encoder()
_LOOK_BACK: Final = 20_000  # readings that a correction is looked for in: five hours at one a second


class Kept(NamedTuple):
    """A reading as it stands after corrections, its row, and whether a person entered it."""

    row: int
    reading: Reading
    observed: bool


def insert(connection: sqlite3.Connection, reading: Reading, origin: str) -> tuple[int, bool]:
    """The row of a reading, and whether it is new: the same reading is not kept twice."""
    moment, body = micros(reading.observed_at), _encoder.encode(reading)
    found = _row_of(connection, moment, body)
    if found is not None:
        return found, False
    row = connection.execute(
        "INSERT INTO readings (observed_at, origin, body) VALUES (?, ?, ?)", (moment, origin, body)
    ).lastrowid
    return row or 0, True


def insert_flags(connection: sqlite3.Connection, row: int | None, flags: Mapping[str, Flag]) -> None:
    """Why fields of a reading are not scored; `row` None: there was no value that could be kept."""
    for field, flag in flags.items():
        connection.execute(
            "INSERT INTO artefacts (reading, observed_at, field, kind, reason) VALUES (?, ?, ?, ?, ?)",
            (row, micros(flag.at), field, flag.kind, flag.reason),
        )


def as_corrected(connection: sqlite3.Connection, reading: Reading) -> Reading | None:
    """A reading that may have come before, without what was struck from it since; None when all of it was."""
    row = _row_of(connection, micros(reading.observed_at), _encoder.encode(reading))
    if row is None:
        return reading
    fields = set()
    for (field,) in connection.execute("SELECT field FROM corrections WHERE reading = ?", (row,)):
        if field is None:
            return None
        fields.add(field)
    return without(reading, fields) if fields else reading


def select(connection: sqlite3.Connection, since: datetime | None, *, screened: bool) -> Iterator[Kept]:
    """The readings from `since` on, in order of time, without what was struck; `screened`: nor artefacts."""
    hidden: dict[int, set[str]] = {}
    query = "SELECT reading, field FROM corrections WHERE field IS NOT NULL"
    if screened:
        query += " UNION ALL SELECT reading, field FROM artefacts WHERE reading IS NOT NULL"
    for row, field in connection.execute(query):
        hidden.setdefault(row, set()).add(field)
    rows = connection.execute(
        "SELECT id, body, origin FROM readings WHERE struck = 0 AND observed_at >= ? "
        "ORDER BY observed_at, id",
        (-(2**63) if since is None else micros(since),),
    )
    for row, body, origin in rows:
        reading = _decoder.decode(body)
        if row in hidden:
            reading = without(reading, hidden[row])
        yield Kept(row, reading, origin == "observation")


class Mark(NamedTuple):
    """How far the readings were read: time (microseconds) and row of the last one."""

    moment: int = -(2**63)
    row: int = 0


def page(
    connection: sqlite3.Connection, after: Mark, before: datetime, limit: int
) -> tuple[list[Reading], Mark]:
    """The next ``limit`` readings observed before a time, in order of time, without what was struck and
    without artefacts; and where the page after them begins. A page that is not full is the last."""
    rows = connection.execute(
        "SELECT id, observed_at, body FROM readings WHERE struck = 0 AND (observed_at, id) > (?, ?) "
        "AND observed_at < ? ORDER BY observed_at, id LIMIT ?",
        (after.moment, after.row, micros(before), limit),
    ).fetchall()
    if not rows:
        return [], after
    hidden: dict[int, set[str]] = {}
    of = ",".join(str(row[0]) for row in rows)  # numbers of SQLite's own
    for row, field in connection.execute(
        f"SELECT reading, field FROM corrections WHERE field IS NOT NULL AND reading IN ({of}) "  # noqa: S608
        f"UNION ALL SELECT reading, field FROM artefacts WHERE reading IN ({of})"
    ):
        hidden.setdefault(row, set()).add(field)
    found = []
    for row, _, body in rows:
        reading = _decoder.decode(body)
        found.append(without(reading, hidden[row]) if row in hidden else reading)
    return found, Mark(rows[-1][1], rows[-1][0])


def changed_since(connection: sqlite3.Connection, newest: tuple[int, int], before: int) -> bool:
    """Whether the past changed after ``newest`` (of ``newest_rows``): by a correction, or by a reading of a
    time before ``before`` (microseconds) that came late."""
    row, correction = newest
    found = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM corrections WHERE id > ?) OR "
        "EXISTS (SELECT 1 FROM readings WHERE id > ? AND +observed_at < ?)",
        (correction, row, before),
    ).fetchone()
    return bool(found[0])


def newest_rows(connection: sqlite3.Connection) -> tuple[int, int]:
    """The newest row of the readings and of their corrections."""
    found: tuple[int, int] = connection.execute(
        "SELECT (SELECT COALESCE(MAX(id), 0) FROM readings), (SELECT COALESCE(MAX(id), 0) FROM corrections)"
    ).fetchone()
    return found


def find_value(
    connection: sqlite3.Connection, field: str, at: datetime | None, *, tolerance: timedelta
) -> Kept | None:
    """The reading that holds a value of `field` measured at `at` (None: the newest), not yet struck."""
    rows = connection.execute(
        "SELECT id, body, origin FROM readings WHERE struck = 0 AND id NOT IN "
        "(SELECT reading FROM corrections WHERE field = ?) ORDER BY observed_at DESC, id DESC LIMIT ?",
        (field, _LOOK_BACK),
    )
    best: tuple[timedelta, Kept] | None = None
    for row, body, origin in rows:
        reading = _decoder.decode(body)
        if getattr(reading, field) is None:
            continue
        kept = Kept(row, reading, origin == "observation")
        if at is None:
            return kept
        distance = abs(measured_at(reading, field) - at)
        if distance <= tolerance and (best is None or distance < best[0]):
            best = (distance, kept)
    return None if best is None else best[1]


def strike(
    connection: sqlite3.Connection,
    row: int,
    field: str | None,
    *,
    by: str,
    reason: str | None,
    corrected_at: datetime,
) -> None:
    """Strike a reading, or one field of it. Raises ValueError for one that is not there."""
    if field is not None and field not in FIELDS:
        raise ValueError(f"{field!r} is no field of a reading; the fields are {', '.join(FIELDS)}")
    found = connection.execute(
        "UPDATE readings SET struck = MAX(struck, ?) WHERE id = ?", (int(field is None), row)
    ).rowcount
    if not found:
        raise ValueError(f"there is no reading {row} in this admission")
    connection.execute(
        "INSERT INTO corrections (reading, field, by, corrected_at, reason) VALUES (?, ?, ?, ?, ?)",
        (row, field, by, micros(corrected_at), reason),
    )


def measured_at(reading: Reading, field: str) -> datetime:
    """When a value of a reading was measured."""
    return reading.observed_at - timedelta(seconds=reading.ages.get(field, 0.0))


def moment(value: int) -> datetime:
    """Microseconds since 1970 as a time."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value)


def _row_of(connection: sqlite3.Connection, observed_at: int, body: bytes) -> int | None:
    found = connection.execute(
        "SELECT id FROM readings WHERE observed_at = ? AND body = ?", (observed_at, body)
    ).fetchone()
    return None if found is None else int(found[0])
