"""The readings in an admission's file: inserted, selected, struck through. Functions over an open connection.

Nothing is ever removed by a correction. A reading that is struck whole, a field that is struck, and a field
that was flagged as an artefact stay in the file; who reads the readings for judging or training gets them
without.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from samd_data.reading import FIELDS, Reading, without
from samd_edge.artefacts import Flag
from samd_edge.database import micros, plain
from samd_edge.struck import Struck

_decoder = msgspec.json.Decoder(Reading)
_encoder = msgspec.json.Encoder()
FIRST_WITH_ARTEFACTS: Final = 2
"""The schema version of a store from which on it has a table of artefacts."""

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
    return _insert(connection, moment, origin, body), True


def insert_observed(connection: sqlite3.Connection, reading: Reading) -> int:
    """The row of what a person entered: always a new one. What a sensor said may be the same, and struck."""
    return _insert(connection, micros(reading.observed_at), "observation", _encoder.encode(reading))


def _insert(connection: sqlite3.Connection, observed_at: int, origin: str, body: bytes) -> int:
    row = connection.execute(
        "INSERT INTO readings (observed_at, origin, body) VALUES (?, ?, ?)", (observed_at, origin, body)
    ).lastrowid
    return row or 0


def insert_flags(connection: sqlite3.Connection, row: int | None, flags: Mapping[str, Flag]) -> None:
    """Why fields of a reading are not scored; `row` None: there was no value that could be kept."""
    for field, flag in flags.items():
        connection.execute(
            "INSERT INTO artefacts (reading, observed_at, field, kind, reason) VALUES (?, ?, ?, ?, ?)",
            (row, micros(flag.at), field, flag.kind, flag.reason),
        )


def struck(connection: sqlite3.Connection) -> Struck:
    """The values that were struck."""
    found = Struck()
    for field, body in connection.execute(
        "SELECT corrections.field, body FROM corrections JOIN readings ON readings.id = reading"
    ):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):  # damaged, it is no value anywhere
            found.add(_decoder.decode(body), field)
    return found


def said(connection: sqlite3.Connection, at: datetime) -> Iterator[tuple[int, Reading]]:
    """What sources said at exactly this time, struck or not, with its row; never what a person entered."""
    for row, body in connection.execute(
        "SELECT id, body FROM readings WHERE observed_at = ? AND origin != 'observation' ORDER BY id",
        (micros(at),),
    ):
        yield row, _decoder.decode(body)


def select(
    connection: sqlite3.Connection, since: datetime | None, gone: Struck, *, screened: bool
) -> Iterator[Kept]:
    """The readings from `since` on, in order of time, without what was struck (`gone`, and what a person
    entered and struck again); `screened`: nor artefacts."""
    hidden: dict[int, set[str]] = {}
    query = (
        "SELECT corrections.reading, field FROM corrections JOIN observations "
        "ON observations.reading = corrections.reading WHERE field IS NOT NULL"
    )
    if screened and _has_artefacts(connection):
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
        observed = origin == "observation"
        fields = hidden.get(row, set()) if observed else hidden.get(row, set()) | gone.fields(reading)
        yield Kept(row, without(reading, fields) if fields else reading, observed)


def flagged(connection: sqlite3.Connection, since: datetime) -> dict[int, set[str]]:
    """By the row of a reading: its fields that were flagged as artefacts, measured from `since` on."""
    found: dict[int, set[str]] = {}
    for row, field in connection.execute(
        "SELECT reading, field FROM artefacts WHERE reading IS NOT NULL AND observed_at >= ?",
        (micros(since),),
    ):
        found.setdefault(row, set()).add(field)
    return found


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
    connection: sqlite3.Connection, field: str, at: datetime | None, gone: Struck, *, tolerance: timedelta
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
        if not kept.observed and field in gone.fields(reading):
            continue
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


def _has_artefacts(connection: sqlite3.Connection) -> bool:
    """A file that an older client sealed is read as it is: it has no such table."""
    return plain(connection, "PRAGMA user_version") >= FIRST_WITH_ARTEFACTS


def _row_of(connection: sqlite3.Connection, observed_at: int, body: bytes) -> int | None:
    found = connection.execute(
        "SELECT id FROM readings WHERE observed_at = ? AND body = ?", (observed_at, body)
    ).fetchone()
    return None if found is None else int(found[0])
